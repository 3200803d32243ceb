//! The response future of the service.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use pin_project_lite::pin_project;

use crate::body::{Peek, Peeked, Track};
use crate::classify::Classify;
use crate::error_mode::ErrorMode;
use crate::fault::{Fault, Verdict};
use crate::outcome::CarriedVerdict;
use crate::telemetry::Reporter;

pin_project! {
    /// The response future of [`FaultClassify`](crate::FaultClassify).
    ///
    /// It resolves to the inner future's response or error. The layers above read the verdict from
    /// it, except from an error with [`keep_errors`](crate::FaultClassifyLayer::keep_errors).
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future, or the response whose body it reads.
    pub struct ResponseFuture<F, C, M, P, B, R> {
        #[pin]
        state: State<F, P, R>,
        classify: C,
        track: B,
        reporter: Reporter,
        errors: PhantomData<fn() -> M>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, P, R> {
        Calling {
            #[pin]
            inner: F,
            peek: P,
        },
        Reading {
            #[pin]
            reading: R,
            head: Verdict,
            status: Option<StatusCode>,
        },
    }
}

impl<F, C, M, P, B, R> ResponseFuture<F, C, M, P, B, R> {
    pub(crate) const fn new(inner: F, classify: C, peek: P, track: B, reporter: Reporter) -> Self {
        Self { state: State::Calling { inner, peek }, classify, track, reporter, errors: PhantomData }
    }
}

impl<F, C, M, P, B, Res, Err> Future for ResponseFuture<F, C, M, P, B, P::Reading>
where
    F: Future<Output = Result<Res, Err>>,
    C: Classify<Res, Err>,
    M: ErrorMode<Err>,
    P: Peek<Res, C>,
    B: Track<P::Response, C>,
{
    type Output = Result<B::Response, M::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let reporter = *this.reporter;
        loop {
            let (response, verdict, status) = match this.state.as_mut().project() {
                StateProj::Calling { inner, peek } => match ready!(inner.poll(cx)) {
                    Ok(mut response) => {
                        let head = this.classify.classify(Ok(&response));
                        let outcome = this.classify.outcome(&mut response);
                        let status = outcome.as_ref().and_then(|outcome| outcome.status());
                        if let Some(outcome) = outcome {
                            CarriedVerdict::insert_if_needed(outcome, head);
                        }
                        match peek.peek(response, &head, this.classify, C::classify_end) {
                            Peeked::Done(response) => (response, head, status),
                            Peeked::Reading(reading) => {
                                this.state.set(State::Reading { reading, head, status });
                                continue;
                            }
                        }
                    }
                    Err(error) => {
                        let classify =
                            |error: &Err| classify_and_emit::<C, Res, _>(this.classify, reporter, error);
                        return Poll::Ready(Err(M::map_error(error, classify)));
                    }
                },
                StateProj::Reading { reading, head, status } => {
                    let (response, verdict) = ready!(reading.poll(cx));
                    (response, verdict.unwrap_or(*head), *status)
                }
            };
            if let Some(fault) = verdict.fault() {
                reporter.emit(fault, status);
            }
            let classify_end = C::classify_end;
            return Poll::Ready(Ok(this.track.track(
                response,
                verdict,
                this.classify,
                classify_end,
                reporter,
            )));
        }
    }
}

/// Classifies an error, and reports its fault to metrics and tracing.
pub(crate) fn classify_and_emit<C, Res, Err>(classify: &C, reporter: Reporter, error: &Err) -> Option<Fault>
where
    C: Classify<Res, Err>,
{
    let verdict = classify.classify(Err(error));
    let fault = verdict.fault().copied();
    if let Some(fault) = &fault {
        reporter.emit(fault, None);
    }
    fault
}

impl<F, C, M, P, B, R> fmt::Debug for ResponseFuture<F, C, M, P, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("reading", &matches!(self.state, State::Reading { .. }))
            .finish_non_exhaustive()
    }
}
