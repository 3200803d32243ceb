//! The settings of the gateway, from a TOML file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::http::uri::{Authority, InvalidUri};
use serde::Deserialize;
use tower::BoxError;
use tower_breaker::HumanDuration;
use tower_breaker::keyed::KeyedConfig;
use tower_jitter_retry::RetryPolicy;

/// The settings of the gateway.
#[derive(Clone, Debug, Deserialize)]
// An unknown field is an error. Without this line, a misspelled name would mean the default.
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    /// The time limit of an attempt.
    pub(crate) attempt_timeout: HumanDuration,
    /// The downstream services. A name is the first segment of a request's path, and the key of a
    /// circuit.
    pub(crate) upstreams: BTreeMap<String, Upstream>,
    #[serde(default)]
    pub(crate) breaker: KeyedConfig,
    #[serde(default)]
    pub(crate) retry: RetryPolicy,
}

/// A downstream service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    pub(crate) address: Address,
    /// Whether the gateway is ready only if it can forward requests to this service.
    #[serde(default)]
    pub(crate) required: bool,
}

/// Host and port of a downstream service.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Address(pub(crate) Authority);

impl TryFrom<String> for Address {
    type Error = InvalidUri;

    fn try_from(text: String) -> Result<Self, InvalidUri> {
        text.parse().map(Self)
    }
}

impl Settings {
    /// Reads the text of a settings file.
    pub(crate) fn parse(text: &str) -> Result<Self, BoxError> {
        let settings: Self = toml::from_str(text)?;
        // A misspelled key would mean that the upstream has the limits of all upstreams.
        for (key, _) in settings.breaker.keys() {
            if !settings.upstreams.contains_key(key) {
                return Err(format!("`breaker.keys.{key}` is not one of the `upstreams`").into());
            }
        }
        Ok(settings)
    }

    /// Returns the names of the settings that differ from those of the start, and that a running
    /// gateway does not apply.
    pub(crate) fn changes_that_need_restart(&self, started_with: &Self) -> Vec<&'static str> {
        let changes = [
            ("listen", self.listen != started_with.listen),
            ("admin_listen", self.admin_listen != started_with.admin_listen),
            ("attempt_timeout", self.attempt_timeout != started_with.attempt_timeout),
        ];
        changes.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }
}
