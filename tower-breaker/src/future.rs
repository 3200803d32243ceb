//! The future of a call through the breaker: it classifies the result and records the outcome.

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
    /// Comes to what the inner call comes to, or to the answer to a rejected call.
    ///
    /// Dropping it drops the inner call, which is then a cancelled one: [`CancelledPolicy`](crate::CancelledPolicy) says what it counts
    /// for. A probe's place is free again at once. A panic of the inner future counts as a failure, and goes on.
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
            // Before the permit: it must be gone when the place is free again.
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
#[expect(clippy::inline_always, reason = "what it is given would go through memory, twice a call")]
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
    // The inner future panics if it is polled again, so that a call does not come to anything twice.
    let permit = permit.take().expect("`ResponseFuture` is not polled after it was ready");
    match result {
        Ok(response) => Ok(record.record(response, permit, &verdict, classify, C::classify_end)),
        Err(error) => {
            permit.record_by_ref(&verdict);
            Err(R::inner(error))
        }
    }
}

/// Records the outcome of an answered call: at once, or at the end of the response's body.
///
/// Sealed: [`OnHead`] and [`OnBodyEnd`](crate::body::OnBodyEnd) implement it.
pub trait RecordOutcome<Res, C, H: CircuitRef = Static>: Sealed {
    /// The response that the caller gets.
    type Response;

    /// Records the response's outcome with the permit, or wraps the response's body, which records
    /// it later. `verdict` is that of `classify` on the head; `classify_end` classifies the end.
    #[doc(hidden)]
    fn record(
        &self,
        response: Res,
        permit: Permit<H>,
        verdict: &Verdict,
        classify: &C,
        classify_end: ClassifyEnd<C>,
    ) -> Self::Response;

    /// Passes the answer to a rejected call on. There is no permit, and nothing to record.
    #[doc(hidden)]
    fn pass<E>(&self, answer: Poll<Result<Res, E>>) -> Poll<Result<Self::Response, E>>;
}

/// Records the outcome when the response's head arrives, its body unread. The default.
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
