//! A store in Redis or Valkey.
//!
//! `scripts/` has the rules of `rules` in Lua. `script` sends them, and `wire` reads the replies.
//! All keys of a namespace have one hash tag, so the same scripts run in a cluster.

mod address;
mod cluster;
mod connection;
mod error;
mod keys;
mod script;
mod session;
#[cfg(all(test, unix))]
mod tests;
#[cfg(feature = "redis-tls")]
mod tls;
mod updates;
mod wire;

use std::time::Duration;

use redis::cmd;
use tokio::time::Instant;
use tower_breaker::ConfigError;

use self::address::Address;
use self::connection::Connection;
use self::keys::Keys;
use self::session::{CHECK_SUBSCRIPTION_EVERY, RedisSession};
use super::{Backend, Session, StoreError, StoreFuture};
use crate::error::FleetError;

/// A store in Redis (6.2 or later) or Valkey; in a cluster, Redis 7.0 or later.
///
/// Each agent has two connections: one for commands and one for updates. Both end at the first
/// error, and the agent connects again. Scripts hold the rules, and their time is the server's.
///
/// # Keys
///
/// All keys begin with `tb1:{namespace}`, and so does the name of the channel. Braces and `%` of
/// the namespace are percent-encoded. The databases of a server share nothing. In a cluster one
/// node has all keys of a namespace: spread large fleets over several namespaces.
///
/// | key | type | content | expires |
/// |---|---|---|---|
/// | `…:c:CIRCUIT` | hash | the record | after the open time and the grace; never while an override or an open time without an end is in force |
/// | `…:m:CIRCUIT` | sorted set | the processes that use the circuit, and their latest success | after two lifetimes |
/// | `…:v:CIRCUIT` | sorted set | the processes that vote | after a lifetime |
/// | `…:f:CIRCUIT` | hash | when the consecutive failures of processes happened | after a lifetime |
/// | `…:p:CIRCUIT` | hash | leases of probes | after two lease lengths |
/// | `…:l:CIRCUIT` | sorted set | the open time of each process that is open on local evidence | after the longest one |
/// | `…:names`, `…:expiries` | sorted set | the names of circuits with a record | never; changes remove old names |
///
/// The store needs no persistence. If it loses its data, or evicts keys, the processes write the
/// records again with their next heartbeats.
///
/// # Permissions
///
/// A user with an access control list needs this, without `+ssubscribe`, `+spublish` and
/// `+cluster|slots` before Redis 7.0:
///
/// ```text
/// ACL SETUSER fleet on >PASSWORD ~tb1:* &tb1:* +ping +eval +evalsha +time
///     +subscribe +ssubscribe +publish +spublish +hset +hget +hmget +hgetall +hdel
///     +zadd +zrem +zcard +zcount +zscore +zrangebyscore +zrangebylex +zremrangebyscore
///     +del +pttl +pexpire +pexpireat +persist +cluster|slots
/// ```
///
/// A database other than 0 also needs `+select`.
///
/// # Updates
///
/// Up to 4,096 updates wait for the agent. If one more arrives, the session ends with an error, and
/// the agent connects and synchronizes again. So no update is dropped without notice.
#[derive(Clone, Debug)]
pub struct RedisStore {
    /// One server, or at least one node of a cluster.
    servers: Vec<Address>,
    is_cluster: bool,
    check_subscription_every: Duration,
}

impl RedisStore {
    /// Returns a store in one server, such as `redis://fleet:password@redis.example.com:6379`.
    ///
    /// It connects later. These URLs work:
    ///
    /// - `redis://user:password@host:port/database`
    /// - `rediss://user:password@host:port/database` with TLS. It needs the feature `redis-tls` and
    ///   a crypto provider of rustls that the process has installed, or that a feature of rustls
    ///   selects. The system's certificates are used, those of the variable `SSL_CERT_FILE`, or
    ///   those of [`root_certificates`](Self::root_certificates). The store has no client
    ///   certificate: set `tls-auth-clients no` in the server.
    /// - `redis+unix:///path?user=user&pass=password&db=database`
    ///
    /// `valkey://`, `valkeys://` and `valkey+unix://` mean the same.
    ///
    /// # Errors
    ///
    /// Returns [`FleetError::Invalid`] for another URL. Its text has no password.
    pub fn open(url: &str) -> Result<Self, FleetError> {
        Ok(Self::new(vec![Address::parse(url)?], false))
    }

