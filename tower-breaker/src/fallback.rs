//! What a caller gets when the circuit does not let a call through: an error, or an answer in its place.

mod fallback;
mod people;
mod ready_made;

pub use fallback::{Fallback, FallbackAsync};
pub use ready_made::{GrpcUnavailable, Http503};

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tower_fault_classify::{Boxed, Typed};

use crate::circuit::{CircuitState, Label};
use crate::error::{BreakerError, Rejection};

/// How the breaker's error is made of the inner one.
pub trait ErrorMode<E> {
    /// The breaker's error.
    type Error;

    /// The breaker's error for an error of the inner service.
    fn inner(error: E) -> Self::Error;
}

/// How a rejected call is answered.
pub trait OnReject<Req, Res, E>: ErrorMode<E> {
    /// The answer.
    type Future: Future<Output = Result<Res, Self::Error>>;

    /// Answers a request that was not let through.
    fn reject(&self, request: Req, rejection: Rejection) -> Self::Future;
}

/// Answers with an error. The default.
///
/// Over an inner error that is a type of its own the error is [`BreakerError`]. Over one that is boxed it stays what it is,
/// and the [`Rejection`] is boxed straight in. The marker `K` is inferred.
pub struct Errors<K = Typed>(PhantomData<fn() -> K>);

impl<K> Errors<K> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K> Clone for Errors<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Errors<K> {}

impl<K> fmt::Debug for Errors<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errors")
    }
}

impl<E: Error + 'static> ErrorMode<E> for Errors<Typed> {
    type Error = BreakerError<E>;

    #[inline]
    fn inner(error: E) -> BreakerError<E> {
        BreakerError::Inner(error)
    }
}

impl<Req, Res, E: Error + 'static> OnReject<Req, Res, E> for Errors<Typed> {
    type Future = Rejected<Res, BreakerError<E>>;

    #[inline]
    fn reject(&self, _: Req, rejection: Rejection) -> Self::Future {
        Rejected::new(&rejection, BreakerError::Rejected)
    }
}

impl<E> ErrorMode<E> for Errors<Boxed>
where
    E: Deref<Target = dyn Error + Send + Sync> + From<Rejection>,
{
    type Error = E;

    #[inline]
    fn inner(error: E) -> E {
        error
    }
}

impl<Req, Res, E> OnReject<Req, Res, E> for Errors<Boxed>
where
    E: Deref<Target = dyn Error + Send + Sync> + From<Rejection>,
{
    type Future = Rejected<Res, E>;

    #[inline]
    fn reject(&self, _: Req, rejection: Rejection) -> Self::Future {
        Rejected::new(&rejection, E::from)
    }
}

/// Comes to the error of a rejected call at once.
pub struct Rejected<Res, E> {
    circuit: &'static str,
    key: Option<Label>,
    state: CircuitState,
    retry_after: Option<Duration>,
    error: fn(Rejection) -> E,
    response: PhantomData<fn() -> Res>,
}

impl<Res, E> Rejected<Res, E> {
    #[inline]
    fn new(rejection: &Rejection, error: fn(Rejection) -> E) -> Self {
        let (circuit, key, state, retry_after) = rejection.parts();
        Self { circuit, key, state, retry_after, error, response: PhantomData }
    }
}

impl<Res, E> Future for Rejected<Res, E> {
    type Output = Result<Res, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { circuit, key, state, retry_after, error, .. } = *self;
        Poll::Ready(Err(error(Rejection::new(circuit, key, state, retry_after))))
    }
}

impl<Res, E> fmt::Debug for Rejected<Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("circuit", &self.circuit).finish_non_exhaustive()
    }
}
