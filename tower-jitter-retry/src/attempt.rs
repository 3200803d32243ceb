//! The state of a call during and between its attempts: the retry decision with the clock and the
//! reports, the kept outcome of the last attempt, and the delay before the next attempt.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Sleep;
use tower_fault_classify::__internals::Clock;
use tower_fault_classify::classifiers::ResponseCoverage;
use tower_fault_classify::{ClassifiedError, Classify, Fault, Verdict};

use crate::decision::{Decision, Reading, RetryCall};
use crate::policy::{GiveUp, RetryEvent, RetryPolicy, is_rejection};
use crate::request::{Attempt, Coverage, Deadline, Mark, OuterMark, ResendAfter};
use crate::rng::Randomness;
use crate::telemetry::{ENABLED, Reporter, Retried};

/// The state of a running call: a [`RetryCall`] with the policy's clock, and with reports. It holds
/// no counted reference unless the policy has a setting that needs one.
///
/// Without a deadline, the time of the call starts when the call first has to wait or fails, so
/// that a call that succeeds immediately does not read the clock. With a deadline, it starts when
/// the call begins.
#[derive(Clone)]
pub(crate) struct AttemptState {
    call: RetryCall,
    clock: Clock,
    /// The fault of the last attempt that was not rejected on this side.
    last_sent: Option<Fault>,
    reporter: Reporter,
}

