//! Parses the hints in a server's headers: delays, and whether to retry.
//!
//! The functions never panic, whatever bytes a header contains. A malformed header is
//! [`Hint::Invalid`], except for [`grpc_retry_pushback`], which returns [`Pushback::Stop`].
//!
//! | function | header | value | source |
//! |---|---|---|---|
//! | [`retry_after`] | `retry-after` | seconds, or a date | RFC 9110 §10.2.3 |
//! | [`retry_after_ms`] | `retry-after-ms` | milliseconds | `OpenAI`, Azure |
//! | [`should_retry`] | `x-should-retry` | `true` or `false` | `OpenAI`, Anthropic |
//! | [`grpc_retry_pushback`] | `grpc-retry-pushback-ms` | milliseconds, or do not retry | gRFC A6 |
//! | [`retry_info`] | `grpc-status-details-bin` | seconds and nanoseconds | `google/rpc/error_details.proto` |
//! | `rate_limit_reset` (feature `draft-ratelimit`) | `ratelimit`, `ratelimit-reset` | seconds | draft-ietf-httpapi-ratelimit-headers |
//!
//! [`delay`] reads the headers of HTTP in their order of precedence.
//!
//! This module reads no clock. A date is compared with the response's own `Date` header. If that
//! header is missing or malformed, the date is compared with the time that the caller passes.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//! use tower_fault_classify::hint::{self, Hint};
//!
//! let mut headers = http::HeaderMap::new();
//! headers.insert("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT".parse()?);
//! headers.insert("date", "Wed, 21 Oct 2015 07:27:15 GMT".parse()?);
//! assert_eq!(hint::retry_after(&headers, SystemTime::now), Hint::Value(Duration::from_secs(45)));
//!
//! headers.insert("retry-after-ms", "1500.5".parse()?);
//! assert_eq!(hint::delay(&headers, SystemTime::now), Some(Duration::from_micros(1_500_500)));
//! # Ok::<(), http::header::InvalidHeaderValue>(())
//! ```

mod fields;
mod grpc;
mod number;
mod protobuf;
#[cfg(feature = "draft-ratelimit")]
mod rate_limit;
mod value;

use std::time::{Duration, SystemTime};

use http::HeaderMap;

pub use fields::{retry_after, retry_after_ms, should_retry};
pub use grpc::{Pushback, grpc_retry_pushback, retry_info, retry_info_in};
#[cfg(feature = "draft-ratelimit")]
pub use rate_limit::rate_limit_reset;
pub use value::{Hint, MAX_HINT};

/// Returns the delay that an HTTP response asks for, at most [`MAX_HINT`].
///
/// The first valid header decides, even if another one asks for a longer delay:
///
/// 1. `retry-after-ms`, because the `OpenAI` SDKs also read the finer unit first;
/// 2. `Retry-After`;
/// 3. the fields of the draft (feature `draft-ratelimit`), because the draft gives precedence to
///    `Retry-After`.
///
/// `now` is called only if [`retry_after()`] needs it. Whether the request may be sent again at all
/// is a separate question: see [`should_retry()`].
pub fn delay(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let delay = retry_after_ms(headers).value().or_else(|| retry_after(headers, now).value());
    #[cfg(feature = "draft-ratelimit")]
    let delay = delay.or_else(|| rate_limit_reset(headers).value());
    delay
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    /// Returns headers with one name and these values.
    pub(super) fn headers(name: &'static str, values: &[impl AsRef<[u8]>]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_ref()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    pub(super) fn seconds(seconds: u64) -> Hint<Duration> {
        Hint::Value(Duration::from_secs(seconds))
    }

    fn of(fields: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers = fields
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        delay(&headers, || panic!("no date is read"))
    }

    #[test]
    fn delay_prefers_milliseconds_and_skips_invalid() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(of(&[("retry-after", "3"), ("retry-after-ms", "20")]), Some(Duration::from_millis(20)));
        assert_eq!(of(&[("retry-after", "3"), ("retry-after-ms", "0")]), Some(Duration::ZERO));
        assert_eq!(of(&[("retry-after", "3"), ("retry-after-ms", "soon")]), Some(Duration::from_secs(3)));
        assert_eq!(of(&[("retry-after", "soon"), ("retry-after-ms", "soon")]), None);
        assert_eq!(of(&[("x-should-retry", "true"), ("grpc-retry-pushback-ms", "5")]), None);
    }

    #[cfg(feature = "draft-ratelimit")]
    #[test]
    fn delay_rate_limit_draft_comes_last() {
        let limit = ("ratelimit", "\"default\";r=0;t=30");
        assert_eq!(of(&[limit]), Some(Duration::from_secs(30)));
        assert_eq!(of(&[limit, ("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(of(&[limit, ("retry-after", "soon")]), Some(Duration::from_secs(30)));
    }

    #[cfg(not(feature = "draft-ratelimit"))]
    #[test]
    fn delay_without_feature_ignores_rate_limit_draft() {
        assert_eq!(of(&[("ratelimit", "\"default\";r=0;t=30"), ("ratelimit-reset", "30")]), None);
    }
}
