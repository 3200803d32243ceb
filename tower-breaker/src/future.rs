//! The future of a call. It classifies the result and records the outcome.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_fault_classify::body::ClassifyEnd;
use tower_fault_classify::{Classify, Verdict};

use crate::circuit::{CircuitRef, Permit, Static};
use crate::fallback::ResponseMode;
use crate::sealed::Sealed;
use crate::telemetry::{KeepError, LastFailureMode, NoLastFailure};

pin_project! {
    /// Resolves to the inner service's result, or to the answer to a rejected call.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the inner call, which is then a cancelled call, and frees a
    /// probe's slot immediately. [`CancelledPolicy`](crate::CancelledPolicy) determines how
    /// cancelled calls are counted.
    ///
    /// # Panics
    ///
    /// A panic of the inner future counts as a failure and propagates. Polling the future after it
    /// has completed may panic.
    pub struct ResponseFuture<F, C, R, B, J, H: CircuitRef = Static> {
        #[pin]
        state: State<F, C, B, J, H>,
        reject: PhantomData<fn() -> R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, C, B, J, H: CircuitRef> {
        Calling {
            // Before the permit: the inner future must be dropped before the slot is free again.
            #[pin]
            inner: F,
            permit: Option<Permit<H>>,
            classify: C,
            record: B,
        },
        Rejected {
            #[pin]
            answer: J,
        },
    }
}

impl<F, C, R, B, J, H: CircuitRef> ResponseFuture<F, C, R, B, J, H> {
    #[inline]
    pub(crate) const fn calling(inner: F, permit: Option<Permit<H>>, classify: C, record: B) -> Self {
        let state = State::Calling { inner, permit, classify, record };
        Self { state, reject: PhantomData }
    }

    #[inline]
    pub(crate) const fn rejected(answer: J) -> Self {
        Self { state: State::Rejected { answer }, reject: PhantomData }
    }
}

impl<F, C, R, B, J, H, Res, E> Future for ResponseFuture<F, C, R, B, J, H>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
    R: ResponseMode<Res, E, B::Response>,
    B: RecordOutcome<Res, E, C, H>,
    J: Future<Output = Result<R::Answer, R::Error>>,
    H: CircuitRef,
{
    type Output = Result<R::Response, R::Error>;

    #[expect(clippy::inline_always, reason = "out of line, the result is copied through memory")]
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { inner, permit, classify, record } => {
                let result = ready!(Permit::guard(permit, || inner.poll(cx)));
                Poll::Ready(finish::<R, _, _, _, _, _>(result, permit, classify, record))
            }
            StateProj::Rejected { answer } => R::rejected(answer.poll(cx), B::pass),
        }
    }
}

/// Classifies the result of a call and records it.
#[expect(clippy::inline_always, reason = "otherwise its arguments would pass through memory, twice per call")]
#[inline(always)]
pub(crate) fn finish<R, Res, E, C, B, H>(
    result: Result<Res, E>,
    permit: &mut Option<Permit<H>>,
    classify: &C,
    record: &mut B,
) -> Result<R::Response, R::Error>
where
    C: Classify<Res, E>,
    R: ResponseMode<Res, E, B::Response>,
    B: RecordOutcome<Res, E, C, H>,
    H: CircuitRef,
{
    let verdict = classify.classify(result.as_ref());
    // A second poll after completion panics, so that a call is recorded only once.
    let permit = permit.take().expect("`ResponseFuture` polled after completion");
    R::admitted(match result {
        Ok(response) => Ok(record.record(response, permit, &verdict, classify, C::classify_end)),
        Err(error) => {
            record.record_error(&error, permit, &verdict);
            Err(R::inner(error))
        }
    })
}

/// Determines when a layer's services record outcomes, and whether they keep the last failure.
///
/// Sealed: [`OnHead`] and [`OnBodyEnd`](crate::body::OnBodyEnd) implement it.
pub trait RecordMode: Sealed {
    /// The same time of recording, with another [`LastFailureMode`].
    type With<L>;

