//! Workers that move jobs from Redis into PostgreSQL, and record each job exactly once.
//!
//! The servers may stop and start at any time:
//!
//! - A job stays in a list of Redis until its transaction is committed. A worker that starts again
//!   continues with its own list.
//! - A retry runs the whole transaction again, after a serialization failure (40001), a deadlock
//!   (40P01) or a broken connection.
//! - The table has a unique key. If the response to a COMMIT is lost, the next attempt gets a
//!   unique violation (23505): the job is already recorded.
//! - Each server has a circuit. While a server is down or starts (57P03, LOADING), its circuit is
//!   open, and the workers wait.
//!
//! It needs both servers, and creates two tables and a few lists in them:
//!
//! ```text
//! DATABASE_URL=postgresql://postgres:secret@localhost/postgres REDIS_URL=redis://localhost \
//!     cargo run --example database_worker
//! ```

use std::env;
use std::time::Duration;

use anyhow::Context;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Direction, RedisError};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::task::JoinSet;
use tower_breaker::fault_classify::tables::{redis_fault, sqlstate_fault};
use tower_breaker::fault_classify::{Fault, Retryable};
use tower_breaker::{BreakerConfig, Circuit, Verdict};
use tower_jitter_retry::RetryPolicy;

const WORKER_COUNT: u32 = 4;
const JOB_COUNT: i64 = 400;

/// The list of the jobs that no worker has taken.
const QUEUE: &str = "database_worker:queue";

/// The time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest wait of a worker after an error.
const PAUSE: Duration = Duration::from_millis(50);

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS database_worker_jobs (id bigint PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS database_worker_total (id int PRIMARY KEY, jobs bigint NOT NULL);
    INSERT INTO database_worker_total VALUES (1, 0) ON CONFLICT DO NOTHING;
";

/// A job. It is only a number here. A service would store JSON.
type Job = i64;

/// The circuit and the retry policy of one server. Its clones share both.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) circuit: Circuit,
    policy: RetryPolicy,
}

impl Guard {
    fn new(server: &'static str) -> anyhow::Result<Self> {
        let config = BreakerConfig::builder()
            .name(server)
            // Four workers make few calls: a failure rate would need many.
            .consecutive_failures(5)
            .consecutive_failures_span(Duration::ZERO)
            .count_failed_retries(true)
            .failure_rate(None)
            .open_for(Duration::from_millis(500))
            .build()?;
        let circuit = Circuit::new(config);
        circuit.on_transition(|transition| {
            println!("# {}: {} -> {}", transition.circuit, transition.from, transition.to);
        });
        // Conflicts between transactions need no long wait.
        let policy = RetryPolicy::builder().initial_backoff(Duration::from_millis(10)).build()?;
        Ok(Self { circuit, policy })
    }

    /// Runs an operation until it succeeds, the circuit is open, or no retry is left.
    ///
    /// Each attempt calls the closure again.
    async fn run<T, F>(&self, operation: impl Fn() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let guard = self.circuit.errors_only().rule(database_rule);
        let retry = self.policy.errors_only().rule(database_rule);
        retry.retry(|| guard.call_within(TIMEOUT, operation())).await
    }
}

/// Classifies the errors of both servers by their codes.
fn database_rule<T>(outcome: Result<&T, &anyhow::Error>) -> Option<Verdict> {
    server_fault(outcome.err()?).map(Verdict::Fault)
}

/// Returns the fault of an error that a server has sent.
fn server_fault(error: &anyhow::Error) -> Option<Fault> {
    if let Some(sqlx::Error::Database(error)) = error.downcast_ref() {
        return sqlstate_fault(&error.code()?);
    }
    let error = error.downcast_ref::<RedisError>()?;
    redis_fault(&format!("{} {}", error.code()?, error.detail().unwrap_or_default()))
}

/// The connections to both servers, and their guards.
#[derive(Clone)]
pub(crate) struct Servers {
    pool: PgPool,
    redis: ConnectionManager,
    pub(crate) postgres_guard: Guard,
    pub(crate) redis_guard: Guard,
}

impl Servers {
    /// Connects to both servers, and creates the tables.
    pub(crate) async fn connect(database_url: &str, redis_url: &str) -> anyhow::Result<Self> {
        // The pool itself waits for a server that refuses connections. The circuit should see this
        // failure early.
        let pool = PgPoolOptions::new().max_connections(WORKER_COUNT).acquire_timeout(Duration::from_secs(1));
        let pool = pool.connect(database_url).await.context("PostgreSQL at DATABASE_URL")?;
        sqlx::raw_sql(TABLES).execute(&pool).await.context("the tables")?;

        // The manager connects again after a failure. The circuit decides when.
        let config = ConnectionManagerConfig::new().set_number_of_retries(0);
        let client = redis::Client::open(redis_url).context("REDIS_URL")?;
        let redis = client.get_connection_manager_with_config(config).await.context("Redis at REDIS_URL")?;
        Ok(Self { pool, redis, postgres_guard: Guard::new("postgres")?, redis_guard: Guard::new("redis")? })
    }

