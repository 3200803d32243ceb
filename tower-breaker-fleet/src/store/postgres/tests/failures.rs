//! Refusals of the server, each with the next step.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_postgres::{Config, NoTls};

use super::server::{Admin, migrated, shared};
use super::{DEADLINE, ONE, circuit, connect, connection_error, heartbeat, vote};
use crate::error::FleetError;
use crate::store::Backend;
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
        ("postgresql://app:more@a/secret@db/breakers", "is `%40` in a password"),
        ("postgresql://app:secret@db/breakers?sslrootcert=ca.pem", "use `PostgresStore::root_certificates`"),
        ("postgresql://app:secret@db/breakers?sslcert=a.pem", "with the parameter `sslcert`"),
        (
            "postgresql://app:secret@db/breakers?sslmode=verify-full",
            "`require` also verifies the certificate",
        ),
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
    // Version 1 replies without the open members.
    admin.run(&set(1)).await;
    let error = connection_error(&store).await;
    assert_eq!(error.kind, Refused);
    assert!(
        error.message.contains("has version 1, and this process needs 2; run `Postg"),
        "{}",
        error.message
    );
    store.migrate().await.unwrap();
    connect(&store, "test").await;

    admin.run(&set(3)).await;
    let error = connection_error(&store).await;
    assert!(error.message.contains("has version 3, and this process knows only 2"), "{}", error.message);
    let error = store.migrate().await.unwrap_err().to_string();
    assert!(error.contains("has version 3 already, and this is version 2; update tower-breaker"), "{error}");
    assert_eq!(admin.number("SELECT versions.breaker_version()::bigint").await, 3);
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
    let server = migrated(&["max_connections=3"]).await;
    let store = PostgresStore::open(&server.url()).unwrap();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(connect(&store, "crowd").await);
    }
    let error = connection_error(&store).await;
    assert_eq!(error.kind, Unreachable);
    assert!(
        error.message.contains("raise `max_connections`, or connect through pgbouncer"),
        "{}",
        error.message
    );
    drop(sessions);
    let connects = async {
        while store.connect("crowd").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, connects).await.expect("a connection is free");
}

/// Settings of the role that end a statement or a connection.
#[tokio::test]
async fn timeouts_of_server_are_named() {
    let server = shared().await;
    let mut admin = server.admin().await;
    for (role, setting) in
        [("hurried", "statement_timeout = '1ms'"), ("sleepy", "idle_session_timeout = '50ms'")]
    {
        admin.run(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'secret'")).await;
        admin.run(&format!("ALTER ROLE {role} SET {setting}")).await;
        let step = setting.split(" = ").next().expect("a name");
        let step = format!("run `ALTER ROLE \"{role}\" SET {step} = 0`");
        let mut session = connect(&PostgresStore::open(&server.url_as(role, "secret")).unwrap(), role).await;
        let circuits = (0..64).map(|number| circuit(&format!("circuit {number}"), true, ONE)).collect();
        let request = heartbeat("a", circuits);
        // A fast server may process a request within the time.
        let error = loop {
            if let Err(error) = session.sync(&request).await {
                break error;
            }
            let wait = tokio::time::timeout(Duration::from_millis(100), session.update()).await;
            if let Ok(Err(error)) = wait {
                break error;
            }
        };
        assert_eq!(error.kind, Unreachable, "{}", error.message);
        assert!(error.message.contains(&step), "{}", error.message);
    }
}

/// Forwards to the server, and replaces its version by 14.
async fn old_server(server: &std::path::Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url =
        format!("postgresql://postgres:secret@{}/postgres?sslmode=disable", listener.local_addr().unwrap());
    let socket = server.to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut server = UnixStream::connect(&socket).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.split();
            let answers = async {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                    let name = b"server_version\0";
                    if let Some(start) = bytes[..length].windows(name.len()).position(|part| part == name) {
                        bytes[start + name.len()..][..2].copy_from_slice(b"14");
                    }
                    to_client.write_all(&bytes[..length]).await.unwrap();
                }
            };
            tokio::select! { () = answers => {}, _ = tokio::io::copy(&mut from_client, &mut to_server) => {} }
        }
    });
    url
}

#[tokio::test]
async fn old_server_is_refused() {
    let server = shared().await;
    let store = PostgresStore::open(&old_server(&server.socket()).await).unwrap();
    let error = connection_error(&store).await;
    assert_eq!(error.kind, Refused);
    assert!(
        error.message.contains("it has version 14, and version 15 or later is needed"),
        "{}",
        error.message
    );
    let error = store.migrate().await.unwrap_err().to_string();
    assert!(error.contains("it has version 14"), "{error}");
}

/// Returns the port of a listener whose queue is full. Like a lost host, it answers nothing.
async fn lost_host() -> (Vec<Box<dyn std::any::Any>>, u16) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue: Vec<Box<dyn std::any::Any>> = vec![Box::new(listener)];
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queue.push(Box::new(stream.unwrap()));
    }
    (queue, address.port())
}

#[tokio::test]
async fn lost_host_is_skipped_within_the_timeout_of_the_agent() {
    let server = test_servers::Postgres::start_tcp_with(&[]);
    PostgresStore::open(&server.url()).unwrap().migrate().await.unwrap();
    let (_queue, lost) = lost_host().await;
    let port = server.address().port();
    let url =
        format!("postgresql://postgres:secret@127.0.0.1:{lost},127.0.0.1:{port}/postgres?sslmode=disable");
    let store = PostgresStore::open(&url).unwrap();
    let connected = tokio::time::timeout(Duration::from_secs(1), store.connect("test")).await;
    connected.expect("the second host is tried").unwrap();
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
        ("22P02", Refused, "may have been changed"),
        ("XX001", Refused, "look into the log of the server"),
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
