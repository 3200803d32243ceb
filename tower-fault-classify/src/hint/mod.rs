//! What a server asks for in its headers. Pure: any bytes give a value, never a panic.
//!
//! | function | header | says | source |
//! |---|---|---|---|
//! | [`retry_after`] | `retry-after` | seconds, or a date | RFC 9110 §10.2.3 |
//! | [`retry_after_ms`] | `retry-after-ms` | milliseconds | `OpenAI`, Azure |
//! | [`should_retry`] | `x-should-retry` | yes or no | `OpenAI`, Anthropic |
//! | [`grpc_retry_pushback`] | `grpc-retry-pushback-ms` | milliseconds, or stop | gRFC A6 |
//! | [`retry_info`] | `grpc-status-details-bin` | seconds and nanoseconds | `google/rpc/error_details.proto` |
//! | `rate_limit_reset` (feature `draft-ratelimit`) | `ratelimit`, `ratelimit-reset` | seconds | draft-ietf-httpapi-ratelimit-headers |
//!
//! [`delay`] asks those that speak of HTTP in the order in which they count. No clock is read here: a date is held against the
//! response's own `Date`, and only where that is missing against what the caller passes in.
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

/// The delay that an HTTP response asks for, at most [`MAX_HINT`]: by `retry-after-ms`, or else by `Retry-After`, or else,
/// with the feature `draft-ratelimit`, by the draft's fields.
///
/// The first that makes sense decides, whichever is longer: the finer unit is what the `OpenAI` SDKs ask first, and the draft gives
/// way to `Retry-After` by its own words. `now` is called only where [`retry_after()`] needs it. Whether the call may be
/// sent again at all is another question, see [`should_retry()`].
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

    /// Headers of one name.
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
        delay(&headers, || panic!("no date is asked for"))
    }

    #[test]
    fn delay_prefers_milliseconds_and_skips_garbled() {
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
