//! Parses decimal numbers of any length, without signs and exponents.

use std::time::Duration;

use super::value::MAX_HINT;

/// Parses a whole number: digits, with optional blanks around them.
///
/// A number too large for `u64` is cut to its maximum.
pub(super) fn whole(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    is_number(digits).then(|| number(digits))
}

/// Parses whole seconds, at most [`MAX_HINT`].
pub(super) fn seconds(text: &[u8]) -> Option<Duration> {
    Some(Duration::from_secs(whole(text)?).min(MAX_HINT))
}

/// Parses milliseconds with an optional fraction, at most [`MAX_HINT`].
///
/// Digits below a nanosecond are ignored.
pub(super) fn millis(text: &[u8]) -> Option<Duration> {
    let text = text.trim_ascii();
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b"0"[..]),
    };
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let mut nanos = *b"000000";
    for (digit, given) in nanos.iter_mut().zip(fraction) {
        *digit = *given;
    }
    let delay = Duration::from_millis(number(whole)).saturating_add(Duration::from_nanos(number(&nanos)));
    Some(delay.min(MAX_HINT))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0_u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit.saturating_sub(b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn number_accepts_digits_only() {
        assert_eq!(whole(b" 007\t"), Some(7));
        assert_eq!(whole(b"18446744073709551615"), Some(u64::MAX));
        for text in ["18446744073709551616", "36893488147419103233", &"184467440737095516160".repeat(9)] {
            assert_eq!(whole(text.as_bytes()), Some(u64::MAX), "{text}");
        }
        for text in [&b""[..], b" ", b"-1", b"+1", b"1.0", b"1 2", b"1_000", b"1e3", b"0x10", b"\xb2"] {
            assert_eq!(whole(text), None, "{text:?}");
        }
    }

    #[test]
    fn millis_fraction_is_kept_to_the_nanosecond() {
        assert_eq!(millis(b"1500.5"), Some(Duration::from_micros(1_500_500)));
        assert_eq!(millis(b"0.000001"), Some(Duration::from_nanos(1)));
        assert_eq!(millis(b"0.0000019"), Some(Duration::from_nanos(1)));
        assert_eq!(millis(b"1.2500000000000000000000000000"), Some(Duration::from_micros(1_250)));
        for text in [&b"."[..], b"1.", b".5", b"1..5", b"1.5.5", b"1.-5", b"1. 5", b"1,5"] {
            assert_eq!(millis(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn number_formatted_is_read_back(number in any::<u64>(), nanos in 0_u64..1_000_000) {
            prop_assert_eq!(whole(number.to_string().as_bytes()), Some(number));
            prop_assert_eq!(
                seconds(number.to_string().as_bytes()),
                Some(Duration::from_secs(number).min(MAX_HINT))
            );
            prop_assert_eq!(
                millis(format!("{number}.{nanos:06}").as_bytes()),
                Some((Duration::from_millis(number) + Duration::from_nanos(nanos)).min(MAX_HINT))
            );
        }
    }
}
