//! The future of a call. It classifies the result and records the outcome.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_fault_classify::body::ClassifyEnd;
use tower_fault_classify::{Classify, Verdict};

use crate::circuit::{CircuitRef, Permit, Static};
use crate::fallback::RejectionMode;
use crate::sealed::Sealed;

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
            record: B,
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
    pub(crate) const fn rejected(answer: J, record: B) -> Self {
        Self { state: State::Rejected { answer, record }, reject: PhantomData }
    }
}

impl<F, C, R, B, J, H, Res, E> Future for ResponseFuture<F, C, R, B, J, H>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
    R: RejectionMode<E>,
    B: RecordOutcome<Res, C, H>,
    J: Future<Output = Result<Res, R::Error>>,
    H: CircuitRef,
{
    type Output = Result<B::Response, R::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { inner, permit, classify, record } => {
                let result = ready!(Permit::guard(permit, || inner.poll(cx)));
                Poll::Ready(finish::<R, _, _, _, _, _>(result, permit, classify, record))
            }
            StateProj::Rejected { answer, record } => record.pass(answer.poll(cx)),
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
    record: &B,
) -> Result<B::Response, R::Error>
where
    C: Classify<Res, E>,
    R: RejectionMode<E>,
    B: RecordOutcome<Res, C, H>,
    H: CircuitRef,
{
    let verdict = classify.classify(result.as_ref());
    // A second poll after completion panics, so that a call is recorded only once.
    let permit = permit.take().expect("`ResponseFuture` polled after completion");
    match result {
        Ok(response) => Ok(record.record(response, permit, &verdict, classify, C::classify_end)),
        Err(error) => {
            permit.record_by_ref(&verdict);
            Err(R::inner(error))
        }
    }
}

/// Determines when the outcome of a call is recorded: at the head, or at the end of the body.
///
/// Sealed: [`OnHead`] and [`OnBodyEnd`](crate::body::OnBodyEnd) implement it.
pub trait RecordOutcome<Res, C, H: CircuitRef = Static>: Sealed {
    /// The response that the caller receives.
    type Response;

    /// Records the response's outcome with the permit, or wraps the response's body, which records
    /// it later. `verdict` is the verdict of `classify` on the head; `classify_end` classifies the
    /// end.
    #[doc(hidden)]
    fn record(
        &self,
        response: Res,
        permit: Permit<H>,
        verdict: &Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Self::Response;

    /// Forwards the answer to a rejected call. There is no permit, and nothing to record.
    #[doc(hidden)]
    fn pass<E>(&self, answer: Poll<Result<Res, E>>) -> Poll<Result<Self::Response, E>>;
}

/// Records the outcome when the response's head arrives, before the body is read. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnHead;

impl Sealed for OnHead {}

impl<Res, C, H: CircuitRef> RecordOutcome<Res, C, H> for OnHead {
    type Response = Res;

    #[inline]
    fn record(&self, response: Res, permit: Permit<H>, verdict: &Verdict, _: &C, _: ClassifyEnd<C>) -> Res {
        permit.record_by_ref(verdict);
        response
    }

    #[inline]
    fn pass<E>(&self, answer: Poll<Result<Res, E>>) -> Poll<Result<Res, E>> {
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
