//! The tables and functions, and the privileges that they need.

use super::connections::wait_until_it_listens;
use super::server::{Admin, shared};
use super::{
    DEADLINE, LONG, ONE, circuit, completed, connect, connection_error, heartbeat, lease, operation, update,
    vote,
};
use crate::record::FleetState;
use crate::store::postgres::failure::quoted;
use crate::store::postgres::{PostgresStore, SCHEMA_STATEMENT, VERSION};
use crate::store::{Action, StoreErrorKind, Update};

#[test]
fn schema_has_its_name_and_version_once() {
    assert_eq!(PostgresStore::SCHEMA.matches(SCHEMA_STATEMENT).count(), 1);
    let version = format!("breaker_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT {VERSION}'");
    assert!(PostgresStore::SCHEMA.contains(&version));
    assert!(PostgresStore::SCHEMA.contains(&format!("IF version > {VERSION} THEN")));
}

#[tokio::test]
async fn migrations_at_the_same_time_succeed() {
    let server = shared().await;
    let store = server.polling().schema("race");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move { store.migrate().await });
    }
    tasks.join_all().await.into_iter().for_each(|result| result.unwrap());
    connect(&store, "test").await.sync(&vote("search")).await.unwrap();
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn schema_runs_again_and_keeps_data() {
    let server = shared().await;
    let store = server.with_schema("again").await;
    connect(&store, "test").await.operate(&operation("search", Action::ForceOpen)).await.unwrap();
    let sql =
        PostgresStore::SCHEMA.replacen(SCHEMA_STATEMENT, "SET LOCAL breaker_setup.schema = 'again';", 1);
    server.admin().await.run(&sql).await;
    let listed = connect(&store, "test").await.list(None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn schemas_share_nothing() {
    let server = shared().await;
    let hostile = "it's \"quoted\"; DROP SCHEMA tower_breaker --";
    let (a, b) = (server.with_schema("Side A").await, server.with_schema(hostile).await);
    let mut session_a = connect(&a, "test").await;
    let mut session_b = connect(&b, "test").await;
    // A listener receives what a poll does not find.
    let mut admin = server.admin().await;
    wait_until_it_listens(&mut *session_b, &mut admin, &quoted(hostile), "test").await;
    session_a.operate(&operation("search", Action::Trip)).await.unwrap();
    assert_eq!(session_b.list(None, 10).await.unwrap(), []);
    // The first update of the other schema is its own.
    session_b.operate(&operation("mail", Action::Trip)).await.unwrap();
    loop {
        if let Update::Record(record) = update(&mut *session_b).await.unwrap() {
            assert_eq!(record.circuit, "mail");
            break;
        }
    }
    assert_eq!(session_a.list(None, 10).await.unwrap().len(), 1);
    let other = connect(&server.polling(), "test").await.list(None, 10).await.unwrap();
    assert!(other.iter().all(|record| record.circuit != "search"));
}

/// The role has exactly the privileges that the documentation lists.
#[tokio::test]
async fn documented_grants_are_enough() {
    let server = shared().await;
    let mut admin = server.admin().await;
    admin.run("CREATE ROLE app LOGIN PASSWORD 'secret'").await;
    let url = server.url_as("app", "secret");
    let store = PostgresStore::open(&url).unwrap().listen_at(&url).unwrap().schema("granted");
    server.with_schema("granted").await;

    // The error has the statements that help.
    let error = connection_error(&store).await;
    assert_eq!(error.kind, StoreErrorKind::Refused);
    let grants = error.message.split('`').nth(1).expect("statements between backticks");
    assert_eq!(
        grants,
        "GRANT USAGE ON SCHEMA \"granted\" TO \"app\"; \
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA \"granted\" TO \"app\""
    );
    admin.run("GRANT USAGE ON SCHEMA granted TO app").await;
    let error = connection_error(&store).await;
    assert!(error.message.contains("permission denied for function"), "{}", error.message);
    admin.run(grants).await;

    let mut session = connect(&store, "test").await;
    session.sync(&vote("search")).await.unwrap();
    assert!(matches!(update(&mut *session).await.unwrap(), Update::Record(_)));
    session.operate(&operation("search", Action::ForceOpen)).await.unwrap();
    session.operate(&operation("search", Action::Release)).await.unwrap();
    let reply = session.lease(&lease("search")).await.unwrap();
    assert!(reply.granted);
    let closed = session.complete(&completed("search", reply.record.epoch)).await.unwrap();
    assert_eq!(closed.state, FleetState::Closed);
    assert_eq!(session.list(None, 10).await.unwrap().len(), 1);
    Admin::connect(&url).await.run("SELECT granted.breaker_delete_expired()").await;
    store.migrate().await.unwrap();

    // And for nothing else.
    let tables = ["breaker_circuit", "breaker_member", "breaker_lease", "breaker_local_open"];
    for table in tables {
        let sql = format!(
            "SELECT has_table_privilege('app', 'granted.{table}', 'SELECT,INSERT,UPDATE,DELETE')::int::bigint"
        );
        assert_eq!(admin.number(&sql).await, 0, "{table}");
    }
    let elsewhere = store.schema("owned_by_another");
    let error = elsewhere.migrate().await.unwrap_err().to_string();
    assert!(error.contains("run `PostgresStore::migrate` as the owner"), "{error}");
}

/// A temporary table of a caller must not replace a table of the functions.
#[tokio::test]
async fn temporary_table_does_not_replace_table() {
    let server = shared().await;
    server.with_schema("shadowed").await;
    let mut admin = server.admin().await;
    admin.run("CREATE TEMPORARY TABLE breaker_circuit (LIKE shadowed.breaker_circuit)").await;
    let request = r#"{"circuit": "search", "action": "trip", "by": "", "reason": "", "grace_ms": 1}"#;
    admin.run(&format!("SELECT shadowed.breaker_operate('test', '{request}')")).await;
    assert_eq!(admin.number("SELECT count(*) FROM pg_temp.breaker_circuit").await, 0);
    assert_eq!(admin.number("SELECT count(*) FROM shadowed.breaker_circuit").await, 1);
}

#[tokio::test]
async fn housekeeping_deletes_only_expired_rows() {
    let server = shared().await;
    let store = server.with_schema("house").await;
    let mut session = connect(&store, "test").await;
    let mut admin = server.admin().await;
    let names = ["open", "forced", "stale"];
    for name in names {
        let sync = vec![crate::store::SyncCircuit {
            local: crate::store::LocalOpen::For(LONG),
            ..circuit(name, false, ONE)
        }];
        session.sync(&heartbeat("a", sync)).await.unwrap();
        let trip = crate::store::Operation {
            open_for: Some(std::time::Duration::ZERO),
            ..operation(name, Action::Trip)
        };
        session.operate(&trip).await.unwrap();
        assert!(session.lease(&lease(name)).await.unwrap().granted);
    }
    session.operate(&operation("forced", Action::ForceOpen)).await.unwrap();
    for table in ["breaker_circuit", "breaker_member", "breaker_lease", "breaker_local_open"] {
        let which = if table == "breaker_circuit" { "<> 'open'" } else { "= 'stale'" };
        admin
            .run(&format!("UPDATE house.{table} SET until_ms = until_ms - 86400000 WHERE circuit {which}"))
            .await;
    }

    // It is due within an hour.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(3601)).await;
    tokio::time::resume();
    let sync = heartbeat("a", vec![circuit("open", false, ONE)]);
    tokio::time::timeout(DEADLINE, session.sync(&sync)).await.unwrap().unwrap();
    for (table, kept) in
        [("breaker_circuit", 2), ("breaker_member", 2), ("breaker_lease", 2), ("breaker_local_open", 1)]
    {
        let sql = format!("SELECT count(*) FROM house.{table}");
        assert_eq!(admin.number(&sql).await, kept, "{table}");
    }
    assert_eq!(session.list(None, 10).await.unwrap().len(), 2);
}
