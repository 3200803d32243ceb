//! Addresses of servers.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use tower_breaker::ConfigError;

/// The address of a server, and how it is shown: without a password.
#[derive(Clone)]
pub(super) struct Address {
    info: ConnectionInfo,
    shown: String,
}

impl Address {
    /// Parses a URL. The error shows it without a password.
    pub(super) fn parse(url: &str) -> Result<Self, ConfigError> {
        let shown = redact(url);
        // The driver's text may quote parts of the URL, so it is not part of ours.
        let info = url.into_connection_info().map_err(|_| problem(url, &shown))?;
        let settings = info.redis_settings().clone();
        // RESP3 delivers updates on a connection that also answers commands. Without `CLIENT
        // SETINFO` the user needs one permission less.
        let settings = settings.set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        Ok(Self { info: info.set_redis_settings(settings), shown })
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns the name of the user, as the server knows it.
    pub(super) fn user(&self) -> &str {
        self.info.redis_settings().username().unwrap_or("default")
    }

    pub(super) fn uses_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Replaces the root certificates of the system, by some in the format PEM. The error is the
    /// problem.
    #[cfg(feature = "redis-tls")]
    pub(super) fn with_roots(&self, pem: &[u8]) -> Result<Self, String> {
        let roots = redis::TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
        let client = redis::Client::build_with_tls(self.info.clone(), roots);
        let info = client.map_err(|error| error.to_string())?.get_connection_info().clone();
        Ok(Self { info, shown: self.shown.clone() })
    }

    pub(super) fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Returns the address of another node of the cluster, with the same user and TLS settings.
    pub(super) fn node(&self, host: Option<&str>, port: u16) -> Self {
        let addr = match self.info.addr() {
            ConnectionAddr::Tcp(seed, _) => ConnectionAddr::Tcp(host.unwrap_or(seed).to_owned(), port),
            ConnectionAddr::TcpTls { host: seed, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.unwrap_or(seed).to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            // Nodes announce no Unix sockets.
            _ => ConnectionAddr::Tcp(host.unwrap_or("127.0.0.1").to_owned(), port),
        };
        let scheme = if self.uses_tls() { "rediss" } else { "redis" };
        let shown = format!("{scheme}://{addr}");
        Self { info: self.info.clone().set_addr(addr), shown }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Names what is wrong with a URL that the driver does not take.
fn problem(url: &str, shown: &str) -> ConfigError {
    let is_tls = url.starts_with("rediss:") || url.starts_with("valkeys:");
    let allowed = if is_tls && !cfg!(feature = "redis-tls") {
        "a URL without TLS, or the feature `redis-tls` of `tower-breaker-fleet`"
    } else {
        "`redis://user:password@host:6379`, `rediss://…` or `redis+unix:///path?user=name&pass=password`, \
         with special characters percent-encoded"
    };
    ConfigError::new("url", format_args!("`{shown}`"), allowed)
}

/// Returns a URL without its password.
///
/// A wrong URL may contain an unencoded password, with `/`, `?`, `#` and `@`. So everything up to
/// the last `@` goes, and everything after `?` or `#`. If an `@` is there, too, the rest may also
/// be a part of the password.
fn redact(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, hidden) = rest.find(['?', '#']).map_or((rest, ""), |start| rest.split_at(start));
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let mut shown = String::new();
    if !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') {
        shown.push_str(scheme);
        shown.push_str("://");
    }
    // A query after a path names a Unix socket, so an `@` is one of its password.
    let is_socket = place.starts_with('/');
    if hidden.contains('@') && !is_socket {
        shown.push_str("***");
        return shown;
    }
    if place.len() < rest.len() {
        shown.push_str("***@");
    }
    shown.push_str(place);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_password() {
        for (url, shown) in [
            ("redis://host:7000/2", "redis://host:7000/2"),
            ("redis://app:secret@host", "redis://***@host"),
            ("redis://:secret@host/x", "redis://***@host/x"),
            ("redis://:se@cr/et@host", "redis://***@host"),
            ("redis://:se@cr/et?x#y@host", "redis://***"),
            ("redis://host?pass=s@cret", "redis://***"),
            ("redis+unix:///run/redis.sock?pass=s@cret", "redis+unix:///run/redis.sock"),
            ("redis+unix:///run/redis.sock?pass=secret&db=1", "redis+unix:///run/redis.sock"),
            ("app:secret@host", "***@host"),
            ("secret://x@host", "secret://***@host"),
            ("", ""),
        ] {
            assert_eq!(redact(url), shown, "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_named_without_password() {
        for url in [
            "http://app:secret@host",
            "redis://app:secret@",
            "redis://:secret@host:port",
            "redis://:secret@host/database",
            "redis://:secret@host?protocol=secret",
            "redis+unix://?pass=secret",
            "host:6379",
            "",
        ] {
            let problem =
                Address::parse(url).err().unwrap_or_else(|| panic!("{url} is accepted")).to_string();
            assert!(problem.contains("`redis://user:password@host:6379`"), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[cfg(not(feature = "redis-tls"))]
    #[test]
    fn tls_url_without_feature_names_it() {
        let problem = Address::parse("rediss://:secret@host").err().unwrap().to_string();
        assert!(problem.contains("`rediss://***@host`"), "{problem}");
        assert!(problem.contains("the feature `redis-tls`"), "{problem}");
    }
}