    /// Sets whether the last failure is kept.
    #[doc(hidden)]
    fn with_last_failure<L>(self, last_failure: L) -> Self::With<L>;
}

/// Begins the recording of one call with a request of the type `Req`.
///
/// Sealed: [`OnHead`] and [`OnBodyEnd`](crate::body::OnBodyEnd) implement it.
pub trait BeginRecord<Req>: Sealed {
    /// The part that the call carries; it implements [`RecordOutcome`].
    type Record;

    /// Begins a call. `None`: the inner service is polled for readiness, without a request.
    #[doc(hidden)]
    fn begin(&self, request: Option<&Req>) -> Self::Record;
}

/// Records the outcome of one call: a response at its head or at the end of its body, and an error
/// at once.
///
/// Sealed: [`OnHead`] and [`OnBodyEnd`](crate::body::OnBodyEnd) implement it.
pub trait RecordOutcome<Res, E, C, H: CircuitRef = Static>: Sealed {
    /// The response after its outcome was recorded, or with a body that records it.
    type Response;

    /// Records the response's outcome with the permit, or wraps the response's body, which records
    /// it later. `verdict` is the verdict of `classify` on the head; `classify_end` classifies the
    /// end.
    #[doc(hidden)]
    fn record(
        &mut self,
        response: Res,
        permit: Permit<H>,
        verdict: &Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Self::Response;

    /// Records an error with the permit.
    #[doc(hidden)]
    fn record_error(&self, error: &E, permit: Permit<H>, verdict: &Verdict);

    /// Forwards the answer to a rejected call. There is no permit, and nothing to record.
    #[doc(hidden)]
    fn pass<A>(answer: Poll<Result<Res, A>>) -> Poll<Result<Self::Response, A>>;
}

/// Records the outcome when the response's head arrives, before the body is read. The default.
///
/// `L` determines whether the last failure is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnHead<L = NoLastFailure> {
    last_failure: L,
}

impl OnHead {
    pub(crate) const fn new() -> Self {
        Self { last_failure: NoLastFailure }
    }
}

impl<L> OnHead<L> {
    pub(crate) fn into_last_failure(self) -> L {
        self.last_failure
    }
}

impl<L> Sealed for OnHead<L> {}

impl<L> RecordMode for OnHead<L> {
    type With<M> = OnHead<M>;

    fn with_last_failure<M>(self, last_failure: M) -> OnHead<M> {
        OnHead { last_failure }
    }
}

impl<Req, L: LastFailureMode<Req>> BeginRecord<Req> for OnHead<L> {
    type Record = OnHead<L::Call>;

    #[inline]
    fn begin(&self, request: Option<&Req>) -> OnHead<L::Call> {
        OnHead { last_failure: self.last_failure.begin(request) }
    }
}

impl<Res, E, C, H: CircuitRef, L: KeepError<E>> RecordOutcome<Res, E, C, H> for OnHead<L> {
    type Response = Res;

    #[inline]
    fn record(
        &mut self,
        response: Res,
        permit: Permit<H>,
        verdict: &Verdict,
        _: &C,
        _: ClassifyEnd<C>,
    ) -> Res {
        self.last_failure.keep_response(&permit, verdict, type_name::<Res>());
        permit.record_by_ref(verdict);
        response
    }

    #[inline]
    fn record_error(&self, error: &E, permit: Permit<H>, verdict: &Verdict) {
        self.last_failure.keep_error(&permit, verdict, error);
        permit.record_by_ref(verdict);
    }

    #[inline]
    fn pass<A>(answer: Poll<Result<Res, A>>) -> Poll<Result<Res, A>> {
        answer
    }
}

impl<F, C, R, B, J, H: CircuitRef> fmt::Debug for ResponseFuture<F, C, R, B, J, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("rejected", &matches!(self.state, State::Rejected { .. }))
            .finish_non_exhaustive()
    }
}
