//! What the API shows of a circuit.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tower_breaker::{BreakerConfig, CircuitState, Status};

use crate::source::{FleetSource, FleetView, Handle, Keyed};

/// A circuit, as the API shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    pub(crate) circuit: &'static str,
    pub(crate) key: Option<String>,
    /// `None`: a keyed circuit as a whole.
    pub(crate) local: Option<Status>,
    /// The epoch of the last local transition. 0: there was none.
    pub(crate) epoch: u32,
    pub(crate) rejects_calls: bool,
    pub(crate) mode: &'static str,
    pub(crate) failure_rate_limit: Option<f64>,
    pub(crate) minimum_calls: u32,
    pub(crate) consecutive_failures_limit: u32,
    pub(crate) keys: Option<KeyCounts>,
    /// `None`: this process does not share the circuit, or the store has not replied yet.
    pub(crate) fleet: Option<FleetView>,
    pub(crate) history: Option<History>,
}

impl View {
    /// Returns the view of a circuit, or of the circuit of a key.
    pub(crate) fn of(circuit: &dyn Handle, fleet: &FleetSource) -> Self {
        let status = circuit.status();
        let name = status.circuit;
        Self {
            key: status.key.as_deref().map(str::to_owned),
            epoch: epoch(&status),
            rejects_calls: status.rejects_calls(),
            fleet: circuit.fleet_name(fleet).and_then(|name| fleet.circuit(&name)),
            local: Some(status),
            ..Self::of_config(name, &circuit.config())
        }
    }

    /// Returns the view of a keyed circuit as a whole.
    pub(crate) fn of_keyed(circuits: &dyn Keyed) -> Self {
        let keys = Some(circuits.counts());
        Self { keys, ..Self::of_config(circuits.name(), &circuits.config()) }
    }

    /// Returns whether the circuit is in this state.
    ///
    /// A keyed circuit as a whole is closed if all its keys are closed. Otherwise it is in every
    /// other state.
    pub(crate) fn is_in(&self, state: CircuitState) -> bool {
        match (&self.local, &self.keys) {
            (Some(local), _) => local.state == state,
            (None, Some(keys)) => (keys.not_closed == 0) == (state == CircuitState::Closed),
            (None, None) => false,
        }
    }

    fn of_config(circuit: &'static str, config: &BreakerConfig) -> Self {
        Self {
            circuit,
            key: None,
            local: None,
            epoch: 0,
            rejects_calls: false,
            mode: config.mode().as_str(),
            failure_rate_limit: config.failure_rate(),
            minimum_calls: config.minimum_calls(),
            consecutive_failures_limit: config.consecutive_failures(),
            keys: None,
            fleet: None,
            history: None,
        }
    }
}

/// Returns the epoch of the last transition. 0: there was none.
pub(crate) fn epoch(status: &Status) -> u32 {
    status.last_transition.as_ref().map_or(0, |last| last.epoch)
}

/// How many circuits by key a keyed circuit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct KeyCounts {
    pub(crate) count: usize,
    pub(crate) not_closed: usize,
    pub(crate) evicted: u64,
    pub(crate) overflowed: u64,
}

/// The last three minutes of a circuit, a sample each second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct History {
    pub(crate) interval_seconds: u32,
    #[serde(serialize_with = "time")]
    pub(crate) ends_at: SystemTime,
    /// A letter for each sample: `c`losed, `o`pen, `h`alf-open, forced `O`pen, forced `C`losed,
    /// `d`isabled.
    pub(crate) states: String,
    /// The failure rate of the window in percent. `None`: the window has no calls.
    pub(crate) failure_rate: Vec<Option<u8>>,
    /// The calls in the window.
    pub(crate) calls: Vec<u64>,
}

/// Writes a wall-clock time in the format of RFC 3339.
pub(crate) fn time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    // Outside of the years 1970 to 9999, formatting panics.
    const LAST: Duration = Duration::from_secs(253_402_300_799);

    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST);
    to.collect_str(&humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since_epoch))
}

/// Writes an optional duration as a number of seconds.
#[expect(clippy::ref_option, reason = "serde passes a field as a reference")]
pub(crate) fn optional_seconds<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outside_of_four_digit_years_is_written_as_the_nearest() {
        #[derive(Serialize)]
        struct At(#[serde(serialize_with = "time")] SystemTime);

        let epoch = SystemTime::UNIX_EPOCH;
        for (at, text) in [
            (epoch - Duration::from_secs(1), "1970-01-01T00:00:00.000Z"),
            (epoch + Duration::from_millis(1_001), "1970-01-01T00:00:01.001Z"),
            (epoch + Duration::from_secs(253_402_300_799), "9999-12-31T23:59:59.000Z"),
            (epoch + Duration::from_secs(253_402_300_800), "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(serde_json::to_value(At(at)).unwrap(), text);
        }
    }
}
