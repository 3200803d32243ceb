//! The future of a call that may be sent several times.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tower_fault_classify::__internals::{RetryScope, UploadGuard};
use tower_fault_classify::classifiers::{Auto, ResponseCoverage};
use tower_fault_classify::{Classify, Verdict};
use tower_service::Service;

use crate::attempt::{AttemptState, LastOutcome, RetryDelay};
use crate::policy::{AttemptOutcome, GiveUp, before_redirect, is_final_rejection, is_unprocessed};
use crate::request::{ByTrait, OuterMark, RequestInfo, Resend};

type InnerResult<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

type InnerOutcome<S, Req> = LastOutcome<InnerResult<S, Req>>;

type InnerRetry<S, Req> = PendingRetry<Req, InnerResult<S, Req>>;

pin_project! {
    /// A future that resolves to the outcome of the last attempt that was sent.
    ///
    /// The first attempt is always sent. A retry is sent only before the request's
    /// [`Deadline`](crate::Deadline) (or `grpc-timeout`) and within
    /// [`max_elapsed`](crate::RetryPolicyBuilder::max_elapsed). A retry that waits for the inner
    /// service's readiness stops waiting at that time. The future then resolves to the outcome of
    /// the attempt before it.
    ///
    /// # Rejected attempts
    ///
    /// The outcome of an attempt is kept during the delay, the wait for readiness and the first
    /// poll of the next attempt. An open circuit, load shedding or an error of the inner service's
    /// readiness may reject the next attempt on this side.
    ///
    /// | the next attempt is rejected | the future resolves to |
    /// |---|---|
    /// | before or during its first poll, and no further attempt follows | the kept outcome |
    /// | later, or before any attempt was sent | the rejection |
    ///
    /// The kept outcome is dropped before the second poll of the next attempt, because its body may
    /// hold a resource that the attempt waits for: a stream or a permit.
    ///
    /// If a retry was planned, [`Retried`](crate::Retried) on the kept outcome or on the rejection
    /// contains the number of attempts, the reason why they ended, and the fault of the last
    /// attempt that was sent.
    ///
    /// # Permits held by a response
    ///
    /// The last response's body may hold a permit that the inner service needs for its *readiness*.
    /// The inner service then becomes ready only when the future is dropped or its time is over.
    /// Acquire such a permit in the call, and wait for it there. If the inner service instead sheds
    /// load while the permit is held, it rejects every further attempt.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the running attempt, or the delay before the next attempt. No task
    /// is spawned.
    ///
    /// - A call that is dropped before its first attempt has an outcome makes no deposit into the
    ///   budget.
    /// - A breaker below does not count the attempt as cancelled if a body that is kept waits for
    ///   its source at that time.
    ///
    /// # Panics
    ///
    /// - If a retry has to sleep, or to wait for readiness in limited time, on a tokio runtime
    ///   without its timer enabled.
    /// - If a retry has to sleep outside of a tokio runtime. There, a wait for readiness does not
    ///   panic, and no timer ends it early: the time is checked when the inner service is ready.
    /// - If the future is polled after it has completed, it may panic.
    pub struct ResponseFuture<S, Req, C = Auto, Q = ByTrait>
    where
        S: Service<Req>,
        Q: Resend<Req>,
    {
        #[pin]
        state: State<S::Future, InnerRetry<S, Req>>,
        replayable: Replayable<S, Q::Saved>,
        call: AttemptState,
        classify: C,
        resend: Q,
    }

    impl<S, Req, C, Q> PinnedDrop for ResponseFuture<S, Req, C, Q>
    where
        S: Service<Req>,
        Q: Resend<Req>,
    {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // A breaker below does not count a call that is dropped while its upload waits.
            if let Some(_guard) = upload_guard::<_, Req, _>(this.replayable, this.resend, this.call) {
                this.state.set(State::Idle);
            }
        }
    }
}

