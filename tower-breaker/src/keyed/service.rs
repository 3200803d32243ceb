//! The service. It selects the circuit of each call.

use std::fmt;
use std::task::{Context, Poll};

use tower_fault_classify::Classify;
use tower_fault_classify::classifiers::Auto;
use tower_service::Service;

use super::core::Shared;
use super::future::KeyedResponseFuture;
use super::key::PickCircuit;
use super::lease::Recent;
use super::map::{KeyedCircuits, KeyedPermit};
use crate::error::Rejection;
use crate::fallback::{OnReject, ResponseMode, ReturnError};
use crate::future::{BeginRecord, OnHead, RecordOutcome};

/// Guards its inner service with one circuit for each key.
///
/// Made by [`KeyedBreakerLayer`](crate::keyed::KeyedBreakerLayer). The inner service must be
/// `Clone`.
///
/// # Readiness
///
/// `poll_ready` is always ready, because the circuit is known only when there is a request:
///
/// 1. `call` selects the circuit by the request's key. If that circuit rejects the call, the inner
///    service is neither cloned nor polled, so that nothing is reserved.
/// 2. The future waits for the readiness of a clone of the inner service. One key's dead connection
///    therefore blocks no other key's calls.
/// 3. If the circuit opens while the future waits, the call is rejected.
///
/// # Cancellation
///
/// As with [`Breaker`](crate::Breaker): dropping the future drops the inner call, and frees a
/// probe's slot immediately. [`CancelledPolicy`](crate::CancelledPolicy) determines how cancelled
/// calls are counted.
///
/// # Panics
///
/// A panic of the inner service's `poll_ready`, `call` or future counts as a failure of the key,
/// and propagates to the caller.
///
/// # Naming the type
///
/// A struct can hold the service without boxing it. The type contains the type of the key closure,
/// so use a function pointer:
///
/// ```
/// use http::Request;
/// use tower::Layer;
/// use tower_breaker::keyed::{ByRef, KeyedBreaker, KeyedBreakerLayer, KeyedConfig};
///
/// /// The host of a request is its key: borrowed as `str`, stored as `String`.
/// type HostKey = ByRef<fn(&Request<String>) -> &str, str>;
///
/// struct Gateway<Client> {
///     client: KeyedBreaker<Client, HostKey, String>,
/// }
///
/// impl<Client> Gateway<Client> {
///     fn new(client: Client) -> Self {
///         let host: fn(&Request<String>) -> &str = |request| request.uri().host().unwrap_or_default();
///         let layer = KeyedBreakerLayer::by_ref(KeyedConfig::default(), host);
///         Self { client: layer.layer(client) }
///     }
/// }
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # let client = tower::service_fn(async |_: Request<String>| Ok::<_, std::io::Error>(http::Response::new(())));
/// # check::<Request<String>, _>(&Gateway::new(client).client);
/// ```
///
/// - A key that a closure returns by value has the type `ByValue<fn(&Request) -> Key>`.
/// - If the inner error is boxed, add `Auto<BoxedError>` and `ReturnError<BoxedError>`, as with
///   [`Breaker`](crate::Breaker).
pub struct KeyedBreaker<S, F, K, C = Auto, R = ReturnError, B = OnHead> {
    pub(super) inner: S,
    pub(super) key: F,
    pub(super) circuits: KeyedCircuits<K>,
    pub(super) recent: Recent<K>,
    pub(super) classify: C,
    pub(super) reject: R,
    pub(super) record: B,
}

impl<S, F, K, C, R, B> KeyedBreaker<S, F, K, C, R, B> {
    /// Returns a handle to the circuits.
    pub fn circuits(&self) -> KeyedCircuits<K> {
        self.circuits.clone()
    }

    /// Returns a reference to the inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns a mutable reference to the inner service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Returns the permit of a call, or its rejection.
    #[inline]
    fn admit<Req>(&mut self, request: &mut Req) -> Result<KeyedPermit<K>, Rejection>
    where
        F: PickCircuit<Req, K>,
    {
        self.key.pick(request, &self.circuits, &mut self.recent).admit()
    }
}

/// The response of the service `S` after `B` has recorded its outcome.
type Recorded<B, S, Req, K, C> = <<B as BeginRecord<Req>>::Record as RecordOutcome<
    <S as Service<Req>>::Response,
    <S as Service<Req>>::Error,
    C,
    Shared<K>,
>>::Response;

impl<S, F, K, C, R, B, Req> Service<Req> for KeyedBreaker<S, F, K, C, R, B>
where
    S: Service<Req> + Clone,
    F: PickCircuit<Req, K>,
    C: Classify<S::Response, S::Error> + Clone,
    B: BeginRecord<Req, Record: RecordOutcome<S::Response, S::Error, C, Shared<K>>>,
    R: OnReject<Req, S::Response, S::Error>
        + ResponseMode<S::Response, S::Error, Recorded<B, S, Req, K, C>>
        + Clone,
{
    type Response = <R as ResponseMode<S::Response, S::Error, Recorded<B, S, Req, K, C>>>::Response;
    type Error = R::Error;
    type Future = KeyedResponseFuture<S, Req, K, C, R, B::Record, S::Future, R::Future>;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, mut request: Req) -> Self::Future {
        let (classify, reject) = (self.classify.clone(), self.reject.clone());
        match self.admit(&mut request) {
            Ok(permit) => {
                let record = self.record.begin(Some(&request));
                KeyedResponseFuture::waiting(self.inner.clone(), request, permit, classify, reject, record)
            }
            Err(rejection) => {
                let answer = reject.reject(request, rejection);
                KeyedResponseFuture::rejected(answer, classify, reject, self.record.begin(None))
            }
        }
    }
}

/// Passes on the load of the inner service.
#[cfg(feature = "tower")]
impl<S: tower::load::Load, F, K, C, R, B> tower::load::Load for KeyedBreaker<S, F, K, C, R, B> {
    type Metric = S::Metric;

    fn load(&self) -> S::Metric {
        self.inner.load()
    }
}

impl<S: Clone, F: Clone, K, C: Clone, R: Clone, B: Clone> Clone for KeyedBreaker<S, F, K, C, R, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            key: self.key.clone(),
            circuits: self.circuits.clone(),
            recent: self.recent.clone(),
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
