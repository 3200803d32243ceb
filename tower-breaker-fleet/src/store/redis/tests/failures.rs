//! Losses of data and of connections.

use std::time::Duration;

use test_servers::Redis;
use tokio::time::Instant;

use super::super::RedisStore;
use super::{DEADLINE, LONG, PREFIX, heartbeat, lease, next_update, operation, session, store, trip};
use crate::quorum::Quorum;
use crate::record::{CircuitRecord, FleetState, Override};
use crate::store::StoreErrorKind::Unreachable;
use crate::store::{Action, Ballot, LocalOpen, Operation, Session, SyncRequest, Update};

/// Returns the record that a process without knowledge gets.
pub(super) async fn stored(session: &mut super::RedisSession) -> Option<CircuitRecord> {
    let mut request = heartbeat(None);
    request.circuits[0].member = false;
    session.sync(&request).await.unwrap().pop().unwrap().record
}

/// Asserts that a record is the same one, apart from the time that has passed.
#[track_caller]
pub(super) fn assert_same(record: Option<CircuitRecord>, expected: &CircuitRecord) {
    let record = record.expect("a record");
    let known = CircuitRecord { remaining: record.remaining, ..expected.clone() };
    assert_eq!(record, known);
}

#[tokio::test]
async fn flushed_data_is_given_back_and_published() {
    let server = Redis::start();
    let (mut one, mut other) = (session(&server).await, session(&server).await);
    let tripped = trip(&mut one).await;
    next_update(&mut other).await.unwrap();
    server.command("FLUSHALL");
    assert_eq!(stored(&mut other).await, None);
    one.sync(&heartbeat(Some(tripped.clone()))).await.unwrap();
    let Update::Record(update) = next_update(&mut other).await.unwrap() else { panic!("no record") };
    assert_same(Some(update), &tripped);
    assert_same(stored(&mut other).await, &tripped);
    assert_eq!(other.list(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn databases_share_neither_records_nor_updates() {
    let server = Redis::start();
    let url = |database| format!("{}?db={database}", server.url());
    let open = async |database| {
        RedisStore::open(&url(database)).unwrap().open_session("orders").await.expect("the database exists")
    };
    let (mut zero, mut one, mut two) = (open(0).await, open(1).await, open(2).await);
    for session in [&mut zero, &mut one, &mut two] {
        let tripped = trip(session).await;
        // The first update is its own.
        let Update::Record(update) = next_update(session).await.unwrap() else { panic!("no record") };
        assert_same(Some(update), &tripped);
    }
}

#[tokio::test]
async fn flushed_scripts_are_sent_again() {
    let server = Redis::start();
    let mut session = session(&server).await;
    for _ in 0..2 {
        server.command("SCRIPT FLUSH");
        session.sync(&heartbeat(None)).await.unwrap();
        trip(&mut session).await;
    }
}

#[tokio::test]
async fn restart_ends_the_session_and_the_record_is_given_back() {
    let mut server = Redis::start();
    let mut before = session(&server).await;
    let forced = before.operate(&operation(Action::ForceOpen)).await.unwrap().record;
    next_update(&mut before).await.unwrap();
    server.restart_with(&[]);
    assert_eq!(next_update(&mut before).await.unwrap_err().kind, Unreachable);
    assert_eq!(before.sync(&heartbeat(None)).await.unwrap_err().kind, Unreachable);
    let mut after = session(&server).await;
    assert_eq!(stored(&mut after).await, None);
    after.sync(&heartbeat(Some(forced.clone()))).await.unwrap();
    assert_same(stored(&mut after).await, &forced);
    assert_eq!(forced.manual, Some(Override::ForcedOpen));
}

#[tokio::test]
async fn killed_connection_ends_the_session() {
    let server = Redis::start();
    let mut killed = session(&server).await;
    // Before the first command it is no connection of the type `normal` with a script.
    killed.sync(&heartbeat(None)).await.unwrap();
    server.command("CLIENT KILL TYPE normal");
    assert_eq!(killed.sync(&heartbeat(None)).await.unwrap_err().kind, Unreachable);

    let mut killed = session(&server).await;
    server.command("CLIENT KILL TYPE pubsub");
    let error = next_update(&mut killed).await.unwrap_err();
    assert_eq!(error.kind, Unreachable);
    assert!(error.message.contains("the connection for updates is broken"), "{error:?}");
    // The end is not forgotten.
    next_update(&mut killed).await.unwrap_err();
}

#[tokio::test]
async fn heartbeat_checks_the_silent_connection_for_updates() {
    let server = Redis::start();
    let checking = RedisStore { check_subscription_every: Duration::ZERO, ..store(&server) };
    let mut checked = checking.open_session("orders").await.unwrap();
    let mut unchecked = session(&server).await;
    checked.sync(&heartbeat(None)).await.unwrap();
    server.command("CLIENT KILL TYPE pubsub");
    assert_eq!(checked.sync(&heartbeat(None)).await.unwrap_err().kind, Unreachable);
    unchecked.sync(&heartbeat(None)).await.unwrap();
}

#[tokio::test]
async fn slow_reader_gets_an_error_and_no_gap() {
    let server = Redis::start();
    let mut session = session(&server).await;
    let publish = format!("redis.call('PUBLISH', '{PREFIX}', i .. '\\tslots_taken\\t5\\tsearch')");
    server.command(&format!("EVAL \"for i = 1, 10000 do {publish} end return 1\" 0"));
    let mut expected = 1;
    let error = loop {
        match next_update(&mut session).await {
            Ok(Update::SlotsTaken { epoch, .. }) => assert_eq!(epoch, expected),
            Ok(update) => panic!("{update:?}"),
            Err(error) => break error,
        }
        expected += 1;
    };
    assert!(expected < 10_000, "all updates were delivered");
    assert!(error.message.contains("updates arrive faster than this process reads them"), "{error:?}");
}

#[tokio::test]
async fn cancelled_wait_for_an_update_loses_none() {
    let server = Redis::start();
    let mut session = session(&server).await;
    for _ in 0..20 {
        tokio::time::timeout(Duration::ZERO, session.update()).await.unwrap_err();
    }
    let tripped = trip(&mut session).await;
    let Update::Record(update) = next_update(&mut session).await.unwrap() else { panic!("no record") };
    assert_same(Some(update), &tripped);
}

#[tokio::test]
async fn promoted_replica_gets_the_lost_write_back() {
    let mut primary = Redis::start_tcp();
    let mut replica = Redis::start_replica_of(&primary);
    let mut before = session(&primary).await;
    let first = trip(&mut before).await;
    // Replicated, so the replica has an older record and not none.
    let deadline = Instant::now() + DEADLINE;
    while replica.command(&format!("EXISTS {PREFIX}:c:search")) != "1" {
        assert!(Instant::now() < deadline, "the record is replicated");
    }
    // It misses the next write, as if the primary had failed before it sent it.
    replica.promote();
    let reset = before.operate(&operation(Action::Reset)).await.unwrap().record;
    primary.kill();
    let mut after = session(&replica).await;
    assert_same(stored(&mut after).await, &first);
    after.sync(&heartbeat(Some(reset.clone()))).await.unwrap();
    assert_same(stored(&mut after).await, &reset);
    assert!(reset.epoch > first.epoch);
}

#[tokio::test]
async fn evicted_record_is_given_back() {
    let server = Redis::start();
    let mut session = session(&server).await;
    let forced = session.operate(&operation(Action::ForceClosed)).await.unwrap().record;
    server.command("CONFIG SET maxmemory-policy allkeys-random");
    server.command("CONFIG SET maxmemory 4mb");
    let key = format!("{PREFIX}:c:search");
    let deadline = Instant::now() + DEADLINE;
    for filler in 0.. {
        if server.command(&format!("EXISTS {key}")) == "0" {
            break;
        }
        assert!(Instant::now() < deadline, "the record is evicted");
        server.command(&format!("SETRANGE filler{} 100000 x", filler % 200));
    }
    // Otherwise the record could be evicted again before it is read.
    server.command("CONFIG SET maxmemory 0");
    session.sync(&heartbeat(Some(forced.clone()))).await.unwrap();
    assert_same(stored(&mut session).await, &forced);
}

#[tokio::test]
async fn each_evicted_key_heals_with_the_next_message() {
    let server = Redis::start();
    let mut session = session(&server).await;
    let trip = Operation { open_for: Some(Duration::ZERO), ..operation(Action::Trip) };
    session.operate(&trip).await.unwrap();
    let half_open = session.lease(&lease()).await.unwrap().record;
    for kind in ["c", "m", "v", "f", "p", "l", "names", "expiries"] {
        let key =
            if kind.len() == 1 { format!("{PREFIX}:{kind}:search") } else { format!("{PREFIX}:{kind}") };
        server.command(&format!("DEL {key}"));
        let reply = session.sync(&heartbeat(Some(half_open.clone()))).await.unwrap().pop().unwrap();
        assert_eq!((reply.members, reply.votes), (1, 0), "{key}");
        assert_eq!(session.list(None, 10).await.unwrap().len(), 1, "{key}");
        let granted = session.lease(&lease()).await.unwrap().granted;
        assert!(granted, "{key}");
    }
}

#[tokio::test]
async fn moved_slot_ends_the_session() {
    let node = Redis::start_cluster();
    let cluster = RedisStore::cluster(&[&node.tcp_url()]).unwrap();
    let mut session = cluster.open_session("orders").await.unwrap();
    session.sync(&heartbeat(None)).await.unwrap();
    let slot = node.command(&format!("CLUSTER KEYSLOT {PREFIX}"));
    node.command(&format!("CLUSTER DELSLOTS {slot}"));
    let error = next_update(&mut session).await.unwrap_err();
    assert!(error.message.contains("it has ended the subscription"), "{error:?}");
    let error = session.sync(&heartbeat(None)).await.unwrap_err();
    assert_eq!(error.kind, Unreachable);
    assert!(error.message.contains("the cluster is down; check `CLUSTER INFO`"), "{error:?}");
}

#[tokio::test]
async fn success_from_before_clock_step_back_is_lost_with_the_members() {
    let server = Redis::start();
    let mut session = session(&server).await;
    let mut circuit = heartbeat(None);
    circuit.circuits[0].quorum = Quorum::at_least(1).rule(2, Duration::ZERO);
    circuit.circuits[0].ballot.since_success = Some(Duration::ZERO);
    session.sync(&circuit).await.unwrap();
    // The clock is set back: all that it has written is an hour ahead.
    for member in ["clock", "success"] {
        server.command(&format!("ZINCRBY {PREFIX}:m:search 3600000 {member}"));
    }
    circuit.circuits[0].ballot =
        Ballot { failure_ages: vec![Duration::from_secs(1); 2], ..Ballot::default() };
    assert!(session.sync(&circuit).await.unwrap()[0].record.is_some());
}

#[tokio::test]
async fn all_keys_expire_except_those_in_force() {
    let server = Redis::start();
    let mut session = session(&server).await;
    let ttl = |kind: &str| server.command(&format!("PTTL {PREFIX}:{kind}:search")).parse::<i64>().unwrap();
    let bounds = |limit: Duration| 1..=i64::try_from(limit.as_millis()).unwrap();
    trip(&mut session).await;
    assert!(bounds(2 * LONG).contains(&ttl("c")), "{}", ttl("c"));
    session.operate(&operation(Action::ForceOpen)).await.unwrap();
    assert_eq!(ttl("c"), -1);
    session.operate(&operation(Action::Release)).await.unwrap();
    assert!(bounds(LONG).contains(&ttl("c")), "{}", ttl("c"));
    let endless = Operation { open_for: None, ..operation(Action::Trip) };
    session.operate(&endless).await.unwrap();
    assert_eq!(ttl("c"), -1);
    session.operate(&operation(Action::Reset)).await.unwrap();
    let mut voter: SyncRequest = heartbeat(None);
    voter.circuits[0].quorum.at_least = 2;
    voter.circuits[0].ballot = Ballot { vote: true, failure_ages: vec![Duration::ZERO], ..Ballot::default() };
    voter.circuits[0].local = LocalOpen::For(LONG);
    session.sync(&voter).await.unwrap();
    for (kind, limit) in [("m", 2 * LONG), ("v", LONG), ("f", LONG), ("l", LONG)] {
        assert!(bounds(limit).contains(&ttl(kind)), "{kind}: {}", ttl(kind));
    }
}

#[tokio::test]
async fn names_of_expired_records_are_removed() {
    let server = Redis::start();
    let mut session = session(&server).await;
    for circuit in 0..20 {
        let circuit = format!("circuit{circuit}");
        let brief = Operation { circuit, grace: Duration::ZERO, ..operation(Action::Reset) };
        session.operate(&brief).await.unwrap();
    }
    let tripped = trip(&mut session).await;
    assert_eq!(tripped.state, FleetState::Open);
    let names: i64 = server.command(&format!("ZCARD {PREFIX}:names")).parse().unwrap();
    assert!(names <= 2, "{names} names");
    assert_eq!(session.list(None, 10).await.unwrap().len(), 1);
}
