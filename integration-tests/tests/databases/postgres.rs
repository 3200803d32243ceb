//! Errors of PostgreSQL, as tokio-postgres and sqlx report them.

use std::sync::Arc;

use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use test_servers::Postgres;
use tokio_postgres::{Client, NoTls};
use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::Health::{Healthy, Neutral, Unhealthy};
use tower_fault_classify::Kind::{
    Auth, Client as Caller, Conflict, Overloaded, Protocol, Server, Timeout, Transient, Unavailable, Unknown,
};
use tower_fault_classify::Retryable::{IfIdempotent, Never, Refused, Unsent};
use tower_fault_classify::{ClassifiedError, Fault, FaultClassifyLayer, Health, Kind, Retryable};

use crate::rules::{sqlx_rule, tokio_postgres_rule};

/// Connects with tokio-postgres, and spawns the task of the connection.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // The error of the connection also ends the calls of the client.
    tokio::spawn(connection);
    Ok(client)
}

/// A session that sends statements through the layer.
type Session = BoxCloneService<&'static str, (), ClassifiedError>;

async fn tokio_postgres_session(server: &Postgres) -> Session {
    let client = Arc::new(connect(&server.url()).await.unwrap());
    ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().rule(tokio_postgres_rule))
        .service(service_fn(move |statement: &'static str| {
            let client = Arc::clone(&client);
            async move { client.batch_execute(statement).await }
        }))
        .boxed_clone()
}

async fn sqlx_session(server: &Postgres) -> Session {
    // One connection, so that all statements run in one session.
    let pool = PgPoolOptions::new().max_connections(1).connect(&server.url()).await.unwrap();
    ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().rule(sqlx_rule))
        .service(service_fn(move |statement: &'static str| {
            let pool: PgPool = pool.clone();
            async move { sqlx::raw_sql(statement).execute(&pool).await.map(drop) }
        }))
        .boxed_clone()
}

async fn sessions(server: &Postgres) -> [Session; 2] {
    [tokio_postgres_session(server).await, sqlx_session(server).await]
}

async fn run(session: &Session, statement: &'static str) {
    let result = session.clone().oneshot(statement).await;
    result.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
}

async fn fault(session: &Session, statement: &'static str) -> Fault {
    let result = session.clone().oneshot(statement).await;
    result.expect_err(statement).fault()
}

/// Returns the faults of a failure to connect with each driver.
async fn connect_faults(url: &str) -> [Fault; 2] {
    let tokio_postgres = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().rule(tokio_postgres_rule))
        .service(service_fn(async |url: &str| connect(url).await.map(drop)));
    let sqlx = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().rule(sqlx_rule))
        .service(service_fn(async |url: &str| PgConnection::connect(url).await.map(drop)));
    [
        tokio_postgres.oneshot(url).await.expect_err("tokio-postgres does not connect").fault(),
        sqlx.oneshot(url).await.expect_err("sqlx does not connect").fault(),
    ]
}

#[track_caller]
fn assert_axes(fault: Fault, kind: Kind, retryable: Retryable, health: Health) {
    assert_eq!((fault.kind(), fault.retryable(), fault.health()), (kind, retryable, health));
}

