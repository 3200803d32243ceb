//! The future of a call that may be made several times.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tower_fault_classify::__internals::Waiting;
use tower_fault_classify::{Classify, ResponseCoverage, Verdict, grpc_has_begun};
use tower_service::Service;

use crate::attempt::{Call, Last, Pause, Retry};
use crate::policy::GiveUp;
use crate::request::{Outer, RequestInfo, Resend, on_first_hop};

type Outcome<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

/// The result of the attempt before the one that was sent, or the outcome for the caller.
type Sent<S, Req> = Result<Last<Outcome<S, Req>>, Outcome<S, Req>>;

pin_project! {
    /// Resolves to the outcome of the last attempt that was sent.
    ///
    /// An attempt is sent only in time: before the request's [`Deadline`](crate::Deadline) (or
    /// `grpc-timeout`) and within [`max_elapsed`](crate::RetryPolicyBuilder::max_elapsed). A retry
    /// that waits for the inner service's readiness waits until then, and the future resolves to
    /// the outcome of the attempt before it.
    ///
    /// The outcome of an attempt is kept during the delay, the wait for readiness and the first
    /// poll of the next attempt. If the next attempt is rejected on this side by then (an open
    /// circuit, load shed, an error of the inner service's readiness), and no further attempt
    /// follows, the future resolves to the kept outcome. Otherwise the kept outcome is dropped
    /// before the second poll, because its body may hold what the next attempt waits for: a stream,
    /// a permit. A rejection that comes later is returned itself. In either case
    /// [`Retried`](crate::Retried) contains the number of attempts, why they ended and the fault of
    /// the last attempt that was sent.
    ///
    /// An inner service whose *readiness* waits for the end of the last response's body gets ready
    /// only when the future is dropped or its time is over: take such a permit in the call, and wait
    /// for it there. Load shed for the lack of a permit that the last response's body holds rejects
    /// every further attempt.
    ///
    /// Dropping it drops the attempt that runs, or the sleep before the next. Nothing is spawned. A call that is dropped before its
    /// first attempt has come to anything pays nothing into the budget. A breaker beneath does not
    /// count the attempt as cancelled if a body that is kept waits for its source at that time.
    ///
    /// # Panics
    ///
    /// If a retry has to sleep, or to wait for readiness in limited time, on a tokio runtime
    /// without its timer enabled; if it has to sleep outside of a runtime. Outside of a runtime
    /// nothing ends a wait for readiness early, and the time is checked when the inner service is
    /// ready.
    pub struct ResponseFuture<S, Req, C, Q>
    where
        S: Service<Req>,
        Q: Resend<Req>,
    {
        #[pin]
        state: State<S::Future, Next<Req, Outcome<S, Req>>>,
        spare: Spare<S, Q::Saved>,
        call: Call,
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
            // A breaker beneath does not count a call that is dropped while its upload waits.
            if let Some(_note) = note::<_, Req, _>(this.spare, this.resend, this.call) {
                let wait = Wait::Readiness { timer: None };
                this.state.set(State::Waiting { next: None, wait });
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, N> {
        Calling { #[pin] attempt: F },
        Waiting { next: Option<N>, #[pin] wait: Wait },
    }
}

pin_project! {
    #[project = WaitProj]
    enum Wait {
        Delay { #[pin] pause: Pause },
        // For the inner service's readiness, with a timer if the wait is pending and limited.
        Readiness { #[pin] timer: Option<Sleep> },
    }
}

/// An attempt that waits to be sent.
struct Next<Req, R> {
    request: Req,
    /// The attempt before it.
    last: Last<R>,
}

/// What further attempts need.
pub(crate) enum Spare<S, Saved> {
    /// The request goes out once, and why.
    None(GiveUp),
    Some {
        service: S,
        saved: Option<Saved>,
        outer: Outer,
    },
}

impl<S, Saved> Spare<S, Saved> {
    /// Drops what is kept of the request: no attempt follows.
    #[inline]
    fn release(&mut self) {
        if mem::needs_drop::<Saved>()
            && let Self::Some { saved, .. } = self
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
        call: Call,
        spare: Spare<S, Q::Saved>,
        classify: C,
        resend: Q,
    ) -> Self {
        Self { state: State::Calling { attempt }, spare, call, classify, resend }
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.as_mut().project();
        if let StateProj::Calling { attempt } = this.state.project() {
            // This layer and those beneath judge the attempt while the note is there.
            let note = note::<_, Req, _>(this.spare, this.resend, this.call);
            let Poll::Ready(result) = attempt.poll(cx) else {
                this.call.waits();
                return Poll::Pending;
            };
            let verdict = this.classify.classify(result.as_ref());
            drop(note);
            // Most calls end here: the response is moved on by itself, for a result as a whole
            // would go through memory.
            let result = match result {
                Ok(response) if verdict.is_success() && this.call.attempts() == 1 => {
                    this.call.succeeded_at_once();
                    this.spare.release();
                    return Poll::Ready(Ok(response));
                }
                result => result,
            };
            if let Err(result) = self.as_mut().after(result, verdict, None) {
                return Poll::Ready(result);
            }
        }
        self.poll_retries(cx)
    }
}

impl<S, Req, C, Q> ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    Q: Resend<Req>,
    Req: RequestInfo,
{
    /// Decides what follows an attempt. `kept` is the failed result of the attempt before.
    ///
    /// # Errors
    ///
    /// The outcome for the caller if no other attempt follows.
    // Out of line, because most calls succeed at once.
    #[inline(never)]
    fn after(
        self: Pin<&mut Self>,
        mut result: Outcome<S, Req>,
        verdict: Verdict,
        kept: Option<Last<Outcome<S, Req>>>,
    ) -> Result<(), Outcome<S, Req>> {
        let mut this = self.project();
        let (spare, resend) = (&*this.spare, &*this.resend);
        let responses = this.classify.response_coverage();
        let response = result.is_ok().then_some(responses);
        let (follows, url) = (this.call.follows_redirects(), || url_of::<_, Req, _>(spare, resend));
        let verdict = &on_first_hop(verdict, follows, this.classify, &mut result, url);
        let begun = committed(this.classify, &mut result, verdict);
        let hindered = || {
            let committed = begun.then_some(GiveUp::Committed);
            committed.or_else(|| hindrance::<_, Req, _>(spare, resend, verdict, response))
        };
        let retry = this.call.after_result(this.classify, kept, result, verdict, hindered);
        let Retry { mut last, fault, delay } = retry.inspect_err(|_| this.spare.release())?;
        let Some(request) = another(this.spare, this.resend, this.call, responses) else {
            let ended = this.call.cannot_go_on(&fault);
            this.call.leave_note(this.classify, &mut last.result, Some(ended));
            return Err(last.result);
        };
        let wait = Wait::Delay { pause: Pause::new(delay, this.call.attempts()) };
        this.call.go_on(&fault, delay);
        this.state.set(State::Waiting { next: Some(Next { request, last }), wait });
        Ok(())
    }

    /// Sends further attempts, until one is pending or none follows.
    #[inline(never)]
    fn poll_retries(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<S, Req>> {
        loop {
            let last = match ready!(self.as_mut().poll_send(cx)) {
                Ok(last) => last,
                Err(result) => return Poll::Ready(result),
            };
            let this = self.as_mut().project();
            let StateProj::Calling { attempt } = this.state.project() else { polled_after_end() };
            let note = note::<_, Req, _>(this.spare, this.resend, this.call);
            let polled = attempt.poll(cx);
            let Poll::Ready(result) = polled else {
                drop(note);
                // The attempt may wait for what the last response holds: a stream, a permit.
                drop(last);
                return Poll::Pending;
            };
            let verdict = this.classify.classify(result.as_ref());
            drop(note);
            if let Err(result) = self.as_mut().after(result, verdict, Some(last)) {
                return Poll::Ready(result);
            }
        }
    }

    /// Waits for the delay and for the inner service, and sends the next attempt. Returns the
    /// result of the attempt before.
    ///
    /// # Errors
    ///
    /// The outcome for the caller if the attempt is not sent.
    fn poll_send(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Sent<S, Req>> {
        let mut this = self.project();
        let StateProj::Waiting { next, mut wait } = this.state.as_mut().project() else { polled_after_end() };
        let Spare::Some { service, outer, .. } = this.spare else { polled_after_end() };
        if let WaitProj::Delay { pause } = wait.as_mut().project() {
            ready!(pause.poll(cx));
            wait.set(Wait::Readiness { timer: None });
        }
        let ready = match service.poll_ready(cx) {
            Poll::Ready(ready) => ready.map(|()| this.call.time_left().err()),
            Poll::Pending => Ok(Some(ready!(wait.poll_limit(this.call, cx)))),
        };
        let Next { mut request, last } = next.take().unwrap_or_else(|| polled_after_end());
        let (reason, last) = match ready {
            Ok(None) => {
                let mark = this.call.mark(*outer, this.classify.response_coverage());
                request.mark(mark);
                let attempt = service.call(request);
                this.state.set(State::Calling { attempt });
                return Poll::Ready(Ok(last));
            }
            Ok(Some(limit)) => (limit, last),
            Err(error) => {
                let fault = this.classify.classify(Err(&error)).fault().copied();
                let fault = fault.unwrap_or(last.fault);
                let result = if last.was_sent() { last.result } else { Err(error) };
                (GiveUp::NotReady, Last { result, fault })
            }
        };
        // The clone of the service may hold a reservation, or wait for one.
        *this.spare = Spare::None(reason);
        Poll::Ready(Err(this.call.stop(reason, this.classify, last)))
    }
}

impl Wait {
    /// Waits until the call's time is over. Returns the limit that ended it.
    fn poll_limit(self: Pin<&mut Self>, call: &Call, cx: &mut Context<'_>) -> Poll<GiveUp> {
        let WaitProj::Readiness { mut timer } = self.project() else { return Poll::Pending };
        let left = match call.time_left() {
            Ok(None) => return Poll::Pending,
            Ok(Some(left)) => left,
            Err(limit) => return Poll::Ready(limit),
        };
        if timer.is_none() && Handle::try_current().is_ok() {
            timer.set(Some(tokio::time::sleep(left)));
        }
        match timer.as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| call.time_limit()),
            None => Poll::Pending,
        }
    }
}

/// What hinders another attempt after a response, or an error, with this verdict.
fn hindrance<S, Req, Q: Resend<Req>>(
    spare: &Spare<S, Q::Saved>,
    resend: &Q,
    verdict: &Verdict,
    response: Option<ResponseCoverage>,
) -> Option<GiveUp> {
    match spare {
        Spare::None(reason) => Some(*reason),
        Spare::Some { outer, .. }
            if verdict.fault().is_some_and(|fault| outer.includes(fault.retryable(), response)) =>
        {
            Some(GiveUp::Nested)
        }
        Spare::Some { saved, .. } => {
            let usable = saved.as_ref().is_some_and(|saved| resend.usable(saved));
            (!usable).then_some(GiveUp::NotReplayable)
        }
    }
}

/// Notes for the time of a poll, or of a drop, whether the request's body waits for its source, if
/// that is known.
#[inline]
fn note<S, Req, Q: Resend<Req>>(spare: &Spare<S, Q::Saved>, resend: &Q, call: &Call) -> Option<Waiting> {
    let Spare::Some { saved: Some(saved), .. } = spare else { return None };
    if !call.tracks_uploads() {
        return None;
    }
    resend.waits(saved).map(Waiting::enter)
}

/// The URL of the request, if it can be sent again.
fn url_of<'s, S, Req, Q: Resend<Req>>(spare: &'s Spare<S, Q::Saved>, resend: &Q) -> Option<Cow<'s, str>> {
    let Spare::Some { saved: Some(saved), .. } = spare else { return None };
    resend.url_of(saved)
}

/// The request of another attempt. `None`: it cannot be made after all.
fn another<S, Req, Q: Resend<Req>>(
    spare: &mut Spare<S, Q::Saved>,
    resend: &Q,
    call: &Call,
    responses: ResponseCoverage,
) -> Option<Req> {
    let Spare::Some { saved, outer, .. } = spare else { return None };
    let (attempt, last) = call.following(*outer, responses);
    let (request, more) = resend.again(saved.take()?, attempt, last)?;
    *saved = more;
    Some(request)
}

/// Whether a part of the answer may have come to the caller already (gRFC A6): a fault that was read into the head of an answer that had
/// begun changes nothing in that.
fn committed<C, Res, Err>(classify: &C, result: &mut Result<Res, Err>, verdict: &Verdict) -> bool
where
    C: Classify<Res, Err>,
{
    let Ok(response) = result else { return false };
    !verdict.is_success() && classify.outcome(response).is_some_and(|response| grpc_has_begun(response))
}

#[cold]
fn polled_after_end() -> ! {
    panic!("`ResponseFuture` was polled after it was ready")
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
