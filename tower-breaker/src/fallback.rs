//! How a rejected call is answered: with an error, or with a response.
//!
//! | item | set by | answer |
//! |---|---|---|
//! | [`ReturnError`] | the default | [`BreakerError::Rejected`], or the [`Rejection`] boxed if the inner error is boxed |
//! | [`Fallback`] | [`fallback`](crate::BreakerLayer::fallback) | the return value of a closure |
//! | [`FallbackAsync`] | [`fallback_async`](crate::BreakerLayer::fallback_async) | the output of a future |
//! | [`Http503`] | [`http_fallback`](crate::BreakerLayer::http_fallback) | an empty 503 response with `Retry-After` |
//! | [`GrpcUnavailable`] | [`grpc_fallback`](crate::BreakerLayer::grpc_fallback) | `UNAVAILABLE` with `grpc-retry-pushback-ms` |
//!
//! With a fallback, the error type of the service is the inner service's error type. With
//! [`Http503`] or [`GrpcUnavailable`], the body of an `http::Response` becomes a [`FallbackBody`].
//!
//! These types are the third type parameter of [`Breaker`](crate::Breaker). They implement the
//! sealed traits [`RejectionMode`], [`ResponseMode`] and [`OnReject`].

mod body;
pub(crate) mod http;

use std::error::Error;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use tower_fault_classify::classifiers::{BoxedError, TypedError};

use crate::error::{BreakerError, Rejection};
use crate::sealed::Sealed;

pub use self::body::FallbackBody;
pub use self::http::{GrpcUnavailable, Http503};

/// Determines the breaker's error type from the inner service's error type, and the type of its
/// answers to rejected calls.
///
/// Sealed: the types of this module implement it.
#[diagnostic::on_unimplemented(
    message = "the breaker has no error type over the inner error `{E}`",
    note = "the error must implement `std::error::Error` and be `'static`, or be `BoxError` or `anyhow::Error`"
)]
pub trait RejectionMode<Res, E>: Sealed {
    /// The answer to a rejected call, before it becomes the breaker's response.
    type Answer;
    /// The breaker's error.
    type Error;

    /// Converts an error of the inner service.
    #[doc(hidden)]
    fn inner(error: E) -> Self::Error;
}

/// Determines the breaker's response type.
///
/// `Res` is the response of the inner service. `Recorded` is the response after its outcome was
/// recorded: `Res` itself, or `Res` with a tracked body.
///
/// Sealed: the types of this module implement it.
pub trait ResponseMode<Res, E, Recorded>: RejectionMode<Res, E> {
    /// The breaker's response.
    type Response;

    /// Converts the result of an admitted call. It takes the whole result, because to unwrap and
    /// wrap a response would move it twice.
    #[doc(hidden)]
    fn admitted<A>(result: Result<Recorded, A>) -> Result<Self::Response, A>;

    /// Converts the answer to a rejected call. `pass` forwards a response that is not recorded.
    #[doc(hidden)]
    fn rejected<A>(
        answer: Poll<Result<Self::Answer, A>>,
        pass: impl FnOnce(Poll<Result<Res, A>>) -> Poll<Result<Recorded, A>>,
    ) -> Poll<Result<Self::Response, A>>;
}

/// Implements [`ResponseMode`] for a mode whose answer has the inner service's response type.
macro_rules! impl_same_response {
    ($($mode:ident)*) => {$(
        impl<M, Res, E, Recorded> ResponseMode<Res, E, Recorded> for $mode<M>
        where
            Self: RejectionMode<Res, E, Answer = Res>,
        {
            type Response = Recorded;

            #[inline]
            fn admitted<A>(result: Result<Recorded, A>) -> Result<Recorded, A> {
                result
            }

            #[inline]
            fn rejected<A>(
                answer: Poll<Result<Res, A>>,
                pass: impl FnOnce(Poll<Result<Res, A>>) -> Poll<Result<Recorded, A>>,
            ) -> Poll<Result<Recorded, A>> {
                pass(answer)
            }
        }
    )*};
}

impl_same_response!(ReturnError Fallback FallbackAsync);

/// Determines how a rejected call is answered.
///
/// Sealed: the types of this module implement it.
#[diagnostic::on_unimplemented(
    message = "the breaker cannot answer a rejected call: `{Self}` does not fit a service from `{Req}` to `Result<{Res}, {E}>`",
    label = "the error type or the fallback does not fit",
    note = "without a fallback, `{E}` must implement `std::error::Error` and be `'static`, or be `BoxError` or `anyhow::Error`",
    note = "for any other response, call `.fallback(|request: {Req}, rejection: &Rejection| ...)` with a closure that returns `{Res}`"
)]
pub trait OnReject<Req, Res, E>: RejectionMode<Res, E> {
    /// The future of the answer.
    type Future: Future<Output = Result<Self::Answer, Self::Error>>;

