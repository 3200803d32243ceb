//! The numbers that decide, validated by [`BreakerConfig`](crate::BreakerConfig). Times are in nanoseconds.

use core::fmt;
use core::time::Duration;

use super::open_duration::OpenDuration;

/// When a closed circuit opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TripLimits {
    /// After this many failures in a row; 0: never.
    pub(crate) consecutive_failures: u32,
    /// At this share of failed calls; `None`: never.
    pub(crate) failure_rate: Option<f64>,
    /// At this share of slow calls.
    pub(crate) slow: Option<SlowCallLimits>,
    /// The rates count from this many calls in the window.
    pub(crate) minimum_calls: u32,
    pub(crate) cancelled: CancelledPolicy,
}

/// When a call is slow, and what share of slow calls is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlowCallLimits {
    /// A call that takes so long is slow.
    pub(crate) threshold: u64,
    pub(crate) rate: f64,
}

/// What a call counts for that its caller gave up: the future was dropped, or the service while it waited for the inner one's readiness.
///
/// A client that times out *outside* of the breaker gives its calls up. One that hangs up because its own caller did does, too. So one call that
/// is given up says nothing of the server.
///
/// A call that is dropped while the tracked body of its request waits for its source (see
/// [`upload`](tower_fault_classify::upload)) counts for nothing with every policy: the server could
/// not answer yet. A probe returns its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelledPolicy {
    /// Ignored, unless the server hangs: the circuit opens if the window holds
    /// [`minimum_calls`](crate::BreakerConfigBuilder::minimum_calls) cancelled calls and no completed
    /// call. The default.
    ///
    /// These calls are completed:
    ///
    /// - a call that succeeded or failed;
    /// - a call that the server answered neutrally, such as with a 429, though it counts in no
    ///   rate;
    /// - a call whose [tracked body](crate::BreakerLayer::track_body) has delivered data, also if
    ///   its reader then drops it.
    ///
    /// A rejection from a layer below is not: the server answered nothing.
    ///
    /// In a time window a completed call counts for the span of the window. In a count window it
    /// counts until as many calls in a row as the window holds were cancelled. A half-open circuit
    /// opens again when [`minimum_calls`](crate::BreakerConfigBuilder::minimum_calls) probes were
    /// cancelled since the last completed probe.
    #[default]
    IfNoneCompletes,
    /// For nothing.
    Ignore,
    /// For a failure.
    Failure,
    /// For a failure if it had run so long, for nothing if not. 1 ms to 365 days.
    FailureAfter(Duration),
}

impl CancelledPolicy {
    /// The name in `snake_case`, as in configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IfNoneCompletes => "if_none_completes",
            Self::Ignore => "ignore",
            Self::Failure => "failure",
            Self::FailureAfter(_) => "failure_after",
        }
    }
}

impl fmt::Display for CancelledPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TripLimits {
    /// Whether a call's time must be known.
    pub(crate) const fn needs_duration(&self) -> bool {
        self.slow.is_some() || matches!(self.cancelled, CancelledPolicy::FailureAfter(_))
    }

    /// Whether a call that took so long was slow.
    pub(crate) fn is_slow(&self, took: Option<u64>) -> bool {
        match (&self.slow, took) {
            (Some(slow), Some(took)) => took >= slow.threshold,
            _ => false,
        }
    }
}

/// How an open circuit closes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RecoveryLimits {
    pub(crate) open: OpenDuration,
    /// How many probes may run at once.
    pub(crate) probes: u32,
    /// So many successful probes close the circuit.
    pub(crate) successes_to_close: u32,
    /// How long a probe holds its slot.
    pub(crate) probe_lease: u64,
    /// How long the slow start after closing lasts; 0: there is none.
    pub(crate) slow_start: u64,
}

/// How much a window spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowShape {
    /// Nanoseconds.
    Time(u64),
    /// Calls.
    Count(u32),
}
