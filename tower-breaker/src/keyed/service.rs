//! The service: it picks the circuit of each call.

use std::fmt;
use std::task::{Context, Poll};

use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::Auto;
use tower_service::Service;

use super::core::Shared;
use super::future::KeyedResponseFuture;
use super::key::PickCircuit;
use super::map::{KeyedCircuits, PickedCircuit};
use crate::circuit::Permit;
use crate::error::Rejection;
use crate::fallback::{OnReject, ReturnError};
use crate::future::{OnHead, RecordOutcome};

/// Guards its inner service with a circuit for each key. Made by [`KeyedBreakerLayer`](crate::keyed::KeyedBreakerLayer).
///
/// # Readiness
///
/// It is always ready: which circuit a call goes through is known when there is a request. `call` picks the circuit and asks it; the future then
/// waits for the readiness of a clone of the inner service, so that one key's dead connection holds up no other's calls. A call that waits is
/// rejected when its circuit opens. What a rejected call did not need was never reserved.
///
/// # Cancellation
///
/// As of a [`Breaker`](crate::Breaker): dropping the future drops the inner call, and a probe's place is free again at once.
///
/// # Panics
///
/// A panic of the inner service's `poll_ready`, of its `call` or of its future counts as a failure of its key, and goes on to the caller.
pub struct KeyedBreaker<S, F, K, C = Auto, R = ReturnError, B = OnHead> {
    pub(super) inner: S,
    pub(super) key: F,
    pub(super) circuits: KeyedCircuits<K>,
    pub(super) classify: C,
    pub(super) reject: R,
    pub(super) record: B,
}

impl<S, F, K, C, R, B> KeyedBreaker<S, F, K, C, R, B> {
    /// A handle to the circuits.
    pub fn circuits(&self) -> KeyedCircuits<K> {
        self.circuits.clone()
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Gives the inner service back.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// The permit of a call, or why there is none.
    #[inline]
    fn admit<Req>(&self, request: &Req) -> Result<Permit<Shared<K>>, Rejection>
    where
        F: PickCircuit<Req, K>,
    {
        let PickedCircuit(core) = self.key.pick(request, &self.circuits);
        Permit::acquire(Shared::new(core)).map_err(|(circuit, denied)| circuit.reject(denied))
    }
}

impl<S, F, K, C, R, B, Req> Service<Req> for KeyedBreaker<S, F, K, C, R, B>
where
    S: Service<Req> + Clone,
    F: PickCircuit<Req, K>,
    C: Classify<S::Response, S::Error> + Clone,
    B: RecordOutcome<S::Response, C, Shared<K>> + Clone,
    R: OnReject<Req, S::Response, S::Error> + Clone,
{
    type Response = B::Response;
    type Error = R::Error;
    type Future = KeyedResponseFuture<S, Req, K, C, R, B, S::Future, R::Future>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let (classify, reject, record) = (self.classify.clone(), self.reject.clone(), self.record.clone());
        match self.admit(&request) {
            Ok(permit) => {
                KeyedResponseFuture::waiting(self.inner.clone(), request, permit, classify, reject, record)
            }
            Err(rejection) => {
                let answer = reject.reject(request, rejection);
                KeyedResponseFuture::rejected(answer, classify, reject, record)
            }
        }
    }
}

impl<S: Clone, F: Clone, K, C: Clone, R: Clone, B: Clone> Clone for KeyedBreaker<S, F, K, C, R, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            key: self.key.clone(),
            circuits: self.circuits.clone(),
            classify: self.classify.clone(),
            reject: self.reject.clone(),
            record: self.record.clone(),
        }
    }
}

impl<S: fmt::Debug, F, K, C, R, B> fmt::Debug for KeyedBreaker<S, F, K, C, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreaker")
            .field("inner", &self.inner)
            .field("circuits", &self.circuits)
            .finish_non_exhaustive()
    }
}
