//! The future of a call through a circuit.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_fault_classify::classifiers::TypedError;
use tower_fault_classify::{Classify, Verdict};

use super::CallError;
use crate::circuit::{Circuit, CircuitRef, Permit, Static};
use crate::error::Rejection;
use crate::telemetry::{KeepError, NoLastFailure};

pin_project! {
    /// The future of `call` of a [`Guard`](super::Guard) or a [`Circuit`].
    ///
    /// The type parameters are, in this order: the guarded future, the classifier, the kind of its
    /// error, the reference to the circuit, and whether the last failure is kept.
    #[must_use = "futures do nothing unless polled"]
    pub struct Call<F, C, K = TypedError, R: CircuitRef = Static, L = NoLastFailure> {
        #[pin]
        admitted: Admitted<F, C, R, L>,
        kind: PhantomData<fn() -> K>,
    }
}

impl<F, C, K, R: CircuitRef, L> Call<F, C, K, R, L> {
    pub(super) fn new(circuit: &Circuit<R>, inner: F, classify: C, last_failure: L) -> Self {
        Self { admitted: Admitted::new(circuit, inner, classify, last_failure), kind: PhantomData }
    }
}

impl<F, T, E, C, K, R, L> Future for Call<F, C, K, R, L>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    E: CallError<K>,
    R: CircuitRef,
    L: KeepError<E>,
{
    type Output = Result<T, E::Returned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().admitted.poll(cx)) {
            Ok(result) => result.map_err(E::into_returned),
            Err(rejection) => Err(E::rejected(rejection)),
        })
    }
}

impl<F, C, K, R: CircuitRef, L> fmt::Debug for Call<F, C, K, R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("circuit", &self.admitted.circuit.name()).finish_non_exhaustive()
    }
}

pin_project! {
    /// A future that the circuit admits or rejects at its first poll. Records its outcome.
    pub(super) struct Admitted<F, C, R: CircuitRef, L> {
        // Before the permit: the inner future must be dropped before the slot is free again.
        #[pin]
        pub(super) inner: F,
        permit: Option<Permit<R>>,
        pub(super) circuit: Circuit<R>,
        classify: C,
        last_failure: L,
    }
}

impl<F, C, R: CircuitRef, L> Admitted<F, C, R, L> {
    pub(super) fn new(circuit: &Circuit<R>, inner: F, classify: C, last_failure: L) -> Self {
        Self { inner, permit: None, circuit: circuit.clone(), classify, last_failure }
    }
}

impl<F, T, E, C, R, L> Future for Admitted<F, C, R, L>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    R: CircuitRef,
    L: KeepResult<T, E>,
{
    type Output = Result<Result<T, E>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.permit.is_none() {
            *this.permit = Some(this.circuit.try_acquire()?);
        }
        let result = ready!(Permit::guard(this.permit, || this.inner.poll(cx)));
        record(this.permit, &result, this.classify, this.last_failure);
        Poll::Ready(Ok(result))
    }
}

/// Keeps the last failure, if it is in the result of a call.
pub(super) trait KeepResult<T, E> {
    fn keep<R: CircuitRef>(&self, permit: &Permit<R>, verdict: &Verdict, result: &Result<T, E>);
}

impl<T, E, L: KeepError<E>> KeepResult<T, E> for L {
    #[inline]
    fn keep<R: CircuitRef>(&self, permit: &Permit<R>, verdict: &Verdict, result: &Result<T, E>) {
        match result {
            Ok(_) => self.keep_response(permit, verdict, type_name::<T>()),
            Err(error) => self.keep_error(permit, verdict, error),
        }
    }
}

/// Records the outcome of a call, unless a panic has recorded it.
pub(super) fn record<T, E, C, R, L>(
    permit: &mut Option<Permit<R>>,
    result: &Result<T, E>,
    classify: &C,
    last_failure: &L,
) where
    C: Classify<T, E>,
    R: CircuitRef,
    L: KeepResult<T, E>,
{
    if let Some(permit) = permit.take() {
        let verdict = classify.classify(result.as_ref());
        last_failure.keep(&permit, &verdict, result);
        permit.record_by_ref(&verdict);
    }
}
