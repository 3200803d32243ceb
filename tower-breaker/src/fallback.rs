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
//! With a fallback, the error type of the service is the inner service's error type. These types
//! are the third type parameter of [`Breaker`](crate::Breaker). They implement the sealed traits
//! [`RejectionMode`] and [`OnReject`].

use std::error::Error;
use std::fmt::{self, Write};
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tower_fault_classify::__internals::pushback_value;
use tower_fault_classify::CarriedVerdict;
use tower_fault_classify::classifiers::{BoxedError, TypedError};

use crate::error::{BreakerError, Rejection};
use crate::label::Label;
use crate::machine::CircuitState;
use crate::sealed::Sealed;

/// Determines the breaker's error type from the inner service's error type.
///
/// Sealed: the types of this module implement it.
#[diagnostic::on_unimplemented(
    message = "the breaker has no error type over the inner error `{E}`",
    note = "the error must implement `std::error::Error` and be `'static`, or be `BoxError` or `anyhow::Error`"
)]
pub trait RejectionMode<E>: Sealed {
    /// The breaker's error.
    type Error;

    /// Converts an error of the inner service.
    #[doc(hidden)]
    fn inner(error: E) -> Self::Error;
}

/// Determines how a rejected call is answered.
///
/// Sealed: the types of this module implement it.
#[diagnostic::on_unimplemented(
    message = "the breaker cannot answer a rejected call: `{Self}` does not fit a service from `{Req}` to `Result<{Res}, {E}>`",
    label = "the error type or the fallback does not fit",
    note = "without a fallback, `{E}` must implement `std::error::Error` and be `'static`, or be `BoxError` or `anyhow::Error`",
    note = "`.http_fallback()` and `.grpc_fallback()` need the response `http::Response<B>`, whose `B` implements `Default`",
    note = "for any other response, call `.fallback(|request: {Req}, rejection: &Rejection| ...)` with a closure that returns `{Res}`"
)]
pub trait OnReject<Req, Res, E>: RejectionMode<E> {
    /// The future of the answer.
    type Future: Future<Output = Result<Res, Self::Error>>;

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

impl<E: Error + 'static> RejectionMode<E> for ReturnError<TypedError> {
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
        Rejected::new(&rejection, BreakerError::Rejected)
    }
}

impl<E> RejectionMode<E> for ReturnError<BoxedError>
where
    E: Deref<Target = dyn Error + Send + Sync> + From<Rejection>,
{
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
        Rejected::new(&rejection, E::from)
    }
}

/// The future of [`ReturnError`]: resolves immediately to the error of a rejected call.
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

impl<F, E> RejectionMode<E> for Fallback<F> {
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

impl<F, E> RejectionMode<E> for FallbackAsync<F> {
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

/// Answers a rejected call with a 503 response with `Retry-After`.
///
/// Set by [`http_fallback`](crate::BreakerLayer::http_fallback).
#[derive(Clone, Copy, Debug, Default)]
pub struct Http503;

/// Answers a rejected call with `UNAVAILABLE` and `grpc-retry-pushback-ms`.
///
/// Set by [`grpc_fallback`](crate::BreakerLayer::grpc_fallback).
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcUnavailable;

macro_rules! impl_http_answer {
    ($answer:ty, $respond:expr) => {
        impl Sealed for $answer {}

        impl<E> RejectionMode<E> for $answer {
            type Error = E;

            #[inline]
            fn inner(error: E) -> E {
                error
            }
        }

        impl<Req, B: Default, E> OnReject<Req, Response<B>, E> for $answer {
            type Future = Ready<Result<Response<B>, E>>;

            fn reject(&self, _: Req, rejection: Rejection) -> Self::Future {
                ready(Ok($respond(&rejection, B::default())))
            }
        }
    };
}

impl_http_answer!(Http503, unavailable);
impl_http_answer!(GrpcUnavailable, grpc_unavailable);

/// Returns the 503 response of a rejection.
pub(crate) fn unavailable<B>(rejection: &Rejection, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    if let Some(delay) = rejection.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, whole_seconds(delay).into());
    }
    attach_verdict(response, rejection)
}

/// Returns the trailers-only `UNAVAILABLE` response of a rejection.
fn grpc_unavailable<B>(rejection: &Rejection, body: B) -> Response<B> {
    const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), UNAVAILABLE);
    if let Ok(message) = HeaderValue::try_from(grpc_message(&rejection.public_text())) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    headers
        .insert(HeaderName::from_static("grpc-retry-pushback-ms"), pushback_value(rejection.retry_after()));
    attach_verdict(response, rejection)
}

fn attach_verdict<B>(mut response: Response<B>, rejection: &Rejection) -> Response<B> {
    CarriedVerdict::insert(&mut response, (*rejection.fault()).into());
    response
}

/// Returns the value of `Retry-After`, which has whole seconds. The delay is rounded up, to at
/// least one second, so that no client calls too early.
fn whole_seconds(delay: Duration) -> u64 {
    let rounded_up = u64::from(delay.subsec_nanos() > 0);
    delay.as_secs().saturating_add(rounded_up).max(1)
}

/// Encodes a text for a gRPC header: bytes that are not printable ASCII, and the percent sign, are
/// percent-encoded.
fn grpc_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_at_least_one_second() {
        let cases = [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (30_000, 30)];
        for (millis, seconds) in cases {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis}");
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn grpc_message_is_percent_encoded() {
        assert_eq!(grpc_message("50 % of `ä`\n"), "50 %25 of `%C3%A4`%0A");
    }
}
