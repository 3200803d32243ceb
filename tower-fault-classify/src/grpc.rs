//! Reads the gRPC status from headers and trailers.
//!
//! Most responses end in trailers, which arrive at the end of the body. A failure without a message
//! has its status in the head (trailers-only). The response of an intermediary has no
//! `grpc-status`.

use std::time::Duration;

#[cfg(any(feature = "__internals", feature = "test-util", feature = "tonic"))]
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

use crate::fault::Verdict;
use crate::hint::{self, Hint, Pushback};
use crate::table::grpc::{RetryHint, classify};

const NAME: &str = "grpc-status";
static GRPC_STATUS: HeaderName = HeaderName::from_static(NAME);

/// UNKNOWN, which replaces an invalid code.
pub(crate) const UNKNOWN: u32 = 2;

/// Returns a delay as the value of `grpc-retry-pushback-ms` (gRFC A6).
///
/// The value is in milliseconds, rounded up. `None` is -1, which asks the client not to retry.
#[cfg(any(feature = "__internals", feature = "test-util", feature = "tonic"))]
#[allow(unreachable_pub, reason = "the feature `__internals` exports it")]
pub fn pushback_value(delay: Option<Duration>) -> HeaderValue {
    // Implementations read an `int32`.
    let millis = delay
        .and_then(|delay| i32::try_from(delay.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128)).ok());
    millis.unwrap_or(-1).into()
}

/// Returns the verdict on a trailers-only response.
///
/// `None`: the response is not trailers-only, and its HTTP status or its trailers decide.
#[inline]
pub(crate) fn classify_grpc_head(headers: &HeaderMap) -> Option<Verdict> {
    if has_status_header(headers) { classify_grpc_code(headers) } else { None }
}

/// Returns whether the headers contain a `grpc-status`.
///
/// It is called for every success, and few have the header. One pass over the few names is faster
/// than hashing the name.
fn has_status_header(headers: &HeaderMap) -> bool {
    // A separate static, used for comparisons only, so that the compiler knows its bytes.
    static CODE: HeaderName = HeaderName::from_static(NAME);
    headers.keys().any(|name| *name == CODE)
}

fn classify_grpc_code(headers: &HeaderMap) -> Option<Verdict> {
    Some(classify_trailers(code(headers)?, headers))
}

/// Returns the verdict on the trailers that end a gRPC response with this code.
pub(crate) fn classify_trailers(code: u32, trailers: &HeaderMap) -> Verdict {
    classify(code, retry_hint(trailers, || hint::retry_info(trailers)))
}

/// Returns the code in the head of a gRPC response.
pub(crate) fn code(headers: &HeaderMap) -> Option<u32> {
    if is_grpc(headers) { code_in(headers) } else { None }
}

/// Returns the code in the head or the trailers of a response that is known to be gRPC.
///
/// An invalid code, and a code that is given twice with different values, is UNKNOWN.
pub(crate) fn code_in(headers: &HeaderMap) -> Option<u32> {
    let mut codes = headers.get_all(&GRPC_STATUS).iter().map(|code| parse(code.as_bytes()));
    let first = codes.next()?;
    Some(if codes.all(|code| code == first) { first } else { UNKNOWN })
}

/// Parses a code: one or two digits, as the protocol specifies.
fn parse(code: &[u8]) -> u32 {
    match code {
        [one @ b'0'..=b'9'] => u32::from(one - b'0'),
        [b'1', one @ b'0'..=b'6'] => 10 + u32::from(one - b'0'),
        _ => UNKNOWN,
    }
}

/// Returns whether the content type is `application/grpc` or one of its variants by message format.
///
/// gRPC-Web is excluded, because its status is in the body.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    after_application_grpc(headers).is_some_and(ends_subtype)
}

/// Returns whether the content type is that of gRPC or gRPC-Web, in any encoding and message
/// format.
pub(crate) fn is_grpc_or_web(headers: &HeaderMap) -> bool {
    after_application_grpc(headers).is_some_and(|rest| {
        let web = ["-web-text", "-web"].into_iter().find_map(|web| {
            let (start, rest) = rest.split_at_checked(web.len())?;
            start.eq_ignore_ascii_case(web.as_bytes()).then_some(rest)
        });
        ends_subtype(web.unwrap_or(rest))
    })
}

