//! The future of a call that may be made several times.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_fault_classify::__shared::Waiting;
use tower_fault_classify::{Classify, Verdict, grpc_has_begun};
use tower_service::Service;

use crate::call::Call;
use crate::policy::GiveUp;
use crate::request::{Outer, RequestInfo, Resend};

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
        spare: Spare<S, Q::Saved>,
        call: Call,
        classify: C,
        resend: Q,
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
        Self { state: State::Calling { attempt }, next: None, spare, call, classify, resend }
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

impl<S, Req, C, Q> Future for ResponseFuture<S, Req, C, Q>
where
    S: Service<Req>,
    C: Classify<S::Response, S::Error>,
    Q: Resend<Req>,
    Req: RequestInfo,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { attempt } => {
                    // This layer and those beneath judge the attempt while the note is there.
                    let _note = note::<_, Req, _>(this.spare, this.resend);
                    let Poll::Ready(result) = attempt.poll(cx) else {
                        this.call.waits();
                        return Poll::Pending;
                    };
                    let verdict = this.classify.classify(result.as_ref());
                    // Most calls end here: the response is moved on by itself, for a result as a whole would go through memory.
                    let mut result = match result {
                        Ok(response) if verdict.is_success() && this.call.attempts() == 1 => {
                            this.call.succeeded_at_once();
                            this.spare.release();
                            return Poll::Ready(Ok(response));
                        }
                        result => result,
                    };
                    let (spare, resend) = (&*this.spare, &*this.resend);
                    let began = committed(this.classify, &mut result, &verdict);
                    let is_response = result.is_ok();
                    let hindered = || {
                        let committed = began.then_some(GiveUp::Committed);
                        committed.or_else(|| hindrance::<_, Req, _>(spare, resend, &verdict, is_response))
                    };
                    let Some(delay) = this.call.after(&verdict, hindered) else {
                        this.call.leave_note(this.classify, &mut result);
                        this.spare.release();
                        return Poll::Ready(result);
                    };
                    let judges_responses = this.classify.judges_responses();
                    let Some(request) = another(this.spare, this.resend, this.call, judges_responses) else {
                        this.call.cannot_go_on(&verdict);
                        this.call.leave_note(this.classify, &mut result);
                        return Poll::Ready(result);
                    };
                    this.call.go_on(&verdict, delay);
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
                    let Spare::Some { service, outer, .. } = this.spare else {
                        unreachable!("a retry has a service")
                    };
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        this.spare.release();
                        return Poll::Ready(Err(error));
                    }
                    let mut request =
                        this.next.take().expect("a retry that failed to get ready is not polled again");
                    let mark = this.call.mark(*outer, this.classify.judges_responses());
                    request.mark(mark);
                    let attempt = service.call(request);
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
        f.debug_struct("ResponseFuture").field("attempts", &self.call.attempts()).finish_non_exhaustive()
    }
}
