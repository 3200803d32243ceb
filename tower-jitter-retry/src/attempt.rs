//! The state of a call during and between its attempts: its progress, the kept outcome of the last
//! attempt, and the delay before the next attempt.

use std::future::Future;
use std::mem;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Sleep;
use tower_fault_classify::__internals::Clock;
use tower_fault_classify::classifiers::ResponseCoverage;
use tower_fault_classify::{ClassifiedError, Classify, Fault, Verdict};

use crate::backoff::{Position, nanos};
use crate::budget::{RetryBudget, Ticket};
use crate::policy::{CallProgress, ColdConfig, GiveUp, HotConfig, RetryEvent, RetryPolicy, is_rejection};
use crate::request::{Attempt, Coverage, Mark, OuterMark, ResendAfter};
use crate::rng::Randomness;
use crate::telemetry::{self, Retried};

/// The state of a running call. It holds no counted reference unless the policy has a setting that
/// needs one.
#[derive(Clone)]
pub(crate) struct AttemptState {
    hot: HotConfig,
    cold: Option<Arc<ColdConfig>>,
    randomness: Randomness,
    /// The start of the call's time. It is the time when the call first had to wait or failed, so
    /// that a call that succeeds immediately does not read this clock. With a deadline, it is the
    /// time when the call began.
    started: Option<u64>,
    deadline: Option<u64>,
    attempts: u32,
    resend_after: ResendAfter,
    position: Position,
    /// The fault of the last attempt that was not rejected on this side.
    last_sent: Option<Fault>,
    /// The ticket of the running attempt, if that attempt is a retry.
    ticket: HeldTicket,
}

/// The ticket of one call. A clone of a call has no ticket; tower clones its policy together with
/// the call.
#[derive(Default)]
struct HeldTicket(Option<Ticket>);

