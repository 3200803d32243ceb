//! The limits of a circuit.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_breaker::{BreakerConfig, ConfigError};
use utoipa::ToSchema;

/// The longest time of a setting: 365 days.
const MAX_SECONDS: f64 = 31_536_000.0;

/// The limits of a circuit. A missing setting has its default.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitSettings {
    /// How many failures in a row open the circuit. At least 1. **Default**: 5.
    pub failure_threshold: u32,
    /// The share of failures in the window that opens the circuit, 0 to 1. **Default**: 0.5.
    pub failure_rate_threshold: f64,
    /// How many calls the window must hold before the share can open the circuit. At least 1.
    /// **Default**: 10.
    pub min_requests_for_rate: u32,
    /// The seconds over which the share is computed, 0.001 to 31,536,000. **Default**: 60.
    pub window_seconds: f64,
    /// How many calls a half-open circuit admits at the same time, 1 to 10,000. **Default**: 3.
    pub half_open_max_requests: u32,
    /// How many successes close a half-open circuit. At least 1. **Default**: 2.
    pub success_threshold: u32,
    /// The seconds that the circuit stays open, 0.001 to 31,536,000. **Default**: 60.
    pub cooldown_seconds: f64,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            failure_rate_threshold: 0.5,
            min_requests_for_rate: 10,
            window_seconds: 60.0,
            half_open_max_requests: 3,
            success_threshold: 2,
            cooldown_seconds: 60.0,
        }
    }
}

impl CircuitSettings {
    /// Returns the configuration of a circuit with these limits, without a name.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range.
    pub fn to_config(&self) -> Result<BreakerConfig, SettingsError> {
        let at_least_one = |field, value: u32| match value {
            0 => Err(SettingsError::new(field, value, "at least 1")),
            _ => Ok(value),
        };
        if !(0.0..=1.0).contains(&self.failure_rate_threshold) {
            let value = self.failure_rate_threshold;
            return Err(SettingsError::new("failure_rate_threshold", value, "0 to 1"));
        }
        if !(1..=10_000).contains(&self.half_open_max_requests) {
            let value = self.half_open_max_requests;
            return Err(SettingsError::new("half_open_max_requests", value, "1 to 10000"));
        }
        let config = BreakerConfig::builder()
            .consecutive_failures(at_least_one("failure_threshold", self.failure_threshold)?)
            // The failures open the circuit also if they arrive at the same time, or are retries.
            .consecutive_failures_span(Duration::ZERO)
            .count_failed_retries(true)
            .failure_rate(self.failure_rate_threshold)
            .minimum_calls(at_least_one("min_requests_for_rate", self.min_requests_for_rate)?)
            .time_window(seconds("window_seconds", self.window_seconds)?)
            .probes(self.half_open_max_requests)
            .successes_to_close(at_least_one("success_threshold", self.success_threshold)?)
            .open_for(seconds("cooldown_seconds", self.cooldown_seconds)?)
            // The circuit stays open for exactly its cooldown.
            .open_jitter(0.0)
            .max_retry_after(Duration::ZERO);
        Ok(config.build()?)
    }

    /// Returns the time that the circuit stays open. A value that is out of range is limited.
    pub(crate) fn cooldown(&self) -> Duration {
        Duration::from_secs_f64(self.cooldown_seconds.clamp(0.001, MAX_SECONDS))
    }
}

fn seconds(field: &'static str, value: f64) -> Result<Duration, SettingsError> {
    if (0.001..=MAX_SECONDS).contains(&value) {
        return Ok(Duration::from_secs_f64(value));
    }
    Err(SettingsError::new(field, value, "0.001 to 31536000"))
}

/// A setting that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    field: &'static str,
    value: String,
    allowed: String,
}

impl SettingsError {
    pub(crate) fn new(field: &'static str, value: impl fmt::Display, allowed: &str) -> Self {
        Self { field, value: value.to_string(), allowed: allowed.to_owned() }
    }

    /// Returns the name of the setting.
    pub const fn field(&self) -> &'static str {
        self.field
    }
}

/// For a limit of the circuit that no setting of this program violates.
impl From<ConfigError> for SettingsError {
    fn from(error: ConfigError) -> Self {
        Self::new("circuit", error, "a valid configuration")
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}; allowed is {}", self.field, self.value, self.allowed)
    }
}

impl Error for SettingsError {}
