//! The future of a call through a circuit.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::TypedError;

use super::CallError;
use crate::circuit::{Circuit, CircuitRef, Permit, Static};
use crate::error::Rejection;

pin_project! {
    /// The future of `call` of a [`Guard`](super::Guard) or a [`Circuit`].
    ///
    /// The type parameters are, in this order: the guarded future, the classifier, the kind of its
    /// error, and the reference to the circuit.
    #[must_use = "futures do nothing unless polled"]
    pub struct Call<F, C, K = TypedError, R: CircuitRef = Static> {
        #[pin]
        admitted: Admitted<F, C, R>,
        kind: PhantomData<fn() -> K>,
    }
}

impl<F, C, K, R: CircuitRef> Call<F, C, K, R> {
    pub(super) fn new(circuit: &Circuit<R>, inner: F, classify: C) -> Self {
        Self { admitted: Admitted::new(circuit, inner, classify), kind: PhantomData }
    }
}

impl<F, T, E, C, K, R> Future for Call<F, C, K, R>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    E: CallError<K>,
    R: CircuitRef,
{
    type Output = Result<T, E::Returned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().admitted.poll(cx)) {
            Ok(result) => result.map_err(E::into_returned),
            Err(rejection) => Err(E::rejected(rejection)),
        })
    }
}

impl<F, C, K, R: CircuitRef> fmt::Debug for Call<F, C, K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("circuit", &self.admitted.circuit.name()).finish_non_exhaustive()
    }
}

pin_project! {
    /// A future that the circuit admits or rejects at its first poll. Records its outcome.
    pub(super) struct Admitted<F, C, R: CircuitRef> {
        // Before the permit: the inner future must be dropped before the slot is free again.
        #[pin]
        inner: F,
        permit: Option<Permit<R>>,
        pub(super) circuit: Circuit<R>,
        classify: C,
    }
}

impl<F, C, R: CircuitRef> Admitted<F, C, R> {
    pub(super) fn new(circuit: &Circuit<R>, inner: F, classify: C) -> Self {
        Self { inner, permit: None, circuit: circuit.clone(), classify }
    }
}

impl<F, T, E, C, R> Future for Admitted<F, C, R>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
    R: CircuitRef,
{
    type Output = Result<Result<T, E>, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.permit.is_none() {
            *this.permit = Some(this.circuit.try_acquire()?);
        }
        let result = ready!(Permit::guard(this.permit, || this.inner.poll(cx)));
        record(this.permit, &result, this.classify);
        Poll::Ready(Ok(result))
    }
}

/// Records the outcome of a call, unless a panic has recorded it.
pub(super) fn record<T, E, C, R>(permit: &mut Option<Permit<R>>, result: &Result<T, E>, classify: &C)
where
    C: Classify<T, E>,
    R: CircuitRef,
{
    if let Some(permit) = permit.take() {
        permit.record(classify.classify(result.as_ref()));
    }
}
