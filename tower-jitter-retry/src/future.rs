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
use tower_fault_classify::__shared::Waiting;
use tower_fault_classify::{Classify, Verdict, grpc_has_begun};
use tower_service::Service;

use crate::call::Call;
use crate::last::Last;
use crate::policy::GiveUp;
use crate::request::{Outer, RequestInfo, Resend, on_first_hop};

type Outcome<S, Req> = Result<<S as Service<Req>>::Response, <S as Service<Req>>::Error>;

pin_project! {
    /// Resolves to the outcome of the last attempt that was sent.
    ///
    /// An attempt is sent only in time: before the request's [`Deadline`](crate::Deadline) (or
    /// `grpc-timeout`) and within [`max_elapsed`](crate::RetryPolicyBuilder::max_elapsed). A retry
    /// that waits for the inner service's readiness waits until then, and the future resolves to
    /// the outcome of the attempt before it. That outcome is kept during the delay and the wait, so
    /// that the body of a response is dropped only when the next attempt is sent.
    ///
    /// Dropping it drops the attempt that runs, or the sleep before the next. Nothing is spawned. A call that is dropped before its
    /// first attempt has come to anything pays nothing into the budget.
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
        Delay { #[pin] sleep: Sleep },
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
        loop {
            let this = self.as_mut().project();
            if let StateProj::Calling { attempt } = this.state.project() {
                // This layer and those beneath judge the attempt while the note is there.
                let note = note::<_, Req, _>(this.spare, this.resend);
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
                if let Some(result) = self.as_mut().after(result, verdict) {
                    return Poll::Ready(result);
                }
            }
            if let Some(result) = ready!(self.as_mut().poll_send(cx)) {
                return Poll::Ready(result);
            }
        }
    }
}

impl<S, Req, C, Q> ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    Q: Resend<Req>,
    Req: RequestInfo,
{
    /// Decides what follows an attempt. Returns its result if no other attempt follows.
    // Out of line, because most calls succeed at once.
    #[inline(never)]
    fn after(self: Pin<&mut Self>, mut result: Outcome<S, Req>, verdict: Verdict) -> Option<Outcome<S, Req>> {
        let mut this = self.project();
        let (spare, resend, is_response) = (&*this.spare, &*this.resend, result.is_ok());
        let (follows, url) = (this.call.follows_redirects(), || url_of::<_, Req, _>(spare, resend));
        let verdict = &on_first_hop(verdict, follows, this.classify, &mut result, url);
        let begun = committed(this.classify, &mut result, verdict);
        let hindered = || {
            let committed = begun.then_some(GiveUp::Committed);
            committed.or_else(|| hindrance::<_, Req, _>(spare, resend, verdict, is_response))
        };
        let (fault, delay) = match this.call.after(verdict, hindered) {
            Ok(retry) => retry,
            Err(ended) => {
                this.call.leave_note(this.classify, &mut result, ended);
                this.spare.release();
                return Some(result);
            }
        };
        let judges_responses = this.classify.judges_responses();
        let Some(request) = another(this.spare, this.resend, this.call, judges_responses) else {
            let ended = this.call.cannot_go_on(&fault);
            this.call.leave_note(this.classify, &mut result, Some(ended));
            return Some(result);
        };
        this.call.go_on(&fault, delay);
        let next = Some(Next { request, last: Last { result, fault } });
        let wait = if delay.is_zero() {
            Wait::Readiness { timer: None }
        } else {
            Wait::Delay { sleep: tokio::time::sleep(delay) }
        };
        this.state.set(State::Waiting { next, wait });
        None
    }

    /// Waits for the delay and for the inner service, and sends the next attempt. Ready with the
    /// outcome for the caller if the attempt is not sent.
    #[inline(never)]
    fn poll_send(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome<S, Req>>> {
        let mut this = self.project();
        let StateProj::Waiting { next, mut wait } = this.state.as_mut().project() else {
            return Poll::Ready(None);
        };
        let Spare::Some { service, outer, .. } = this.spare else { polled_after_end() };
        if let WaitProj::Delay { sleep } = wait.as_mut().project() {
            ready!(sleep.poll(cx));
            wait.set(Wait::Readiness { timer: None });
        }
        let in_time = match service.poll_ready(cx) {
            Poll::Ready(Ok(())) => this.call.time_left().map(drop),
            Poll::Ready(Err(error)) => {
                this.spare.release();
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Pending => Err(ready!(wait.poll_limit(this.call, cx))),
        };
        let Next { mut request, last } = next.take().unwrap_or_else(|| polled_after_end());
        if let Err(limit) = in_time {
            // The clone of the service may hold a reservation, or wait for one.
            *this.spare = Spare::None(limit);
            return Poll::Ready(Some(this.call.stop(limit, last, this.classify)));
        }
        drop(last);
        let mark = this.call.mark(*outer, this.classify.judges_responses());
        request.mark(mark);
        let attempt = service.call(request);
        this.state.set(State::Calling { attempt });
        Poll::Ready(None)
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
    is_response: bool,
) -> Option<GiveUp> {
    match spare {
        Spare::None(reason) => Some(*reason),
        Spare::Some { outer, .. }
            if verdict.fault().is_some_and(|fault| outer.includes(fault.retryable(), is_response)) =>
        {
            Some(GiveUp::Nested)
        }
        Spare::Some { saved, .. } => {
            let usable = saved.as_ref().is_some_and(|saved| resend.usable(saved));
            (!usable).then_some(GiveUp::NotReplayable)
        }
    }
}

/// Notes for the time of a poll whether the request's body waits for its source, if that is known.
#[inline]
fn note<S, Req, Q: Resend<Req>>(spare: &Spare<S, Q::Saved>, resend: &Q) -> Option<Waiting> {
    let Spare::Some { saved: Some(saved), .. } = spare else { return None };
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
    judges_responses: bool,
) -> Option<Req> {
    let Spare::Some { saved, outer, .. } = spare else { return None };
    let (attempt, last) = call.following(*outer, judges_responses);
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
