//! The answers over HTTP: 503 with `Retry-After`, and gRPC's `UNAVAILABLE`.

use std::fmt::Write;
use std::future::{Ready, ready};
use std::task::Poll;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tower_fault_classify::__internals::pushback_value;
use tower_fault_classify::CarriedVerdict;
use tower_fault_classify::body::{ReplaceBody, TakeBody};

use super::{FallbackBody, OnReject, RejectionMode, ResponseMode};
use crate::error::Rejection;
use crate::sealed::Sealed;

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

        impl<Res, E> RejectionMode<Res, E> for $answer {
            type Answer = Response<()>;
            type Error = E;

            #[inline]
            fn inner(error: E) -> E {
                error
            }
        }

        impl<Res, E, Recorded> ResponseMode<Res, E, Recorded> for $answer
        where
            Recorded: ReplaceBody<FallbackBody<<Recorded as TakeBody>::Body>>,
        {
            type Response = Recorded::Response;

            #[inline]
            fn admitted<A>(result: Result<Recorded, A>) -> Result<Self::Response, A> {
                result.map(|response| response.adapt_body(FallbackBody::new))
            }

            fn rejected<A>(
                answer: Poll<Result<Response<()>, A>>,
                _: impl FnOnce(Poll<Result<Res, A>>) -> Poll<Result<Recorded, A>>,
            ) -> Poll<Result<Self::Response, A>> {
                answer.map_ok(|answer| {
                    let (head, ()) = answer.into_parts();
                    Recorded::from_parts(head, FallbackBody::empty())
                })
            }
        }

        impl<Req, Res: TakeBody, E> OnReject<Req, Res, E> for $answer {
            type Future = Ready<Result<Response<()>, E>>;

            fn reject(&self, _: Req, rejection: Rejection) -> Self::Future {
                ready(Ok($respond(&rejection)))
            }
        }
    };
}

impl_http_answer!(Http503, |rejection| unavailable(rejection, ()));
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
fn grpc_unavailable(rejection: &Rejection) -> Response<()> {
    const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

    let mut response = Response::new(());
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
    CarriedVerdict::insert(&mut response, rejection.fault().into());
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
