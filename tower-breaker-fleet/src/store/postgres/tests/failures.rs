//! Refusals of the server, each with the next step.

use tokio_postgres::{Config, NoTls};

use super::server::{Admin, migrated, shared};
use super::{connect, connection_error, vote};
use crate::error::FleetError;
use crate::store::StoreErrorKind::{Refused, Unreachable};
use crate::store::postgres::PostgresStore;

#[test]
fn invalid_url_error_has_no_password() {
    for (url, problem) in [
        ("", "`url` is not a URL of PostgreSQL; allowed is `postgresql://"),
        ("host=db user=app password=secret", "not a URL of PostgreSQL"),
        ("mysql://app:secret@db/breakers", "not a URL of PostgreSQL"),
        ("postgresql://app:secret@", "without a host"),
        ("postgresql://app:more@secret@db/breakers", "is `%40` in a password"),
        ("postgresql://app:more@secret:1@db/breakers", "option `port`"),
        ("postgresql://app?secret=1@db/breakers?secret=2", "is `%3F` in a password"),
        ("postgresql://app:secret@db/breakers?sslrootcert=ca.pem", "with the parameter `sslrootcert`"),
        ("postgresql://app:secret@db:port/breakers", "option `port`"),
        ("postgresql://app:secret@db/breakers?secret", "cannot be read"),
    ] {
        let error = PostgresStore::open(url).unwrap_err();
        assert!(matches!(error, FleetError::Invalid(_)), "{error:?}");
        assert_eq!(format!("{error:?}").find("secret"), None, "{error:?}");
        assert!(error.to_string().contains(problem), "{url}: {error}");
        let error = PostgresStore::open("postgresql://db").unwrap().listen_at(url).unwrap_err();
        assert!(error.to_string().starts_with("`listen_at` is "), "{error}");
        assert_eq!(error.to_string().find("secret"), None, "{error}");
    }
}

#[tokio::test]
async fn missing_server_is_unreachable() {
    let url = "postgresql://app:secret@%2Fnonexistent/breakers";
    let error = connection_error(&PostgresStore::open(url).unwrap()).await;
    assert_eq!(error.kind, Unreachable);
    assert!(error.message.starts_with("cannot reach PostgreSQL at /nonexistent:5432: "), "{}", error.message);
    assert!(error.source.is_some());
}

#[tokio::test]
async fn wrong_login_and_database_name_the_url() {
    let server = shared().await;
    let wrong = PostgresStore::open(&server.url_as("postgres", "secret2")).unwrap();
    let error = connection_error(&wrong).await;
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("check the user `postgres` and its password"), "{}", error.message);

    let config = server.url_as("postgres", "").replacen(":@", "@", 1);
    let error = connection_error(&PostgresStore::open(&config).unwrap()).await;
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("password missing; check the user"), "{}", error.message);

    let error = connection_error(&PostgresStore::open(&server.url_of("missing")).unwrap()).await;
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("check the database `missing`"), "{}", error.message);
}

#[tokio::test]
async fn missing_schema_names_the_migration() {
    let server = shared().await;
    let store = server.polling().schema("missing");
    let error = connection_error(&store).await;
    assert_eq!(error.kind, Refused);
    let step = "the schema `missing` does not have the functions of the fleet; run `PostgresStore::migrate`";
    assert!(error.message.contains(step), "{}", error.message);
    server.admin().await.run("CREATE SCHEMA without_functions").await;
    let error = connection_error(&server.polling().schema("without_functions")).await;
    assert!(error.message.contains("run `PostgresStore::migrate`"), "{}", error.message);
}

#[tokio::test]
async fn other_version_names_what_to_update() {
    let server = shared().await;
    let store = server.with_schema("versions").await;
    let mut admin = server.admin().await;
    let set = |version| {
        format!(
            "CREATE OR REPLACE FUNCTION versions.breaker_version() RETURNS int LANGUAGE sql AS 'SELECT {version}'"
        )
    };
    admin.run(&set(0)).await;
    let error = connection_error(&store).await;
    assert_eq!(error.kind, Refused);
    assert!(
        error.message.contains("has version 0, and this process needs 1; run `Postg"),
        "{}",
        error.message
    );
    store.migrate().await.unwrap();
    connect(&store, "test").await;

    admin.run(&set(2)).await;
    let error = connection_error(&store).await;
    assert!(error.message.contains("has version 2, and this process knows only 1"), "{}", error.message);
    let error = store.migrate().await.unwrap_err().to_string();
    assert!(error.contains("has version 2 already"), "{error}");
    assert_eq!(admin.number("SELECT versions.breaker_version()::bigint").await, 2);
}

