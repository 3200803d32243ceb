//! Parses the fields of draft-ietf-httpapi-ratelimit-headers.
//!
//! The draft is not an RFC, and has changed the form of the fields twice.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::number;
use super::value::{Hint, longest};

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Parses the time until a used-up quota is restored, from `RateLimit` or `RateLimit-Reset`.
///
/// The delay is in whole seconds, at most [`MAX_HINT`](super::MAX_HINT). Source:
/// draft-ietf-httpapi-ratelimit-headers. The feature `draft-ratelimit` exists as long as the draft
/// does.
///
/// | header | revisions of the draft | delay |
/// |---|---|---|
/// | `RateLimit: "default";r=0;t=30`, a list of quotas | 08 and later | the longest `t` of the quotas with `r=0` |
/// | `RateLimit-Reset: 30` | 06 and earlier | the value, if `RateLimit-Remaining` is 0 or missing |
///
/// `RateLimit-Reset` is read only if `RateLimit` is missing or malformed. The form of revision 07
/// (`RateLimit: limit=9, remaining=0, reset=30`) is malformed.
///
/// The hint is [`Absent`](Hint::Absent) while quota is left, because the client need not wait, and
/// for `r=0` without a `t`.
///
/// Some servers send a Unix time as `RateLimit-Reset`, which no revision allows. It is cut to the
/// maximum like any other delay.
pub fn rate_limit_reset(headers: &HeaderMap) -> Hint<Duration> {
    if !headers.contains_key(&RATE_LIMIT) {
        return legacy_fields(headers);
    }
    let quotas =
        headers.get_all(&RATE_LIMIT).iter().flat_map(|list| split_outside_strings(list.as_bytes(), b','));
    match longest(quotas.map(parse_quota)) {
        Hint::Invalid => Hint::of(legacy_fields(headers).value()),
        hint => hint,
    }
}

fn legacy_fields(headers: &HeaderMap) -> Hint<Duration> {
    let left = headers.get_all(&REMAINING).iter().map(|value| number::whole(value.as_bytes())).min();
    match left {
        None | Some(Some(0)) => {
            longest(headers.get_all(&RESET).iter().map(|value| Hint::of(number::seconds(value.as_bytes()))))
        }
        Some(Some(_)) => Hint::Absent,
        Some(None) => Hint::Invalid,
    }
}

/// Parses a quota of the list.
///
/// It consists of a name in any form, `;r=` with the remaining quota, and `;t=` with the seconds
/// until it is restored.
fn parse_quota(item: &[u8]) -> Hint<Duration> {
    let (mut left, mut reset) = (None, None);
    for parameter in split_outside_strings(item, b';').skip(1) {
        match parameter.trim_ascii() {
            [b'r', b'=', value @ ..] => left = number::whole(value),
            [b't', b'=', value @ ..] => reset = Some(value),
            _ => {}
        }
    }
    match (left, reset) {
        (Some(0), Some(reset)) => Hint::of(number::seconds(reset)),
        (Some(_), _) => Hint::Absent,
        (None, _) => Hint::Invalid,
    }
}

