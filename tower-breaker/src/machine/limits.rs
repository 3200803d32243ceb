//! The numbers that decide, validated by [`BreakerConfig`](crate::BreakerConfig). Times are in nanoseconds.

use core::time::Duration;

/// How long a server's own `Retry-After` can keep a circuit open.
const LONGEST_HINT: Duration = Duration::from_secs(5 * 60);

/// When a closed circuit opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TripLimits {
    /// After so many failures in a row; 0: never.
    pub(crate) consecutive_failures: u32,
    /// At this share of failed calls; `None`: never.
    pub(crate) failure_rate: Option<f64>,
    /// The rate counts from so many calls in the window.
    pub(crate) minimum_calls: u32,
}

/// How an open circuit closes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RecoveryLimits {
    pub(crate) open_for: u64,
    /// How many probes may run at once.
    pub(crate) probes: u32,
    /// So many successful probes close the circuit.
    pub(crate) successes_to_close: u32,
    /// How long a probe keeps its place.
    pub(crate) probe_lease: u64,
}

impl RecoveryLimits {
    /// How long the circuit stays open, given what the server asked for: never shorter than its own time, and longer only
    /// up to a cap.
    pub(super) fn open_time(&self, asked_for: Option<Duration>) -> u64 {
        let hint = asked_for.map_or(0, |delay| delay.min(LONGEST_HINT).as_nanos() as u64);
        self.open_for.max(hint)
    }
}
