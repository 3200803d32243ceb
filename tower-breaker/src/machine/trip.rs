//! The decision whether a closed circuit opens.

use super::limits::TripLimits;
use super::state::{Counts, Reason};

/// The counts of a closed circuit after a failed or slow call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The failures in a row, including this call. 0: this call did not fail.
    pub(crate) consecutive_failures: u64,
    /// The time between the first of these failures and this call. 0 if the limits need no time.
    pub(crate) failing_for: u64,
    /// The counts of the window. `None`: the window cannot reach a rate, and was not summed.
    pub(crate) window: Option<Counts>,
}

/// Returns the fewest failures with which a window can reach the failure rate. With fewer failures
/// the window is not summed. `u64::MAX`: there is no failure rate to reach.
pub(crate) fn min_failures_for_rate(limits: &TripLimits) -> u64 {
    let (Some(rate), minimum) = (limits.failure_rate, u64::from(limits.minimum_calls)) else {
        return u64::MAX;
    };
    // Rounding may make the product off by one. The quotient decides, so the numbers around the
    // product are checked with it.
    #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
    let about = (rate * minimum as f64) as u64;
    let first = about.saturating_sub(1);
    (first..=first + 3).find(|&failures| reaches(failures, minimum, rate)).unwrap_or(u64::MAX)
}

/// Returns after how many more failures at the earliest the failure rate can be reached: at least
/// 1, and at most `most`.
///
/// `failures` of the `calls` in the window have failed. Both stay in the window.
pub(crate) fn failures_until_rate(limits: &TripLimits, failures: u64, calls: u64, most: u64) -> u64 {
    let (Some(rate), minimum) = (limits.failure_rate, u64::from(limits.minimum_calls)) else { return most };
    let reached = |more: u64| reaches(failures + more, (calls + more).max(minimum), rate);
    // Each more failure raises the share, or keeps it at 1. So the first one that reaches the rate
    // is between the two bounds.
    let (mut first, mut last) = (1, most);
    while first < last {
        let middle = u64::midpoint(first, last);
        if reached(middle) {
            last = middle;
        } else {
            first = middle + 1;
        }
    }
    last
}

/// Returns whether this number of slow calls can reach the slow-call rate. If so, the window must
/// be summed.
pub(crate) fn may_reach_slow_rate(limits: &TripLimits, slow: u64) -> bool {
    limits.slow.is_some_and(|limit| reaches(slow, u64::from(limits.minimum_calls), limit.rate))
}

/// Returns the reason why a closed circuit opens after a failed or slow call. `None`: it does not
/// open.
pub(crate) fn trip_reason(limits: &TripLimits, sample: &Sample) -> Option<Reason> {
    if limits.consecutive_failures > 0
        && sample.consecutive_failures >= u64::from(limits.consecutive_failures)
        && sample.failing_for >= limits.consecutive_failures_span
    {
        return Some(Reason::ConsecutiveFailures);
    }
    let counts = sample.window?;
    if counts.calls < u64::from(limits.minimum_calls) {
        return None;
    }
    // The failure rate is checked only when a call has failed, not after a slow success.
    let failed = sample.consecutive_failures > 0;
    if failed && limits.failure_rate.is_some_and(|rate| reaches(counts.failures, counts.calls, rate)) {
        return Some(Reason::FailureRate);
    }
    limits.slow.is_some_and(|slow| reaches(counts.slow, counts.calls, slow.rate)).then_some(Reason::SlowRate)
}

/// The calls of a closed circuit that were cancelled since its last completed call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CancelledRun {
    calls: u32,
    /// The time at which the first of them was cancelled.
    since: u64,
}

impl CancelledRun {
    /// The time that the cancelled calls must span.
    const SPAN: u64 = 1_000_000_000;

    /// Counts a call that is cancelled now. Returns whether the circuit opens, because no call
    /// completes.
    pub(crate) const fn record(&mut self, limits: &TripLimits, now: u64) -> bool {
        if self.calls == 0 || now < self.since {
            // The first one, or the clock has run back.
            self.since = now;
        }
        self.calls = self.calls.saturating_add(1);
        self.calls >= limits.most_cancelled() && now - self.since >= Self::SPAN
    }
}

/// Returns whether the share of `part` in `calls` is at least `rate`. If `part` is 0, the result is
/// `false`.
///
/// The quotient is compared, not the product. Both sides are then the nearest `f64` to the same
/// decimal, so that 7 of 100 calls reach a rate of 0.07.
pub(super) fn reaches(part: u64, calls: u64, rate: f64) -> bool {
    part > 0 && part as f64 / calls as f64 >= rate
}