    /// Returns a store in a cluster. The URLs, as of [`open`](Self::open), are of some of its
    /// nodes.
    ///
    /// Each connection first asks these nodes in turn for the node of the namespace, and the next
    /// one also if one is silent. If the keys of the namespace move to another node, the agent
    /// connects to that one. While they move, the store is as if it were down.
    ///
    /// # Errors
    ///
    /// Returns [`FleetError::Invalid`] without a URL, for a URL of another kind, and for a database
    /// other than 0.
    pub fn cluster(urls: &[&str]) -> Result<Self, FleetError> {
        let servers: Result<Vec<_>, _> = urls.iter().map(|url| Address::parse(url)).collect();
        let servers = servers?;
        if servers.is_empty() {
            return Err(ConfigError::new("urls", "empty", "at least one node of the cluster").into());
        }
        if let Some(server) = servers.iter().find(|server| server.database() != 0) {
            let value = format_args!("`{}`", server.shown());
            return Err(ConfigError::new("urls", value, "database 0, the only one of a cluster").into());
        }
        Ok(Self::new(servers, true))
    }

    /// Sets the root certificates of the server: a file in the format PEM. The default are the
    /// certificates of the system.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or has no certificate, and for a URL without
    /// TLS.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificates(self, file: impl AsRef<std::path::Path>) -> Result<Self, FleetError> {
        let file = file.as_ref();
        if let Some(plain) = self.servers.iter().find(|server| !server.uses_tls()) {
            let value = format_args!("set for `{}`", plain.shown());
            return Err(ConfigError::new("root_certificates", value, "URLs with `rediss://`").into());
        }
        let invalid = |problem: String| {
            let value = format_args!("{}: {problem}", file.display());
            ConfigError::new("root_certificates", value, "a file with certificates in the format PEM")
        };
        let pem = std::fs::read(file).map_err(|error| invalid(error.to_string()))?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(invalid("it has no certificate".to_owned()).into());
        }
        let servers = self.servers.iter().map(|server| server.with_roots(&pem));
        let servers = servers.collect::<Result<_, _>>().map_err(invalid)?;
        Ok(Self { servers, ..self })
    }

    fn new(servers: Vec<Address>, is_cluster: bool) -> Self {
        Self { servers, is_cluster, check_subscription_every: CHECK_SUBSCRIPTION_EVERY }
    }

    /// Returns the server that has the keys of a namespace.
    async fn server(&self, keys: &Keys) -> Result<Address, StoreError> {
        if self.is_cluster {
            return cluster::owner(&self.servers, keys.slot()).await;
        }
        Ok(self.servers[0].clone())
    }

    async fn open_session(&self, namespace: &str) -> Result<RedisSession, StoreError> {
        let keys = Keys::new(namespace, self.servers[0].database());
        let server = self.server(&keys).await?;
        let mut commands = Connection::open(&server, None).await?;
        commands.check_server(self.is_cluster).await?;
        let (sender, updates) = updates::queue();
        let mut subscription = Connection::open(&server, Some(sender)).await?;
        // In a cluster `PUBLISH` reaches all nodes, and `SPUBLISH` only those of the slot.
        let (subscribe, publish) =
            if self.is_cluster { ("SSUBSCRIBE", "SPUBLISH") } else { ("SUBSCRIBE", "PUBLISH") };
        subscription.send(cmd(subscribe).arg(keys.channel())).await?;
        let check_every = self.check_subscription_every;
        let next_check = Instant::now() + check_every;
        Ok(RedisSession { commands, subscription, updates, keys, publish, next_check, check_every })
    }
}

impl Backend for RedisStore {
    fn connect<'a>(&'a self, namespace: &'a str) -> StoreFuture<'a, Box<dyn Session>> {
        Box::pin(async move {
            let session = self.open_session(namespace).await?;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }
}
