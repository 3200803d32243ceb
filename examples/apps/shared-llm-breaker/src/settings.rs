//! The settings of a breaker.

use std::ops::RangeInclusive;
use std::time::Duration;

use tower_breaker::{BreakerConfig, ConfigError};
use tower_breaker_fleet::{Fleet, FleetBuilder, FleetStore, Quorum};

/// The longest open time that a record of the store can command.
const MAX_OPEN: Duration = Duration::from_secs(600);

/// The longest name of a breaker.
const MAX_NAME_BYTES: usize = 256;

const RESET_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 24 * 60 * 60);

const READY_WITHIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// The settings of a breaker. All workers should have the same.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    /// The consecutive failures of all workers that open the circuit. Default: 5. Range: from 1.
    pub fail_max: u32,
    /// How long the circuit stays open. Default: 30 s. Range: 1 ms to 365 days.
    pub reset_timeout: Duration,
    /// The successful probes that close the circuit. Default: 2. Range: from 1.
    pub success_threshold: u32,
    /// The probes of all workers that run at the same time. Default: 1. Range: 1 to
    /// `success_threshold`, so that one failed probe opens the circuit again.
    pub probes: u32,
    /// How long a probe holds its slot. If its worker dies, the slot is free after this time.
    /// Default: `None`, which is `reset_timeout`. Range: 1 ms to 365 days.
    pub probe_lease: Option<Duration>,
    /// The name of this worker. Default: `None`, which is the environment variable `HOSTNAME` and
    /// the number of the process. Two workers with one name count as one.
    pub instance: Option<String>,
    /// The prefix of the keys in Redis is `tb1:{namespace}`. Default: `circuit_breaker`.
    pub namespace: String,
    /// The time between two messages of a healthy worker. Default: 1 s. Range: 250 ms to 10 min.
    pub heartbeat: Duration,
    /// How long an open circuit waits for a silent store before the worker probes by itself: once
    /// to twice this time. Default: 2 s. Range: 1 ms to 10 min.
    pub takeover: Duration,
    /// How long [`get_circuit_breaker`](crate::get_circuit_breaker) waits for the store. Default:
    /// 1 s. Range: 0 to 10 min.
    pub ready_within: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            fail_max: 5,
            reset_timeout: Duration::from_secs(30),
            success_threshold: 2,
            probes: 1,
            probe_lease: None,
            instance: None,
            namespace: "circuit_breaker".to_owned(),
            heartbeat: Duration::from_secs(1),
            takeover: Duration::from_secs(2),
            ready_within: Duration::from_secs(1),
        }
    }
}

impl BreakerSettings {
    /// Returns the settings of the local circuit.
    pub(crate) fn circuit(&self, name: &str) -> Result<BreakerConfig, ConfigError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control) {
            let allowed = format!("1 to {MAX_NAME_BYTES} bytes without control characters");
            return Err(ConfigError::new("name", name, allowed));
        }
        ConfigError::check("fail_max", self.fail_max, 1..=u32::MAX)?;
        ConfigError::check("success_threshold", self.success_threshold, 1..=u32::MAX)?;
        ConfigError::check("probes", self.probes, 1..=self.success_threshold)
            .map_err(|error| error.because("success_threshold", self.success_threshold))?;
        ConfigError::check("reset_timeout", self.reset_timeout, RESET_TIMEOUTS)?;
        ConfigError::check("ready_within", self.ready_within, READY_WITHIN)?;
        BreakerConfig::builder()
            .name(name.to_owned())
            .consecutive_failures(self.fail_max)
            // Also within the same millisecond.
            .consecutive_failures_span(Duration::ZERO)
            .failure_rate(None)
            .count_failed_retries(true)
            .open_for(self.reset_timeout)
            // The store decides which worker probes, so the workers need no jitter.
            .open_jitter(0.0)
            .probes(self.probes)
            .successes_to_close(self.success_threshold)
            .probe_lease(self.probe_lease)
            .build()
    }

    /// Returns the settings of the fleet.
    pub(crate) fn fleet(&self, store: impl FleetStore) -> FleetBuilder {
        let builder = Fleet::builder(store)
            .namespace(&self.namespace)
            // All workers call the same API, so the evidence of one is enough.
            .quorum(Quorum::at_least(1))
            .heartbeat(self.heartbeat)
            .takeover(self.takeover)
            .max_open(self.reset_timeout.max(MAX_OPEN));
        match &self.instance {
            Some(instance) => builder.instance(instance),
            None => builder,
        }
    }
}
