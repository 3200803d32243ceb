//! The rules of the retry decision: pure functions of the outcome, the progress of the call and the
//! limits. [`RetryCall`](crate::decision::RetryCall) applies them.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use tower_fault_classify::classifiers::ResponseCoverage;
use tower_fault_classify::{
    Classify, Fault, Kind, Origin, Retryable, Verdict, classify_error, is_grpc_committed,
};

use crate::backoff::{Backoff, Position, nanos};
use crate::request::{OuterMark, ResendAfter, is_same_resource};

/// The settings that decide on a retry. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) marker: bool,
    pub(crate) track_uploads: bool,
    pub(crate) follows_redirects: Option<bool>,
    pub(crate) max_elapsed: Option<u64>,
    pub(crate) max_retry_after: u64,
}

/// The progress of a call at the moment when one of its attempts has failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallProgress {
    /// Nanoseconds since the call began.
    pub(crate) elapsed: u64,
    /// The call's deadline, in nanoseconds since the call began.
    pub(crate) deadline: Option<u64>,
    /// The progress of the backoff.
    pub(crate) position: Position,
}

/// The reason why no retry follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUp {
    /// A retry would not help, or the server forbids it.
    NotRetryable,
    /// The request is not idempotent, or it must not be retried.
    ///
    /// [`NonIdempotent`](crate::NonIdempotent) sets the faults after which a request that is not
    /// idempotent is sent again, and this fault is not one of them.
    /// [`RetrySafety::Never`](crate::RetrySafety::Never) forbids every retry.
    NotIdempotent,
    /// The request was sent as many times as the policy allows.
    ///
    /// See [`max_attempts`](crate::RetryPolicyBuilder::max_attempts).
    Attempts,
    /// An outer retry layer retries this fault.
    Nested,
    /// gRPC: the response had begun, so that the caller may have received a part of it.
    Committed,
    /// The request cannot be sent again, or no longer.
    ///
    /// For example, its body exceeds the [`replay_limit`](crate::RetryPolicyBuilder::replay_limit).
    NotReplayable,
    /// The server asks for a longer delay than the policy allows.
    ///
    /// See [`max_retry_after`](crate::RetryPolicyBuilder::max_retry_after).
    HintTooLong,
    /// The next attempt would start after the request's deadline.
    ///
    /// The deadline is a [`Deadline`](crate::Deadline) or `grpc-timeout`.
    Deadline,
    /// The next attempt would start after [`max_elapsed`](crate::RetryPolicyBuilder::max_elapsed).
    MaxElapsed,
    /// The policy's condition is `false`.
    ///
    /// See [`retry_while`](crate::RetryPolicyBuilder::retry_while).
    Stopped,
    /// The [`Budget`](crate::Budget) does not grant a retry.
    Budget,
    /// The attempt was rejected on this side without being sent, and must not be retried.
    ///
    /// For example, a circuit breaker is open. Load shedding is not such a rejection: its fault is
    /// [`Retryable::Unsent`], which may be retried.
    Rejected,
    /// The inner service's readiness failed, so that the attempt was not sent.
    NotReady,
}

impl GiveUp {
    /// Returns the name of the reason, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "not_retryable",
            Self::NotIdempotent => "not_idempotent",
            Self::Attempts => "attempts",
            Self::Nested => "nested",
            Self::Committed => "committed",
            Self::NotReplayable => "not_replayable",
            Self::HintTooLong => "hint_too_long",
            Self::Deadline => "deadline",
            Self::MaxElapsed => "max_elapsed",
            Self::Stopped => "stopped",
            Self::Budget => "budget",
            Self::Rejected => "rejected",
            Self::NotReady => "not_ready",
        }
    }
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of an attempt's outcome that decides on a retry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptOutcome<'v> {
    pub(crate) verdict: &'v Verdict,
    /// The caller may have received a part of the response (gRFC A6).
    committed: bool,
    /// `None`: the outcome is an error.
    response: Option<ResponseCoverage>,
}

