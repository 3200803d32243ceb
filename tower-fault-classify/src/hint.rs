//! What a server asks for in its headers. Pure: any bytes give a value, never a panic.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The longest delay that a hint is taken to mean: 365 days. A longer one is cut to it.
///
/// It only keeps arithmetic on delays safe. What a layer is willing to wait is that layer's own, much lower, cap.
pub const LONGEST_HINT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint<T> {
    /// The header is not there.
    Absent,
    /// It is there and makes no sense.
    Garbled,
    /// It says this.
    Says(T),
}

impl<T> Hint<T> {
    /// What the header says, if it says anything.
    pub fn said(self) -> Option<T> {
        match self {
            Self::Says(value) => Some(value),
            Self::Absent | Self::Garbled => None,
        }
    }
}

/// `Retry-After` in whole seconds (RFC 9110 §10.2.3), cut to [`LONGEST_HINT`].
///
/// Of several such headers the longest delay is taken, so that nobody who asked for time is hurried.
pub fn retry_after(headers: &HeaderMap) -> Hint<Duration> {
    let mut hint: Hint<Duration> = Hint::Absent;
    for value in headers.get_all(RETRY_AFTER) {
        hint = match (hint, delay_seconds(value.as_bytes())) {
            (Hint::Says(longest), Some(delay)) => Hint::Says(longest.max(delay)),
            (_, Some(delay)) => Hint::Says(delay),
            (Hint::Says(longest), None) => Hint::Says(longest),
            (_, None) => Hint::Garbled,
        };
    }
    hint
}

fn delay_seconds(value: &[u8]) -> Option<Duration> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits
        .iter()
        .fold(0_u64, |seconds, digit| seconds.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Duration::from_secs(seconds).min(LONGEST_HINT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn hint(values: &[&[u8]]) -> Hint<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap());
        }
        retry_after(&headers)
    }

    fn seconds(seconds: u64) -> Hint<Duration> {
        Hint::Says(Duration::from_secs(seconds))
    }

    #[test]
    fn whole_seconds_are_read() {
        assert_eq!(hint(&[]), Hint::Absent);
        assert_eq!(hint(&[b"0"]), seconds(0));
        assert_eq!(hint(&[b"120"]), seconds(120));
        assert_eq!(hint(&[b" 7\t"]), seconds(7));
        assert_eq!(hint(&[b"007"]), seconds(7));
    }

    #[test]
    fn what_makes_no_sense_is_garbled() {
        for value in [&b""[..], b"-1", b"+1", b"1.5", b"1 2", b"soon", b"1e3", b"\xff", b"0x10"] {
            assert_eq!(hint(&[value]), Hint::Garbled, "{value:?}");
        }
    }

    #[test]
    fn a_century_is_cut() {
        assert_eq!(hint(&[b"3153600000"]), Hint::Says(LONGEST_HINT));
        assert_eq!(hint(&[b"99999999999999999999999999999999999999"]), Hint::Says(LONGEST_HINT));
    }

    #[test]
    fn of_several_the_longest_counts_and_the_garbled_do_not() {
        assert_eq!(hint(&[b"5", b"9", b"2"]), seconds(9));
        assert_eq!(hint(&[b"soon", b"3"]), seconds(3));
        assert_eq!(hint(&[b"3", b"soon"]), seconds(3));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(RETRY_AFTER, value);
                match retry_after(&headers) {
                    Hint::Says(delay) => prop_assert!(delay <= LONGEST_HINT),
                    hint => prop_assert_eq!(hint, Hint::Garbled),
                }
            }
        }
    }
}