impl AttemptState {
    #[expect(
        clippy::inline_always,
        reason = "otherwise the state is built here and then moved, right after the stores that built it"
    )]
    #[inline(always)]
    pub(crate) fn new(
        policy: &RetryPolicy,
        resend_after: ResendAfter,
        started: Option<u64>,
        deadline: Option<Duration>,
        randomness: Randomness,
    ) -> Self {
        let call = RetryCall::new(policy, resend_after, started, deadline, randomness);
        Self { call, clock: policy.clock, last_sent: None, reporter: policy.reporter }
    }

    /// Replaces tokio's clock with the system's clock, for a thread that sleeps. Such a thread's
    /// time passes even while tokio's time is paused.
    pub(crate) fn for_blocking(mut self) -> Self {
        if self.clock == Clock::tokio() {
            self.clock = Clock::precise();
        }
        self
    }

    /// Starts the time of the call, unless it has already started.
    #[inline]
    pub(crate) fn start_time(&mut self) {
        let clock = self.clock;
        self.call.start_time(|| clock.now());
    }

    /// Starts the time of the call, and sets its deadline.
    pub(crate) fn start_with_deadline(&mut self, deadline: Deadline) {
        self.start_time();
        self.call.set_deadline(deadline.remaining());
    }

    pub(crate) fn tracks_uploads(&self) -> bool {
        self.call.limits().track_uploads
    }

    /// Records that the first attempt was a success.
    #[expect(clippy::inline_always, reason = "a call without a budget then makes no function call")]
    #[inline(always)]
    pub(crate) fn record_first_success(&self) {
        self.reporter.attempt();
        self.call.record_first_success();
    }

    /// Records that the first attempt was rejected on this side and must not be retried, as
    /// [`record_attempt`](Self::record_attempt) does.
    #[inline]
    pub(crate) fn record_first_rejection(&self, verdict: &Verdict) {
        self.reporter.attempt();
        self.call.record_first_rejection(verdict);
        if let Some(fault) = verdict.fault() {
            self.reporter.give_up(GiveUp::Rejected, fault, self.call.attempts());
        }
    }

    /// Records the verdict on an attempt. Returns the delay before the next attempt.
    ///
    /// `blocked` returns why a retry that the policy allows cannot be made. It is called before the
    /// withdrawal from the budget.
    ///
    /// # Errors
    ///
    /// Returns the reason if no attempt follows a fault, and `None` after a success.
    #[inline]
    pub(crate) fn record_attempt(
        &mut self,
        verdict: &Verdict,
        blocked: impl FnOnce() -> Option<GiveUp>,
    ) -> Result<Duration, Option<GiveUp>> {
        self.reporter.attempt();
        let clock = self.clock;
        let now = |reading| match reading {
            Reading::Exact => clock.now(),
            Reading::UpperBound => clock.upper_bound(),
        };
        let decision = self.call.record_unless(verdict, now, blocked);
        let Verdict::Fault(fault) = verdict else {
            self.last_sent = None;
            return Err(None);
        };
        if !is_rejection(fault) {
            self.last_sent = Some(*fault);
        }
        match decision {
            Decision::Retry { delay } => Ok(delay),
            Decision::GiveUp(reason) => {
                self.reporter.give_up(reason, fault, self.call.attempts());
                Err(Some(reason))
            }
            Decision::Done => Err(None),
        }
    }

    /// Records the result of an attempt, for callers that own the result. `last` is the result of
    /// the attempt before it, if it is still kept. If another attempt follows, `last` is the result
    /// to keep. See [`record_attempt`](Self::record_attempt).
    ///
    /// # Errors
    ///
    /// Returns the outcome for the caller if no attempt follows, with a [`Retried`] attached to it.
    pub(crate) fn record_result<C, Res, Err>(
        &mut self,
        classify: &C,
        last: &mut Option<LastOutcome<Result<Res, Err>>>,
        mut result: Result<Res, Err>,
        verdict: &Verdict,
        blocked: impl FnOnce() -> Option<GiveUp>,
    ) -> Result<Duration, Result<Res, Err>>
    where
        C: Classify<Res, Err>,
    {
        match self.record_attempt(verdict, blocked) {
            Ok(delay) => {
                LastOutcome::keep(last, result, verdict);
                Ok(delay)
            }
            Err(ended) => {
                self.finish(classify, last, &mut result, verdict, ended);
                Err(result)
            }
        }
    }

    /// Makes `result` the outcome for the caller, after an attempt that no other attempt follows,
    /// and attaches a [`Retried`] to it. `last` is the kept outcome of the attempt before it.
    #[inline]
    pub(crate) fn finish<C, Res, Err>(
        &self,
        classify: &C,
        last: &mut Option<LastOutcome<Result<Res, Err>>>,
        result: &mut Result<Res, Err>,
        verdict: &Verdict,
        ended: Option<GiveUp>,
    ) where
        C: Classify<Res, Err>,
    {
        if let Some(fault) = verdict.fault()
            && LastOutcome::takes_precedence(last.as_ref(), fault)
            && let Some(last) = last.take()
        {
            *result = last.result;
        }
        self.attach_retried(classify, result, ended);
    }

    /// Reports the scheduled retry, before its delay begins.
    #[inline]
    pub(crate) fn report_retry(&self, verdict: &Verdict, delay: Duration) {
        let observer = self.call.cold().and_then(|cold| cold.observer.as_ref());
        if let Some(fault) = verdict.fault()
            && (ENABLED || observer.is_some())
        {
            let (attempt, elapsed) = (self.retries(), self.elapsed());
            self.reporter.retry(&RetryEvent { attempt, fault: *fault, delay, elapsed }, observer);
        }
    }

    /// Records that the request of the scheduled retry cannot be created. Returns the reason.
    pub(crate) fn cancel_retry(&mut self, verdict: &Verdict) -> GiveUp {
        self.call.cancel_retry();
        if let Some(fault) = verdict.fault() {
            self.reporter.give_up(GiveUp::NotReplayable, fault, self.call.attempts());
        }
        GiveUp::NotReplayable
    }

    /// Records that the next attempt is not sent. Returns the outcome for the caller, with a
    /// [`Retried`] attached to it.
    pub(crate) fn stop<C, Res, Err>(
        &mut self,
        reason: GiveUp,
        classify: &C,
        last: LastOutcome<Result<Res, Err>>,
    ) -> Result<Res, Err>
    where
        C: Classify<Res, Err>,
    {
        let LastOutcome { mut result, fault } = last;
        self.call.cancel_retry();
        self.reporter.give_up(reason, &fault, self.call.attempts());
        self.attach(classify, &mut result, Some(reason));
        result
    }

    /// Returns how long the next attempt may still wait before it is sent, or `None` if there is no
    /// limit.
    ///
    /// # Errors
    ///
    /// Returns the limit that is exceeded.
    pub(crate) fn time_left(&self) -> Result<Option<Duration>, GiveUp> {
        self.call.time_left_at(|| self.clock.now())
    }

    /// Returns the limit that is exceeded if the scheduled attempt must not start any more.
    #[inline]
    pub(crate) fn exceeded_limit(&self) -> Option<GiveUp> {
        if self.has_time() { None } else { self.time_left().err() }
    }

    /// Returns whether a cheap reading of the clock shows that the scheduled attempt may start.
    ///
    /// Most calls have much time left. If it returns `false`,
    /// [`exceeded_limit`](Self::exceeded_limit) decides.
    #[inline]
    pub(crate) fn has_time(&self) -> bool {
        self.call.may_start_at(|| self.clock.upper_bound())
    }

    /// Returns the limit that ends the call's time first.
    pub(crate) fn time_limit(&self) -> GiveUp {
        self.call.time_limit()
    }

    /// Returns the scheduled attempt, and whether it is the last.
    #[inline]
    pub(crate) fn scheduled_attempt(&self, outer: OuterMark, responses: ResponseCoverage) -> (Attempt, bool) {
        let last = self.attempts() == self.call.limits().max_attempts;
        (self.attempt(outer, responses), last)
    }

    #[inline]
    pub(crate) fn follows_redirects(&self) -> Option<bool> {
        self.call.limits().follows_redirects
    }

    /// Returns the number of attempts, including the one in progress or scheduled.
    #[inline]
    pub(crate) fn attempts(&self) -> u32 {
        self.call.attempts()
    }

    /// Returns the number of retries, including the one in progress or scheduled.
    pub(crate) fn retries(&self) -> u32 {
        self.attempts() - 1
    }

    #[inline]
    fn attempt(&self, outer: OuterMark, responses: ResponseCoverage) -> Attempt {
        outer.attempt(self.attempts(), Coverage::of(self.call.resend_after(), responses))
    }

    /// Returns the mark for the request of the running attempt, at the time when the request is
    /// sent. Nothing is computed for a request that carries no marks.
    #[expect(
        clippy::inline_always,
        reason = "the mark of a request that carries no marks then costs nothing"
    )]
    #[inline(always)]
    pub(crate) fn mark(&self, outer: OuterMark, responses: ResponseCoverage) -> Mark<'_> {
        let elapsed = || self.call.elapsed_at(|| self.clock.now());
        let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(elapsed()));
        Mark {
            attempt: self.attempt(outer, responses),
            remaining: self.call.deadline().map(left),
            marker: self.call.limits().marker,
            header: self.call.cold().and_then(|cold| cold.header.as_ref()),
        }
    }

    /// Returns the mark for an attempt that is sent after `delay`.
    #[cfg(feature = "tower-retry")]
    pub(crate) fn mark_after(
        &self,
        outer: OuterMark,
        responses: ResponseCoverage,
        delay: Duration,
    ) -> Mark<'_> {
        let mark = self.mark(outer, responses);
        Mark { remaining: mark.remaining.map(|remaining| remaining.saturating_sub(delay)), ..mark }
    }

    /// Attaches a [`Retried`] to the outcome of a call that was retried.
    #[inline]
    pub(crate) fn attach_retried<C, Res, Err>(
        &self,
        classify: &C,
        result: &mut Result<Res, Err>,
        ended: Option<GiveUp>,
    ) where
        C: Classify<Res, Err>,
    {
        if self.attempts() > 1 {
            self.attach(classify, result, ended);
        }
    }

    #[inline(never)]
    fn attach<C, Res, Err>(&self, classify: &C, result: &mut Result<Res, Err>, ended: Option<GiveUp>)
    where
        C: Classify<Res, Err>,
    {
        // The clock is read only if the result can carry the history.
        let retried = || {
            let (attempts, elapsed) = (self.attempts(), self.elapsed());
            Retried { attempts, elapsed, ended, last_sent: self.last_sent }
        };
        match result {
            Ok(response) => {
                let outcome = classify.outcome(response);
                if let Some(extensions) = outcome.and_then(|outcome| outcome.extensions_mut()) {
                    extensions.insert(retried());
                }
            }
            Err(error) => {
                if let Some(classified) = classify.error(error).and_then(ClassifiedError::find) {
                    classified.set_note(retried());
                }
            }
        }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.call.elapsed_at(|| self.clock.now()))
    }
}

