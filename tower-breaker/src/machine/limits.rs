//! The limits of a circuit. [`BreakerConfig`](crate::BreakerConfig) has validated them. Times are in
//! nanoseconds.

use core::fmt;
use core::time::Duration;

use super::open_duration::OpenDuration;

/// The limits that open a closed circuit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TripLimits {
    /// The number of failures in a row that opens the circuit. 0: no number does.
    pub(crate) consecutive_failures: u32,
    /// The failures in a row must also span this time. 0: they need no time.
    pub(crate) consecutive_failures_span: u64,
    /// The share of failed calls that opens the circuit. `None`: no share does.
    pub(crate) failure_rate: Option<f64>,
    /// The share of slow calls that opens the circuit. `None`: no call is slow.
    pub(crate) slow: Option<SlowCallLimits>,
    /// The rates apply from this number of calls in the window.
    pub(crate) minimum_calls: u32,
    pub(crate) cancelled: CancelledPolicy,
}

/// The limits for slow calls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SlowCallLimits {
    /// A call that takes this long or longer is slow.
    pub(crate) threshold: u64,
    /// The share of slow calls that opens the circuit.
    pub(crate) rate: f64,
}

/// How cancelled calls are counted.
///
/// A call is cancelled if its caller drops one of these:
///
/// - the future of the call;
/// - the service, while it waits for the inner service to become ready;
/// - a [`Permit`](crate::Permit), without recording an outcome;
/// - a [tracked body](crate::BreakerLayer::track_body), before its end.
///
/// A single cancelled call does not show that the server is unhealthy. Callers also cancel a call
/// when a timeout *outside* of the breaker ends, or when their own caller has disconnected.
///
/// With every policy, a call is not counted if it is dropped while the tracked body of its request
/// waits for its source (see [`upload`](tower_fault_classify::upload)): the server could not answer
/// yet. A probe then frees its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelledPolicy {
    /// Cancelled calls are ignored, unless no call completes. This is the **default**.
    ///
    /// The breaker assumes that the server hangs, and opens the circuit, if both are true:
    ///
    /// - 10 calls were cancelled since the last completed call, or
    ///   [`minimum_calls`](crate::BreakerConfigBuilder::minimum_calls) if that is smaller.
    /// - At least 1 s lies between the first and the last of them.
    ///
    /// A half-open circuit opens again when the same number of probes were cancelled since the last
    /// completed probe. The probes need no time.
    ///
    /// | call | completed |
    /// |---|---|
    /// | succeeded or failed | yes |
    /// | answered by the server with a neutral outcome, such as a 429, which counts in no rate | yes |
    /// | its [tracked body](crate::BreakerLayer::track_body) has delivered data, even if the reader then drops the body | yes |
    /// | rejected by an inner layer | no: the server did not answer |
    #[default]
    IfNoneCompletes,
    /// Cancelled calls are ignored.
    Ignore,
    /// A cancelled call counts as a failure.
    Failure,
    /// A cancelled call counts as a failure if it ran at least this long. Otherwise it is ignored.
    ///
    /// **Range**: 1 ms to 365 days. [`build`](crate::BreakerConfigBuilder::build) checks it.
    FailureAfter(Duration),
}

impl CancelledPolicy {
    /// Returns the name in `snake_case`, as in configuration files.
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
    /// The largest limit of consecutive failures. The state word of a circuit counts that far.
    pub(crate) const MAX_CONSECUTIVE_FAILURES: u32 = 1_000_000;

    /// Returns whether the limits need the duration of a call.
    pub(crate) const fn needs_duration(&self) -> bool {
        self.slow.is_some() || matches!(self.cancelled, CancelledPolicy::FailureAfter(_))
    }

    /// Returns the number of cancelled calls or probes that opens the circuit if none completes.
    pub(crate) const fn most_cancelled(&self) -> u32 {
        const MOST: u32 = 10;

        if self.minimum_calls < MOST { self.minimum_calls } else { MOST }
    }

    /// Returns whether a call with the duration `took` was slow.
    pub(crate) fn is_slow(&self, took: Option<u64>) -> bool {
        match (&self.slow, took) {
            (Some(slow), Some(took)) => took >= slow.threshold,
            _ => false,
        }
    }
}

/// The limits for the way from open to closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RecoveryLimits {
    pub(crate) open: OpenDuration,
    /// The number of probes that may run concurrently.
    pub(crate) probes: u32,
    /// The number of successful probes that closes the circuit.
    pub(crate) successes_to_close: u32,
    /// How long a probe, or a call in a slow start by successes, holds its slot.
    pub(crate) probe_lease: u64,
    /// The slow start after closing.
    pub(crate) slow_start: SlowStartKind,
}

/// The kind and the size of a slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlowStartKind {
    /// There is no slow start.
    Off,
    /// Lasts this many nanoseconds, not 0.
    Time(u64),
    /// Lasts until this many calls have succeeded, not 0.
    Successes(u32),
}

/// The kind and the size of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowShape {
    /// The calls of the last n nanoseconds.
    Time(u64),
    /// The last n calls.
    Count(u32),
}
