//! Retries and a circuit breaker around a real database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::PgPool;
use test_servers::Postgres;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, CircuitState};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, RequestInfo, RetryPolicy};

use crate::postgres::connect;
use crate::rules::{sqlx_rule, tokio_postgres_rule};

/// Adds to the account, which must not happen twice.
#[derive(Clone)]
struct Deposit(i64);

impl RequestInfo for Deposit {
    fn is_idempotent(&self) -> bool {
        false
    }
}

async fn balance(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT balance FROM account").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn transaction_that_is_not_idempotent_is_retried_after_conflict() {
    let server = Postgres::start();
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let table = "CREATE TABLE account (balance bigint); INSERT INTO account VALUES (0)";
    sqlx::raw_sql(table).execute(&pool).await.unwrap();

    let attempts = AtomicUsize::new(0);
    let deposit = async |Deposit(amount)| {
        let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
        let select = sqlx::query_scalar("SELECT balance FROM account");
        let balance: i64 = select.fetch_one(&mut *transaction).await?;
        if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
            // Another session changes the row that this transaction has read.
            sqlx::raw_sql("UPDATE account SET balance = 100").execute(&pool).await?;
        }
        let update = sqlx::query("UPDATE account SET balance = $1").bind(balance + amount);
        update.execute(&mut *transaction).await?;
        transaction.commit().await
    };
    let policy = RetryPolicy::builder().initial_backoff(Duration::from_millis(1)).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy).clone_requests())
        .layer(FaultClassifyLayer::new().rule(sqlx_rule))
        .service(service_fn(deposit));

    stack.oneshot(Deposit(1)).await.unwrap();
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
    assert_eq!(balance(&pool).await, 101);
}

#[tokio::test]
async fn circuit_opens_on_overload_and_not_on_unique_violations() {
    let server = Postgres::start();
    let config = BreakerConfig::builder().consecutive_failures(3).consecutive_failures_span(Duration::ZERO);
    let breaker = BreakerLayer::new(config.build().unwrap());
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(breaker)
        .layer(FaultClassifyLayer::new().rule(tokio_postgres_rule))
        .service(service_fn(async |statement: &str| {
            connect(&server.url()).await?.batch_execute(statement).await
        }));

    let client = connect(&server.url()).await.unwrap();
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    for _ in 0..5 {
        stack.clone().oneshot("INSERT INTO t VALUES (1)").await.unwrap_err();
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);

    // The sessions of the calls above may still be ending, so the limit is reached by an error.
    let mut clients = vec![client];
    while let Ok(client) = connect(&server.url()).await {
        clients.push(client);
    }
    for _ in 0..3 {
        stack.clone().oneshot("SELECT 1").await.unwrap_err();
    }
    assert_eq!(circuit.status().state, CircuitState::Open);
}