impl Clone for HeldTicket {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl AttemptState {
    #[expect(
        clippy::inline_always,
        reason = "otherwise the state is built here and then moved, right after the stores that built it"
    )]
    #[inline(always)]
    pub(crate) fn new(policy: &RetryPolicy, resend_after: ResendAfter, deadline: Option<Duration>) -> Self {
        let RetryPolicy { hot, seeds, cold, .. } = policy;
        Self {
            hot: *hot,
            cold: cold.clone(),
            randomness: Randomness::of(seeds.as_ref()),
            started: deadline.map(|_| hot.clock.now()),
            deadline: deadline.map(nanos),
            attempts: 1,
            resend_after,
            position: Position::START,
            last_sent: None,
            ticket: HeldTicket(None),
        }
    }

    /// Replaces tokio's clock with the system's clock, for a thread that sleeps. Such a thread's
    /// time passes even while tokio's time is paused.
    pub(crate) fn for_blocking(mut self) -> Self {
        if self.hot.clock == Clock::tokio() {
            self.hot.clock = Clock::precise();
        }
        self
    }

    /// Starts the time of the call, unless it has already started.
    #[inline]
    pub(crate) fn start_time(&mut self) {
        if self.started.is_none() {
            self.started = Some(self.hot.clock.now());
        }
    }

    pub(crate) const fn tracks_uploads(&self) -> bool {
        self.hot.limits.track_uploads
    }

    /// Records that the first attempt was a success.
    #[inline]
    pub(crate) fn record_first_success(&self) {
        telemetry::record_attempt();
        // Without a budget there is no deposit, and this check saves a call.
        if self.hot.budget_ref.is_some() || self.cold.is_some() {
            self.deposit(&Verdict::Success);
        }
    }

    /// Reports the verdict on the first attempt to the budget.
    #[inline]
    fn deposit(&self, verdict: &Verdict) {
        if let Some(budget_ref) = self.hot.budget_ref {
            budget_ref.deposit(verdict);
        } else {
            self.deposit_custom(verdict);
        }
    }

    #[inline(never)]
    fn deposit_custom(&self, verdict: &Verdict) {
        if let Some(budget) = self.custom_budget() {
            budget.deposit(verdict);
        }
    }

    fn custom_budget(&self) -> Option<&Arc<dyn RetryBudget>> {
        self.cold.as_ref()?.budget.as_ref()
    }

    /// Withdraws from the budget for a retry.
    fn withdraw(&self, fault: &Fault) -> Result<Option<Ticket>, GiveUp> {
        let ticket = match (self.hot.budget_ref, self.custom_budget()) {
            (Some(budget_ref), _) => budget_ref.withdraw(fault),
            (None, Some(budget)) => budget.withdraw(fault),
            (None, None) => return Ok(None),
        };
        ticket.map(Some).ok_or(GiveUp::Budget)
    }

    /// Records the verdict on an attempt. Returns its fault, and the delay before the next attempt.
    ///
    /// `blocked` returns why a retry that the policy allows cannot be made. It is called before the
    /// withdrawal from the budget.
    ///
    /// # Errors
    ///
    /// Returns the reason if no attempt follows a fault, and `None` after a success.
    pub(crate) fn record_attempt(
        &mut self,
        verdict: &Verdict,
        blocked: impl FnOnce() -> Option<GiveUp>,
    ) -> Result<(Fault, Duration), Option<GiveUp>> {
        telemetry::record_attempt();
        if self.attempts == 1 {
            self.deposit(verdict);
        }
        if let Some(ticket) = self.ticket.0.take() {
            ticket.settle(verdict);
        }
        let Verdict::Fault(fault) = *verdict else {
            self.last_sent = None;
            return Err(None);
        };
        if !is_rejection(&fault) {
            self.last_sent = Some(fault);
        }
        match self.decide(&fault, blocked) {
            Ok(delay) => Ok((fault, delay)),
            Err(reason) => {
                telemetry::emit_give_up(reason, &fault, self.attempts);
                Err(Some(reason))
            }
        }
    }

    /// Records the result of an attempt, for callers that own the result. `kept` is the result of
    /// the attempt before it, if it is still kept. See [`record_attempt`](Self::record_attempt).
    ///
    /// # Errors
    ///
    /// Returns the outcome for the caller if no attempt follows, with a [`Retried`] attached to it.
    pub(crate) fn record_result<C, Res, Err>(
        &mut self,
        classify: &C,
        kept: Option<LastOutcome<Result<Res, Err>>>,
        mut result: Result<Res, Err>,
        verdict: &Verdict,
        blocked: impl FnOnce() -> Option<GiveUp>,
    ) -> Result<ScheduledRetry<Result<Res, Err>>, Result<Res, Err>>
    where
        C: Classify<Res, Err>,
    {
        let after = self.record_attempt(verdict, blocked);
        let Verdict::Fault(fault) = *verdict else {
            self.attach_retried(classify, &mut result, None);
            return Err(result);
        };
        let mut last = LastOutcome::or_newer(kept, result, &fault);
        match after {
            Ok((fault, delay)) => Ok(ScheduledRetry { last, fault, delay }),
            Err(ended) => {
                self.attach_retried(classify, &mut last.result, ended);
                Err(last.result)
            }
        }
    }

    /// Records that another attempt follows after the delay.
    pub(crate) fn begin_retry(&mut self, fault: &Fault, delay: Duration) {
        let observer = self.cold.as_ref().and_then(|cold| cold.observer.as_ref());
        if telemetry::ENABLED || observer.is_some() {
            let elapsed = self.elapsed();
            telemetry::emit_retry(
                &RetryEvent { attempt: self.attempts, fault: *fault, delay, elapsed },
                observer,
            );
        }
        self.attempts += 1;
    }

    /// Records that the request of a retry that was already decided on cannot be created. Returns
    /// the reason.
    pub(crate) fn cancel_retry(&mut self, fault: &Fault) -> GiveUp {
        // A ticket that is dropped unsettled means that the retry was not sent.
        self.ticket = HeldTicket(None);
        telemetry::emit_give_up(GiveUp::NotReplayable, fault, self.attempts);
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
        self.ticket = HeldTicket(None);
        self.attempts -= 1;
        telemetry::emit_give_up(reason, &fault, self.attempts);
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
        let left = self.hot.limits.time_left(nanos(self.elapsed()), self.deadline)?;
        Ok((left < u64::MAX).then(|| Duration::from_nanos(left)))
    }

    /// Returns the limit that ends the call's time first.
    pub(crate) fn time_limit(&self) -> GiveUp {
        self.hot.limits.time_limit(self.deadline).limit
    }

    fn decide(
        &mut self,
        fault: &Fault,
        blocked: impl FnOnce() -> Option<GiveUp>,
    ) -> Result<Duration, GiveUp> {
        self.hot.limits.permits(fault, self.attempts, self.resend_after)?;
        if let Some(reason) = blocked() {
            return Err(reason);
        }
        let now = self.hot.clock.now();
        let elapsed = now.saturating_sub(*self.started.get_or_insert(now));
        let mut progress = CallProgress { elapsed, deadline: self.deadline, position: self.position };
        let randomness = &mut self.randomness;
        let uniform = |range: RangeInclusive<u64>| randomness.uniform(range);
        let delay = self.hot.limits.delay(fault, &mut progress, uniform)?;
        self.position = progress.position;
        self.ticket.0 = self.withdraw(fault)?;
        Ok(Duration::from_nanos(delay))
    }

    /// Returns the attempt after the running one, and whether it is the last.
    pub(crate) fn next_attempt(&self, outer: OuterMark, responses: ResponseCoverage) -> (Attempt, bool) {
        let next = self.attempts + 1;
        (self.attempt(next, outer, responses), next == self.hot.limits.max_attempts)
    }

    pub(crate) fn follows_redirects(&self) -> Option<bool> {
        self.hot.limits.follows_redirects
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    fn attempt(&self, number: u32, outer: OuterMark, responses: ResponseCoverage) -> Attempt {
        outer.attempt(number, Coverage::of(self.resend_after, responses))
    }

    /// Returns the mark for the request of the running attempt, at the time when the request is
    /// sent. Nothing is computed for a request that carries no marks.
    #[inline]
    pub(crate) fn mark(&self, outer: OuterMark, responses: ResponseCoverage) -> Mark<'_> {
        let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(nanos(self.elapsed())));
        Mark {
            attempt: self.attempt(self.attempts, outer, responses),
            remaining: self.deadline.map(left),
            marker: self.hot.limits.marker,
            header: self.cold.as_ref().and_then(|cold| cold.header.as_ref()),
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
        if self.attempts > 1 {
            self.attach(classify, result, ended);
        }
    }

    fn attach<C, Res, Err>(&self, classify: &C, result: &mut Result<Res, Err>, ended: Option<GiveUp>)
    where
        C: Classify<Res, Err>,
    {
        let Self { attempts, last_sent, .. } = *self;
        let retried = Retried { attempts, elapsed: self.elapsed(), ended, last_sent };
        match result {
            Ok(response) => {
                let outcome = classify.outcome(response);
                if let Some(extensions) = outcome.and_then(|outcome| outcome.extensions_mut()) {
                    extensions.insert(retried);
                }
            }
            Err(error) => {
                if let Some(classified) = classify.error(error).and_then(ClassifiedError::find) {
                    classified.set_note(retried);
                }
            }
        }
    }

    fn elapsed(&self) -> Duration {
        let since = |started| self.hot.clock.now().saturating_sub(started);
        Duration::from_nanos(self.started.map_or(0, since))
    }
}

