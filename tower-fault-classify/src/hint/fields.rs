//! What is said in plain HTTP fields.

use std::cell::LazyCell;
use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::number;
use super::value::{Hint, MAX_HINT, longest};

static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// `Retry-After` (RFC 9110 §10.2.3), in whole seconds or as a date in any of the three forms of §5.6.7; cut to [`MAX_HINT`].
///
/// A date is turned into a delay by the server's own clock, the response's `Date`, so that a wrong clock on this side does no
/// harm; where `Date` is missing or makes no sense, by `now`, which is called for nothing else. A date in the past says
/// zero. A leap second (`23:59:60`) is garbled, and two digits of a year are one of 1970 to 2069.
///
/// Of several such headers the longest delay is taken, so that nobody who asked for time is hurried.
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

/// `retry-after-ms`, in milliseconds, whole or with a fraction (`OpenAI` and Azure send `1500` and `1500.5`); cut to
/// [`MAX_HINT`].
///
/// A sign, an exponent, a point without digits on both sides, `NaN` and `inf` are garbled. Of several such headers the longest
/// delay is taken.
pub fn retry_after_ms(headers: &HeaderMap) -> Hint<Duration> {
    longest(values(headers, &RETRY_AFTER_MS).map(|value| Hint::of(number::millis(value))))
}

/// `x-should-retry`: `true` or `false`, whatever the case (`OpenAI`, Anthropic). Whether the server wants the call sent again,
/// whatever its status says.
///
/// Anything else is garbled, and so are several such headers that do not all say the same: a `true` has a POST sent twice.
pub fn should_retry(headers: &HeaderMap) -> Hint<bool> {
    let mut words = values(headers, &SHOULD_RETRY).map(yes_or_no);
    match words.next() {
        None => Hint::Absent,
        Some(first) => Hint::of(first.filter(|_| words.all(|word| word == first))),
    }
}

fn yes_or_no(word: &[u8]) -> Option<bool> {
    let word = word.trim_ascii();
    [true, false]
        .into_iter()
        .find(|answer| word.eq_ignore_ascii_case(if *answer { b"true" } else { b"false" }))
}

/// The values of a field whose name is not one of `http`'s. Hardly a head has it, and a walk over the few names that are there is
/// quicker than the hash of one.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let there = headers.keys().any(|other| other == name);
    there.then(|| headers.get_all(name)).into_iter().flatten().map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::tests::{headers, seconds};
    use super::*;
    use proptest::prelude::*;

    /// RFC 9110 §5.6.7: one moment in its three forms.
    const FORMS: [&str; 3] =
        ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"];

    fn moment(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn hint(values: &[&[u8]]) -> Hint<Duration> {
        retry_after(&headers("retry-after", values), || panic!("no date is asked for"))
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

    /// What `httpdate` writes, in each of the three forms; it writes the first only.
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
    fn malformed_values_are_garbled() {
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
    fn retry_after_with_garbled_date_header_uses_now() {
        let mut headers = headers("retry-after", &[FORMS[0]]);
        for garbled in [&b"yesterday"[..], b"", b"\xff", b"784111770"] {
            headers.insert(DATE, HeaderValue::from_bytes(garbled).unwrap());
            assert_eq!(retry_after(&headers, || moment(784_111_777 - 5)), seconds(5), "{garbled:?}");
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
    fn should_retry_contradictory_is_garbled() {
        assert_eq!(hint_retry(&[b"true", b"false"]), Hint::Invalid);
        assert_eq!(hint_retry(&[b"false", b"false", b"true"]), Hint::Invalid);
        assert_eq!(hint_retry(&[b"true", b"maybe"]), Hint::Invalid);
        assert_eq!(hint_retry(&[b"maybe", b"maybe"]), Hint::Invalid);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            asked in proptest::collection::vec(any::<u8>(), 0..40),
            sent in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        ) {
            let Ok(asked) = HeaderValue::from_bytes(&asked) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, asked.clone());
            headers.insert(&RETRY_AFTER_MS, asked.clone());
            headers.insert(&SHOULD_RETRY, asked);
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
            let said = Hint::Value(Duration::from_secs(at.saturating_sub(now)).min(MAX_HINT));
            for asked in forms(moment(at)) {
                prop_assert_eq!(hint_at(&asked, moment(now)), said, "{}", asked);
                for sent in forms(moment(now)) {
                    let mut headers = headers("retry-after", &[&asked]);
                    headers.insert(DATE, sent.parse().unwrap());
                    prop_assert_eq!(retry_after(&headers, || panic!("the response has a date")), said);
                }
            }
        }

        #[test]
        fn retry_after_date_is_read_in_every_year(at in 0_u64..253_402_300_800, now in any::<u32>()) {
            let [fixed, _, asctime] = forms(moment(at));
            let said = Hint::Value(Duration::from_secs(at.saturating_sub(now.into())).min(MAX_HINT));
            prop_assert_eq!(hint_at(&fixed, moment(now.into())), said);
            prop_assert_eq!(hint_at(&asctime, moment(now.into())), said);
        }
    }
}
