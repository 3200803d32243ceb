//! The database worker example, with servers that stop and start while it runs.

#[path = "../../../examples/database_worker/main.rs"]
#[expect(dead_code, reason = "the tests run `main` as a program")]
mod example;

use std::ops::RangeInclusive;

use example::Servers;
use integration_tests::{example_command, output_of};
use test_servers::{Postgres, Redis};
use tokio_stream::StreamExt;
use tower_breaker::CircuitState;
use tower_breaker::telemetry::Transitions;

use crate::postgres::connect;

/// The jobs of the test.
const JOBS: RangeInclusive<i64> = 1..=400;

/// A Redis server that keeps its data when it is killed.
fn durable_redis() -> Redis {
    Redis::start_with(&["appendonly yes", "appendfsync always"])
}

/// Waits until the table has this many jobs.
async fn wait_for_jobs(postgres: &Postgres, count: i64) {
    let client = connect(&postgres.url()).await.unwrap();
    let query = "SELECT count(*) FROM database_worker_jobs";
    while client.query_one(query, &[]).await.unwrap().get::<_, i64>(0) < count {
        tokio::task::yield_now().await;
    }
}

/// Waits until the circuit is in this state.
async fn wait_for_state(transitions: &mut Transitions, state: CircuitState) {
    while transitions.next().await.expect("the circuit exists").unwrap().to != state {}
}

/// Asserts that each job is in the table once, was counted once, and is no longer in Redis.
async fn assert_recorded_once(servers: &Servers, postgres: &Postgres, redis: &Redis) {
    let client = connect(&postgres.url()).await.unwrap();
    let rows = client.query("SELECT id FROM database_worker_jobs ORDER BY id", &[]).await.unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids, JOBS.collect::<Vec<_>>());
    assert_eq!(servers.recorded().await.unwrap(), (*JOBS.end(), *JOBS.end()));

    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_with_restarted_servers_records_each_job_once() {
    let (mut postgres, mut redis) = (Postgres::start(), durable_redis());
    let servers = Servers::connect(&postgres.url(), &redis.url()).await.unwrap();
    servers.enqueue(JOBS.collect()).await.unwrap();
    let mut postgres_states = servers.postgres_guard.circuit.transitions();
    let mut redis_states = servers.redis_guard.circuit.transitions();
    let work = tokio::spawn({
        let servers = servers.clone();
        async move { servers.work().await }
    });

    wait_for_jobs(&postgres, 50).await;
    postgres.kill();
    wait_for_state(&mut postgres_states, CircuitState::Open).await;
    postgres.restart();
    wait_for_state(&mut postgres_states, CircuitState::Closed).await;

    wait_for_jobs(&postgres, 150).await;
    redis.kill();
    wait_for_state(&mut redis_states, CircuitState::Open).await;
    redis.restart_with(&[]);
    wait_for_state(&mut redis_states, CircuitState::Closed).await;

    wait_for_jobs(&postgres, 250).await;
    postgres.stop();
    redis.stop();
    postgres.restart();
    redis.restart_with(&[]);

    work.await.unwrap().unwrap();
    assert_recorded_once(&servers, &postgres, &redis).await;
}

#[test]
fn worker_program_records_all_jobs() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let mut program = example_command("database_worker");
    program.env("DATABASE_URL", postgres.url()).env("REDIS_URL", redis.url());
    let output = output_of("database_worker", &mut program);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("400 jobs are recorded, and the total is 400\n"), "{text}");
}

#[test]
fn worker_program_without_server_names_variable_and_example() {
    let mut program = example_command("database_worker");
    program.env_remove("DATABASE_URL").env_remove("REDIS_URL");
    let output = output_of("database_worker", &mut program);
    assert!(!output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let problem = "set DATABASE_URL to the URL of a server, such as postgresql://";
    assert!(text.contains(problem), "{text}");
}