/// The failed result of an attempt, kept while another attempt is to follow.
pub(crate) struct LastOutcome<R> {
    pub(crate) result: R,
    pub(crate) fault: Fault,
}

impl<R> LastOutcome<R> {
    /// Returns the outcome for the caller after another attempt failed. That is the newer outcome,
    /// unless the newer attempt was rejected on this side and the attempt before it was sent.
    pub(crate) fn or_newer(kept: Option<Self>, result: R, fault: &Fault) -> Self {
        match kept {
            Some(kept) if is_rejection(fault) && kept.was_sent() => kept,
            _ => Self { result, fault: *fault },
        }
    }

    pub(crate) fn was_sent(&self) -> bool {
        !is_rejection(&self.fault)
    }
}

/// Another attempt that follows after a delay.
pub(crate) struct ScheduledRetry<R> {
    pub(crate) last: LastOutcome<R>,
    /// The fault of the attempt that has just ended.
    pub(crate) fault: Fault,
    pub(crate) delay: Duration,
}

/// The number of attempts without a delay that follow each other within one poll outside of a tokio
/// runtime. It equals the number of steps that tokio allows a task in one poll.
const ATTEMPTS_IN_A_POLL: u32 = 128;

pin_project! {
    /// The delay before a retry. A delay of zero uses no timer, and yields to the runtime from time
    /// to time.
    #[derive(Debug)]
    #[project = RetryDelayProj]
    pub(crate) enum RetryDelay {
        Sleep { #[pin] sleep: Sleep },
        Immediate { yields: bool },
    }
}

impl RetryDelay {
    /// Creates the delay that follows the given number of attempts.
    pub(crate) fn new(delay: Duration, attempts: u32) -> Self {
        if delay.is_zero() {
            Self::Immediate { yields: attempts.is_multiple_of(ATTEMPTS_IN_A_POLL) }
        } else {
            Self::Sleep { sleep: tokio::time::sleep(delay) }
        }
    }
}

impl Future for RetryDelay {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            RetryDelayProj::Sleep { sleep } => sleep.poll(cx),
            RetryDelayProj::Immediate { yields } => {
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
            let last = LastOutcome { result: kept, fault: kept };
            assert_eq!(LastOutcome::or_newer(Some(last), newer, &newer).result, expected, "{kept} {newer}");
        }
        assert_eq!(LastOutcome::or_newer(None, OPEN, &OPEN).result, OPEN);
    }
}
