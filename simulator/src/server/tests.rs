//! Tests of the server.

use super::*;
use crate::random::Stream;

fn server(config: ServerConfig) -> Server {
    Server::new(config, Random::new(1, Stream::Server))
}

fn outage(down: Down) -> Outage {
    Outage::new(SECOND..2 * SECOND, down)
}

#[test]
fn requests_are_served_in_order_one_at_a_time() {
    let mut server = server(ServerConfig::default());
    assert_eq!([server.receive(0, 0, 1), server.receive(0, 0, 2)], [None, None]);
    assert_eq!(server.start(0, 0, |_| true), Some((1, 10 * MILLISECOND)));
    assert_eq!(server.start(5, 0, |_| true), None, "busy");
    assert_eq!(server.finish(0, 1), Some(Reply::Ok));
    assert_eq!(server.start(10 * MILLISECOND, 0, |_| true), Some((2, 20 * MILLISECOND)));
}

#[test]
fn full_queue_answers_503_with_retry_after() {
    let mut server = server(ServerConfig { queue: Some(1), retry_after: Some(4), ..ServerConfig::default() });
    assert_eq!(server.receive(0, 0, 1), None);
    server.start(0, 0, |_| true);
    assert_eq!(server.receive(0, 0, 2), None, "the running request is not in the queue");
    assert_eq!(server.receive(0, 0, 3), Some(Reply::Unavailable { retry_after: Some(4) }));
}

#[test]
fn cancelled_requests_are_skipped_only_if_the_server_cancels() {
    for (cancels, expected) in [(true, 2), (false, 1)] {
        let mut server = server(ServerConfig { cancels, ..ServerConfig::default() });
        server.receive(0, 0, 1);
        server.receive(0, 0, 2);
        let started = server.start(0, 0, |attempt| attempt != 1).map(|(attempt, _)| attempt);
        assert_eq!(started, Some(expected));
    }
}

#[test]
fn outage_refuses_hangs_or_slows_requests_down() {
    let at = |down, now: u64| {
        let mut server = server(ServerConfig { outage: Some(outage(down)), ..ServerConfig::default() });
        (server.receive(now, 0, 1), server.start(now, 0, |_| true).map(|(_, end)| end - now))
    };
    let usual = (None, Some(10 * MILLISECOND));
    let unavailable = Reply::Unavailable { retry_after: None };
    for (down, during) in [
        (Down::Unavailable, (Some(unavailable), None)),
        (Down::Refused, (Some(Reply::Refused), None)),
        (Down::Hangs, (None, None)),
        (Down::Slow(20), (None, Some(200 * MILLISECOND))),
    ] {
        let states = [SECOND - 1, SECOND, 2 * SECOND - 1, 2 * SECOND].map(|now| at(down, now));
        assert_eq!(states, [usual, during, during, usual], "{down:?}");
    }
}

#[test]
fn refused_connections_lose_all_requests_of_the_server() {
    let mut server = server(ServerConfig { outage: Some(outage(Down::Refused)), ..ServerConfig::default() });
    for attempt in 1..=3 {
        server.receive(0, 0, attempt);
    }
    server.start(0, 0, |_| true);
    assert_eq!(server.begin_outage(), [1, 2, 3]);
    assert_eq!(server.finish(0, 1), None);
    assert_eq!(server.start(2 * SECOND, 0, |_| true), None);
    server.receive(2 * SECOND, 0, 4);
    server.start(2 * SECOND, 0, |_| true);
    assert_eq!((server.finish(0, 1), server.finish(0, 4)), (None, Some(Reply::Ok)));
}

#[test]
fn slow_start_begins_with_its_factor_and_ends_at_the_usual_time() {
    let outage = Outage { slow_start: 10 * SECOND, slow_start_factor: 5, ..outage(Down::Hangs) };
    let at = |now| slow_start(&outage, now, 100);
    assert_eq!([2, 7, 12, 100].map(|second| at(second * SECOND)), [500, 300, 100, 100]);
    assert_eq!(at(SECOND / 2), 100, "before the outage");
}

#[test]
fn dead_shards_fail_and_others_do_not() {
    let mut server =
        server(ServerConfig { shards: 4, dead: Some((1, Down::Refused)), ..ServerConfig::default() });
    let replies = [0, 1, 2, 3].map(|shard| server.receive(0, shard, shard.into()));
    assert_eq!(replies, [Some(Reply::Refused), None, None, None]);
}

fn failures(config: ServerConfig, requests: u64) -> Vec<bool> {
    let mut server = server(config);
    let reply = |attempt| {
        server.receive(0, 0, attempt);
        server.start(0, 0, |_| true);
        server.finish(0, attempt) != Some(Reply::Ok)
    };
    (0..requests).map(reply).collect()
}

#[test]
fn random_failures_have_their_share() {
    let failures = failures(ServerConfig { failing_per_mille: 200, ..ServerConfig::default() }, 10_000);
    let failed = failures.iter().filter(|failed| **failed).count();
    assert!((1_900..2_100).contains(&failed), "{failed}");
}

#[test]
fn bursts_of_failures_have_their_share_and_mean_length() {
    for (failing_per_mille, mean) in [(200, 5), (200, 20), (50, 20), (500, 1)] {
        let config = ServerConfig { failing_per_mille, failing_burst: Some(mean), ..ServerConfig::default() };
        let failures = failures(config, 1_000_000);
        let failed = failures.iter().filter(|failed| **failed).count();
        let share = failed / 1_000;
        assert!(share.abs_diff(failing_per_mille as usize) * 20 <= failing_per_mille as usize, "{share}");
        let bursts = failures.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let tenths = failed * 10 / bursts;
        assert!(tenths.abs_diff(mean as usize * 10) * 20 <= mean as usize * 10, "{tenths}");
    }
}
