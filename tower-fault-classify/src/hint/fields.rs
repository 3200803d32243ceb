//! Parses the hints in plain HTTP headers.

use std::cell::LazyCell;
use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::number;
use super::value::{Hint, MAX_HINT, longest};

static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Parses `Retry-After` (RFC 9110 §10.2.3): whole seconds, or a date.
///
/// The delay is cut to [`MAX_HINT`]. If there are several such headers, the longest delay is
/// returned.
///
/// A date can have any of the three forms of §5.6.7:
///
/// - It is compared with the response's `Date`, which is the server's own clock, so a wrong clock
///   on this side has no effect.
/// - If `Date` is missing or malformed, it is compared with `now`, which is not called otherwise.
/// - A date in the past is a delay of zero.
/// - A leap second (`23:59:60`) is malformed.
/// - A year of two digits is one of 1970 to 2069.
pub fn retry_after(headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Hint<Duration> {
    let sent = LazyCell::new(|| headers.get(DATE).and_then(date).unwrap_or_else(now));
    let until = |at: SystemTime| at.duration_since(*sent).unwrap_or_default().min(MAX_HINT);
    longest(
        headers
            .get_all(RETRY_AFTER)
            .iter()
            .map(|value| Hint::of(number::seconds(value.as_bytes()).or_else(|| date(value).map(until)))),
    )
}

fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// Parses `retry-after-ms`: milliseconds, with an optional fraction.
///
/// `OpenAI` and Azure send `1500` and `1500.5`. The delay is cut to [`MAX_HINT`]. If there are
/// several such headers, the longest delay is returned.
///
/// A sign, an exponent, a point without digits on both sides, `NaN` and `inf` are malformed.
pub fn retry_after_ms(headers: &HeaderMap) -> Hint<Duration> {
    longest(values(headers, &RETRY_AFTER_MS).map(|value| Hint::of(number::millis(value))))
}

/// Parses `x-should-retry`: whether the server wants the request sent again.
///
/// It applies regardless of the response's status.
///
/// `OpenAI` and Anthropic send `true` or `false`, in any case of letters. Anything else is
/// malformed.
///
/// Several such headers with different values are malformed too, because a `true` can cause a POST
/// to be sent twice.
pub fn should_retry(headers: &HeaderMap) -> Hint<bool> {
    let mut values = values(headers, &SHOULD_RETRY).map(parse_bool);
    match values.next() {
        None => Hint::Absent,
        Some(first) => Hint::of(first.filter(|_| values.all(|value| value == first))),
    }
}

fn parse_bool(value: &[u8]) -> Option<bool> {
    let value = value.trim_ascii();
    [true, false].into_iter().find(|flag| value.eq_ignore_ascii_case(if *flag { b"true" } else { b"false" }))
}

/// Returns the values of a header whose name is not one of `http`'s standard names.
///
/// Few responses have such a header. One pass over the few names is faster than hashing the name.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let is_present = headers.keys().any(|other| other == name);
    is_present.then(|| headers.get_all(name)).into_iter().flatten().map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::tests::{headers, seconds};
    use super::*;
    use proptest::prelude::*;

    /// One time in the three forms of RFC 9110 §5.6.7.
    const FORMS: [&str; 3] =
        ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];

    fn moment(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn hint(values: &[&[u8]]) -> Hint<Duration> {
        retry_after(&headers("retry-after", values), || panic!("no date is read"))
    }

    fn hint_at(value: &str, now: SystemTime) -> Hint<Duration> {
        retry_after(&headers("retry-after", &[value]), || now)
    }

    fn hint_ms(values: &[&[u8]]) -> Hint<Duration> {
        retry_after_ms(&headers("retry-after-ms", values))
    }

    fn hint_retry(values: &[&[u8]]) -> Hint<bool> {
        should_retry(&headers("x-should-retry", values))
    }

    /// Formats a date in each of the three forms. `httpdate` writes the first form only.
    fn forms(at: SystemTime) -> [String; 3] {
        let fixed = httpdate::fmt_http_date(at);
        let [weekday, day, month, year, time, _] =
            fixed.split([' ', ',']).filter(|part| !part.is_empty()).collect::<Vec<_>>()[..]
        else {
            panic!("{fixed}")
        };
        let long = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
            .into_iter()
            .find(|long| long.starts_with(weekday))
            .unwrap();
        let short_day: u8 = day.parse().unwrap();
        [
            format!("{weekday}, {day} {month} {year} {time} GMT"),
            format!("{long}, {day}-{month}-{} {time} GMT", &year[2..]),
            format!("{weekday} {month} {short_day:>2} {time} {year}"),
        ]
    }

    #[test]
    fn retry_after_seconds_are_read() {
        assert_eq!(hint(&[]), Hint::Absent);
        assert_eq!(hint(&[b"0"]), seconds(0));
        assert_eq!(hint(&[b"120"]), seconds(120));
        assert_eq!(hint(&[b" 7\t"]), seconds(7));
        assert_eq!(hint(&[b"007"]), seconds(7));
    }

    #[test]
    fn retry_after_malformed_is_invalid() {
        for value in [&b""[..], b"-1", b"+1", b"1.5", b"1 2", b"soon", b"1e3", b"\xff", b"0x10", b"5, 9"] {
            assert_eq!(hint(&[value]), Hint::Invalid, "{value:?}");
        }
        for date in [
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Fri, 30 Feb 1994 08:49:37 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Sat, 31 Dec 2016 23:59:60 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(hint(&[date.as_bytes()]), Hint::Invalid, "{date}");
        }
        assert_eq!(hint(&["Sun, 06 Nov 1994 08:49:37 GMT\u{a0}".as_bytes()]), Hint::Invalid);
    }

    #[test]
    fn retry_after_longer_than_limit_is_cut() {
        assert_eq!(hint(&[b"3153600000"]), Hint::Value(MAX_HINT));
        assert_eq!(hint(&[b"99999999999999999999999999999999999999"]), Hint::Value(MAX_HINT));
        assert_eq!(hint_at("Fri, 31 Dec 9999 23:59:59 GMT", moment(0)), Hint::Value(MAX_HINT));
    }

    #[test]
    fn retry_after_repeated_takes_longest_valid() {
        assert_eq!(hint(&[b"5", b"9", b"2"]), seconds(9));
        assert_eq!(hint(&[b"soon", b"3"]), seconds(3));
        assert_eq!(hint(&[b"3", b"soon"]), seconds(3));
        let both = headers("retry-after", &["20", FORMS[0], "soon", FORMS[2]]);
        assert_eq!(retry_after(&both, || moment(784_111_777 - 30)), seconds(30));
        assert_eq!(retry_after(&both, || moment(784_111_777 - 10)), seconds(20));
    }

    #[test]
    fn retry_after_date_is_relative_to_date_header() {
        for form in FORMS {
            assert_eq!(hint_at(form, moment(784_111_777 - 42)), seconds(42), "{form}");
            assert_eq!(hint_at(form, moment(784_111_777)), seconds(0), "{form}");
            assert_eq!(hint_at(form, moment(1_800_000_000)), seconds(0), "{form}");
            for sent in FORMS {
                let mut headers = headers("retry-after", &[form]);
                headers.insert(DATE, sent.replace(":37 ", ":30 ").parse().unwrap());
                assert_eq!(retry_after(&headers, || panic!("the response has a date")), seconds(7), "{sent}");
            }
        }
    }

    #[test]
    fn retry_after_with_invalid_date_header_uses_now() {
        let mut headers = headers("retry-after", &[FORMS[0]]);
        for invalid in [&b"yesterday"[..], b"", b"\xff", b"784111770"] {
            headers.insert(DATE, HeaderValue::from_bytes(invalid).unwrap());
            assert_eq!(retry_after(&headers, || moment(784_111_777 - 5)), seconds(5), "{invalid:?}");
        }
    }

    #[test]
    fn retry_after_ms_fraction_is_read() {
        assert_eq!(hint_ms(&[]), Hint::Absent);
        assert_eq!(hint_ms(&[b"1500"]), Hint::Value(Duration::from_millis(1_500)));
        assert_eq!(hint_ms(&[b" 1500.5 "]), Hint::Value(Duration::from_micros(1_500_500)));
        assert_eq!(hint_ms(&[b"0"]), seconds(0));
        assert_eq!(hint_ms(&[b"3153600000000"]), Hint::Value(MAX_HINT));
        assert_eq!(hint_ms(&[b"99999999999999999999999999999999999999.9"]), Hint::Value(MAX_HINT));
        assert_eq!(hint_ms(&[b"20", b"soon", b"30.5", b"10"]), Hint::Value(Duration::from_micros(30_500)));
        for value in [
            &b""[..],
            b"-1",
            b"-0",
            b"+1",
            b"NaN",
            b"inf",
            b"infinity",
            b"1e3",
            b"1E3",
            b"1.5e2",
            b"1,5",
            b"1.",
            b"\xff",
            FORMS[0].as_bytes(),
        ] {
            assert_eq!(hint_ms(&[value]), Hint::Invalid, "{value:?}");
        }
    }

    #[test]
    fn should_retry_is_true_or_false() {
        assert_eq!(hint_retry(&[]), Hint::Absent);
        assert_eq!(hint_retry(&[b"true"]), Hint::Value(true));
        assert_eq!(hint_retry(&[b" False\t"]), Hint::Value(false));
        assert_eq!(hint_retry(&[b"TRUE", b"true"]), Hint::Value(true));
        for value in [&b""[..], b"1", b"yes", b"true false", b"true, true", b"?1", b"tru\xe9"] {
            assert_eq!(hint_retry(&[value]), Hint::Invalid, "{value:?}");
        }
    }

    #[test]
    fn should_retry_contradictory_is_invalid() {
        assert_eq!(hint_retry(&[b"true", b"false"]), Hint::Invalid);
        assert_eq!(hint_retry(&[b"false", b"false", b"true"]), Hint::Invalid);
        assert_eq!(hint_retry(&[b"true", b"maybe"]), Hint::Invalid);
        assert_eq!(hint_retry(&[b"maybe", b"maybe"]), Hint::Invalid);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            value in proptest::collection::vec(any::<u8>(), 0..40),
            sent in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        ) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.clone());
            headers.insert(&RETRY_AFTER_MS, value.clone());
            headers.insert(&SHOULD_RETRY, value);
            if let Some(Ok(sent)) = sent.map(|sent| HeaderValue::from_bytes(&sent)) {
                headers.insert(DATE, sent);
            }
            for hint in [retry_after(&headers, || UNIX_EPOCH), retry_after_ms(&headers)] {
                match hint {
                    Hint::Value(delay) => prop_assert!(delay <= MAX_HINT),
                    hint => prop_assert_eq!(hint, Hint::Invalid),
                }
            }
            prop_assert_ne!(should_retry(&headers), Hint::Absent);
        }

        #[test]
        fn retry_after_date_is_read_in_every_format(at in 0_u64..3_155_760_000, now in 0_u64..3_155_760_000) {
            let expected = Hint::Value(Duration::from_secs(at.saturating_sub(now)).min(MAX_HINT));
            for until in forms(moment(at)) {
                prop_assert_eq!(hint_at(&until, moment(now)), expected, "{}", until);
                for sent in forms(moment(now)) {
                    let mut headers = headers("retry-after", &[&until]);
                    headers.insert(DATE, sent.parse().unwrap());
                    prop_assert_eq!(retry_after(&headers, || panic!("the response has a date")), expected);
                }
            }
        }

        #[test]
        fn retry_after_date_is_read_in_every_year(at in 0_u64..253_402_300_800, now in any::<u32>()) {
            let [fixed, _, asctime] = forms(moment(at));
            let expected = Hint::Value(Duration::from_secs(at.saturating_sub(now.into())).min(MAX_HINT));
            prop_assert_eq!(hint_at(&fixed, moment(now.into())), expected);
            prop_assert_eq!(hint_at(&asctime, moment(now.into())), expected);
        }
    }
}