/// Waits until the server runs a statement that contains `text`.
async fn wait_for_statement(server: &Postgres, text: &str) {
    let client = connect(&server.url()).await.unwrap();
    let query =
        "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()";
    while client.query(query, &[&format!("%{text}%")]).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn statement_errors_are_the_callers() {
    let server = Postgres::start();
    for session in sessions(&server).await {
        run(
            &session,
            "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
        )
        .await;
        for statement in [
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (NULL)",
            "SELECT 1 / 0",
            "SELECT FROM missing",
            "SELEC",
            "EXECUTE missing",
            "DO $$ BEGIN RAISE EXCEPTION 'no'; END $$",
        ] {
            assert_axes(fault(&session, statement).await, Caller, Never, Healthy);
        }
    }
}

#[tokio::test]
async fn serialization_failure_is_a_refused_conflict() {
    let server = Postgres::start();
    let other = tokio_postgres_session(&server).await;
    run(&other, "CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await;
    for session in sessions(&server).await {
        run(&session, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT id FROM t").await;
        run(&other, "UPDATE t SET id = id + 1").await;
        assert_axes(fault(&session, "UPDATE t SET id = id + 1").await, Conflict, Refused, Healthy);
        // The transaction has failed: its statements alone cannot be repeated.
        assert_axes(fault(&session, "UPDATE t SET id = id + 1").await, Caller, Never, Healthy);
        run(&session, "ROLLBACK").await;
    }
}

#[tokio::test]
async fn deadlock_is_a_refused_conflict() {
    let server = Postgres::start_with(&["deadlock_timeout=10ms"]);
    let other = tokio_postgres_session(&server).await;
    run(&other, "CREATE TABLE t (id int); INSERT INTO t VALUES (1), (2)").await;
    for session in sessions(&server).await {
        run(&session, "BEGIN; UPDATE t SET id = id WHERE id = 1").await;
        run(&other, "BEGIN; UPDATE t SET id = id WHERE id = 2").await;
        let (mine, others) = tokio::join!(
            session.clone().oneshot("UPDATE t SET id = id WHERE id = 2"),
            other.clone().oneshot("UPDATE t SET id = id WHERE id = 1"),
        );
        // The server ends one of the two transactions.
        let error = mine.err().xor(others.err()).expect("one fails");
        assert_axes(error.fault(), Conflict, Refused, Healthy);
        run(&session, "ROLLBACK").await;
        run(&other, "ROLLBACK").await;
    }
}

#[tokio::test]
async fn lock_not_available_is_a_refused_conflict() {
    let server = Postgres::start();
    let other = tokio_postgres_session(&server).await;
    run(&other, "CREATE TABLE t (id int)").await;
    run(&other, "BEGIN; LOCK TABLE t").await;
    for session in sessions(&server).await {
        assert_axes(fault(&session, "BEGIN; LOCK TABLE t NOWAIT").await, Conflict, Refused, Healthy);
        run(&session, "ROLLBACK").await;
    }
}

#[tokio::test]
async fn statement_timeout_is_a_timeout() {
    let server = Postgres::start();
    for session in sessions(&server).await {
        run(&session, "SET statement_timeout = '10ms'").await;
        assert_axes(fault(&session, "SELECT pg_sleep(600)").await, Timeout, IfIdempotent, Unhealthy);
    }
}

#[tokio::test]
async fn write_in_read_only_session_is_refused() {
    let server = Postgres::start_with(&["default_transaction_read_only=on"]);
    for session in sessions(&server).await {
        assert_axes(fault(&session, "CREATE TABLE t (id int)").await, Unavailable, Refused, Neutral);
    }
}

#[tokio::test]
async fn file_that_a_statement_names_and_is_missing_is_neutral() {
    let server = Postgres::start();
    for session in sessions(&server).await {
        for statement in ["SELECT pg_read_file('/missing')", "LOAD 'missing'"] {
            assert_axes(fault(&session, statement).await, Server, Never, Neutral);
        }
    }
}

/// The server reports its own failure to connect to another server.
#[tokio::test]
async fn failed_connection_within_a_transaction_is_not_refused() {
    let server = Postgres::start();
    for session in sessions(&server).await {
        run(&session, "DROP EXTENSION IF EXISTS dblink; CREATE EXTENSION dblink").await;
        let statement = "SELECT dblink_connect('host=/missing')";
        assert_axes(fault(&session, statement).await, Unavailable, IfIdempotent, Neutral);
    }
}

#[tokio::test]
async fn missing_privilege_is_auth() {
    let server = Postgres::start();
    for session in sessions(&server).await {
        run(&session, "DROP ROLE IF EXISTS reader; CREATE ROLE reader; SET ROLE reader").await;
        assert_axes(fault(&session, "CREATE TABLE t (id int)").await, Auth, Never, Healthy);
        run(&session, "RESET ROLE").await;
    }
}

#[tokio::test]
async fn unsupported_feature_is_neutral() {
    let server = Postgres::start();
    for session in sessions(&server).await {
        let statement = "SELECT DISTINCT 1 FROM pg_class FOR UPDATE";
        assert_axes(fault(&session, statement).await, Protocol, Never, Neutral);
    }
}

#[tokio::test]
async fn wrong_password_and_missing_role_are_auth() {
    let server = Postgres::start();
    for url in [server.url_as("postgres", "wrong"), server.url_as("missing", "secret")] {
        for fault in connect_faults(&url).await {
            assert_axes(fault, Auth, Never, Healthy);
        }
    }
}

#[tokio::test]
async fn missing_database_is_the_callers() {
    let server = Postgres::start();
    let url = server.url();
    let url = format!("{}/missing", url.strip_suffix("/postgres").unwrap());
    for fault in connect_faults(&url).await {
        assert_axes(fault, Caller, Never, Healthy);
    }
}

#[tokio::test]
async fn too_many_connections_is_overload() {
    let server = Postgres::start();
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(connect(&server.url()).await.unwrap());
    }
    for fault in connect_faults(&server.url()).await {
        assert_axes(fault, Overloaded, Refused, Unhealthy);
    }
}

#[tokio::test]
async fn connecting_while_the_server_stops_is_refused() {
    let mut server = Postgres::start();
    let session = tokio_postgres_session(&server).await;
    server.stop_when_idle();
    for fault in connect_faults(&server.url()).await {
        assert_axes(fault, Unavailable, Refused, Unhealthy);
    }
    run(&session, "SELECT 1").await;
}

#[tokio::test]
async fn statement_during_shutdown_is_unavailable() {
    let mut server = Postgres::start();
    for index in 0..2 {
        let session = sessions(&server).await[index].clone();
        let call = tokio::spawn(session.oneshot("SELECT pg_sleep(600)"));
        wait_for_statement(&server, "pg_sleep").await;
        server.stop();
        let error = call.await.unwrap().unwrap_err();
        assert_axes(error.fault(), Unavailable, IfIdempotent, Unhealthy);
        server.restart();
    }
}

#[tokio::test]
async fn killed_server_breaks_statements_and_refuses_connections() {
    let mut server = Postgres::start();
    // tokio-postgres reports a closed connection without a cause.
    for (index, kind) in [Unknown, Transient].into_iter().enumerate() {
        let session = sessions(&server).await[index].clone();
        let call = tokio::spawn(session.oneshot("SELECT pg_sleep(600)"));
        wait_for_statement(&server, "pg_sleep").await;
        server.kill();
        let error = call.await.unwrap().unwrap_err();
        assert_axes(error.fault(), kind, IfIdempotent, Unhealthy);
        let [tokio_postgres, _] = connect_faults(&server.url()).await;
        assert_axes(tokio_postgres, Unavailable, Unsent, Unhealthy);
        server.restart();
    }
}

#[tokio::test]
async fn missing_row_is_healthy_with_sqlx() {
    let server = Postgres::start();
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let service = ServiceBuilder::new().layer(FaultClassifyLayer::new().rule(sqlx_rule)).service(service_fn(
        async |statement: &'static str| sqlx::query(statement).fetch_one(&pool).await.map(drop),
    ));
    let error = service.oneshot("SELECT 1 WHERE false").await.unwrap_err();
    assert_eq!(error.fault().health(), Healthy);
    assert_eq!(error.fault().retryable(), Never);
}
