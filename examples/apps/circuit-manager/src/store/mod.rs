//! Stores of the states of circuits.
//!
//! | store | for |
//! |---|---|
//! | [`PostgresStore`] | a server; other programs can read the table |
//! | [`FileStore`] | a single machine without a database |
//! | [`MemoryStore`] | tests and demos |
//!
//! Each store belongs to one process: another process would overwrite its rows.

mod file;
mod memory;
mod postgres;
mod writer;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::serde::rfc3339;
use tower_breaker::CircuitState;
use tower_breaker::fault_classify::tables::sqlstate_fault;
use tower_breaker::fault_classify::{Fault, Health, Kind, Origin, Retryable};
use tower_breaker::snapshot::CircuitSnapshot;

pub use self::file::FileStore;
pub use self::memory::{MemoryStore, Outage};
pub use self::postgres::PostgresStore;
pub(crate) use self::writer::{Changes, GuardedStore};
pub use self::writer::{StateWriter, StoreStatus, WriterSettings};

use crate::stats::CircuitStats;

/// The fault of a store that cannot be reached. An upsert may be repeated.
const UNAVAILABLE: Fault =
    Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Transport);

/// The fault of a store that only an administrator can correct.
const UNUSABLE: Fault = Fault::new(Kind::Local, Retryable::Never, Health::Neutral, Origin::Local);

/// No process writes a number as large as this one. Larger numbers are those of other programs.
const WRITE_LIMIT: u64 = 1 << 62;

/// The row of an agent.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Row {
    /// The agent. The primary key.
    pub agent_id: String,
    /// The state of the circuit.
    pub state: CircuitState,
    /// The failed calls: see [`Counts`](crate::stats::Counts).
    pub failure_count: u64,
    /// The successful calls.
    pub success_count: u64,
    /// When a call failed the last time.
    #[serde(with = "rfc3339::option")]
    pub last_failure_at: Option<OffsetDateTime>,
    /// When the state changed the last time.
    #[serde(with = "rfc3339")]
    pub last_state_change_at: OffsetDateTime,
    /// [`CircuitStats`], the circuit's [`CircuitSnapshot`] in the field `snapshot`, and the number
    /// of the write in the field `write`.
    ///
    /// A row does not replace one with a larger number. A statement that has timed out may run
    /// later, after newer statements.
    pub metadata: Value,
}

impl Row {
    /// Creates the row of an agent, with the number of the write.
    ///
    /// # Errors
    ///
    /// Returns an error if the snapshot cannot be expressed as JSON.
    pub fn new(
        stats: &CircuitStats,
        last_state_change_at: OffsetDateTime,
        snapshot: &CircuitSnapshot,
        write: u64,
    ) -> Result<Self, serde_json::Error> {
        let mut metadata = serde_json::to_value(stats)?;
        metadata["write"] = write.into();
        metadata["snapshot"] = serde_json::to_value(snapshot)?;
        Ok(Self {
            agent_id: stats.name.clone(),
            state: stats.state,
            failure_count: stats.stats.failed_requests,
            success_count: stats.stats.successful_requests,
            last_failure_at: stats.last_failure_time,
            last_state_change_at,
            metadata,
        })
    }

    /// Returns the number of the write. 0: `metadata` has none below 2^62.
    pub fn write(&self) -> u64 {
        write_of(&self.metadata)
    }

    /// Returns the statistics in `metadata`.
    ///
    /// # Errors
    ///
    /// Returns an error if `metadata` has no statistics.
    pub fn stats(&self) -> Result<CircuitStats, serde_json::Error> {
        CircuitStats::deserialize(&self.metadata)
    }

    /// Returns the snapshot in `metadata`.
    ///
    /// # Errors
    ///
    /// Returns an error if `metadata` has no snapshot.
    pub fn snapshot(&self) -> Result<CircuitSnapshot, serde_json::Error> {
        CircuitSnapshot::deserialize(&self.metadata["snapshot"])
    }
}

fn write_of(metadata: &Value) -> u64 {
    metadata["write"].as_u64().filter(|write| *write < WRITE_LIMIT).unwrap_or(0)
}

/// Inserts rows, and replaces those of the same agents that are not newer.
fn upsert_into(rows: &mut BTreeMap<String, Row>, new: &[Row]) {
    for row in new {
        if rows.get(&row.agent_id).is_none_or(|old| old.write() <= row.write()) {
            rows.insert(row.agent_id.clone(), row.clone());
        }
    }
}

/// A store of the states of circuits. A clone is another handle to the same store.
#[derive(Clone, Debug)]
pub enum Store {
    /// A table of PostgreSQL.
    Postgres(PostgresStore),
    /// A file.
    File(FileStore),
    /// The memory of this process.
    Memory(MemoryStore),
}

impl Store {
    /// Returns the store in the table `circuit_breaker_state` of a PostgreSQL database.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is not valid.
    pub fn postgres(url: &str) -> Result<Self, StoreError> {
        Ok(Self::Postgres(PostgresStore::new(url)?))
    }

