//! The headers of a gRPC request, as defined in "gRPC over HTTP2" and gRFC A6.

use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName, HeaderValue};

/// The number of attempts before this one (gRFC A6).
pub(super) static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The largest number that a timeout may have: eight digits.
const LARGEST: u128 = 99_999_999;

/// The units of a timeout, in nanoseconds, from the finest to the coarsest.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// Returns whether the content type is `application/grpc` or one of its variants by message format.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    // One pass over the few names is faster than hashing the name.
    let content_type = headers.iter().find(|(name, _)| **name == CONTENT_TYPE);
    let media_type = content_type.map(|(_, value)| value.as_bytes()).unwrap_or_default();
    let prefix = media_type.get(..16).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"application/grpc"));
    prefix && matches!(media_type.get(16), None | Some(b'+' | b';' | b' '))
}

/// Returns how long a call may take. An invalid timeout is ignored.
///
/// It is called for every request, and few have the header. One pass over the few names is faster
/// than hashing the name.
#[inline]
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    // A separate static, used for comparisons only, so that the compiler knows its bytes.
    static NAME: HeaderName = HeaderName::from_static("grpc-timeout");
    if headers.keys().any(|name| *name == NAME) { timeout_of_grpc(headers) } else { None }
}

fn timeout_of_grpc(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(&TIMEOUT)?.as_bytes())
}

/// Parses one to eight digits and a unit.
fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == char::from(*unit))?;
    let number = digits.iter().fold(0, |number, digit| number * 10 + u128::from(digit - b'0'));
    let nanos = number * nanos;
    Some(Duration::new(u64::try_from(nanos / 1_000_000_000).ok()?, (nanos % 1_000_000_000) as u32))
}

/// Replaces a call's timeout by the time that is left, if that is shorter. A call without a timeout
/// gets none.
pub(super) fn shorten_timeout(headers: &mut HeaderMap, left: Duration) {
    if timeout(headers).is_some_and(|timeout| left < timeout)
        && let Ok(value) = HeaderValue::from_str(&format(left))
    {
        headers.insert(&TIMEOUT, value);
    }
}

/// Formats a timeout in the finest unit in which it has at most eight digits, rounded down. The
/// minimum is one nanosecond, because zero is not a valid timeout.
fn format(time: Duration) -> String {
    let nanos = time.as_nanos().max(1);
    let (unit, one) = UNITS.iter().find(|(_, one)| nanos / one <= LARGEST).unwrap_or(&('H', UNITS[5].1));
    format!("{}{unit}", (nanos / one).min(LARGEST))
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpc_timeout_parses_digits_and_unit() {
        for (text, nanos) in [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("99999999n", 99_999_999),
            ("0S", 0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert_eq!(parse(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for text in
            ["", "S", "1", "1s", "1h", "-1S", "+1S", "1.5S", "999999999S", " 1S", "1 S", "1SS", "soon"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn grpc_timeout_is_only_shortened() {
        let rewritten = |timeout: Option<&str>, left| {
            let mut headers = HeaderMap::new();
            if let Some(timeout) = timeout {
                headers.insert(&TIMEOUT, timeout.parse().unwrap());
            }
            shorten_timeout(&mut headers, left);
            headers.get(&TIMEOUT).map(|timeout| timeout.to_str().unwrap().to_owned())
        };
        let second = Duration::from_secs(1);
        assert_eq!(rewritten(Some("3S"), second).as_deref(), Some("1000000u"));
        assert_eq!(rewritten(Some("1S"), second).as_deref(), Some("1S"));
        assert_eq!(rewritten(Some("1S"), Duration::ZERO).as_deref(), Some("1n"));
        assert_eq!(rewritten(Some("soon"), second).as_deref(), Some("soon"));
        assert_eq!(rewritten(None, second), None);
    }

    proptest! {
        #[test]
        fn grpc_timeout_written_is_read_back_never_longer(nanos in any::<u64>(), seconds in 0_u64..1 << 40) {
            for time in [Duration::from_nanos(nanos), Duration::from_secs(seconds)] {
                let read = parse(format(time).as_bytes()).unwrap();
                prop_assert!(read <= time.max(Duration::from_nanos(1)));
                // A unit is at most 1,000 times the next finer unit. At least five of the eight
                // digits are therefore left.
                prop_assert!(read >= time.min(Duration::from_secs(99_999_999 * 3_600)).mul_f64(0.999_99) || time.is_zero());
            }
        }
    }
}
