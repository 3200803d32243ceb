//! Connections that end, that receive nothing, and a server that crashes.

use std::time::Duration;

use super::server::{Admin, migrated, pooled, shared};
use super::{DEADLINE, HALF, ONE, circuit, connect, heartbeat, operation, update, vote};
use crate::record::FleetState;
use crate::store::StoreErrorKind::{Refused, Unreachable};
use crate::store::postgres::PostgresStore;
use crate::store::{Action, Backend, Session, Update};

/// Waits until the session listens: an update arrives that a poll does not find.
pub(super) async fn wait_until_it_listens(
    session: &mut dyn Session,
    admin: &mut Admin,
    schema: &str,
    namespace: &str,
) {
    let payload = r#"{"slots_taken": {"circuit": "a", "epoch": 1, "retry_ms": 1}}"#;
    let sql = format!("SELECT pg_notify({schema}.breaker_channel('{namespace}'), '{payload}')");
    let notifies = async {
        loop {
            admin.run(&sql).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let listens = async { while !matches!(update(session).await.unwrap(), Update::SlotsTaken { .. }) {} };
    tokio::select! { () = listens => {}, () = notifies => {} }
}

#[tokio::test]
async fn end_of_each_connection_ends_the_session() {
    let server = shared().await;
    let mut admin = server.admin().await;
    for (which, namespace) in [("<>", "terminated commands"), ("=", "terminated listener")] {
        // The schema and the server are shared, so the connections have a name.
        let url = format!("{}?application_name={}", server.url(), namespace.replace(' ', "_"));
        let store = PostgresStore::open(&url).unwrap().listen_at(&url).unwrap();
        let mut session = connect(&store, namespace).await;
        wait_until_it_listens(&mut *session, &mut admin, "tower_breaker", namespace).await;
        let terminated = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{}' \
             AND (left(query, 6) {which} 'LISTEN')",
            namespace.replace(' ', "_")
        );
        assert_eq!(admin.number(&terminated).await, 1);
        let error = loop {
            if let Err(error) = update(&mut *session).await {
                break error;
            }
        };
        assert_eq!(error.kind, Unreachable);
        assert!(error.message.contains("terminating connection due to administrator"), "{}", error.message);
        connect(&store, namespace).await.sync(&vote("search")).await.unwrap();
    }
}

#[tokio::test]
async fn terminated_connection_fails_the_next_message() {
    let server = shared().await;
    let mut admin = server.admin().await;
    let url = format!("{}?application_name=next_message", server.url());
    let mut session = connect(&PostgresStore::open(&url).unwrap(), "next message").await;
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'next_message'";
    assert_eq!(admin.number(sql).await, 1);
    let error = session.sync(&vote("search")).await.unwrap_err();
    assert_eq!(error.kind, Unreachable);
}

#[tokio::test]
async fn terminated_statement_fails_and_changes_nothing() {
    let server = shared().await;
    let store = server.with_schema("terminated").await;
    let url = format!("{}?application_name=terminated", server.url());
    let store_of_url = PostgresStore::open(&url).unwrap().schema("terminated");
    let mut session = connect(&store_of_url, "test").await;
    let (mut admin, mut holder) = (server.admin().await, server.admin().await);
    let blocked = "FROM pg_stat_activity WHERE application_name = 'terminated' AND wait_event_type = 'Lock'";
    let (operation, newer) = (operation("search", Action::Trip), store_of_url.clone().schema("terminated 2"));
    for (lock, is_migration) in [
        ("SELECT breaker_lock('test', 'search')", false),
        ("SELECT pg_advisory_xact_lock(hashtextextended('tower_breaker_schema', 0))", true),
    ] {
        holder.run("BEGIN; SET LOCAL search_path = terminated").await;
        holder.run(lock).await;
        let request = async {
            if is_migration {
                newer.migrate().await.unwrap_err().to_string()
            } else {
                let error = session.operate(&operation).await.unwrap_err();
                assert_eq!(error.kind, Unreachable);
                error.message
            }
        };
        let terminate = async {
            while admin.number(&format!("SELECT count(*) {blocked}")).await == 0 {}
            admin.number(&format!("SELECT count(pg_terminate_backend(pid)) {blocked}")).await
        };
        let (error, terminated) = tokio::join!(request, terminate);
        assert_eq!(terminated, 1);
        assert!(error.contains("terminating connection due to administrator command"), "{error}");
        holder.run("ROLLBACK").await;
    }
    assert_eq!(connect(&store, "test").await.list(None, 10).await.unwrap(), []);
    newer.migrate().await.unwrap();
    connect(&newer, "test").await;
}

#[tokio::test]
async fn promoted_replica_keeps_decisions_and_begins_warm_up() {
    let mut primary = migrated(&[]).await;
    let store = PostgresStore::open(&primary.url()).unwrap();
    let mut session = connect(&store, "test").await;
    let opened = session.sync(&vote("open")).await.unwrap().remove(0).record.unwrap();
    session.sync(&heartbeat("a", vec![circuit("closed", false, HALF)])).await.unwrap();
    let mut replica = test_servers::Postgres::start_replica_of(&primary);
    let error = super::connection_error(&PostgresStore::open(&replica.url()).unwrap()).await;
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("the server is a read-only replica"), "{}", error.message);

    let host = |server: &test_servers::Postgres| {
        let url = server.url();
        url.split(['@', '/']).find(|part| part.starts_with("%2F")).expect("a folder").to_owned()
    };
    let (first, second) = (host(&primary), host(&replica));
    let url =
        format!("postgresql://postgres:secret@{second},{first}/postgres?target_session_attrs=read-write");
    let store = PostgresStore::open(&url).unwrap();
    // The replica is first, and is skipped.
    let reset = connect(&store, "test").await.operate(&operation("other", Action::Reset)).await.unwrap();
    assert!(reset.applied);
    primary.kill();
    assert_eq!(super::connection_error(&store).await.kind, Unreachable);
    replica.promote();
    let mut session = connect(&store, "test").await;
    let synced = session.sync(&heartbeat("b", vec![circuit("closed", true, HALF)])).await.unwrap();
    assert_eq!((synced[0].members, synced[0].warming_up), (1, true));
    let listed = session.list(Some("closed"), 10).await.unwrap();
    assert_eq!((&*listed[0].circuit, listed[0].epoch), ("open", opened.epoch));
}