#[tokio::test]
async fn read_only_server_names_the_primary() {
    let server = shared().await;
    let role = "CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'secret'; \
                ALTER ROLE reader SET default_transaction_read_only = on";
    server.admin().await.run(role).await;
    let error = connection_error(&PostgresStore::open(&server.url_as("reader", "secret")).unwrap()).await;
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("read-only replica"), "{}", error.message);
    assert!(error.message.contains("target_session_attrs=read-write"), "{}", error.message);
}

#[tokio::test]
async fn database_that_becomes_read_only_refuses() {
    let server = migrated(&[]).await;
    let store = PostgresStore::open(&server.url()).unwrap();
    let mut session = connect(&store, "test").await;
    let mut admin = Admin::connect(&server.url()).await;
    admin.run("ALTER SYSTEM SET default_transaction_read_only = on").await;
    admin.run("SELECT pg_reload_conf()").await;
    // The server reads its settings between statements.
    let error = loop {
        if let Err(error) = session.sync(&vote("search")).await {
            break error;
        }
    };
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("(25006): the server is a read-only replica"), "{}", error.message);
}

#[tokio::test]
async fn too_many_connections_may_pass() {
    let server = shared().await;
    server.admin().await.run("CREATE ROLE crowd LOGIN PASSWORD 'secret' CONNECTION LIMIT 0").await;
    let error = connection_error(&PostgresStore::open(&server.url_as("crowd", "secret")).unwrap()).await;
    assert_eq!(error.kind, Unreachable);
    assert!(
        error.message.contains("raise `max_connections`, or connect through pgbouncer"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn stricter_isolation_and_other_encoding_are_refused() {
    let server = shared().await;
    let mut admin = server.admin().await;
    admin.run("CREATE ROLE strict LOGIN SUPERUSER PASSWORD 'secret'").await;
    admin.run("ALTER ROLE strict SET default_transaction_isolation = 'repeatable read'").await;
    let store = PostgresStore::open(&server.url_as("strict", "secret")).unwrap();
    let error = connection_error(&store).await;
    assert_eq!(error.kind, Refused);
    let step = "run `ALTER ROLE \"strict\" SET default_transaction_isolation = 'read committed'`";
    assert!(error.message.contains(step), "{}", error.message);

    admin.run("CREATE DATABASE other_encoding ENCODING 'LATIN1' TEMPLATE template0").await;
    let error = connection_error(&PostgresStore::open(&server.url_of("other_encoding")).unwrap()).await;
    assert_eq!(error.kind, Refused);
    assert!(error.message.contains("`other_encoding` is LATIN1; create one with"), "{}", error.message);
}

/// A function raises the errors here: a full disk needs a file system of its own.
#[tokio::test]
async fn errors_of_statements_name_the_next_step() {
    let server = shared().await;
    let store = server.with_schema("raising").await;
    let mut admin = server.admin().await;
    for (code, kind, step) in [
        ("53100", Refused, "the disk is full; free space"),
        ("42P01", Refused, "run `PostgresStore::migrate`"),
        ("55P03", Unreachable, "the server is overloaded"),
        ("57P01", Unreachable, "the agent tries again"),
        ("40P01", Unreachable, "the agent tries again"),
        ("XX001", Refused, "may have been changed"),
    ] {
        let function = format!(
            "CREATE OR REPLACE FUNCTION raising.breaker_sync(text, jsonb) RETURNS jsonb LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'it fails' USING ERRCODE = '{code}'; END $$"
        );
        admin.run("DROP FUNCTION raising.breaker_sync").await;
        admin.run(&function).await;
        let error = connect(&store, "test").await.sync(&vote("search")).await.unwrap_err();
        super::assert_without_password(&error);
        assert_eq!(error.kind, kind, "{code}");
        let expected = format!("it fails ({code}): ");
        assert!(error.message.contains(&expected) && error.message.contains(step), "{}", error.message);
    }
}

#[tokio::test]
async fn circuit_lock_held_too_long_is_an_error() {
    let server = shared().await;
    let mut session = connect(&server.polling(), "locked").await;
    let config: Config = server.url().parse().unwrap();
    let mut holder = crate::store::postgres::link::Link::connect(&config, NoTls).await.unwrap();
    holder.run("BEGIN; SET LOCAL search_path = tower_breaker").await.unwrap();
    holder.run("SELECT breaker_lock('locked', 'search')").await.unwrap();
    let sync = vote("search");
    let sync = tokio::time::timeout(super::DEADLINE, session.sync(&sync));
    let error = sync.await.expect("the wait is limited").unwrap_err();
    assert_eq!(error.kind, Unreachable);
    assert!(error.message.contains("held the lock of the circuit"), "{}", error.message);
    holder.run("ROLLBACK").await.unwrap();
    session.sync(&vote("search")).await.unwrap();
}