pin_project! {
    // A tag of one word keeps the attempt aligned: it is moved in whole words.
    #[project = StateProj]
    #[repr(usize)]
    enum State<F, N> {
        Calling { #[pin] attempt: F },
        // `None` while the future is polled: a retry that need not wait is never moved here.
        Waiting { next: Option<N>, wait: Wait },
        // Between two attempts, while the future is polled.
        Idle,
    }
}

enum Wait {
    Delay(RetryDelay),
    // Waits for the inner service's readiness, with a timer if the wait is pending and limited.
    Readiness(Option<Pin<Box<Sleep>>>),
}

/// A retry that was decided on and not sent yet.
struct PendingRetry<Req, R> {
    request: Req,
    /// The outcome of the attempt before it.
    last: LastOutcome<R>,
}

/// The data that further attempts need.
pub(crate) enum Replayable<S, Saved> {
    /// The request is sent once, for this reason.
    No(GiveUp),
    Yes {
        service: S,
        saved: Option<Saved>,
        outer: OuterMark,
    },
}

impl<S, Saved> Replayable<S, Saved> {
    /// Returns the mark of the outer layers.
    fn outer(&self) -> OuterMark {
        match self {
            Self::No(_) => OuterMark::default(),
            Self::Yes { outer, .. } => *outer,
        }
    }

    /// Drops the saved request: no attempt follows.
    #[inline]
    fn drop_saved(&mut self) {
        if mem::needs_drop::<Saved>()
            && let Self::Yes { saved, .. } = self
        {
            *saved = None;
        }
    }
}

impl<S, Req, C, Q> ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    Q: Resend<Req>,
{
    #[inline]
    pub(crate) const fn new(
        attempt: S::Future,
        call: AttemptState,
        replayable: Replayable<S, Q::Saved>,
        classify: C,
        resend: Q,
    ) -> Self {
        Self { state: State::Calling { attempt }, replayable, call, classify, resend }
    }
}

impl<S, Req, C, Q> Future for ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    Q: Resend<Req>,
    Req: RequestInfo,
{
    type Output = Result<S::Response, S::Error>;

    #[expect(clippy::inline_always, reason = "out of line, the result is copied through memory")]
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        let StateProj::Calling { attempt } = this.state.project() else { return self.poll_waiting(cx) };
        // The guard covers the poll and the classification, so that this layer and the layers below
        // classify the attempt with it.
        let guard = upload_guard::<_, Req, _>(this.replayable, this.resend, this.call);
        let scope = (this.call.attempts() > 1).then(RetryScope::enter);
        let polled = attempt.poll(cx);
        drop(scope);
        let Poll::Ready(result) = polled else {
            this.call.start_time();
            return Poll::Pending;
        };
        let verdict = this.classify.classify(result.as_ref());
        drop(guard);
        // Most calls end here, and also the calls that an open circuit rejects. The response or the
        // error is moved alone, because the whole result would be copied through memory.
        let result = match result {
            Ok(response) if verdict.is_success() && this.call.attempts() == 1 => {
                this.call.record_first_success();
                this.replayable.drop_saved();
                return Poll::Ready(Ok(response));
            }
            Err(error) if is_final_rejection(&verdict) && this.call.attempts() == 1 => {
                this.call.record_first_rejection(&verdict);
                this.replayable.drop_saved();
                return Poll::Ready(Err(error));
            }
            result => result,
        };
        self.poll_retries(result, verdict, None, cx)
    }
}

