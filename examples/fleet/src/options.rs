//! The command line.

use std::path::PathBuf;

use clap::Parser;
use tower_breaker_fleet::{FileStore, Fleet, FleetBuilder, FleetError, PostgresStore, RedisStore};

/// Shares a circuit with the other processes that use the same store.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    #[command(flatten)]
    store: Store,
    /// The name of this process in the fleet. A process that restarts should keep its name.
    #[arg(long, default_value_t = format!("process-{}", std::process::id()))]
    pub(crate) instance: String,
    /// The simulated backend: it is down while this file exists.
    #[arg(long, value_name = "FILE", default_value_os_t = std::env::temp_dir().join("fleet-example-backend-is-down"))]
    pub(crate) backend: PathBuf,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Store {
    /// Share files in this folder, with the processes of this machine.
    #[arg(long, value_name = "FOLDER")]
    file: Option<PathBuf>,
    /// Share a Redis or Valkey server: `redis://127.0.0.1:6379`
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Share a PostgreSQL database, and create the tables: `postgres://user@localhost/database`
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

impl Options {
    pub(crate) fn from_arguments() -> Self {
        Self::parse()
    }

    /// Returns the builder of the fleet that shares the chosen store.
    pub(crate) async fn fleet(&self) -> Result<FleetBuilder, FleetError> {
        let Store { file, redis, postgres } = &self.store;
        if let Some(folder) = file {
            return Ok(Fleet::builder(FileStore::open(folder)?));
        }
        if let Some(url) = redis {
            return Ok(Fleet::builder(RedisStore::open(url)?));
        }
        let url = postgres.as_deref().expect("one store is required");
        let store = PostgresStore::open(url)?;
        store.migrate().await?;
        Ok(Fleet::builder(store.listen_at(url)?))
    }
}