/// The tables of members and leases are empty after a crash. Decisions are kept.
#[tokio::test]
async fn crash_of_server_keeps_decisions_and_begins_warm_up() {
    let mut server = migrated(&[]).await;
    let store = PostgresStore::open(&server.url()).unwrap();
    let mut session = connect(&store, "test").await;
    let opened = session.sync(&vote("open")).await.unwrap().remove(0).record.unwrap();
    session.operate(&operation("forced", Action::ForceOpen)).await.unwrap();
    let mut admin = Admin::connect(&server.url()).await;
    for instance in ["a", "b", "c"] {
        session.sync(&heartbeat(instance, vec![circuit("closed", false, HALF)])).await.unwrap();
    }
    admin.run("UPDATE tower_breaker.breaker_member SET warm_until_ms = 0").await;
    let before = session.sync(&heartbeat("a", vec![circuit("closed", true, HALF)])).await.unwrap();
    assert_eq!((before[0].members, before[0].warming_up), (3, false));

    server.kill();
    let error = session.sync(&vote("open")).await.unwrap_err();
    assert_eq!(error.kind, Unreachable);
    assert_eq!(super::connection_error(&store).await.kind, Unreachable);
    server.restart();
    let mut session = connect(&store, "test").await;
    let after = session.sync(&heartbeat("a", vec![circuit("closed", true, HALF)])).await.unwrap();
    assert_eq!((after[0].members, after[0].votes, after[0].warming_up), (1, 1, true));
    let listed = session.list(None, 10).await.unwrap();
    let records: Vec<_> = listed.iter().map(|record| (&*record.circuit, record.state)).collect();
    assert_eq!(records, [("forced", FleetState::Open), ("open", FleetState::Open)]);
    assert_eq!(listed[1].epoch, opened.epoch);
    assert!(listed[0].manual.is_some());
}

#[tokio::test]
async fn listener_without_server_polls() {
    let server = shared().await;
    let store = server.polling().listen_at("postgresql://app@%2Fnonexistent/postgres").unwrap();
    let mut watcher = connect(&store, "no listener").await;
    let opened = connect(&store, "no listener").await.sync(&vote("search")).await.unwrap();
    let Update::Record(record) = update(&mut *watcher).await.unwrap() else { panic!("no record") };
    assert_eq!(Some(record.epoch), opened[0].record.as_ref().map(|record| record.epoch));
    assert!(store.settings.polls.load(std::sync::atomic::Ordering::Relaxed));
}

