//! Connections to one server.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, Value, cmd};

use super::address::Address;
use super::error::{TOO_OLD, classify, failure, invalid_answer};
use super::updates::UpdateSender;
use super::wire;
use crate::store::StoreError;
use crate::store::StoreErrorKind::Refused;

/// How long a TCP connection is silent before the system checks it, and the time between checks.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// A connection that ends at the first error. The driver's task ends with it.
pub(super) struct Connection {
    driver: MultiplexedConnection,
    address: Address,
}

impl Connection {
    /// Connects. With `updates`, the connection can subscribe.
    ///
    /// The driver sets no time limits here, because the agent has one for each request.
    pub(super) async fn open(address: &Address, updates: Option<UpdateSender>) -> Result<Self, StoreError> {
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        if let Some(updates) = updates {
            config = config.set_push_sender(move |message| {
                updates.push(&message);
                Ok::<_, std::convert::Infallible>(())
            });
        }
        let connecting = async { connect(address, &config).await.map_err(|error| classify(error, address)) };
        #[cfg(feature = "redis-tls")]
        let connecting = super::tls::unless_plain(address, connecting);
        Ok(Self { driver: connecting.await?, address: address.clone() })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a command, and classifies its error.
    pub(super) async fn send(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        self.try_send(command).await.map_err(|error| classify(error, &self.address))
    }

    /// Sends a command, and returns the error of the driver.
    pub(super) async fn try_send(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.driver).await
    }

    /// Checks the version of the server, and that it is a node of a cluster, or none.
    pub(super) async fn check_server(&mut self, is_cluster: bool) -> Result<(), StoreError> {
        let reply = self.send(cmd("HELLO").arg(3)).await?;
        let field = |name: &str| {
            let Value::Map(fields) = &reply else { return None };
            let (_, value) = fields.iter().find(|(field, _)| wire::text(field) == Some(name))?;
            wire::text(value)
        };
        let version = field("version").and_then(version);
        let version = version.ok_or_else(|| invalid_answer(&self.address, "no version"))?;
        let oldest = if is_cluster { (7, 0) } else { (6, 2) };
        if version < oldest {
            return Err(failure(Refused, &self.address, TOO_OLD));
        }
        if !is_cluster && field("mode") == Some("cluster") {
            let message = "it is a node of a cluster; use `RedisStore::cluster`";
            return Err(failure(Refused, &self.address, message));
        }
        Ok(())
    }
}

/// Returns the first two numbers of a version such as `7.0.15`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

async fn connect(
    address: &Address,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, RedisError> {
    let info = address.info().clone();
    let tcp = with_keepalive(info.tcp_settings().clone());
    let client = Client::open(info.set_tcp_settings(tcp))?;
    let connecting = client.get_multiplexed_async_connection_with_config(config);
    #[cfg(feature = "redis-tls")]
    let connecting = super::tls::catch_missing_provider(connecting);
    connecting.await
}

/// A connection for updates may be silent for hours. Without these checks, a firewall that has
/// dropped it would stay unnoticed.
fn with_keepalive(settings: TcpSettings) -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    settings.set_keepalive(keepalive).set_nodelay(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(version("7.0.15"), Some((7, 0)));
        assert!(version("10.0").unwrap() > version("6.2.14").unwrap());
        assert_eq!(version("unstable"), None);
        assert_eq!(version("7"), None);
    }
}
