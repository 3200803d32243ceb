//! A circuit for each shard of a database, for blocking queries on threads.
//!
//! The program uses neither tower nor an async runtime. One shard is down: its circuit opens, and
//! the queries to the other shards are not affected. The circuit of the archive has limits of its
//! own, so that it stays closed while the archive starts. The settings are in `settings.toml`.
//!
//! ```text
//! cargo run --example shards
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Deserialize;
use tower_breaker::fault_classify::{ErrorChain, classify_error};
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerError, Status, Verdict};
use tower_jitter_retry::RetryPolicy;

/// The settings file. It is compiled in so that the example needs no path. A service would call
/// `std::fs::read_to_string` instead.
const SETTINGS: &str = include_str!("settings.toml");

const SHARDS: [&str; 3] = ["archive", "eu", "us"];

const QUERIES: u32 = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    retry: RetryPolicy,
    shards: KeyedConfig,
}

/// A database in several shards, each with a connection pool and a circuit.
struct Database {
    pools: BTreeMap<&'static str, Pool>,
    circuits: KeyedCircuits<String>,
    retry: RetryPolicy,
}

impl Database {
    /// Runs a query on a shard, with retries, and returns the rows.
    fn query(&self, shard: &str, query: &'static str) -> Result<Vec<u32>, BreakerError<io::Error>> {
        // Rows are no HTTP response: only errors are classified. The circuit keeps the query with
        // the last failure.
        let guard = self.circuits.circuit(shard).errors_only().keep_last_failure(query);
        let run = || guard.call_blocking(|| self.pools[shard].query(query));
        self.retry.errors_only().retry_blocking(run)
    }

    /// Pings a shard, as the keep-alive of a pool does. No call runs through the circuit, but the
    /// outcome counts: that of a half-open circuit is a probe.
    fn keep_alive(&self, shard: &str) {
        let verdict = match self.pools[shard].ping() {
            Ok(()) => Verdict::Success,
            Err(error) => classify_error(&error).into(),
        };
        self.circuits.circuit(shard).record(verdict);
    }
}

/// Runs the queries of one shard, and returns how many were answered, failed and rejected.
fn run_queries(database: &Database, shard: &str) -> String {
    let (mut answered, mut failed, mut rejected) = (0, 0, 0);
    for _ in 0..QUERIES {
        match database.query(shard, "SELECT id FROM orders") {
            Ok(_rows) => answered += 1,
            Err(BreakerError::Rejected(_)) => rejected += 1,
            Err(error) => {
                failed += 1;
                println!("# {shard}: {}", ErrorChain(&error));
            }
        }
    }
    format!("{shard}: {answered} answered, {failed} failed, {rejected} rejected")
}

fn print_statuses(statuses: &[Status]) {
    for status in statuses {
        let shard = status.key.as_deref().unwrap_or("?");
        let failure = status.last_failure.as_ref();
        let failure =
            failure.map_or_else(|| "none".to_owned(), |last| format!("{}: {}", last.subject, last.message));
        println!("{shard} is {}, last failure: {failure}", status.state);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings: Settings = toml::from_str(SETTINGS)?;
    let database = Database {
        pools: SHARDS.map(|shard| (shard, Pool::new())).into(),
        circuits: KeyedCircuits::new(settings.shards),
        retry: settings.retry,
    };
    database.pools["us"].set_down(true);
    // The archive refuses its first connections.
    database.pools["archive"].refuse_connections(8);

    // One worker for each shard.
    let counts = thread::scope(|scope| {
        let workers = SHARDS.map(|shard| scope.spawn(|| run_queries(&database, shard)));
        workers.map(|worker| worker.join().expect("a worker does not panic"))
    });
    for count in counts {
        println!("{count}");
    }
    print_statuses(&database.circuits.statuses());

    // An operator has repaired the shard. The next keep-alive is the probe, and closes the circuit.
    database.pools["us"].set_down(false);
    database.circuits.circuit("us").probe_now()?;
    database.keep_alive("us");
    println!("us is {} after its repair", database.circuits.circuit("us").status().state);
    println!("us returns {} rows", database.query("us", "SELECT id FROM orders")?.len());
    Ok(())
}

// The rest simulates the database.

/// The connections to one shard.
struct Pool {
    idle: Mutex<Vec<Connection>>,
    is_down: AtomicBool,
    /// How many of the next connections are refused.
    refused: AtomicU32,
}

struct Connection;

impl Pool {
    fn new() -> Self {
        Self { idle: Mutex::default(), is_down: AtomicBool::new(false), refused: AtomicU32::new(0) }
    }

    fn query(&self, _query: &str) -> io::Result<Vec<u32>> {
        let connection = self.connection()?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(vec![7, 8])
    }

    fn ping(&self) -> io::Result<()> {
        self.query("SELECT 1").map(drop)
    }

    /// Returns an idle connection, or opens a new one.
    fn connection(&self) -> io::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if self.is_down.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        idle.map_or_else(|| self.connect(), Ok)
    }

    fn connect(&self) -> io::Result<Connection> {
        let refused = self.refused.load(Ordering::Relaxed);
        if refused > 0 {
            self.refused.store(refused - 1, Ordering::Relaxed);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(Connection)
    }

    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    fn refuse_connections(&self, count: u32) {
        self.refused.store(count, Ordering::Relaxed);
    }
}
