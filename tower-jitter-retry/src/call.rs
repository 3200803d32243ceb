//! What a call knows of itself while it is made, and maybe made again.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__shared::Clock;
use tower_fault_classify::{Classify, Fault, Verdict};

use crate::backoff::Position;
use crate::budget::{Account, Budget, Ticket};
use crate::observe::{self, Retried, RetryEvent};
use crate::policy::{Extras, GiveUp, Limits, Progress, RetryPolicy, nanos};
use crate::request::{Attempt, Mark};
use crate::rng::Randomness;

/// A call under way. It holds the policy's numbers, and counts no reference unless the policy has something that needs it.
#[derive(Clone)]
pub(crate) struct Call {
    limits: Limits,
    account: Option<Account>,
    /// The budget's owner, apart from the account: together they would be moved through memory.
    owner: u32,
    clock: Clock,
    extras: Option<Arc<Extras>>,
    randomness: Randomness,
    /// When it first had to wait, or failed; a call that succeeds at once reads no clock for it. With a deadline, when it began.
    started: Option<u64>,
    deadline: Option<u64>,
    attempts: u32,
    idempotent: bool,
    position: Position,
    /// What the attempt that runs was paid with, if it is a retry.
    ticket: Spent,
}

/// A ticket is one call's. A clone of a call (a policy of tower's is cloned with it) has none.
#[derive(Default)]
struct Spent(Option<Ticket>);

impl Clone for Spent {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Call {
    #[expect(
        clippy::inline_always,
        reason = "else it is made here and moved, across the stores that made it"
    )]
    #[inline(always)]
    pub(crate) fn new(policy: &RetryPolicy, idempotent: bool, deadline: Option<Duration>) -> Self {
        let RetryPolicy { limits, budget, clock, seeds, extras, .. } = policy;
        Self {
            limits: *limits,
            account: budget.as_ref().map(Budget::account),
            owner: budget.as_ref().map_or(0, Budget::owner),
            clock: clock.clone(),
            extras: extras.clone(),
            randomness: Randomness::of(seeds.as_ref()),
            started: deadline.map(|_| clock.now()),
            deadline: deadline.map(nanos),
            attempts: 1,
            idempotent,
            position: Position::START,
            ticket: Spent(None),
        }
    }

    /// The attempt did not come to anything at once.
    #[inline]
    pub(crate) fn waits(&mut self) {
        if self.started.is_none() {
            self.started = Some(self.clock.now());
        }
    }

    /// The first attempt was a success.
    #[inline]
    pub(crate) fn succeeded_at_once(&self) {
        observe::attempt();
        if let Some(account) = &self.account {
            account.outcome(&Verdict::Success, self.owner);
        }
    }

    /// How long the next attempt waits after one that came to `verdict`. `None`: what it came to is the caller's. `hindered` says why a
    /// retry that is allowed cannot be made; it is asked before anything is drawn.
    pub(crate) fn after(
        &mut self,
        verdict: &Verdict,
        hindered: impl FnOnce() -> Option<GiveUp>,
    ) -> Option<Duration> {
        observe::attempt();
        if self.attempts == 1
            && let Some(account) = &self.account
        {
            account.outcome(verdict, self.owner);
        }
        if let Some(ticket) = self.ticket.0.take() {
            ticket.settle(verdict);
        }
        self.after_fault(verdict.fault()?, hindered)
    }

    fn after_fault(&mut self, fault: &Fault, hindered: impl FnOnce() -> Option<GiveUp>) -> Option<Duration> {
        let decision = self.decide(fault, hindered);
        decision.inspect_err(|reason| observe::give_up(*reason, fault, self.attempts)).ok()
    }

    /// Another attempt follows after the delay.
    pub(crate) fn go_on(&mut self, verdict: &Verdict, delay: Duration) {
        let observer = self.extras.as_ref().and_then(|extras| extras.observer.as_ref());
        if let Some(fault) = verdict.fault()
            && (observe::LISTENED_TO || observer.is_some())
        {
            let elapsed = self.elapsed();
            observe::retry(&RetryEvent { attempt: self.attempts, fault: *fault, delay, elapsed }, observer);
        }
        self.attempts += 1;
    }

    /// Another attempt was decided on, and its request could not be made after all.
    pub(crate) fn cannot_go_on(&mut self, verdict: &Verdict) {
        // What was paid stays paid: a budget cannot know better.
        self.ticket = Spent(None);
        if let Some(fault) = verdict.fault() {
            observe::give_up(GiveUp::NotReplayable, fault, self.attempts);
        }
    }

    fn decide(
        &mut self,
        fault: &Fault,
        hindered: impl FnOnce() -> Option<GiveUp>,
    ) -> Result<Duration, GiveUp> {
        self.limits.permits(fault, self.attempts, self.idempotent)?;
        if let Some(reason) = hindered() {
            return Err(reason);
        }
        let now = self.clock.now();
        let elapsed = now.saturating_sub(*self.started.get_or_insert(now));
        let mut progress = Progress { elapsed, deadline: self.deadline, position: self.position };
        let randomness = &mut self.randomness;
        let uniform = |range: RangeInclusive<u64>| {
            // A range of one needs no stream: a delay that is off costs nothing.
            if range.start() == range.end() { *range.start() } else { randomness.uniform(range) }
        };
        let delay = self.limits.delay(fault, &mut progress, uniform)?;
        self.position = progress.position;
        if let Some(account) = &self.account {
            self.ticket.0 = Some(account.try_retry(fault, self.owner).ok_or(GiveUp::Budget)?);
        }
        Ok(Duration::from_nanos(delay))
    }

    /// The attempt after the one that runs, and whether it is the last.
    pub(crate) fn following(&self) -> (Attempt, bool) {
        let next = self.attempts + 1;
        (Attempt::new(next), next == self.limits.max_attempts)
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What is written on the request of the attempt that runs, at the moment when it is sent.
    pub(crate) fn mark(&self) -> Mark<'_> {
        let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(nanos(self.elapsed())));
        Mark {
            attempt: Attempt::new(self.attempts),
            remaining: self.deadline.map(left),
            marker: self.limits.marker,
            header: self.extras.as_ref().and_then(|extras| extras.header.as_ref()),
        }
    }

    /// The same for an attempt that is sent after so long.
    #[cfg(feature = "tower-retry")]
    pub(crate) fn mark_after(&self, delay: Duration) -> Mark<'_> {
        let mark = self.mark();
        Mark { remaining: mark.remaining.map(|remaining| remaining.saturating_sub(delay)), ..mark }
    }

    /// Leaves attempts and time on the response of a call that was retried.
    #[inline]
    pub(crate) fn leave_note<C, Res, Err>(&self, classify: &C, result: &mut Result<Res, Err>)
    where
        C: Classify<Res, Err>,
    {
        if self.attempts > 1
            && let Ok(response) = result
            && let Some(extensions) =
                classify.outcome(response).and_then(|response| response.extensions_mut())
        {
            extensions.insert(Retried { attempts: self.attempts, elapsed: self.elapsed() });
        }
    }

    fn elapsed(&self) -> Duration {
        let since = |started| self.clock.now().saturating_sub(started);
        Duration::from_nanos(self.started.map_or(0, since))
    }
}