impl<'v> AttemptOutcome<'v> {
    /// `verdict` is the return value of [`before_redirect`].
    #[inline]
    pub(crate) fn new<C, Res, Err>(classify: &C, result: &mut Result<Res, Err>, verdict: &'v Verdict) -> Self
    where
        C: Classify<Res, Err>,
    {
        // A fault that classification stored in the head of a response that has begun does not
        // change that the response has begun.
        let committed = !verdict.is_success()
            && match result {
                Ok(response) => {
                    classify.outcome(response).is_some_and(|response| is_grpc_committed(response))
                }
                Err(_) => false,
            };
        let response = result.is_ok().then(|| classify.response_coverage());
        Self { verdict, committed, response }
    }

    /// Returns why another attempt cannot follow although the policy allows it: the response has
    /// begun, or an outer layer retries the fault.
    #[inline]
    pub(crate) fn blocked(&self, outer: OuterMark) -> Option<GiveUp> {
        if self.committed {
            return Some(GiveUp::Committed);
        }
        let nested = |fault: &Fault| outer.includes(fault.retryable(), self.response);
        self.verdict.fault().is_some_and(nested).then_some(GiveUp::Nested)
    }
}

/// Returns what a verdict says about the request that the caller sent.
///
/// If a client below has followed a redirect, the fault describes the last hop. The hops before it
/// may have been processed, so that `Unsent` and `Refused` say nothing about the caller's request.
///
/// | the call ended with | a redirect may have been followed if |
/// |---|---|
/// | a response with a URL (reqwest's, or one that passed tower-http's `FollowRedirect`) | the URL is not the request's |
/// | any other response | its fault says so |
/// | an error | its fault or its source chain says so: the chain contains an error of reqwest |
///
/// [`RetryPolicyBuilder::follows_redirects`](crate::RetryPolicyBuilder::follows_redirects)
/// overrides the table.
// Out of line, because few faults need it.
#[inline(never)]
pub(crate) fn before_redirect<'u, C, Res, Err>(
    verdict: Verdict,
    follows: Option<bool>,
    classify: &C,
    result: &mut Result<Res, Err>,
    url: impl FnOnce() -> Option<Cow<'u, str>>,
) -> Verdict
where
    C: Classify<Res, Err>,
{
    let Verdict::Fault(fault) = verdict else { return verdict };
    if !is_unprocessed(&verdict) {
        return verdict;
    }
    // A rule may have created the fault of an error without reading the error's source chain.
    let by_result = || match result {
        Ok(response) => {
            // The response's URL first, because few responses have one.
            let answered = classify.outcome(response)?.url()?;
            Some(!is_same_resource(&url()?, &answered))
        }
        Err(error) => Some(classify_error(classify.error(error)?).maybe_redirected()),
    };
    let redirected = match follows {
        Some(follows) => follows,
        None => fault.maybe_redirected() || by_result() == Some(true),
    };
    if redirected { fault.with_retryable(Retryable::IfIdempotent).into() } else { verdict }
}

/// Returns whether a verdict says that the request was not processed. [`before_redirect`] changes
/// only such a verdict.
#[inline]
pub(crate) fn is_unprocessed(verdict: &Verdict) -> bool {
    let unprocessed = |fault: &Fault| matches!(fault.retryable(), Retryable::Unsent | Retryable::Refused);
    verdict.fault().is_some_and(unprocessed)
}

impl Limits {
    /// Checks whether another attempt is allowed, regardless of time and budget.
    #[inline]
    pub(crate) fn permits(&self, fault: &Fault, attempts: u32, resend: ResendAfter) -> Result<(), GiveUp> {
        if resend.includes(fault.retryable()) {
            return if attempts >= self.max_attempts { Err(GiveUp::Attempts) } else { Ok(()) };
        }
        Err(match fault.retryable() {
            Retryable::Unsent | Retryable::Refused | Retryable::IfIdempotent => GiveUp::NotIdempotent,
            _ if is_rejection(fault) => GiveUp::Rejected,
            _ => GiveUp::NotRetryable,
        })
    }