/// Splits a structured field (RFC 9651) at separators that are not within a string.
fn split_outside_strings(field: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut in_string, mut escaped) = (false, false);
    field.split(move |&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        byte == separator && !in_string
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{headers, seconds};
    use super::super::value::MAX_HINT;
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn hint(values: &[&[u8]]) -> Hint<Duration> {
        rate_limit_reset(&headers("ratelimit", values))
    }

    fn legacy(fields: &[(&'static str, &'static str)]) -> Hint<Duration> {
        let mut headers = HeaderMap::new();
        for &(name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        rate_limit_reset(&headers)
    }

    #[test]
    fn rate_limit_used_up_quota_returns_reset() {
        assert_eq!(hint(&[]), Hint::Absent);
        assert_eq!(hint(&[b"\"default\";r=0;t=30"]), seconds(30));
        assert_eq!(hint(&[b" \"default\" ; t=30 ;\tr=0"]), seconds(30));
        assert_eq!(hint(&[b"default;pk=:dHJpYWwxMjEzMjM=:;r=0;t=30"]), seconds(30));
        assert_eq!(hint(&[b"\"a\";r=0;t=99999999999999999999"]), Hint::Value(MAX_HINT));
    }

    #[test]
    fn rate_limit_with_quota_left_is_absent() {
        assert_eq!(hint(&[b"\"default\";r=1;t=30"]), Hint::Absent);
        assert_eq!(hint(&[b"\"default\";r=10"]), Hint::Absent);
        assert_eq!(hint(&[b"\"default\";r=0"]), Hint::Absent);
    }

    #[test]
    fn rate_limit_repeated_takes_longest_used_up() {
        assert_eq!(hint(&[b"\"a\";r=0;t=5, \"b\";r=9;t=60, \"c\";r=0;t=30"]), seconds(30));
        assert_eq!(hint(&[b"\"a\";r=0;t=5", b"\"c\";r=0;t=30", b"soon"]), seconds(30));
        assert_eq!(hint(&[b"\"a\";r=1;t=5,soon"]), Hint::Invalid);
    }

    #[test]
    fn rate_limit_quota_name_may_hold_any_text() {
        assert_eq!(hint(&[br#""a;r=0;t=1,b";r=0;t=2"#]), seconds(2));
        assert_eq!(hint(&[br#""a\";r=0;t=1,b\\";r=0;t=2"#]), seconds(2));
        assert_eq!(hint(&[br#""a\\";r=0;t=3,"b";r=0;t=2"#]), seconds(3));
        assert_eq!(hint(&["\"ä\";r=0;t=2".as_bytes()]), seconds(2));
    }

    #[test]
    fn rate_limit_malformed_is_invalid() {
        for value in [
            &b""[..],
            b"\"default\"",
            b"\"default\";t=30",
            b"\"default\";r;t=30",
            b"\"default\";r=-1;t=30",
            b"\"default\";r=0.0;t=30",
            b"\"default\";r=0;t=-30",
            b"\"default\";r=0;t=1.5",
            b"\"default;r=0;t=30",
            b"limit=9, remaining=0, reset=30",
            b"\xff",
        ] {
            assert_eq!(hint(&[value]), Hint::Invalid, "{value:?}");
        }
    }

    #[test]
    fn rate_limit_legacy_fields_are_read() {
        let reset = ("ratelimit-reset", "30");
        assert_eq!(legacy(&[reset]), seconds(30));
        assert_eq!(legacy(&[reset, ("ratelimit-reset", "40")]), seconds(40));
        assert_eq!(legacy(&[reset, ("ratelimit-remaining", "0")]), seconds(30));
        assert_eq!(legacy(&[reset, ("ratelimit-remaining", "1")]), Hint::Absent);
        assert_eq!(legacy(&[reset, ("ratelimit-remaining", "9"), ("ratelimit-remaining", "0")]), seconds(30));
        assert_eq!(legacy(&[reset, ("ratelimit-remaining", "few")]), Hint::Invalid);
        assert_eq!(legacy(&[("ratelimit-remaining", "0")]), Hint::Absent);
        assert_eq!(legacy(&[("ratelimit-reset", "soon")]), Hint::Invalid);
        assert_eq!(legacy(&[("ratelimit-reset", "1767225600")]), Hint::Value(MAX_HINT));
    }

    #[test]
    fn rate_limit_newer_field_takes_precedence() {
        let reset = ("ratelimit-reset", "30");
        assert_eq!(legacy(&[reset, ("ratelimit", "\"a\";r=0;t=5")]), seconds(5));
        assert_eq!(legacy(&[reset, ("ratelimit", "\"a\";r=5;t=5")]), Hint::Absent);
        assert_eq!(legacy(&[reset, ("ratelimit", "limit=9, remaining=0, reset=30")]), seconds(30));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            fields in proptest::collection::vec((0..3_usize, "[rt=;,0-9a\"\\\\ -]{0,20}|\\PC{0,20}"), 0..4),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    headers.append([&RATE_LIMIT, &REMAINING, &RESET][name], value);
                }
            }
            if let Hint::Value(delay) = rate_limit_reset(&headers) {
                prop_assert!(delay <= MAX_HINT);
            }
        }

        #[test]
        fn rate_limit_formatted_is_read_back(quotas in proptest::collection::vec((r"[ -~]{0,12}", 0..3_u64, 0..1000_u64), 1..5)) {
            let list: Vec<_> = quotas
                .iter()
                .map(|(name, left, reset)| {
                    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                    format!("\"{name}\";r={left};t={reset}")
                })
                .collect();
            let expected = quotas.iter().filter(|(_, left, _)| *left == 0).map(|(.., reset)| *reset).max();
            prop_assert_eq!(hint(&[list.join(", ").as_bytes()]), expected.map_or(Hint::Absent, seconds));
        }
    }
}
