//! The numbers that decide, validated by [`BreakerConfig`](crate::BreakerConfig). Times are in nanoseconds.

use super::open_duration::OpenDuration;

/// When a closed circuit opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TripLimits {
    /// After so many failures in a streak; 0: never.
    pub(crate) consecutive_failures: u32,
    /// At this share of failed calls; `None`: never.
    pub(crate) failure_rate: Option<f64>,
    /// At this share of slow calls.
    pub(crate) slow: Option<SlowCallLimits>,
    /// The rates count from so many calls in the window.
    pub(crate) minimum_calls: u32,
    pub(crate) cancelled: Cancelled,
}

/// When a call is slow, and what share of slow calls is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlowCallLimits {
    /// A call that takes so long is slow.
    pub(crate) from: u64,
    pub(crate) rate: f64,
}

/// What a cancelled call counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// For nothing, unless there are enough of them and no call was completed.
    IfNoneCompletes,
    Ignored,
    Failure,
    /// For a failure if it had run so long.
    FailureFrom(u64),
}

impl TripLimits {
    /// Whether a call's time must be known.
    pub(crate) const fn needs_duration(&self) -> bool {
        self.slow.is_some() || matches!(self.cancelled, Cancelled::FailureFrom(_))
    }

    /// Whether a call that took so long was slow.
    pub(crate) fn is_slow(&self, took: Option<u64>) -> bool {
        match (&self.slow, took) {
            (Some(slow), Some(took)) => took >= slow.from,
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
    /// How long a probe keeps its place.
    pub(crate) probe_lease: u64,
    /// How long the share of calls grows that a circuit lets through after it has closed; 0: it lets through all.
    pub(crate) slow_start: u64,
}