    /// Returns the store in a JSON file, which is created by the first write.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(FileStore::new(path.into()))
    }

    /// Creates the table if it is missing, or locks the file for this process.
    ///
    /// The lock is in a file of the same name that ends in `.lock`. It ends with the last handle to
    /// the store, or with the process.
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot be used.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(store) => store.migrate().await,
            Self::File(store) => store.lock().await,
            Self::Memory(store) => store.check().await,
        }
    }

    /// Returns all rows, sorted by agent.
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot be read.
    pub async fn load(&self) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Postgres(store) => store.load().await,
            Self::File(store) => store.load().await,
            Self::Memory(store) => store.load().await,
        }
    }

    /// Returns the rows, and the largest number of a [write](Row::write), also of rows that cannot
    /// be used.
    async fn load_with_last_write(&self) -> Result<(Vec<Row>, u64), StoreError> {
        if let Self::Postgres(store) = self {
            return store.load_with_last_write().await;
        }
        let rows = self.load().await?;
        let last_write = rows.iter().map(Row::write).max().unwrap_or(0);
        Ok((rows, last_write))
    }

    /// Inserts rows, or replaces the rows of the same agents, in one statement.
    ///
    /// A row does not replace one with a larger number of its [write](Row::write).
    ///
    /// # Errors
    ///
    /// Returns an error if the rows may not have been written.
    pub async fn upsert(&self, rows: &[Row]) -> Result<(), StoreError> {
        match self {
            Self::Postgres(store) => store.upsert(rows).await,
            Self::File(store) => store.upsert(rows).await,
            Self::Memory(store) => store.upsert(rows).await,
        }
    }

    /// Checks that the store can be reached.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot.
    pub async fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(store) => store.check().await,
            Self::File(store) => store.check().await,
            Self::Memory(store) => store.check().await,
        }
    }
}

/// The error of a [`Store`].
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL of the database is not valid. The text does not contain the URL, which may have a
    /// password.
    Url(tokio_postgres::Error),
    /// TLS cannot be used.
    #[non_exhaustive]
    Tls {
        /// The problem, and the next step.
        problem: String,
    },
    /// PostgreSQL has refused a statement, or cannot be reached.
    Postgres(tokio_postgres::Error),
    /// A column of the table has another type.
    #[non_exhaustive]
    Column {
        /// The column.
        column: String,
        /// The types.
        source: tokio_postgres::Error,
    },
    /// A row of the table has a value that this program does not write.
    #[non_exhaustive]
    Row {
        /// The agent of the row.
        agent_id: String,
        /// The problem.
        problem: String,
    },
    /// The file cannot be read or written.
    #[non_exhaustive]
    Io {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: io::Error,
    },
    /// Another process uses the file, or another store of this process.
    #[non_exhaustive]
    Used {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged.
    #[non_exhaustive]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: serde_json::Error,
    },
    /// A [`MemoryStore`] refuses, because a test has set an [`Outage`].
    Outage,
}

impl StoreError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// Returns whether PostgreSQL has rejected a value: a value is too long, or violates a
    /// constraint of the table.
    pub(crate) fn is_rejection(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code().is_some_and(|code| code.code().starts_with("22") || code.code().starts_with("23"))
    }

    /// Returns the fault of the error: what it says about the store, and about a retry.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Postgres(error) => {
                let code = error.code().and_then(|code| sqlstate_fault(code.code()));
                // Errors without a code are those of the connection.
                code.unwrap_or(UNAVAILABLE)
            }
            Self::Io { .. } | Self::Outage => UNAVAILABLE,
            Self::Url(_)
            | Self::Tls { .. }
            | Self::Column { .. }
            | Self::Row { .. }
            | Self::Used { .. }
            | Self::Damaged { .. } => UNUSABLE,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("the URL of the database is not valid"),
            Self::Tls { problem } => write!(f, "PostgreSQL cannot be used with TLS: {problem}"),
            Self::Postgres(_) => f.write_str("PostgreSQL does not store the states of circuits"),
            Self::Column { column, .. } => {
                write!(
                    f,
                    "column `{column}` of the table `circuit_breaker_state` has another type; change \
                     its type, or remove the table"
                )
            }
            Self::Row { agent_id, problem } => {
                write!(f, "the row of agent `{}` cannot be used: {problem}", agent_id.escape_debug())
            }
            Self::Io { path, .. } => write!(f, "the file {} cannot be read or written", path.display()),
            Self::Used { path } => write!(
                f,
                "the file {} is used by another process; stop that process, or choose another file",
                path.display()
            ),
            Self::Damaged { path, .. } => {
                write!(
                    f,
                    "the file {} is damaged; repair it, or remove it to start without states",
                    path.display()
                )
            }
            Self::Outage => f.write_str("the store in memory refuses"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Url(error) | Self::Postgres(error) => Some(error),
            Self::Column { source, .. } => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::Damaged { source, .. } => Some(source),
            Self::Tls { .. } | Self::Row { .. } | Self::Used { .. } | Self::Outage => None,
        }
    }
}