    /// Adds jobs to the queue. A job that is added twice is recorded once.
    pub(crate) async fn enqueue(&self, jobs: Vec<Job>) -> anyhow::Result<()> {
        let _length: i64 = self.redis.clone().rpush(QUEUE, jobs).await?;
        Ok(())
    }

    /// Runs the workers until all jobs are recorded.
    pub(crate) async fn work(&self) -> anyhow::Result<()> {
        let mut workers = JoinSet::new();
        for number in 1..=WORKER_COUNT {
            let worker = Worker { servers: self.clone(), taken: format!("database_worker:taken:{number}") };
            workers.spawn(async move { worker.run().await });
        }
        while let Some(result) = workers.join_next().await {
            result??;
        }
        Ok(())
    }

    /// Returns the number of recorded jobs, and the total that the transactions have counted.
    pub(crate) async fn recorded(&self) -> anyhow::Result<(i64, i64)> {
        let query = "SELECT (SELECT count(*) FROM database_worker_jobs), jobs FROM database_worker_total";
        Ok(sqlx::query_as(query).fetch_one(&self.pool).await?)
    }
}

/// One worker.
struct Worker {
    servers: Servers,
    /// The list of the job that this worker has taken. No other worker uses it.
    taken: String,
}

impl Worker {
    /// Records jobs until none is left.
    async fn run(&self) -> anyhow::Result<()> {
        loop {
            match self.record_next().await {
                Ok(true) => (),
                // A service would wait for the next job here.
                Ok(false) => return Ok(()),
                // The job is still in the list of this worker.
                Err(error) => pause(error, &self.servers).await?,
            }
        }
    }

    /// Moves one job from the queue to the table. Returns `false` if there is no job.
    ///
    /// Each of the three steps may be repeated, so that an error of any step loses no job.
    async fn record_next(&self) -> anyhow::Result<bool> {
        let Servers { postgres_guard, redis_guard, .. } = &self.servers;
        let Some(job) = redis_guard.run(|| self.take()).await? else {
            return Ok(false);
        };
        postgres_guard.run(|| self.record(job)).await?;
        redis_guard.run(|| self.remove(job)).await?;
        Ok(true)
    }

    /// Moves a job from the queue to the list of this worker.
    async fn take(&self) -> anyhow::Result<Option<Job>> {
        let mut redis = self.servers.redis.clone();
        // A job that was taken before, by this worker or by an attempt whose response was lost.
        if let Some(job) = redis.lindex(&self.taken, 0).await? {
            return Ok(Some(job));
        }
        Ok(redis.lmove(QUEUE, &self.taken, Direction::Left, Direction::Right).await?)
    }

    /// Records a job in one transaction.
    async fn record(&self, job: Job) -> anyhow::Result<()> {
        let mut transaction = self.servers.pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
        let insert = sqlx::query("INSERT INTO database_worker_jobs VALUES ($1)").bind(job);
        match insert.execute(&mut *transaction).await {
            // The job is already recorded. Dropping the transaction rolls it back.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(()),
            result => result?,
        };
        // The workers conflict here: all of them change this row.
        let select = sqlx::query_scalar("SELECT jobs FROM database_worker_total");
        let jobs: i64 = select.fetch_one(&mut *transaction).await?;
        let update = sqlx::query("UPDATE database_worker_total SET jobs = $1").bind(jobs + 1);
        update.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Removes a recorded job from the list of this worker.
    async fn remove(&self, job: Job) -> anyhow::Result<()> {
        let _removed: i64 = self.servers.redis.clone().lrem(&self.taken, 0, job).await?;
        Ok(())
    }
}

/// Waits after an error, as long as a circuit is open.
///
/// # Errors
///
/// Returns the error if a wait does not help, such as a wrong password or a missing table.
async fn pause(error: anyhow::Error, servers: &Servers) -> anyhow::Result<()> {
    if server_fault(&error).is_some_and(|fault| fault.retryable() == Retryable::Never) {
        return Err(error);
    }
    println!("{error}");
    tokio::time::sleep(PAUSE).await;
    servers.redis_guard.circuit.ready().await;
    servers.postgres_guard.circuit.ready().await;
    Ok(())
}

/// Returns the value of a variable, or an error that shows how to set it.
fn variable(name: &str, example: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("set {name} to the URL of a server, such as {example}"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let database_url = variable("DATABASE_URL", "postgresql://postgres:secret@localhost/postgres")?;
    let redis_url = variable("REDIS_URL", "redis://localhost")?;
    let servers = Servers::connect(&database_url, &redis_url).await?;
    servers.enqueue((1..=JOB_COUNT).collect()).await?;
    servers.work().await?;
    let (jobs, total) = servers.recorded().await?;
    println!("{jobs} jobs are recorded, and the total is {total}");
    Ok(())
}
