//! Tests of whole runs.

use proptest::prelude::*;
use tower_breaker::BreakerConfig;

use super::*;
use crate::client::guards::{self, peers};
use crate::client::{Breaker, Guard};
use crate::report::Counts;
use crate::server::{Down, Outage, ServerConfig, Service};
use crate::time::MILLISECOND;

fn setup(guard: Guard) -> Setup {
    Setup {
        seed: 1,
        processes: 10,
        guard,
        load: Load::Open { per_second: 70 },
        timeout: Timeout::Inside(SECOND),
        server: ServerConfig::default(),
        until: 30 * SECOND,
    }
}

/// A queue with known counts. Ten items are there at the start. The server takes 250 ms for
/// each, and answers arrive 1 ms later. An attempt waits for 1 s, so that three items are answered
/// in time. The fourth answer arrives at 1,001 ms.
#[test]
fn small_queue_has_the_expected_counts() {
    let setup = Setup {
        processes: 1,
        load: Load::Backlog { per_second: 0, initial: 10, workers: 10, pause: MILLISECOND },
        server: ServerConfig { rate: 4, ..ServerConfig::default() },
        until: SECOND,
        ..setup(guards::none())
    };
    let report = run(&setup);
    let first = Counts { asked: 10, answered: 3, failed: 7, rejected: 0, sent: 10 };
    assert_eq!(report.total(), first);
    assert_eq!((report.items, report.left, report.drained), (10, 7, None));

    // With a timeout of 2.5 s, the answer of the tenth item is the only one that is late. It would
    // arrive at 2,501 ms.
    let patient = run(&Setup { timeout: Timeout::Inside(2_500 * MILLISECOND), until: 10 * SECOND, ..setup });
    assert_eq!(patient.sum(0..1), Counts { answered: 9, failed: 1, ..first });
    // Its worker sends it again at 2,501 ms. The server is idle then and answers after 251 ms.
    assert_eq!(patient.sum(2..3), Counts { asked: 1, answered: 1, sent: 1, ..Counts::default() });
    assert_eq!((patient.left, patient.drained), (0, Some(2_752 * MILLISECOND)));
}

/// The shares of a server with one place in its queue: 503 for each request that finds it full.
#[test]
fn overloaded_bounded_queue_rejects_the_excess() {
    let server = ServerConfig { rate: 35, queue: Some(1), ..ServerConfig::default() };
    let total = run(&Setup { server, ..setup(guards::none()) }).total();
    let per_second = total.answered / 30;
    assert!((25..=35).contains(&per_second), "{total:?}");
}

#[test]
fn same_seed_gives_the_same_report() {
    let outage = Some(Outage::new(5 * SECOND..10 * SECOND, Down::Hangs));
    let guards = [guards::both(), guards::retry(), peers::linkerd()];
    for guard in guards {
        let setup = |seed| Setup {
            seed,
            server: ServerConfig { outage: outage.clone(), failing_per_mille: 50, ..ServerConfig::default() },
            ..setup(guard.clone())
        };
        let first = run(&setup(1));
        assert_eq!(first, run(&setup(1)), "{}", guard.name);
        assert_ne!(first, run(&setup(2)), "{}", guard.name);
    }
}

#[test]
fn breaker_stops_the_requests_of_an_outage() {
    let outage = Some(Outage::new(5 * SECOND..25 * SECOND, Down::Refused));
    let server = ServerConfig { outage, ..ServerConfig::default() };
    let sent = |guard| run(&Setup { processes: 1, server: server.clone(), ..setup(guard) }).sum(7..25).sent;
    // In 18 s there are up to six probes, one after each open time of 3 s or more.
    assert!((3..=6).contains(&sent(guards::breaker())), "{}", sent(guards::breaker()));
    assert!(sent(guards::naive()) > 2 * sent(guards::none()));
}

/// The default circuit opens when failures have spanned a second. Its first probe is 3 s later.
#[test]
fn default_breaker_opens_a_second_after_the_first_failure() {
    for (down, first_failure) in [(Down::Refused, 0), (Down::Hangs, 10)] {
        for (per_second, seed) in
            [10, 100, 1_000].into_iter().flat_map(|rate| (1..=5).map(move |seed| (rate, seed)))
        {
            let outage = Some(Outage::new(20 * SECOND..40 * SECOND, down));
            let server = ServerConfig { rate: 10_000, outage, ..ServerConfig::default() };
            let load = Load::Open { per_second };
            let report = run(&Setup { seed, processes: 1, load, server, ..setup(guards::both()) });
            // Tenths of a second, from 1.5 s after the first failure to the first probe.
            let rest = 200 + first_failure + 15..200 + first_failure + 40;
            assert_eq!(
                report.sent_tenths[rest].iter().sum::<u64>(),
                0,
                "{down:?}, {per_second}/s, seed {seed}"
            );
        }
    }
}