/// Processes that send many circuits in different orders lock them in one order.
#[tokio::test]
async fn many_circuits_in_different_orders_do_not_deadlock() {
    let server = shared().await;
    let store = server.polling();
    let mut tasks = tokio::task::JoinSet::new();
    for instance in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut session = connect(&store, "orders").await;
            let quorum = crate::store::QuorumRule { at_least: 8, ..ONE };
            let mut names: Vec<String> = (0..64).map(|index| format!("circuit {index}")).collect();
            names.rotate_left(instance * 8);
            if instance % 2 == 1 {
                names.reverse();
            }
            let circuits = names.iter().map(|name| circuit(name, true, quorum)).collect();
            let request = heartbeat(&instance.to_string(), circuits);
            let synced = session.sync(&request).await.unwrap();
            // The answers are in the order of the request.
            for (name, synced) in names.iter().zip(&synced) {
                assert!(synced.record.as_ref().is_none_or(|record| record.circuit == *name));
            }
            synced.iter().filter(|synced| synced.record.is_some()).count()
        });
    }
    let opened = tokio::time::timeout(DEADLINE, tasks.join_all()).await.unwrap();
    assert_eq!(opened.iter().max(), Some(&64), "the last vote opens all circuits: {opened:?}");
    assert_eq!(connect(&store, "orders").await.list(None, 100).await.unwrap().len(), 64);
}

/// LISTEN succeeds through a pooler of transactions, but nothing arrives.
#[tokio::test]
async fn listener_behind_pooler_polls() {
    let pooler = pooled().await;
    let store = pooler.polling().listen_at(pooler.url()).unwrap();
    let mut watcher = connect(&store, "pooled listener").await;
    let mut client = connect(&store, "pooled listener").await;
    let wait = async {
        while !store.settings.polls.load(std::sync::atomic::Ordering::Relaxed) {
            client.operate(&operation("search", Action::Trip)).await.unwrap();
            assert!(matches!(update(&mut *watcher).await.unwrap(), Update::Record(_)));
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the test of LISTEN fails");
    client.operate(&operation("mail", Action::Trip)).await.unwrap();
    loop {
        if let Update::Record(record) = update(&mut *watcher).await.unwrap()
            && record.circuit == "mail"
        {
            break;
        }
    }
}

#[tokio::test]
async fn direct_listener_beside_pooler_listens() {
    let pooler = pooled().await;
    let store = pooler.polling().listen_at(pooler.server.url()).unwrap();
    let mut watcher = connect(&store, "direct").await;
    wait_until_it_listens(&mut *watcher, &mut pooler.server.admin().await, "tower_breaker", "direct").await;
    assert!(!store.settings.polls.load(std::sync::atomic::Ordering::Relaxed));
    let opened = connect(&store, "direct").await.sync(&vote("search")).await.unwrap();
    let epoch = opened[0].record.as_ref().map(|record| record.epoch);
    loop {
        if let Update::Record(record) = update(&mut *watcher).await.unwrap() {
            assert_eq!(Some(record.epoch), epoch);
            break;
        }
    }
}

#[tokio::test]
async fn refusals_of_pooler_name_the_next_step() {
    let pooler = pooled().await;
    let missing =
        pooler.url().strip_suffix("/postgres").expect("the database is last").to_owned() + "/missing";
    for (url, step) in [
        (pooler.url().replace("postgres:", "postgres:secret2"), "check the user `postgres` and its password"),
        (pooler.url().replace("//postgres:", "//missing:"), "check the user `missing` and its password"),
        (missing, "check the database `missing`"),
    ] {
        let error = super::connection_error(&PostgresStore::open(&url).unwrap()).await;
        assert_eq!(error.kind, Refused);
        assert!(error.message.contains(step), "{}", error.message);
    }
}

/// A paused server answers nothing. Dropping the session closes its sockets at once.
#[tokio::test]
async fn paused_server_blocks_only_the_message() {
    let mut server = migrated(&[]).await;
    let store = PostgresStore::open(&server.url()).unwrap();
    let mut session = connect(&store, "test").await;
    server.pause();
    let sync = vote("search");
    tokio::time::timeout(Duration::from_millis(300), session.sync(&sync)).await.expect_err("no answer");
    tokio::time::timeout(Duration::from_millis(300), store.connect("test")).await.err().expect("no answer");
    drop(session);
    server.resume();
    // The late message has no harm, and the sessions of the server end.
    let mut session = connect(&store, "test").await;
    session.sync(&sync).await.unwrap();
    let mut admin = Admin::connect(&server.url()).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tower-breaker-fleet'";
    let wait = async {
        while admin.number(sql).await != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("only the new session is left");
}
