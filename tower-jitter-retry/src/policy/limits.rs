//! The decision, a plain function of what happened and what is allowed.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::{Fault, Retryable};

use crate::backoff::{Backoff, Position};
use crate::request::ResendAfter;

/// The numbers that decide. They are copied into every call. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) marker: bool,
    pub(super) max_elapsed: Option<u64>,
    pub(super) longest_hint: u64,
}

/// What a call has behind it when one of its attempts failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Nanoseconds since the call began.
    pub(crate) elapsed: u64,
    /// How many of those the caller gives it.
    pub(crate) deadline: Option<u64>,
    /// How far the backoff has come.
    pub(crate) position: Position,
}

/// Why a call that failed is not made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUp {
    /// Asking again would not help, or the server forbids it.
    NotRetryable,
    /// The request is not idempotent, and [`NonIdempotent`](crate::NonIdempotent) does not allow another attempt after this fault; or it is
    /// marked [`RetrySafety::Never`](crate::RetrySafety::Never).
    NotIdempotent,
    /// It was made as often as is allowed.
    Attempts,
    /// A layer further out retries this fault.
    Nested,
    /// gRPC: the answer had begun, so that the caller may have seen a part of it.
    Committed,
    /// Its request cannot be sent again, or no longer.
    NotReplayable,
    /// The server asks for a longer delay than is waited for.
    HintTooLong,
    /// Its delay would not end in time.
    OutOfTime,
    /// The budget refused.
    Budget,
}

impl GiveUp {
    /// The name of the reason, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "not_retryable",
            Self::NotIdempotent => "not_idempotent",
            Self::Attempts => "attempts",
            Self::Nested => "nested",
            Self::Committed => "committed",
            Self::NotReplayable => "not_replayable",
            Self::HintTooLong => "hint_too_long",
            Self::OutOfTime => "out_of_time",
            Self::Budget => "budget",
        }
    }
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Limits {
    /// Whether a call may be made again at all.
    pub(crate) fn permits(&self, fault: &Fault, attempts: u32, resend: ResendAfter) -> Result<(), GiveUp> {
        match fault.retryable() {
            Retryable::Unsent | Retryable::Refused | Retryable::IfIdempotent => {
                if !resend.includes(fault.retryable()) {
                    Err(GiveUp::NotIdempotent)
                } else if attempts >= self.max_attempts {
                    Err(GiveUp::Attempts)
                } else {
                    Ok(())
                }
            }
            _ => Err(GiveUp::NotRetryable),
        }
    }

    /// The delay before a retry, in nanoseconds.
    ///
    /// | the server asked for | delay |
    /// |---|---|
    /// | nothing | the backoff's |
    /// | a minimum (`Retry-After`) | the longer of the backoff's and the minimum, which is stretched |
    /// | exactly this long (gRPC's pushback) | that, stretched; the backoff starts again after it |
    ///
    /// Ranges are cut at the time that is left before a delay is drawn from them.
    pub(crate) fn delay(
        &self,
        fault: &Fault,
        progress: &mut Progress,
        mut uniform: impl FnMut(RangeInclusive<u64>) -> u64,
    ) -> Result<u64, GiveUp> {
        let left = self.left(progress.elapsed, progress.deadline);
        // At the very end only a retry that was decided on earlier may start.
        let left = left.filter(|left| *left > 0).ok_or(GiveUp::OutOfTime)?;
        let hint = fault.retry_after().map(nanos);
        if hint.is_some_and(|hint| hint > self.longest_hint) {
            return Err(GiveUp::HintTooLong);
        }
        let exact = fault.retry_after_is_exact();
        if exact {
            progress.position = Position::START;
        }
        let backoff =
            if exact { Some(0) } else { self.backoff.next(&mut progress.position, left, &mut uniform) };
        let hinted = self.backoff.jitter.stretch(hint.unwrap_or(0), left, uniform);
        backoff.zip(hinted).map(|(backoff, hinted)| backoff.max(hinted)).ok_or(GiveUp::OutOfTime)
    }

    /// How many nanoseconds from now a retry may start at the latest. `None`: no retry may start any
    /// more.
    ///
    /// A retry may start at the very end of `max_elapsed`, but not at the deadline: it would have no
    /// time left.
    pub(crate) fn left(&self, elapsed: u64, deadline: Option<u64>) -> Option<u64> {
        let until_end = match self.max_elapsed {
            Some(end) => end.checked_sub(elapsed)?,
            None => u64::MAX,
        };
        let until_deadline = match deadline {
            Some(deadline) => deadline.checked_sub(1)?.checked_sub(elapsed)?,
            None => u64::MAX,
        };
        Some(until_end.min(until_deadline))
    }
}

/// A duration in whole nanoseconds, cut at the end of a `u64`: 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
