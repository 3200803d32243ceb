//! Fuzzes the functions of `hint` with headers of any names and values.
//!
//! They must not panic, and no delay may be longer than `MAX_HINT`.
//!
//! The input has one header on each line, `name: value`. A line that is not a valid header, or
//! whose name no function reads, is skipped.
//!
//!     cargo +nightly fuzz run hints -- -dict=fuzz/dictionary

#![no_main]

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tower_fault_classify::hint::{self, Hint, MAX_HINT, Pushback};
use tower_fault_classify::{Retryable, classify_response};

/// A time between the years of the dates in the seeds.
fn fixed_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

fuzz_target!(|input: &[u8]| {
    let headers = headers(input);
    let called = Cell::new(false);
    let now = || {
        assert!(!called.replace(true), "the clock is read once");
        fixed_time()
    };

    let retry_after = checked(hint::retry_after(&headers, now));
    assert_eq!(retry_after == Hint::Absent, !headers.contains_key("retry-after"));
    assert!(!called.get() || headers.contains_key("retry-after"));
    let retry_after_ms = checked(hint::retry_after_ms(&headers));
    assert_eq!(retry_after_ms == Hint::Absent, !headers.contains_key("retry-after-ms"));
    checked(hint::retry_info(&headers));
    let rate_limit = checked(hint::rate_limit_reset(&headers));

    match hint::grpc_retry_pushback(&headers) {
        Hint::Absent => assert!(!headers.contains_key("grpc-retry-pushback-ms")),
        Hint::Invalid => panic!("an invalid pushback means stop"),
        Hint::Value(Pushback::After(delay)) => assert!(delay <= MAX_HINT),
        Hint::Value(Pushback::Stop) => {}
    }

    let delay = hint::delay(&headers, fixed_time);
    let order = [retry_after_ms, retry_after, rate_limit];
    assert_eq!(delay, order.into_iter().find_map(Hint::value));

    let should_retry = hint::should_retry(&headers);
    let mut response = http::Response::builder().status(503).body(()).unwrap();
    *response.headers_mut() = headers;
    let retry = classify_response(&response).fault().unwrap().retryable();
    let expected = match should_retry {
        Hint::Value(true) => Retryable::IfIdempotent,
        Hint::Value(false) => Retryable::Never,
        Hint::Absent | Hint::Invalid => Retryable::IfIdempotent,
    };
    assert_eq!(retry, expected);
});

fn headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            // A header map has a maximum size.
            let _ = headers.try_append(name, value);
        }
    }
    headers
}

fn checked(hint: Hint<Duration>) -> Hint<Duration> {
    assert!(hint.value().is_none_or(|delay| delay <= MAX_HINT), "{hint:?}");
    hint
}
