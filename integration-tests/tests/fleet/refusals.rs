//! Servers that refuse the agent: one clear error, one log event, and local decisions.

use test_servers::{Postgres, Redis};
use tower_breaker::{CircuitState, Reason};
use tower_breaker_fleet::{
    FileStore, FleetAction, FleetError, FleetOperation, FleetState, PostgresStore, RedisStore,
};
use tracing::Level;

use crate::logs::Log;
use crate::processes::{Answer, CIRCUIT, Group};
use crate::servers::{Server, Store, StoreFault, StoreKind, execute};

/// Checks a process whose store refuses it with this advice.
pub(crate) async fn refused(store: Store, advice: &str) {
    let (log, _guard) = Log::begin();
    let group = Group::unattached(&store, "refused", 1);
    // Several attempts are one outage.
    let has_tried = |group: &Group| group.all[0].fleet().status().errors >= 3;
    group.wait("refusals", has_tried).await;
    let status = group.all[0].fleet().status();
    let error = status.last_error.unwrap_or_default();
    assert!(!status.attached && error.contains(advice), "`{advice}` is missing: {error}");
    let warnings = log.of(Level::WARN);
    assert!(warnings.len() == 1 && warnings[0].contains(advice), "{warnings:?}");

    decides_alone(&group).await;
    let operation = FleetOperation::new(FleetAction::ForceOpen);
    let error = group.all[0].fleet().operate(CIRCUIT, operation).await.unwrap_err();
    assert!(matches!(error, FleetError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains(advice), "{error}");
    assert_eq!(group.all[0].state(), CircuitState::Closed);
    assert_eq!(log.of(Level::WARN).len(), 1, "{:?}", log.of(Level::WARN));
}

/// The circuits open and close by their own decisions.
pub(crate) async fn decides_alone(group: &Group) {
    group.answer(Answer::Failure);
    group.wait("open circuits", |group| group.are(CircuitState::Open)).await;
    group.answer(Answer::Success);
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
    for process in &group.all {
        let reasons: Vec<_> = process.history().iter().map(|step| step.reason).collect();
        assert_eq!(reasons.first(), Some(&Reason::ConsecutiveFailures), "{group:?}");
        assert_eq!(reasons.last(), Some(&Reason::ProbesSucceeded), "{group:?}");
    }
}

fn redis(url: &str) -> Store {
    Store::Redis(RedisStore::open(url).unwrap())
}

fn postgres(url: &str) -> Store {
    Store::Postgres(PostgresStore::open(url).unwrap())
}

#[tokio::test]
async fn redis_with_wrong_password_names_the_url() {
    let server = Redis::start_tcp_with(&["requirepass right"]);
    let store = redis(&format!("redis://:wrong@{}", server.address()));
    refused(store, "wrong name or password of user `default`; check the URL").await;
}

#[tokio::test]
async fn redis_without_permission_names_the_rule() {
    let server = Redis::start_tcp_with(&["user app on >secret ~tb1:* &tb1:* +@all -evalsha"]);
    let store = redis(&format!("redis://app:secret@{}", server.address()));
    refused(store, "allow it with `ACL SETUSER app +evalsha`").await;
}

#[tokio::test]
async fn redis_replica_names_the_primary() {
    let primary = Redis::start_tcp();
    let replica = Redis::start_replica_of(&primary);
    refused(redis(&replica.tcp_url()), "read-only replica; use the URL of the primary server").await;
}

/// Redis lets a script finish that deletes before it writes, so heartbeats work and leases do not.
#[tokio::test]
async fn redis_without_memory_is_one_outage_for_the_log() {
    let (log, _guard) = Log::begin();
    let server = Redis::start();
    let group = Group::start(&redis(&server.url()), "full", 1).await;
    server.command("CONFIG SET maxmemory 1");
    // After the open time, the process asks for a lease.
    group.operate(FleetAction::Trip).await;
    let has_tried = |group: &Group| group.all[0].fleet().status().errors >= 3;
    group.wait("refused leases", has_tried).await;
    let advice = "its memory is full; raise `maxmemory`";
    let error = group.all[0].fleet().status().last_error.unwrap_or_default();
    assert!(error.contains(advice), "{error}");
    let (warnings, infos) = (log.of(Level::WARN), log.of(Level::INFO));
    assert!(warnings.len() == 1 && warnings[0].contains(advice), "{warnings:?}");
    assert!(infos.is_empty(), "{infos:?}");
    group.wait("closed circuits", |group| group.are(CircuitState::Closed)).await;
    assert_eq!(group.all[0].history().last().map(|step| step.reason), Some(Reason::ProbesSucceeded));

    server.command("CONFIG SET maxmemory 0");
    group.wait("agreement", |group| group.agree(FleetState::Closed, None)).await;
    group.wait("log event", |_| log.of(Level::INFO).len() == 1).await;
    assert_eq!(log.of(Level::WARN).len(), 1, "{:?}", log.of(Level::WARN));
}

#[tokio::test]
async fn postgres_with_wrong_password_names_the_url() {
    let server = Postgres::start();
    refused(postgres(&server.url_as("postgres", "wrong")), "check the user `postgres` and its password")
        .await;
}

#[tokio::test]
async fn postgres_names_the_missing_step() {
    let server = Postgres::start();
    let url = server.url();
    refused(postgres(&url), "run `PostgresStore::migrate`").await;

    PostgresStore::open(&url).unwrap().migrate().await.unwrap();
    let roles = "CREATE ROLE app LOGIN PASSWORD 'secret'; \
         CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'secret'; \
         ALTER ROLE reader SET default_transaction_read_only = on";
    execute(&url, roles).await;
    refused(
        postgres(&server.url_as("app", "secret")),
        "run `GRANT USAGE ON SCHEMA \"tower_breaker\" TO \"app\"",
    )
    .await;
    refused(postgres(&server.url_as("reader", "secret")), "read-only replica").await;

    for (version, advice) in [
        (1, "has version 1, and this process needs 2; run `PostgresStore::migrate`"),
        (3, "has version 3, and this process knows only 2"),
    ] {
        let function = format!(
            "CREATE OR REPLACE FUNCTION tower_breaker.breaker_version() RETURNS int \
             LANGUAGE sql AS 'SELECT {version}'"
        );
        execute(&url, &function).await;
        refused(postgres(&url), advice).await;
    }
}

#[tokio::test]
async fn files_of_another_version_name_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let namespace = folder.path().join("refused");
    std::fs::create_dir(&namespace).unwrap();
    let content = br#"{"format":"tower-breaker-fleet","version":2,"circuit":"search","data":{}}"#;
    std::fs::write(namespace.join(format!("{CIRCUIT}.json")), content).unwrap();
    refused(Store::File(store), "has version 2 of the format").await;
}

#[tokio::test]
async fn each_outage_is_logged_once() {
    let (log, _guard) = Log::begin();
    let mut server = Server::start(StoreKind::Redis).await;
    let group = Group::start(&server.store, "logged", 1).await;
    assert_eq!((log.of(Level::WARN).len(), log.of(Level::INFO).len()), (0, 0));
    for outage in 1..=2 {
        server.fail(StoreFault::Kill, &[]).await;
        let errors = group.all[0].fleet().status().errors;
        let has_tried = |group: &Group| group.all[0].fleet().status().errors >= errors + 2;
        group.wait("attempts to connect", has_tried).await;
        server.heal(StoreFault::Kill, &[]).await;
        group.wait("log event", |_| log.of(Level::INFO).len() == outage).await;
        assert_eq!(log.of(Level::WARN).len(), outage, "{:?}", log.of(Level::WARN));
    }
}
