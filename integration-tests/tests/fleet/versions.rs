//! Data of a newer version in the store.

use test_servers::{Postgres, Redis};
use tower_breaker::CircuitState;
use tower_breaker_fleet::{FileStore, FleetAction, FleetState, PostgresStore, RedisStore};
use tracing::Level;

use crate::logs::Log;
use crate::processes::{CIRCUIT, Group, HEARTBEAT};
use crate::refusals::decides_alone;
use crate::servers::{Store, execute};

/// Trips the circuit, lets a newer version write more fields, and checks that all works as before.
async fn ignores(group: &Group, write: impl AsyncFn()) {
    group.operate(FleetAction::Trip).await;
    group.wait("open circuits", |group| group.are(CircuitState::Open)).await;
    write().await;
    tokio::time::sleep(3 * HEARTBEAT).await;
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
    group.operate(FleetAction::ForceOpen).await;
    group.wait("overrides", |group| group.are(CircuitState::ForcedOpen)).await;
    group.operate(FleetAction::Release).await;
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
    assert!(group.all.iter().all(|process| process.fleet().status().errors == 0), "{group:?}");
}

/// Lets a newer version write a state that this version does not know.
async fn refuses(log: &Log, group: &Group, advice: &str, write: impl AsyncFn()) {
    group.operate(FleetAction::Reset).await;
    group.wait("agreement", |group| group.agree(FleetState::Closed, None)).await;
    let before: Vec<_> = group.all.iter().map(|process| process.history().len()).collect();
    write().await;
    let are_refused = |group: &Group| {
        group.all.iter().all(|process| {
            let status = process.fleet().status();
            status.errors >= 2 && !status.attached
        })
    };
    group.wait("refusals", are_refused).await;
    for (process, before) in group.all.iter().zip(before) {
        let error = process.fleet().status().last_error.unwrap_or_default();
        assert!(error.contains(advice), "`{advice}` is missing: {error}");
        assert_eq!(process.history().len(), before, "{group:?}");
        process.forget_history();
    }
    decides_alone(group).await;
    let warnings = log.of(Level::WARN);
    assert_eq!(warnings.len(), group.all.len(), "{warnings:?}");
}

#[tokio::test]
async fn redis_record_of_a_newer_version() {
    let (log, _guard) = Log::begin();
    let server = Redis::start();
    let store = Store::Redis(RedisStore::open(&server.url()).unwrap());
    let group = Group::start(&store, "newer", 2).await;
    let key = format!("tb1:{{newer}}:c:{CIRCUIT}");
    ignores(&group, async || {
        server.command(&format!("HSET {key} newer 1"));
        // One more field before the name.
        let message = format!(r"17\topen\t250\t\t\tquorum\thost\tnewer\t{CIRCUIT}");
        server.command(&format!("PUBLISH tb1:{{newer}} \"{message}\""));
        // A message of another kind.
        server.command(&format!("PUBLISH tb1:{{newer}} \"17\\tdraining\\t5\\t{CIRCUIT}\""));
    })
    .await;
    let advice = "check whether another program writes keys or messages that begin with `tb1:`";
    refuses(&log, &group, advice, async || {
        // A higher epoch, because the processes know this record already.
        server.command(&format!("HSET {key} state draining"));
        server.command(&format!("HINCRBY {key} epoch 1000000"));
    })
    .await;
}

#[tokio::test]
async fn postgres_record_of_a_newer_version() {
    let (log, _guard) = Log::begin();
    let server = Postgres::start();
    let url = server.url();
    let store = PostgresStore::open(&url).unwrap().listen_at(&url).unwrap();
    store.migrate().await.unwrap();
    let group = Group::start(&Store::Postgres(store), "newer", 2).await;
    ignores(&group, async || {
        execute(&url, "ALTER TABLE tower_breaker.breaker_circuit ADD COLUMN newer text").await;
        let message = format!(
            "SET search_path = tower_breaker; \
             SELECT breaker_notify('newer', jsonb_build_object('slots_taken', jsonb_build_object( \
                 'circuit', '{CIRCUIT}', 'epoch', 1, 'retry_ms', 5, 'newer', 1))); \
             SELECT breaker_notify('newer', jsonb_build_object('draining', jsonb_build_object()))"
        );
        execute(&url, &message).await;
    })
    .await;
    refuses(&log, &group, "gave an invalid answer", async || {
        let update = "UPDATE tower_breaker.breaker_circuit SET state = 'draining', epoch = epoch + 1000000";
        execute(&url, update).await;
    })
    .await;
}

#[tokio::test]
async fn file_of_a_newer_version() {
    let (log, _guard) = Log::begin();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::File(FileStore::open(folder.path()).unwrap());
    let group = Group::start(&store, "newer", 2).await;
    let file = folder.path().join("newer").join(format!("{CIRCUIT}.json"));
    let change = async |from: &str, to: &str| {
        crate::servers::change_file(&file, |content| {
            let changed = content.replacen(from, to, 1);
            assert_ne!(changed, content);
            changed
        })
        .await;
    };
    ignores(&group, async || change("\"data\":{", "\"data\":{\"newer\":1,").await).await;
    refuses(&log, &group, "has an invalid value", async || {
        change("\"state\":\"closed\"", "\"state\":\"draining\"").await;
    })
    .await;
}
