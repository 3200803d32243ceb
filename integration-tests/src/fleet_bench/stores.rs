//! The stores that the benchmark starts.

use anyhow::Result;
use clap::ValueEnum;
use tempfile::TempDir;
use test_servers::{FaultyProxy, PgBouncer, Postgres, Redis};
use tower_breaker_fleet::{FileStore, Fleet, FleetBuilder, MemoryStore, PostgresStore, RedisStore};

use crate::fleet_bench::protocol::StoreAddress;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// Within one worker process.
    Memory,
    File,
    Redis,
    Postgres,
    /// PostgreSQL behind PgBouncer; updates come from the server itself.
    Pgbouncer,
}

impl StoreKind {
    /// Whether the clients can be spread over several processes.
    pub(crate) fn is_shared(self) -> bool {
        self != Self::Memory
    }
}

/// A store that runs until it is dropped.
#[derive(Debug)]
pub(crate) enum Store {
    Memory,
    File(TempDir),
    Redis(Redis),
    Postgres(Postgres),
    Pgbouncer(PgBouncer, Postgres),
}

impl Store {
    /// Starts an empty store.
    pub(crate) async fn start(kind: StoreKind) -> Result<Self> {
        let postgres = || Postgres::start_with(&["max_connections=1200", "shared_buffers=64MB"]);
        let store = match kind {
            StoreKind::Memory => Self::Memory,
            StoreKind::File => Self::File(TempDir::with_prefix("fleet-")?),
            StoreKind::Redis => Self::Redis(Redis::start()),
            StoreKind::Postgres => Self::Postgres(postgres()),
            StoreKind::Pgbouncer => {
                let server = postgres();
                Self::Pgbouncer(PgBouncer::start(&server), server)
            }
        };
        if let Self::Postgres(server) | Self::Pgbouncer(_, server) = &store {
            PostgresStore::open(&server.url())?.migrate().await?;
        }
        Ok(store)
    }

    pub(crate) fn address(&self) -> StoreAddress {
        match self {
            Self::Memory => StoreAddress::Memory,
            Self::File(folder) => StoreAddress::File(folder.path().to_owned()),
            Self::Redis(server) => StoreAddress::Redis(server.url()),
            Self::Postgres(server) => StoreAddress::Postgres { url: server.url(), listen_at: server.url() },
            Self::Pgbouncer(pool, server) => {
                StoreAddress::Postgres { url: pool.url(), listen_at: server.url() }
            }
        }
    }

    /// Starts a proxy in front of a server. `None`: the store is no server.
    pub(crate) async fn proxy(&self) -> Option<FaultyProxy> {
        match self {
            Self::Memory | Self::File(_) => None,
            Self::Redis(server) => Some(FaultyProxy::start(server).await),
            Self::Postgres(server) => Some(FaultyProxy::start(server).await),
            Self::Pgbouncer(pool, _) => Some(FaultyProxy::start(pool).await),
        }
    }

    /// Returns the address of the store behind its proxy.
    pub(crate) fn address_behind(&self, proxy: &FaultyProxy) -> StoreAddress {
        let address = proxy.address();
        match self {
            Self::Memory | Self::File(_) => self.address(),
            Self::Redis(_) => StoreAddress::Redis(format!("redis://{address}")),
            Self::Postgres(server) => {
                StoreAddress::Postgres { url: server.url_at(address), listen_at: server.url_at(address) }
            }
            Self::Pgbouncer(_, server) => {
                StoreAddress::Postgres { url: server.url_at(address), listen_at: server.url() }
            }
        }
    }

    /// Stops a server (SIGSTOP).
    pub(crate) fn pause(&mut self) {
        match self {
            Self::Memory | Self::File(_) => {}
            Self::Redis(server) => server.pause(),
            Self::Postgres(server) | Self::Pgbouncer(_, server) => server.pause(),
        }
    }

    /// Continues a stopped server (SIGCONT).
    pub(crate) fn resume(&mut self) {
        match self {
            Self::Memory | Self::File(_) => {}
            Self::Redis(server) => server.resume(),
            Self::Postgres(server) | Self::Pgbouncer(_, server) => server.resume(),
        }
    }

    /// Kills a server (SIGKILL).
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Memory | Self::File(_) => {}
            Self::Redis(server) => server.kill(),
            Self::Postgres(server) | Self::Pgbouncer(_, server) => server.kill(),
        }
    }

    /// Returns the number of commands that clients have sent to a Redis server since its start.
    ///
    /// The server also counts the commands that scripts run. So this adds up those that a client
    /// sends.
    pub(crate) fn commands(&self) -> Option<u64> {
        let Self::Redis(server) = self else { return None };
        let statistics = server.command("INFO commandstats");
        let sent = statistics.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let is_sent = matches!(name, "eval" | "evalsha" | "fcall" | "hello" | "ping" | "subscribe");
            is_sent.then(|| rest.split(',').next()?.parse::<u64>().ok())?
        });
        Some(sent.sum())
    }
}

/// Returns a builder of a fleet whose store has the address.
pub(crate) fn fleet(store: &StoreAddress, memory: &MemoryStore) -> Result<FleetBuilder> {
    Ok(match store {
        StoreAddress::Memory => Fleet::builder(memory.clone()),
        StoreAddress::File(folder) => Fleet::builder(FileStore::open(folder)?),
        StoreAddress::Redis(url) => Fleet::builder(RedisStore::open(url)?),
        StoreAddress::Postgres { url, listen_at } => {
            Fleet::builder(PostgresStore::open(url)?.listen_at(listen_at)?)
        }
    })
}