/// One item, and a server that never answers. Attempts wait for 950 ms, and retries for 100 ms. So
/// the attempts begin at 0 ms, 1,050 ms and 2,100 ms.
#[test]
fn retries_begin_after_the_timeout_and_their_delay() {
    let setup = Setup {
        processes: 1,
        load: Load::Backlog { per_second: 0, initial: 1, workers: 1, pause: SECOND },
        timeout: Timeout::Inside(950 * MILLISECOND),
        server: ServerConfig { dead: Some((1, Down::Hangs)), ..ServerConfig::default() },
        until: SECOND,
        ..setup(guards::naive())
    };
    let sent: Vec<_> = run(&setup).seconds.iter().map(|second| second.sent).collect();
    assert_eq!(sent, [1, 1, 1]);
}

/// The circuit opens in the second call and rejects its third attempt.
#[test]
fn call_counts_as_rejected_only_if_it_was_never_sent() {
    let breaker =
        BreakerConfig::builder().consecutive_failures_span(Duration::ZERO).count_failed_retries(true);
    let guard = Guard { breaker: Some(Breaker::Local(breaker)), ..guards::naive() };
    let setup = Setup {
        processes: 1,
        load: Load::Backlog { per_second: 0, initial: 1, workers: 1, pause: 10 * MILLISECOND },
        server: ServerConfig { dead: Some((1, Down::Refused)), ..ServerConfig::default() },
        until: 4 * SECOND,
        ..setup(guard)
    };
    let Counts { asked, answered, failed, rejected, sent } = run(&setup).total();
    assert!(rejected > 0 && answered == 0);
    assert_eq!(asked, failed + rejected);
    assert!((2 * failed..=3 * failed).contains(&sent), "{sent} requests of {failed} calls");
}

/// The breaker of Polly opens once, for five seconds. Its retries are two seconds apart, and so the
/// third one is after that.
#[test]
fn rejected_requests_are_sent_again_if_the_guard_resends_them() {
    let outage = Some(Outage::new(10 * SECOND..12 * SECOND, Down::Refused));
    let server = ServerConfig { rate: 10_000, outage, ..ServerConfig::default() };
    let rejected =
        |guard| run(&Setup { processes: 1, server: server.clone(), ..setup(guard) }).total().rejected;
    let (without, with) = (rejected(peers::polly_breaker()), rejected(peers::polly()));
    // 70 calls in each second.
    assert!((300..=400).contains(&without), "{without}");
    assert_eq!(with, 0);
}

#[test]
fn clients_recover_from_failures_by_retries() {
    let server = ServerConfig { failing_per_mille: 100, ..ServerConfig::default() };
    let failed = |guard| run(&Setup { server: server.clone(), ..setup(guard) }).total().failed;
    let (without, with) = (failed(guards::none()), failed(guards::retry()));
    assert!(without > 150 && with * 20 < without, "{without}, {with}");
}

fn down() -> impl Strategy<Value = Down> {
    prop_oneof![Just(Down::Unavailable), Just(Down::Refused), Just(Down::Hangs), Just(Down::Slow(20))]
}

fn guard() -> impl Strategy<Value = Guard> {
    prop::sample::select(vec![
        guards::none(),
        guards::naive(),
        guards::retry(),
        guards::breaker(),
        guards::both(),
        peers::resilience4j(),
        peers::polly(),
        peers::grpc(),
        peers::aws(),
        peers::tower(),
        peers::envoy(),
        peers::gobreaker(),
        peers::linkerd(),
        peers::hystrix(),
    ])
}

