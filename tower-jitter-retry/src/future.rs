//! The future of a call that may be made several times.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_fault_classify::__shared::Clock;
use tower_fault_classify::{Classify, Fault, Verdict};
use tower_service::Service;

use crate::backoff::Position;
use crate::budget::{Account, Ticket};
use crate::policy::{Limits, Progress};
use crate::request::{Attempt, Resend};
use crate::rng::Stream;

pin_project! {
    /// Comes to what the last attempt comes to.
    ///
    /// Dropping it drops the attempt that runs, or the sleep before the next. Nothing is spawned. A call that is dropped before its
    /// first attempt has come to anything pays nothing into the budget.
    ///
    /// # Panics
    ///
    /// If a retry has to wait and there is no tokio runtime with its timer enabled.
    pub struct ResponseFuture<S, Req, C, Q>
    where
        S: Service<Req>,
        Q: Resend<Req>,
    {
        #[pin]
        state: State<S::Future>,
        // The request of the next attempt, while it waits.
        next: Option<Req>,
        spare: Option<Spare<S, Q::Saved>>,
        call: Call<C, Q>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] attempt: F },
        Sleeping { #[pin] sleep: Sleep },
        // Waits for the inner service's readiness.
        Waking,
    }
}

/// What further attempts need. A request that goes out once has none.
pub(crate) struct Spare<S, Saved> {
    pub(crate) service: S,
    pub(crate) saved: Option<Saved>,
}

/// What a call knows of itself.
pub(crate) struct Call<C, Q> {
    pub(crate) limits: Limits,
    pub(crate) account: Option<Account>,
    /// What the attempt that runs was paid with, if it is a retry.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) clock: Clock,
    /// When it first had to wait, or failed; a call that succeeds at once reads no clock for it.
    pub(crate) started: Option<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) randomness: Option<Stream>,
    pub(crate) attempts: u32,
    pub(crate) idempotent: bool,
    pub(crate) position: Position,
    pub(crate) classify: C,
    pub(crate) resend: Q,
}

impl<C, Q> Call<C, Q> {
    /// The request of the next attempt and how long it waits. `None`: what the last attempt came to is the caller's.
    fn next_attempt<S, Req>(
        &mut self,
        verdict: &Verdict,
        spare: &mut Option<Spare<S, Q::Saved>>,
    ) -> Option<(Req, Duration)>
    where
        Q: Resend<Req>,
    {
        if self.attempts == 1
            && let Some(account) = &self.account
        {
            account.outcome(verdict);
        }
        if let Some(ticket) = self.ticket.take() {
            ticket.settle(verdict);
        }
        let fault = verdict.fault()?;
        let saved = &mut spare.as_mut()?.saved;
        // Asked before anything is drawn or given up.
        if !saved.as_ref().is_some_and(|saved| self.resend.usable(saved)) {
            return None;
        }
        let now = self.clock.now();
        let delay = self.delay(fault, now)?;
        if let Some(account) = &self.account {
            self.ticket = Some(account.try_retry(fault)?);
        }
        let attempt = self.attempts + 1;
        let last = attempt == self.limits.max_attempts;
        let (request, more) = self.resend.again(saved.take()?, Attempt::new(attempt), last)?;
        *saved = more;
        Some((request, delay))
    }

    fn delay(&mut self, fault: &Fault, now: u64) -> Option<Duration> {
        let started = *self.started.get_or_insert(now);
        let mut progress = Progress {
            attempts: self.attempts,
            elapsed: now.saturating_sub(started),
            idempotent: self.idempotent,
            position: self.position,
        };
        let (randomness, seed) = (&mut self.randomness, self.seed);
        let uniform = |range| randomness.get_or_insert_with(|| Stream::open(seed)).uniform(range);
        let delay = self.limits.delay(fault, &mut progress, uniform);
        self.position = progress.position;
        delay.map(Duration::from_nanos)
    }
}

impl<S, Req, C, Q> ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    Q: Resend<Req>,
{
    pub(crate) const fn new(attempt: S::Future, call: Call<C, Q>, spare: Option<Spare<S, Q::Saved>>) -> Self {
        Self { state: State::Calling { attempt }, next: None, spare, call }
    }
}

impl<S, Req, C, Q> Future for ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    Q: Resend<Req>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { attempt } => {
                    let Poll::Ready(result) = attempt.poll(cx) else {
                        let Call { started, clock, .. } = this.call;
                        started.get_or_insert_with(|| clock.now());
                        return Poll::Pending;
                    };
                    let verdict = this.call.classify.classify(result.as_ref());
                    let Some((request, delay)) = this.call.next_attempt(&verdict, this.spare) else {
                        return Poll::Ready(result);
                    };
                    drop(result);
                    *this.next = Some(request);
                    this.state.set(if delay.is_zero() {
                        State::Waking
                    } else {
                        State::Sleeping { sleep: tokio::time::sleep(delay) }
                    });
                }
                StateProj::Sleeping { sleep } => {
                    ready!(sleep.poll(cx));
                    this.state.set(State::Waking);
                }
                StateProj::Waking => {
                    let spare = this.spare.as_mut().expect("a retry has a service");
                    if let Err(error) = ready!(spare.service.poll_ready(cx)) {
                        return Poll::Ready(Err(error));
                    }
                    let request =
                        this.next.take().expect("a retry that failed to get ready is not polled again");
                    this.call.attempts += 1;
                    let attempt = spare.service.call(request);
                    this.state.set(State::Calling { attempt });
                }
            }
        }
    }
}

impl<S, Req, C, Q> fmt::Debug for ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    Q: Resend<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("attempts", &self.call.attempts).finish_non_exhaustive()
    }
}
