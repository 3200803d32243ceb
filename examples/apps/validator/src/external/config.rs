//! The settings of the external calls.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;

use reqwest::Url;
use serde::Deserialize;

use super::{MCP, PROMETHEUS, QUESTDB};
use crate::timeouts::Seconds;

/// The addresses of the external services. A service without an address is not called.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalConfig {
    /// The address of QuestDB's listener for ILP over TCP, such as `127.0.0.1:9009`.
    pub questdb: Option<String>,
    /// The base URL of a Prometheus push gateway, such as `http://127.0.0.1:9091`.
    pub prometheus: Option<String>,
    /// The URL of an MCP server, such as `http://127.0.0.1:8080/mcp`.
    pub mcp: Option<String>,
    /// The time limit of each attempt of a call. **Default**: 10 s.
    pub timeout: Seconds,
    /// How often a call is sent at most. **Range**: 1 to 1,000. **Default**: 3.
    pub max_attempts: NonZeroU32,
}

const MAX_ATTEMPTS: NonZeroU32 = NonZeroU32::new(3).unwrap();

/// The largest number of attempts that a retry policy accepts.
const MOST_ATTEMPTS: u32 = 1_000;

impl Default for ExternalConfig {
    fn default() -> Self {
        let (questdb, prometheus, mcp) = (None, None, None);
        Self { questdb, prometheus, mcp, timeout: Seconds::new(10), max_attempts: MAX_ATTEMPTS }
    }
}

impl ExternalConfig {
    /// Checks the addresses and the number of attempts.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is not valid.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        check_address(QUESTDB, self.questdb.as_deref(), is_host_and_port, "HOST:PORT")?;
        for (service, url) in [(PROMETHEUS, &self.prometheus), (MCP, &self.mcp)] {
            check_address(
                service,
                url.as_deref(),
                is_http_url,
                "a URL that begins with http:// or https://",
            )?;
        }
        if self.max_attempts.get() > MOST_ATTEMPTS {
            let value = self.max_attempts.to_string();
            return Err(InvalidSetting { field: "max_attempts", value, expected: "a number from 1 to 1000" });
        }
        Ok(())
    }

    pub(super) fn uses_https(&self) -> bool {
        let urls = [&self.prometheus, &self.mcp].into_iter().flatten();
        urls.filter_map(|url| Url::parse(url).ok()).any(|url| url.scheme() == "https")
    }
}

fn check_address(
    field: &'static str,
    address: Option<&str>,
    is_valid: fn(&str) -> bool,
    expected: &'static str,
) -> Result<(), InvalidSetting> {
    match address {
        Some(address) if !is_valid(address) => {
            Err(InvalidSetting { field, value: address.to_owned(), expected })
        }
        _ => Ok(()),
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn is_http_url(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// A setting of [`ExternalConfig`] is not valid.
#[derive(Clone, Debug)]
pub struct InvalidSetting {
    field: &'static str,
    value: String,
    expected: &'static str,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, expected } = self;
        write!(f, "`{field}` is `{value}`; write {expected}")
    }
}

impl Error for InvalidSetting {}

/// An external service has no address in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct NotConfigured {
    pub(super) service: &'static str,
}

impl fmt::Display for NotConfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{0}` has no address; set `{0}` in `[external]`", self.service)
    }
}

impl Error for NotConfigured {}