impl<S, Req, C, Q> ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    Q: Resend<Req>,
    Req: RequestInfo,
{
    /// Polls a retry's attempt, and classifies its result. `scope` is dropped after the poll.
    #[expect(clippy::inline_always, reason = "out of line, the result is copied through memory")]
    #[inline(always)]
    fn poll_attempt(
        self: Pin<&mut Self>,
        scope: RetryScope,
        verdict: &mut Verdict,
        cx: &mut Context<'_>,
    ) -> Poll<InnerResult<S, Req>> {
        let this = self.project();
        let StateProj::Calling { attempt } = this.state.project() else { polled_after_completion() };
        let guard = upload_guard::<_, Req, _>(this.replayable, this.resend, this.call);
        let polled = attempt.poll(cx);
        drop(scope);
        if let Poll::Ready(result) = &polled {
            *verdict = this.classify.classify(result.as_ref());
        }
        drop(guard);
        polled
    }

    /// Decides what follows an attempt, and sends further attempts until one has to wait or no
    /// attempt follows. `last` is the kept outcome of the attempt before it.
    // Out of line, because most calls succeed on their first attempt. One function, because its
    // parts would pass the results through memory. A retry without a delay stays in its variables.
    #[inline(never)]
    fn poll_retries(
        mut self: Pin<&mut Self>,
        mut result: InnerResult<S, Req>,
        mut verdict: Verdict,
        mut last: Option<InnerOutcome<S, Req>>,
        cx: &mut Context<'_>,
    ) -> Poll<InnerResult<S, Req>> {
        loop {
            let mut this = self.as_mut().project();
            let (replayable, resend) = (&*this.replayable, &*this.resend);
            if is_unprocessed(&verdict) {
                let follows = this.call.follows_redirects();
                let url = || saved_url::<_, Req, _>(replayable, resend);
                verdict = before_redirect(verdict, follows, this.classify, &mut result, url);
            }
            let outcome = AttemptOutcome::new(this.classify, &mut result, &verdict);
            let blocked = || {
                let blocked = outcome.blocked(replayable.outer());
                blocked.or_else(|| not_replayable::<_, Req, _>(replayable, resend))
            };
            let delay = match this.call.record_attempt(&verdict, blocked) {
                Ok(delay) => delay,
                Err(ended) => {
                    this.replayable.drop_saved();
                    this.call.finish(this.classify, &mut last, &mut result, &verdict, ended);
                    return Poll::Ready(result);
                }
            };
            LastOutcome::keep(&mut last, result, &verdict);
            let responses = this.classify.response_coverage();
            let Some(mut request) = next_request(this.replayable, this.resend, this.call, responses) else {
                let last = last.unwrap_or_else(|| polled_after_completion());
                return Poll::Ready(self.not_replayable(last.result, &verdict));
            };
            let mut pause = RetryDelay::new(delay, this.call.retries());
            this.call.report_retry(&verdict, delay);
            // Drops the attempt, which may hold a resource that the next attempt needs.
            this.state.set(State::Idle);
            if Pin::new(&mut pause).poll(cx).is_pending() {
                let next = last.map(|last| PendingRetry { request, last });
                this.state.set(State::Waiting { next, wait: Wait::Delay(pause) });
                return Poll::Pending;
            }
            let Replayable::Yes { service, outer, .. } = this.replayable else { polled_after_completion() };
            // Inner layers see that the attempt is a retry.
            let mut scope = RetryScope::enter();
            let ready = service.poll_ready(cx);
            if matches!(ready, Poll::Ready(Ok(()))) && this.call.has_time() {
                request.mark(this.call.mark(*outer, responses));
                let attempt = service.call(request);
                this.state.set(State::Calling { attempt });
            } else {
                drop(scope);
                this.state.set(State::Waiting { next: None, wait: Wait::Readiness(None) });
                let retry = last.map(|last| PendingRetry { request, last });
                let retry = retry.unwrap_or_else(|| polled_after_completion());
                match ready!(self.as_mut().send_when_ready(ready, retry, cx)) {
                    Ok(kept) => last = Some(kept),
                    Err(result) => return Poll::Ready(result),
                }
                scope = RetryScope::enter();
            }
            // If the attempt is pending, the last response is dropped: the attempt may wait for a
            // resource that the response holds, such as a stream or a permit.
            result = ready!(self.as_mut().poll_attempt(scope, &mut verdict, cx));
        }
    }

    /// Continues a retry that has waited.
    #[inline(never)]
    fn poll_waiting(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<InnerResult<S, Req>> {
        let this = self.as_mut().project();
        let StateProj::Waiting { next, wait } = this.state.project() else { polled_after_completion() };
        if let Wait::Delay(delay) = wait {
            ready!(Pin::new(delay).poll(cx));
            *wait = Wait::Readiness(None);
        }
        let Replayable::Yes { service, .. } = this.replayable else { polled_after_completion() };
        let retry = next.take().unwrap_or_else(|| polled_after_completion());
        let scope = RetryScope::enter();
        let ready = service.poll_ready(cx);
        drop(scope);
        let last = match ready!(self.as_mut().send_when_ready(ready, retry, cx)) {
            Ok(last) => last,
            Err(result) => return Poll::Ready(result),
        };
        let mut verdict = Verdict::Success;
        let result = ready!(self.as_mut().poll_attempt(RetryScope::enter(), &mut verdict, cx));
        self.poll_retries(result, verdict, Some(last), cx)
    }

    /// Sends a retry if the inner service is ready, and otherwise waits in limited time. `ready` is
    /// the inner service's readiness, and the state is [`State::Waiting`].
    ///
    /// Returns the kept outcome of the attempt before it.
    ///
    /// # Errors
    ///
    /// Returns the outcome for the caller if the attempt is not sent.
    #[inline(never)]
    fn send_when_ready(
        self: Pin<&mut Self>,
        ready: Poll<Result<(), S::Error>>,
        retry: InnerRetry<S, Req>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<InnerOutcome<S, Req>, InnerResult<S, Req>>> {
        let mut this = self.project();
        let StateProj::Waiting { next, wait } = this.state.as_mut().project() else {
            polled_after_completion()
        };
        let Replayable::Yes { service, outer, .. } = this.replayable else { polled_after_completion() };
        let ready = match ready {
            Poll::Ready(ready) => ready.map(|()| this.call.exceeded_limit()),
            Poll::Pending => match wait.poll_limit(this.call, cx) {
                Poll::Ready(limit) => Ok(Some(limit)),
                Poll::Pending => {
                    *next = Some(retry);
                    return Poll::Pending;
                }
            },
        };
        let PendingRetry { mut request, last } = retry;
        let (reason, last) = match ready {
            Ok(None) => {
                let responses = this.classify.response_coverage();
                let scope = RetryScope::enter();
                request.mark(this.call.mark(*outer, responses));
                let attempt = service.call(request);
                drop(scope);
                this.state.set(State::Calling { attempt });
                return Poll::Ready(Ok(last));
            }
            Ok(Some(limit)) => (limit, last),
            Err(error) => {
                let fault = this.classify.classify(Err(&error)).fault().copied();
                let fault = fault.unwrap_or(last.fault);
                let result = if last.was_sent() { last.result } else { Err(error) };
                (GiveUp::NotReady, LastOutcome { result, fault })
            }
        };
        // The clone of the service may hold a reservation, or wait for one.
        *this.replayable = Replayable::No(reason);
        Poll::Ready(Err(this.call.stop(reason, this.classify, last)))
    }

    /// Ends a call whose scheduled retry has no request. Returns the outcome for the caller.
    #[cold]
    fn not_replayable(
        self: Pin<&mut Self>,
        mut result: InnerResult<S, Req>,
        verdict: &Verdict,
    ) -> InnerResult<S, Req> {
        let this = self.project();
        let ended = this.call.cancel_retry(verdict);
        this.call.attach_retried(this.classify, &mut result, Some(ended));
        result
    }
}

impl Wait {
    /// Waits until the call's time is over. Returns the limit that ended it.
    fn poll_limit(&mut self, call: &AttemptState, cx: &mut Context<'_>) -> Poll<GiveUp> {
        let Self::Readiness(timer) = self else { return Poll::Pending };
        let left = match call.time_left() {
            Ok(None) => return Poll::Pending,
            Ok(Some(left)) => left,
            Err(limit) => return Poll::Ready(limit),
        };
        if timer.is_none() && Handle::try_current().is_ok() {
            *timer = Some(Box::pin(tokio::time::sleep(left)));
        }
        match timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| call.time_limit()),
            None => Poll::Pending,
        }
    }
}