    /// Returns whether the delay after this fault is zero, if any time is left.
    #[inline]
    pub(crate) fn delay_is_zero(&self, fault: &Fault) -> bool {
        self.backoff.is_zero() && fault.retry_after().is_none()
    }

    /// Returns the delay before a retry, in nanoseconds.
    ///
    /// | the server asked for | delay |
    /// |---|---|
    /// | nothing | the backoff's own delay |
    /// | a minimum (`Retry-After`) | the longer of the backoff's own delay and the stretched minimum |
    /// | an exact delay (gRPC's pushback) | that delay, stretched; the backoff starts again after it |
    ///
    /// Ranges are cut at the time that is left before a delay is drawn from them.
    pub(crate) fn delay(
        &self,
        fault: &Fault,
        progress: &mut CallProgress,
        mut uniform: impl FnMut(RangeInclusive<u64>) -> u64,
    ) -> Result<u64, GiveUp> {
        let limit = self.time_limit(progress.deadline).limit;
        // At the very end of the time, only a retry that was decided on earlier may start.
        let left = self.time_left(progress.elapsed, progress.deadline)?;
        if left == 0 {
            return Err(limit);
        }
        let hint = fault.retry_after().map(nanos);
        if hint.is_some_and(|hint| hint > self.max_retry_after) {
            return Err(GiveUp::HintTooLong);
        }
        let exact = fault.retry_after_is_exact();
        if exact {
            progress.position = Position::START;
        }
        let backoff =
            if exact { Some(0) } else { self.backoff.next(&mut progress.position, left, &mut uniform) };
        let hinted = self.backoff.jitter.stretch(hint.unwrap_or(0), left, uniform);
        backoff.zip(hinted).map(|(backoff, hinted)| backoff.max(hinted)).ok_or(limit)
    }

    /// Returns how many nanoseconds from now a retry may start at the latest. `u64::MAX` means that
    /// there is no limit.
    ///
    /// # Errors
    ///
    /// Returns the limit that is exceeded if no retry may start any more.
    #[inline]
    pub(crate) fn time_left(&self, elapsed: u64, deadline: Option<u64>) -> Result<u64, GiveUp> {
        let TimeLimit { latest, limit } = self.time_limit(deadline);
        match latest {
            Some(u64::MAX) => Ok(u64::MAX),
            _ => latest.and_then(|latest| latest.checked_sub(elapsed)).ok_or(limit),
        }
    }

    /// Returns the earlier of the two limits of a call's time.
    ///
    /// A retry may start at the very end of `max_elapsed`, but not at the deadline: it would have
    /// no time left.
    #[inline]
    pub(crate) fn time_limit(&self, deadline: Option<u64>) -> TimeLimit {
        let latest = self.max_elapsed.unwrap_or(u64::MAX);
        match deadline {
            Some(deadline) if deadline <= latest => {
                TimeLimit { latest: deadline.checked_sub(1), limit: GiveUp::Deadline }
            }
            _ => TimeLimit { latest: Some(latest), limit: GiveUp::MaxElapsed },
        }
    }
}

/// Returns whether a layer on this side rejected the request without sending it.
#[inline]
pub(crate) fn is_rejection(fault: &Fault) -> bool {
    // The origin first, because few faults are local.
    fault.origin() == Origin::Local
        && (fault.kind() == Kind::Rejected || fault.retryable() == Retryable::Unsent)
}

/// Returns whether a layer on this side rejected the request, which must not be sent again. The
/// decision on such a verdict is always [`GiveUp::Rejected`].
#[inline]
pub(crate) fn is_final_rejection(verdict: &Verdict) -> bool {
    let is_final = |fault: &Fault| fault.retryable() == Retryable::Never && is_rejection(fault);
    verdict.fault().is_some_and(is_final)
}

/// The latest time at which a retry of a call may start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLimit {
    /// In nanoseconds since the call began. `None`: no retry may start.
    latest: Option<u64>,
    /// The limit that determines it.
    pub(crate) limit: GiveUp,
}