    /// Answers a request that was rejected.
    #[doc(hidden)]
    fn reject(&self, request: Req, rejection: Rejection) -> Self::Future;
}

/// Answers a rejected call with an error. The default.
///
/// The marker `K` determines the error type. The compiler infers it from the inner service.
///
/// | `K` | inner error | error |
/// |---|---|---|
/// | [`TypedError`] | a concrete type | [`BreakerError`] |
/// | [`BoxedError`] | boxed, such as tower's `BoxError` | the same type; the [`Rejection`] is boxed directly: `error.is::<Rejection>()` |
pub struct ReturnError<K = TypedError>(PhantomData<fn() -> K>);

impl<K> ReturnError<K> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K> Clone for ReturnError<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for ReturnError<K> {}

impl<K> fmt::Debug for ReturnError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReturnError")
    }
}

impl<K> Sealed for ReturnError<K> {}

impl<Res, E: Error + 'static> RejectionMode<Res, E> for ReturnError<TypedError> {
    type Answer = Res;
    type Error = BreakerError<E>;

    #[inline]
    fn inner(error: E) -> BreakerError<E> {
        BreakerError::Inner(error)
    }
}

impl<Req, Res, E: Error + 'static> OnReject<Req, Res, E> for ReturnError<TypedError> {
    type Future = Rejected<Res, BreakerError<E>>;

    #[inline]
    fn reject(&self, _: Req, rejection: Rejection) -> Self::Future {
        Rejected::new(rejection)
    }
}

impl<Res, E> RejectionMode<Res, E> for ReturnError<BoxedError>
where
    E: Deref<Target = dyn Error + Send + Sync> + From<Rejection>,
{
    type Answer = Res;
    type Error = E;

    #[inline]
    fn inner(error: E) -> E {
        error
    }
}

impl<Req, Res, E> OnReject<Req, Res, E> for ReturnError<BoxedError>
where
    E: Deref<Target = dyn Error + Send + Sync> + From<Rejection>,
{
    type Future = Rejected<Res, E>;

    #[inline]
    fn reject(&self, _: Req, rejection: Rejection) -> Self::Future {
        Rejected::new(rejection)
    }
}

/// The future of [`ReturnError`]: resolves immediately to the error of a rejected call.
pub struct Rejected<Res, E> {
    rejection: Rejection,
    result: PhantomData<fn() -> Result<Res, E>>,
}

impl<Res, E> Rejected<Res, E> {
    #[inline]
    const fn new(rejection: Rejection) -> Self {
        Self { rejection, result: PhantomData }
    }
}

impl<Res, E: From<Rejection>> Future for Rejected<Res, E> {
    type Output = Result<Res, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(self.rejection.clone().into()))
    }
}

impl<Res, E> fmt::Debug for Rejected<Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("rejection", &self.rejection).finish_non_exhaustive()
    }
}

/// Answers a rejected call with a closure's return value.
///
/// Set by [`fallback`](crate::BreakerLayer::fallback).
#[derive(Clone, Copy)]
pub struct Fallback<F>(F);

impl<F> Fallback<F> {
    pub(crate) const fn new(answer: F) -> Self {
        Self(answer)
    }
}

impl<F> Sealed for Fallback<F> {}

impl<F, Res, E> RejectionMode<Res, E> for Fallback<F> {
    type Answer = Res;
    type Error = E;

    #[inline]
    fn inner(error: E) -> E {
        error
    }
}

impl<F, Req, Res, E> OnReject<Req, Res, E> for Fallback<F>
where
    F: Fn(Req, &Rejection) -> Res,
{
    type Future = Ready<Result<Res, E>>;

    fn reject(&self, request: Req, rejection: Rejection) -> Self::Future {
        ready(Ok((self.0)(request, &rejection)))
    }
}

impl<F> fmt::Debug for Fallback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fallback")
    }
}

/// Answers a rejected call with a future's output.
///
/// Set by [`fallback_async`](crate::BreakerLayer::fallback_async).
#[derive(Clone, Copy)]
pub struct FallbackAsync<F>(F);

impl<F> FallbackAsync<F> {
    pub(crate) const fn new(answer: F) -> Self {
        Self(answer)
    }
}

impl<F> Sealed for FallbackAsync<F> {}

impl<F, Res, E> RejectionMode<Res, E> for FallbackAsync<F> {
    type Answer = Res;
    type Error = E;

    #[inline]
    fn inner(error: E) -> E {
        error
    }
}

impl<F, Fut, Req, Res, E> OnReject<Req, Res, E> for FallbackAsync<F>
where
    F: Fn(Req, Rejection) -> Fut,
    Fut: Future<Output = Result<Res, E>>,
{
    type Future = Fut;

    fn reject(&self, request: Req, rejection: Rejection) -> Fut {
        (self.0)(request, rejection)
    }
}

impl<F> fmt::Debug for FallbackAsync<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FallbackAsync")
    }
}