/// The failed result of an attempt, kept while another attempt is to follow.
pub(crate) struct LastOutcome<R> {
    pub(crate) result: R,
    pub(crate) fault: Fault,
}

impl<R> LastOutcome<R> {
    /// Keeps the result of an attempt that another attempt follows, unless the kept outcome of the
    /// attempt before it takes precedence.
    #[expect(clippy::inline_always, reason = "out of line, the result is copied through memory")]
    #[inline(always)]
    pub(crate) fn keep(last: &mut Option<Self>, result: R, verdict: &Verdict) {
        if let Some(fault) = verdict.fault()
            && !Self::takes_precedence(last.as_ref(), fault)
        {
            // Dropped first, so that the outcome is built in its place.
            *last = None;
            *last = Some(Self { result, fault: *fault });
        }
    }

    /// Returns whether the caller gets the kept outcome after a newer attempt failed with `fault`:
    /// the newer attempt was rejected on this side, and the attempt of the kept outcome was sent.
    #[inline]
    fn takes_precedence(kept: Option<&Self>, fault: &Fault) -> bool {
        is_rejection(fault) && kept.is_some_and(Self::was_sent)
    }

    #[inline]
    pub(crate) fn was_sent(&self) -> bool {
        !is_rejection(&self.fault)
    }
}