/// Returns why the request cannot be sent again, or `None` if it can.
fn not_replayable<S, Req, Q: Resend<Req>>(
    replayable: &Replayable<S, Q::Saved>,
    resend: &Q,
) -> Option<GiveUp> {
    match replayable {
        Replayable::No(reason) => Some(*reason),
        Replayable::Yes { saved, .. } => {
            let usable = saved.as_ref().is_some_and(|saved| resend.can_replay(saved));
            (!usable).then_some(GiveUp::NotReplayable)
        }
    }
}

/// Returns a guard for the duration of a poll or a drop. It records whether the request's body
/// waits for its source, if that is known.
#[inline]
fn upload_guard<S, Req, Q: Resend<Req>>(
    replayable: &Replayable<S, Q::Saved>,
    resend: &Q,
    call: &AttemptState,
) -> Option<UploadGuard> {
    let Replayable::Yes { saved: Some(saved), .. } = replayable else { return None };
    if !call.tracks_uploads() {
        return None;
    }
    resend.is_waiting(saved).map(UploadGuard::enter)
}

/// Returns the URL of the request, if it can be sent again.
fn saved_url<'s, S, Req, Q: Resend<Req>>(
    replayable: &'s Replayable<S, Q::Saved>,
    resend: &Q,
) -> Option<Cow<'s, str>> {
    let Replayable::Yes { saved: Some(saved), .. } = replayable else { return None };
    resend.saved_url(saved)
}

/// Returns the request of another attempt, or `None` if it cannot be created.
fn next_request<S, Req, Q: Resend<Req>>(
    replayable: &mut Replayable<S, Q::Saved>,
    resend: &Q,
    call: &AttemptState,
    responses: ResponseCoverage,
) -> Option<Req> {
    let Replayable::Yes { saved, outer, .. } = replayable else { return None };
    let (attempt, last) = call.scheduled_attempt(*outer, responses);
    resend.replay(saved, attempt, last)
}

#[cold]
fn polled_after_completion() -> ! {
    panic!("`ResponseFuture` was polled after completion")
}

impl<S, Req, C, Q> fmt::Debug for ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    Q: Resend<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("attempts", &self.call.attempts()).finish_non_exhaustive()
    }
}