fn server() -> impl Strategy<Value = ServerConfig> {
    let outage = (0..5_000_u64, 0..5_000_u64, down(), 0..5_000_u64).prop_map(|(from, length, down, slow)| {
        let during = from * MILLISECOND..(from + length) * MILLISECOND;
        Outage { slow_start: slow * MILLISECOND, slow_start_factor: 4, ..Outage::new(during, down) }
    });
    let failing = (0..500_u32, prop::option::of(1..20_u32));
    let behaviour = (prop::option::of(0..20_usize), any::<bool>(), failing, prop::option::of(0..3_u32));
    let shards = (1..4_u32, prop::option::of((0..2_u32, down())));
    (10..200_u32, prop::option::of(outage), behaviour, shards).prop_map(
        |(
            rate,
            outage,
            (queue, cancels, (failing_per_mille, failing_burst), retry_after),
            (shards, dead),
        )| ServerConfig {
            rate,
            service: Service::Exponential,
            queue,
            cancels,
            network: MILLISECOND,
            failing_per_mille,
            failing_burst,
            retry_after,
            outage,
            shards,
            dead,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Each call ends exactly once, and with a backlog each item is answered or left.
    #[test]
    fn calls_and_items_are_conserved(
        server in server(),
        guard in guard(),
        backlog in any::<bool>(),
        processes in 1..20_u32,
        seed in any::<u64>(),
    ) {
        let per_second = 50;
        let load = if backlog {
            Load::Backlog { per_second, initial: 3, workers: 2, pause: 100 * MILLISECOND }
        } else {
            Load::Open { per_second }
        };
        let setup = Setup { seed, processes, load, server, until: 10 * SECOND, ..setup(guard.clone()) };
        let report = run(&setup);
        let Counts { asked, answered, failed, rejected, sent } = report.total();
        prop_assert!(asked > 0);
        prop_assert_eq!(asked, answered + failed + rejected);
        prop_assert!(sent >= answered + failed);
        if guard.retry.is_none() {
            prop_assert_eq!(sent, answered + failed);
        }
        if backlog {
            prop_assert_eq!(report.items, answered + report.left);
        }
    }
}

#[test]
fn outside_timeout_cancels_the_call_and_its_retries() {
    let server =
        ServerConfig { outage: Some(Outage::new(0..60 * SECOND, Down::Hangs)), ..ServerConfig::default() };
    let setup = |timeout| Setup { processes: 1, timeout, server: server.clone(), ..setup(guards::naive()) };
    let inside = run(&setup(Timeout::Inside(SECOND))).total();
    assert_eq!(inside.sent, 3 * inside.asked, "{inside:?}");
    let outside = run(&setup(Timeout::Outside(SECOND))).total();
    assert_eq!((outside.sent, outside.failed), (outside.asked, outside.asked));
    // 503 immediately: the retries at 0.1 s and 0.2 s are sent, but not the one at 0.2 s if the
    // caller stops waiting at 0.15 s.
    let server = ServerConfig {
        outage: Some(Outage::new(0..60 * SECOND, Down::Unavailable)),
        ..ServerConfig::default()
    };
    let outside = run(&Setup { server, ..setup(Timeout::Outside(150 * MILLISECOND)) }).total();
    assert_eq!(outside.sent, 2 * outside.asked, "{outside:?}");
}

#[test]
fn shared_circuit_opens_for_all_processes_after_its_delay() {
    let server = ServerConfig {
        outage: Some(Outage::new(5 * SECOND..60 * SECOND, Down::Unavailable)),
        ..ServerConfig::default()
    };
    let sent = |delay| {
        let breaker =
            Some(Breaker::Shared(BreakerConfig::builder().open_for(Duration::from_secs(60)), delay));
        let guard = Guard { breaker, ..guards::none() };
        let setup = Setup { processes: 1_000, server: server.clone(), ..setup(guard) };
        run(&setup).sum(5..30).sent
    };
    // 70 calls begin in the second that the failures must span, and in each second of the delay.
    let (immediate, late) = (sent(0), sent(3 * SECOND));
    assert!((40..=110).contains(&immediate), "{immediate}");
    assert!((immediate + 150..=immediate + 270).contains(&late), "{immediate}, {late}");
}

/// Ten items, which a server takes 100 µs for. The answers arrive at 1.1 ms, 1.2 ms and so on.
fn ten_items(timeout: u64) -> Setup {
    Setup {
        processes: 1,
        load: Load::Backlog { per_second: 0, initial: 10, workers: 10, pause: SECOND },
        timeout: Timeout::Inside(timeout),
        server: ServerConfig { rate: 10_000, ..ServerConfig::default() },
        until: SECOND,
        ..setup(guards::none())
    }
}

#[test]
fn answer_at_the_time_of_the_timeout_is_in_time() {
    let failed = |timeout| run(&ten_items(timeout)).total().failed;
    assert_eq!([1_399_999, 1_400_000].map(failed), [7, 6]);
}

/// In steps of 1 ms, the answers arrive at 2 ms, 3 ms and so on. The last one arrives at 11 ms.
#[test]
fn steps_round_every_time_up() {
    let failed = |timeout| run_in_steps(&ten_items(timeout), MILLISECOND).total().failed;
    assert_eq!([10_000_000, 10_000_001].map(failed), [1, 0]);
    let patient = run_in_steps(&ten_items(SECOND), MILLISECOND);
    assert_eq!(patient.drained, Some(11 * MILLISECOND));
}
