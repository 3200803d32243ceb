//! Slow start: a circuit that its probes have closed does not admit all calls immediately.

mod by_successes;
mod by_time;

#[cfg(feature = "tokio")]
use super::Arrival;
use super::limits::{RecoveryLimits, SlowStartKind};
use by_successes::BySuccesses;
use by_time::ByTime;

/// The state of a slow start.
#[derive(Debug)]
pub(super) enum SlowStart {
    /// Admits a share of the calls, which grows with time.
    ByTime(ByTime),
    /// Limits the number of concurrent calls. Each success raises the limit by one.
    BySuccesses(BySuccesses),
}

/// The decision of a slow start on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlowStartStep {
    /// The call is admitted.
    Admitted,
    /// The call is admitted and holds a slot, which it must release when it ends. The time of its
    /// admission identifies the call.
    AdmittedWithSlot(u64),
    /// The call is rejected. The slow start admits a call after this many nanoseconds at the
    /// latest.
    Denied(u64),
    /// The slow start is over, so the call is admitted.
    Finished,
}

impl SlowStart {
    /// Creates the slow start of a circuit that closes now. `None`: the limits have none.
    pub(super) fn new(now: u64, limits: &RecoveryLimits) -> Option<Self> {
        match limits.slow_start {
            SlowStartKind::Off => None,
            SlowStartKind::Time(span) => Some(Self::ByTime(ByTime::new(now, span))),
            SlowStartKind::Successes(number) => {
                Some(Self::BySuccesses(BySuccesses::new(now, number, limits.probe_lease)))
            }
        }
    }

    /// Decides on a call that arrives now.
    pub(super) fn admit(&mut self, now: u64) -> SlowStartStep {
        match self {
            Self::ByTime(by_time) => by_time.admit(now),
            Self::BySuccesses(by_successes) => by_successes.admit(now),
        }
    }

    /// Decides on a call that arrived before, was rejected, and has been waiting since.
    pub(super) fn admit_waiting(&mut self, now: u64) -> SlowStartStep {
        match self {
            Self::ByTime(by_time) => by_time.admit_waiting(now),
            Self::BySuccesses(by_successes) => by_successes.admit(now),
        }
    }

    /// Decides whether a call that begins now would be admitted. `Err`: it would be rejected; the
    /// slow start admits a call after this many nanoseconds at the latest.
    ///
    /// If it would be rejected, a slow start by time counts its `arrival`. Otherwise, nothing
    /// changes.
    #[cfg(feature = "tokio")]
    pub(super) fn would_admit(&mut self, now: u64, arrival: Arrival) -> Result<(), u64> {
        match self {
            Self::ByTime(by_time) => by_time.would_admit(now, arrival),
            Self::BySuccesses(by_successes) => by_successes.would_admit(now),
        }
    }

    /// Refunds the credit of a call without a slot that was admitted and did not begin.
    pub(super) fn refund(&mut self, now: u64) {
        if let Self::ByTime(by_time) = self {
            by_time.refund(now);
        }
    }

    /// Returns whether the call that was admitted with a slot at the time `from` still holds it.
    pub(super) fn holds_slot(&self, from: u64) -> bool {
        match self {
            Self::ByTime(_) => false,
            Self::BySuccesses(by_successes) => by_successes.holds_slot(from),
        }
    }

    /// Releases the slot of the call that was admitted with a slot at the time `from`. `success`
    /// raises the limit. Returns whether the slow start is over.
    pub(super) fn release_slot(&mut self, from: u64, success: bool) -> bool {
        match self {
            Self::ByTime(_) => false,
            Self::BySuccesses(by_successes) => by_successes.release(from, success),
        }
    }

    /// Returns the progress of the slow start, 0 to 1. By time, it is the share of the calls that
    /// are admitted. By successes, it is the share of the successes that end the slow start.
    pub(super) fn share(&self, now: u64) -> f64 {
        match self {
            Self::ByTime(by_time) => by_time.share(now),
            Self::BySuccesses(by_successes) => by_successes.share(),
        }
    }

    /// Returns whether the slow start is in use. By time, it is until its time is over. By
    /// successes, it is until no call was admitted for as long as a lease.
    #[cfg(feature = "keyed")]
    pub(super) fn is_in_use(&self, now: u64) -> bool {
        match self {
            Self::ByTime(by_time) => by_time.share(now) < 1.0,
            Self::BySuccesses(by_successes) => by_successes.is_in_use(now),
        }
    }
}
