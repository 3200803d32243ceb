//! Whether a closed circuit opens.

use super::limits::TripLimits;
use super::state::{Counts, Reason};

/// What a closed circuit knows of its calls when one of them failed, or was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Failures without a success between them, this one included; 0 if this one was none.
    pub(crate) consecutive_failures: u64,
    /// The counts of the window. `None`: it cannot reach a rate, and was not summed.
    pub(crate) window: Option<Counts>,
}

/// The fewest failures in a window that can reach the rate, for any number of calls. The window is
/// not summed before.
/// `u64::MAX`: none can.
pub(crate) fn min_failures_for_rate(limits: &TripLimits) -> u64 {
    let (Some(rate), minimum) = (limits.failure_rate, u64::from(limits.minimum_calls)) else {
        return u64::MAX;
    };
    // The product may be off by one where the quotient, which decides, is not.
    #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
    let about = (rate * minimum as f64) as u64;
    let first = about.saturating_sub(1);
    (first..=first + 3).find(|&failures| reaches(failures, minimum, rate)).unwrap_or(u64::MAX)
}

/// Whether the whole window must be looked at for its slow calls.
pub(crate) fn may_reach_slow_rate(limits: &TripLimits, slow: u64) -> bool {
    limits.slow.is_some_and(|limit| reaches(slow, u64::from(limits.minimum_calls), limit.rate))
}

/// Why a closed circuit opens after a failure or a slow call, if it does.
pub(crate) fn trip_reason(limits: &TripLimits, sample: &Sample) -> Option<Reason> {
    if limits.consecutive_failures > 0
        && sample.consecutive_failures >= u64::from(limits.consecutive_failures)
    {
        return Some(Reason::ConsecutiveFailures);
    }
    let counts = sample.window?;
    if counts.calls < u64::from(limits.minimum_calls) {
        return None;
    }
    // A slow success is no moment to judge the failures.
    let failed = sample.consecutive_failures > 0;
    if failed && limits.failure_rate.is_some_and(|rate| reaches(counts.failures, counts.calls, rate)) {
        return Some(Reason::FailureRate);
    }
    limits.slow.is_some_and(|slow| reaches(counts.slow, counts.calls, slow.rate)).then_some(Reason::SlowRate)
}

/// Whether the circuit opens because its window holds this number of cancelled calls. `completed`:
/// whether it holds a completed call.
pub(crate) const fn none_completes(limits: &TripLimits, cancelled: u64, completed: bool) -> bool {
    !completed && cancelled >= limits.minimum_calls as u64
}

/// Whether `part` of `calls` is at least `rate`. The quotient is compared, not the product: both sides are then the
/// nearest double to the same decimal, so that 7 of 100 do reach 0.07.
pub(super) fn reaches(part: u64, calls: u64, rate: f64) -> bool {
    part > 0 && part as f64 / calls as f64 >= rate
}