/// Returns the part of the `content-type` after `application/grpc`.
fn after_application_grpc(headers: &HeaderMap) -> Option<&[u8]> {
    let (start, rest) = headers.get(CONTENT_TYPE)?.as_bytes().split_at_checked(16)?;
    start.eq_ignore_ascii_case(b"application/grpc").then_some(rest)
}

/// Returns whether a media type's subtype ends where `rest` begins.
fn ends_subtype(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// Returns the server's hint on another attempt. A pushback takes precedence over `RetryInfo`.
pub(crate) fn retry_hint(headers: &HeaderMap, retry_info: impl FnOnce() -> Hint<Duration>) -> RetryHint {
    match hint::grpc_retry_pushback(headers) {
        Hint::Value(Pushback::After(delay)) => RetryHint::Exactly(delay),
        Hint::Value(Pushback::Stop) | Hint::Invalid => RetryHint::Stop,
        Hint::Absent => retry_info().value().map_or(RetryHint::None, RetryHint::AtLeast),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Kind, Retryable};

    fn head(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in headers {
            head.append(*name, value.parse().unwrap());
        }
        head
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    #[cfg(feature = "__internals")]
    #[test]
    fn pushback_rounds_up_to_milliseconds_and_negative_means_never() {
        let text = |delay| pushback_value(delay).to_str().unwrap().to_owned();
        assert_eq!(text(Some(Duration::from_nanos(1))), "1");
        assert_eq!(text(Some(Duration::from_micros(1_500))), "2");
        assert_eq!(text(Some(Duration::MAX)), "2147483647");
        assert_eq!(text(None), "-1");
    }

    #[test]
    fn grpc_trailers_only_response_is_classified_by_code() {
        assert_eq!(classify_grpc_head(&head(&[GRPC, ("grpc-status", "0")])), Some(Verdict::Success));
        let kind =
            |code| classify_grpc_head(&head(&[GRPC, ("grpc-status", code)])).unwrap().fault().unwrap().kind();
        assert_eq!(kind("14"), Kind::Unavailable);
        assert_eq!(kind("16"), Kind::Auth);
        assert_eq!(kind("3"), Kind::Client);
    }

    #[test]
    fn grpc_status_invalid_or_contradictory_is_unknown() {
        for code in ["", "abc", "99", "17", "-1", "+3", " 3 4", "014", "3.0"] {
            assert_eq!(code_of(&[GRPC, ("grpc-status", code)]), Some(2), "{code}");
        }
        assert_eq!(code_of(&[GRPC, ("grpc-status", "0"), ("grpc-status", "14")]), Some(2));
        assert_eq!(code_of(&[GRPC, ("grpc-status", "14"), ("grpc-status", "14")]), Some(14));
    }

    fn code_of(headers: &[(&'static str, &'static str)]) -> Option<u32> {
        code(&head(headers))
    }

    #[test]
    fn grpc_status_in_head_is_read_for_grpc_content_type_only() {
        for kind in ["application/grpc", "application/grpc+proto", "Application/GRPC;charset=utf-8"] {
            assert_eq!(code_of(&[("content-type", kind), ("grpc-status", "5")]), Some(5), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            assert_eq!(code_of(&[("content-type", kind), ("grpc-status", "5")]), None, "{kind}");
        }
        assert_eq!(code_of(&[("grpc-status", "5")]), None);
        assert_eq!(code_of(&[GRPC]), None);
    }

    #[test]
    fn grpc_pushback_decides_retryable() {
        let retryable = |pushback| {
            let head = head(&[GRPC, ("grpc-status", "8"), ("grpc-retry-pushback-ms", pushback)]);
            let verdict = classify_grpc_head(&head).unwrap();
            let fault = *verdict.fault().unwrap();
            (fault.retryable(), fault.retry_after())
        };
        assert_eq!(retryable("250"), (Retryable::Refused, Some(Duration::from_millis(250))));
        assert_eq!(retryable("-1"), (Retryable::Never, None));
        assert_eq!(retryable("soon"), (Retryable::Never, None));
    }
}
