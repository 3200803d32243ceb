//! The external services: the results are sent to QuestDB and to a Prometheus push gateway, and
//! some validators call a tool of an MCP server.
//!
//! Each call runs through the circuit of its service, with retries.

mod config;
mod mcp;
mod prometheus;
mod questdb;

use std::future::Future;

use reqwest::Client;
use serde::Serialize;

pub use self::config::{ExternalConfig, InvalidSetting, NotConfigured};
pub use self::mcp::{ToolError, ToolValidator};
use crate::error::CheckError;
use crate::resilience::Resilience;
use crate::result::Report;
use crate::timeouts::with_timeout;

/// The name of QuestDB, and of its circuit.
pub const QUESTDB: &str = "questdb";

/// The name of the Prometheus push gateway, and of its circuit.
pub const PROMETHEUS: &str = "prometheus";

/// The name of the MCP server, and of its circuit.
pub const MCP: &str = "mcp";

/// Whether a report has reached a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// The name of the service.
    pub service: &'static str,
    /// Why the report was not delivered. `None`: it was.
    pub error: Option<String>,
}

/// Calls the external services. Clones share the circuits.
#[derive(Clone, Debug)]
pub struct External {
    config: ExternalConfig,
    client: Client,
    resilience: Resilience,
}

impl External {
    /// Creates the calls. [`http_client`] returns a client.
    pub const fn new(config: ExternalConfig, client: Client, resilience: Resilience) -> Self {
        Self { config, client, resilience }
    }

    /// Returns the circuits and the retries of the calls.
    pub const fn resilience(&self) -> &Resilience {
        &self.resilience
    }

    /// Sends a report to QuestDB and to the Prometheus push gateway, if they have an address.
    ///
    /// A service that fails does not affect the other one. Its error is logged and returned.
    pub async fn push(&self, report: &Report) -> Vec<Delivery> {
        let (questdb, prometheus) =
            tokio::join!(self.push_to_questdb(report), self.push_to_prometheus(report));
        let outcomes = [(QUESTDB, questdb), (PROMETHEUS, prometheus)];
        outcomes.into_iter().filter_map(|(service, outcome)| delivery(service, outcome)).collect()
    }

    async fn push_to_questdb(&self, report: &Report) -> Option<Result<(), CheckError>> {
        let address = self.config.questdb.as_ref()?;
        let lines = questdb::lines(report);
        Some(self.call(QUESTDB, || questdb::send(address, &lines)).await)
    }

    async fn push_to_prometheus(&self, report: &Report) -> Option<Result<(), CheckError>> {
        let url = self.config.prometheus.as_ref()?;
        let metrics = prometheus::exposition(report);
        Some(self.call(PROMETHEUS, || prometheus::send(&self.client, url, &metrics)).await)
    }

    /// Makes a call through the circuit of `service`, with retries and a time limit per attempt.
    async fn call<T, F, Fut>(&self, service: &'static str, mut attempt: F) -> Result<T, CheckError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, CheckError>>,
    {
        let timeout = self.config.timeout.into();
        let attempt = || {
            let call = attempt();
            async move { with_timeout(call, timeout, service).await? }
        };
        self.resilience.retry_with_breaker(service, self.config.max_attempts.get(), attempt).await
    }
}

/// Returns whether a push was successful. `None`: the service has no address.
fn delivery(service: &'static str, outcome: Option<Result<(), CheckError>>) -> Option<Delivery> {
    let error = outcome?.err().map(|error| error.to_string());
    if let Some(error) = &error {
        tracing::warn!(service, error, "the report was not delivered");
    }
    Some(Delivery { service, error })
}

/// Creates an HTTP client for [`External`].
///
/// The certificates of the system are loaded only if `config` has a URL that begins with `https://`.
///
/// # Errors
///
/// Returns an error if the client cannot be created, for example without certificates.
pub fn http_client(config: &ExternalConfig) -> reqwest::Result<Client> {
    // An error says that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The calls have retries of their own.
    let builder = Client::builder().retry(reqwest::retry::never());
    if config.uses_https() { builder.build() } else { builder.tls_certs_only([]).build() }
}