/// The number of attempts without a delay that follow each other within one poll outside of a tokio
/// runtime. It equals the number of steps that tokio allows a task in one poll.
const ATTEMPTS_IN_A_POLL: u32 = 128;

/// The delay before a retry. A delay of zero uses no timer, and yields to the runtime from time to
/// time.
#[derive(Debug)]
pub(crate) enum RetryDelay {
    // Boxed: few calls sleep, and the future of every call would have the size of a timer.
    Sleep(Pin<Box<Sleep>>),
    Immediate { yields: bool },
}

impl RetryDelay {
    /// Creates the delay before the retry with the given number, from 1.
    #[inline]
    pub(crate) fn new(delay: Duration, retry: u32) -> Self {
        if delay.is_zero() {
            Self::Immediate { yields: retry.is_multiple_of(ATTEMPTS_IN_A_POLL) }
        } else {
            Self::Sleep(Box::pin(tokio::time::sleep(delay)))
        }
    }
}

impl Future for RetryDelay {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Self::Sleep(sleep) => sleep.as_mut().poll(cx),
            Self::Immediate { yields } => {
                if mem::take(yields) {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // In a tokio task, a retry takes one of the steps that the task may take in a poll.
                ready!(coop::poll_proceed(cx)).made_progress();
                Poll::Ready(())
            }
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Health, Kind, Origin, Retryable};

    use super::*;

    const SENT: Fault =
        Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
    const UNREACHED: Fault = SENT.with_retryable(Retryable::Unsent).with_origin(Origin::Transport);
    const OPEN: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
    const SHED: Fault = OPEN.with_retryable(Retryable::Unsent);
    const NO_PORT: Fault = SHED.with_kind(Kind::Local);

    #[test]
    fn rejection_does_not_replace_outcome_that_was_sent() {
        for (kept, newer, expected) in [
            (SENT, OPEN, SENT),
            (SENT, SHED, SENT),
            (SENT, NO_PORT, SENT),
            (UNREACHED, OPEN, UNREACHED),
            (SENT, UNREACHED, UNREACHED),
            (UNREACHED, SENT, SENT),
            (SHED, OPEN, OPEN),
            (OPEN, SHED, SHED),
            (SHED, SENT, SENT),
        ] {
            let last = LastOutcome { result: (), fault: kept };
            let kept_first = LastOutcome::takes_precedence(Some(&last), &newer);
            assert_eq!(if kept_first { kept } else { newer }, expected, "{kept} {newer}");
        }
        assert!(!LastOutcome::<()>::takes_precedence(None, &OPEN));
    }
}
