//! What the API shows of a circuit.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tower_breaker::Status;

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
    pub(crate) minimum_calls: Option<u32>,
    pub(crate) consecutive_failures_limit: u32,
    pub(crate) keys: Option<KeyCounts>,
    #[cfg(feature = "fleet")]
    pub(crate) fleet: Option<tower_breaker_fleet::FleetCircuitStatus>,
    #[cfg(not(feature = "fleet"))]
    pub(crate) fleet: Option<()>,
    pub(crate) history: Option<History>,
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
    /// A letter for each sample: `c`losed, `o`pen, `h`alf-open, forced `O`pen or `C`losed, `d`isabled.
    pub(crate) states: String,
    /// The failure rate of the window in percent. `None`: the window has no calls.
    pub(crate) failure_rate: Vec<Option<u8>>,
    /// The calls in the window.
    pub(crate) calls: Vec<u64>,
}

/// Writes a wall-clock time in the format of RFC 3339.
pub(crate) fn time<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// Writes an optional duration as a number of seconds.
#[expect(clippy::ref_option, reason = "serde passes a field as a reference")]
pub(crate) fn optional_seconds<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(to)
}
