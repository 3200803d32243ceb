//! The answers that HTTP and gRPC have for a server that is not to be asked now.
//!
//! Both carry the rejection's verdict in their extensions, so that no layer above takes them for the server's own word: a retry does not send the
//! request again, another breaker does not count it.

use std::fmt::Write;
use std::future::{Ready, ready};
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tower_fault_classify::__internals::pushback;
use tower_fault_classify::Carried;

use super::{ErrorMode, OnReject};
use crate::error::Rejection;

/// Answers 503, with the time to wait in `Retry-After`; see [`http_fallback`](crate::BreakerLayer::http_fallback).
#[derive(Clone, Copy, Debug, Default)]
pub struct Http503;

/// Answers `UNAVAILABLE`, with the time to wait in `grpc-retry-pushback-ms`; see [`grpc_fallback`](crate::BreakerLayer::grpc_fallback).
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcUnavailable;

macro_rules! ready_made {
    ($answer:ty, $respond:expr) => {
        impl<E> ErrorMode<E> for $answer {
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

ready_made!(Http503, unavailable);
ready_made!(GrpcUnavailable, grpc_unavailable);

/// The 503 of a rejection.
pub(super) fn unavailable<B>(rejection: &Rejection, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    if let Some(delay) = rejection.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, whole_seconds(delay).into());
    }
    mark(response, rejection)
}

/// The trailers-only `UNAVAILABLE` of a rejection.
fn grpc_unavailable<B>(rejection: &Rejection, body: B) -> Response<B> {
    const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), UNAVAILABLE);
    if let Ok(message) = HeaderValue::try_from(grpc_message(&rejection.public_text())) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    headers.insert(HeaderName::from_static("grpc-retry-pushback-ms"), pushback(rejection.retry_after()));
    mark(response, rejection)
}

fn mark<B>(mut response: Response<B>, rejection: &Rejection) -> Response<B> {
    Carried::put(&mut response, (*rejection.fault()).into());
    response
}

/// `Retry-After` knows whole seconds: up, so that nobody comes early, and at least one.
fn whole_seconds(delay: Duration) -> u64 {
    let up = u64::from(delay.subsec_nanos() > 0);
    delay.as_secs().saturating_add(up).max(1)
}

/// A text as gRPC sends it in a header: what is not printable ASCII, and the percent sign, are percent-encoded.
fn grpc_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up_and_at_least_one() {
        let cases = [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (30_000, 30)];
        for (millis, seconds) in cases {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis}");
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(grpc_message("50 % of `ä`\n"), "50 %25 of `%C3%A4`%0A");
    }
}
