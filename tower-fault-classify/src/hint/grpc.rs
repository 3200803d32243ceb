//! Parses the hints in gRPC's metadata.

use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName};

use super::number;
use super::protobuf::{Fields, Malformed, Value};
use super::value::{Hint, MAX_HINT, longest};

static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
static STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// The maximum length of a `grpc-status-details-bin` that is read, in bytes.
const LONGEST_DETAILS: usize = 64 * 1024;

/// Base64 with optional padding, as the protocol "gRPC over HTTP/2" requires for binary metadata.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The hint of a gRPC server on another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Retry exactly after this delay, which replaces the client's backoff.
    After(Duration),
    /// Do not retry.
    Stop,
}

/// Parses `grpc-retry-pushback-ms` (gRFC A6, "Pushback"): whole milliseconds, cut to [`MAX_HINT`].
///
/// The header is in the trailers, or in the head of a trailers-only response: parse both.
///
/// A negative or malformed value means that the server asks the client not to retry:
/// [`Pushback::Stop`]. So this function never returns [`Hint::Invalid`]. Several such headers form
/// one list by the rules of HTTP, and a list is malformed.
pub fn grpc_retry_pushback(headers: &HeaderMap) -> Hint<Pushback> {
    let mut values = headers.get_all(&PUSHBACK).iter();
    let millis = match (values.next(), values.next()) {
        (None, _) => return Hint::Absent,
        (Some(value), None) => number::whole(value.as_bytes()),
        (Some(_), Some(_)) => None,
    };
    Hint::Value(
        millis.map_or(Pushback::Stop, |millis| Pushback::After(Duration::from_millis(millis).min(MAX_HINT))),
    )
}

/// Parses the delay of a `google.rpc.RetryInfo` in `grpc-status-details-bin`, cut to [`MAX_HINT`].
///
/// The header is where `grpc-status` is: in the trailers, or in the head of a trailers-only
/// response. Its value is a `google.rpc.Status` in base64, whose details may contain a `RetryInfo`
/// of seconds and nanoseconds. Source: `google/rpc/error_details.proto` and
/// `google/rpc/status.proto` of googleapis.
///
/// | header | hint |
/// |---|---|
/// | a status without a `RetryInfo` | [`Absent`](Hint::Absent) |
/// | a `RetryInfo` without a delay, or with a negative delay | zero |
/// | more than 64 KiB, which is not read | [`Invalid`](Hint::Invalid) |
/// | not valid base64, or not a protobuf message | [`Invalid`](Hint::Invalid) |
/// | several `RetryInfo`s, in one or more headers | the longest delay |
pub fn retry_info(headers: &HeaderMap) -> Hint<Duration> {
    longest(headers.get_all(&STATUS_DETAILS).iter().map(|value| match value.as_bytes() {
        bytes if bytes.len() > LONGEST_DETAILS => Hint::Invalid,
        bytes => longest(bytes.split(|&byte| byte == b',').map(in_base64)),
    }))
}

fn in_base64(text: &[u8]) -> Hint<Duration> {
    let text = text.trim_ascii();
    let mut status = vec![0; base64::decoded_len_estimate(text.len())];
    let Ok(length) = BASE64.decode_slice(text, &mut status) else { return Hint::Invalid };
    retry_info_in(&status[..length])
}

/// Parses the delay of a `RetryInfo` in a decoded `google.rpc.Status`.
///
/// It differs from [`retry_info`] in its input only. The details of tonic's `Status` are such
/// bytes.
pub fn retry_info_in(status: &[u8]) -> Hint<Duration> {
    match in_status(status) {
        Ok(Some(delay)) => Hint::Value(delay),
        Ok(None) => Hint::Absent,
        Err(Malformed) => Hint::Invalid,
    }
}

/// `google.rpc.Status`: `repeated google.protobuf.Any details = 3`.
fn in_status(status: &[u8]) -> Result<Option<Duration>, Malformed> {
    let mut longest = None;
    for field in Fields::of(status) {
        if let (3, Value::Bytes(detail)) = field? {
            longest = longest.max(in_detail(detail)?);
        }
    }
    Ok(longest)
}

/// `google.protobuf.Any`: `string type_url = 1`, `bytes value = 2`.
fn in_detail(detail: &[u8]) -> Result<Option<Duration>, Malformed> {
    let (mut type_url, mut value) = (&b""[..], &b""[..]);
    for field in Fields::of(detail) {
        match field? {
            (1, Value::Bytes(bytes)) => type_url = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    type_url.ends_with(b"/google.rpc.RetryInfo").then(|| in_retry_info(value)).transpose()
}

/// `google.rpc.RetryInfo`: `google.protobuf.Duration retry_delay = 1`.
///
/// Several delays are merged. A duration is `int64 seconds = 1`, `int32 nanos = 2`.
fn in_retry_info(info: &[u8]) -> Result<Duration, Malformed> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    for field in Fields::of(info) {
        let (1, Value::Bytes(delay)) = field? else { continue };
        for field in Fields::of(delay) {
            match field? {
                (1, Value::Varint(value)) => seconds = value.cast_signed(),
                (2, Value::Varint(value)) => nanos = (value as u32).cast_signed(),
                _ => {}
            }
        }
    }
    let nanos = seconds.saturating_mul(1_000_000_000).saturating_add(nanos.into());
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)).min(MAX_HINT))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{headers, seconds};
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;
    use prost::Message;

    /// The messages of googleapis, implemented by prost.
    #[derive(Clone, PartialEq, Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<ProtoDuration>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ProtoDuration {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }

    fn info(seconds: i64, nanos: i32) -> Any {
        Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) }.encode_to_vec(),
        }
    }

    fn other() -> Any {
        Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(), value: vec![0x0b; 3] }
    }

    fn status(details: Vec<Any>) -> Vec<u8> {
        Status { code: 8, message: "slow down".to_owned(), details }.encode_to_vec()
    }

    fn in_base64(bytes: &[u8]) -> String {
        let mut text = vec![0; bytes.len() * 4 / 3 + 4];
        let length = BASE64.encode_slice(bytes, &mut text).unwrap();
        text.truncate(length);
        String::from_utf8(text).unwrap()
    }

    fn hint(values: &[impl AsRef<[u8]>]) -> Hint<Duration> {
        retry_info(&headers("grpc-status-details-bin", values))
    }

    fn hint_in(details: Vec<Any>) -> Hint<Duration> {
        hint(&[in_base64(&status(details))])
    }

    fn pushback(values: &[&[u8]]) -> Hint<Pushback> {
        grpc_retry_pushback(&headers("grpc-retry-pushback-ms", values))
    }

    #[test]
    fn pushback_whole_milliseconds_are_read() {
        assert_eq!(pushback(&[]), Hint::Absent);
        assert_eq!(pushback(&[b"0"]), Hint::Value(Pushback::After(Duration::ZERO)));
        assert_eq!(pushback(&[b" 1500 "]), Hint::Value(Pushback::After(Duration::from_millis(1_500))));
        assert_eq!(pushback(&[b"99999999999999999999999"]), Hint::Value(Pushback::After(MAX_HINT)));
    }

    #[test]
    fn pushback_malformed_means_stop() {
        for value in [&b""[..], b"-1", b"-0", b"+1", b"1.5", b"1e3", b"soon", b"5, 9", b"\xff"] {
            assert_eq!(pushback(&[value]), Hint::Value(Pushback::Stop), "{value:?}");
        }
        assert_eq!(pushback(&[b"5", b"5"]), Hint::Value(Pushback::Stop));
    }

    #[test]
    fn retry_info_from_other_encoder_is_read() {
        // Code 8, "slow down", and a RetryInfo of 1.5 s.
        let text =
            "CAgSCXNsb3cgZG93bho2Cih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgoKCAgBEIDKte4B";
        let read = Duration::from_millis(1_500);
        assert_eq!(hint(&[text]), Hint::Value(read));
        assert_eq!(hint_in(vec![info(1, 500_000_000)]), Hint::Value(read));
    }

    #[test]
    fn status_details_without_retry_info_is_absent() {
        assert_eq!(hint(&[""; 0]), Hint::Absent);
        assert_eq!(hint(&[""]), Hint::Absent);
        assert_eq!(hint_in(vec![]), Hint::Absent);
        assert_eq!(hint_in(vec![other()]), Hint::Absent);
        for type_url in ["google.rpc.RetryInfo", "x/google.rpc.RetryInfos", "x/my.google.rpc.RetryInfo", ""] {
            assert_eq!(hint_in(vec![Any { type_url: type_url.to_owned(), ..info(1, 0) }]), Hint::Absent);
        }
    }

    #[test]
    fn retry_info_base64_padding_is_optional() {
        for message in ["", "a", "ab", "abc"] {
            let bytes =
                Status { code: 8, message: message.to_owned(), details: vec![info(3, 0)] }.encode_to_vec();
            let text = in_base64(&bytes);
            assert_eq!(hint(&[&text]), seconds(3), "{text}");
            assert_eq!(hint(&[text.trim_end_matches('=')]), seconds(3), "{text}");
        }
    }

    #[test]
    fn retry_info_out_of_range_is_cut() {
        assert_eq!(hint_in(vec![info(-1, 0)]), seconds(0));
        assert_eq!(hint_in(vec![info(0, -1)]), seconds(0));
        assert_eq!(hint_in(vec![info(i64::MIN, i32::MIN)]), seconds(0));
        assert_eq!(hint_in(vec![info(i64::MAX, i32::MAX)]), Hint::Value(MAX_HINT));
        assert_eq!(hint_in(vec![info(3_153_600_000, 0)]), Hint::Value(MAX_HINT));
        assert_eq!(hint_in(vec![Any { value: vec![], ..info(0, 0) }]), seconds(0));
    }

    #[test]
    fn retry_info_repeated_takes_longest() {
        assert_eq!(hint_in(vec![other(), info(3, 0), info(9, 0), info(-5, 0)]), seconds(9));
        let [one, two] = [3, 9].map(|delay| in_base64(&status(vec![info(delay, 0)])));
        assert_eq!(hint(&[&two, &one]), seconds(9));
        assert_eq!(hint(&[format!("{one},{two}")]), seconds(9));
        assert_eq!(hint(&[format!(" {two} , {one}, !, ")]), seconds(9));
        assert_eq!(hint(&[in_base64(&status(vec![])), "!".to_owned()]), Hint::Invalid);
    }

    #[test]
    fn retry_info_malformed_is_invalid() {
        for value in [&b"!"[..], b"a", b"\xff", b"====", b"CAg=CAg=", b"C A g", b"-_-_", b"Cw"] {
            assert_eq!(hint(&[value]), Hint::Invalid, "{value:?}");
        }
        let whole = status(vec![info(3, 0)]);
        for cut in [1, 3, 5, whole.len() - 1, whole.len() - 3] {
            assert_eq!(hint(&[in_base64(&whole[..cut])]), Hint::Invalid, "{cut}");
        }
        let inside = Any { value: vec![0x0a, 0x05, 0x08], ..info(0, 0) };
        assert_eq!(hint_in(vec![inside]), Hint::Invalid);
        let group = Any { value: vec![0x0b, 0x0c], ..info(0, 0) };
        assert_eq!(hint_in(vec![group]), Hint::Invalid);
    }

    #[test]
    fn retry_info_header_over_64_kib_is_invalid() {
        let text = in_base64(&status(vec![info(3, 0)]));
        let padded = format!("{text}{}", " ".repeat(LONGEST_DETAILS - text.len()));
        assert_eq!(hint(&[&padded]), seconds(3));
        assert_eq!(hint(&[format!("{padded} ")]), Hint::Invalid);
    }

    #[test]
    fn retry_info_delay_in_parts_is_merged() {
        let parts = [(5, 0), (0, 7)].map(|(seconds, nanos)| {
            RetryInfo { retry_delay: Some(ProtoDuration { seconds, nanos }) }.encode_to_vec()
        });
        let merged = Any { value: parts.concat(), ..info(0, 0) };
        assert_eq!(hint_in(vec![merged]), Hint::Value(Duration::new(5, 7)));
    }

    fn any_detail() -> impl Strategy<Value = Any> {
        prop_oneof![
            (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| info(seconds, nanos)),
            (-2_i64..100, any::<i32>()).prop_map(|(seconds, nanos)| info(seconds, nanos)),
            ("[a-z./]{0,20}", proptest::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(type_url, value)| Any { type_url, value }),
        ]
    }

    /// The delay that prost decodes, computed in 128 bits.
    fn expected(details: &[Any]) -> Hint<Duration> {
        let delays = details.iter().filter(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"));
        let longest = delays
            .map(|detail| {
                let delay = RetryInfo::decode(&detail.value[..]).unwrap().retry_delay.unwrap();
                let nanos = i128::from(delay.seconds) * 1_000_000_000 + i128::from(delay.nanos);
                nanos.clamp(0, MAX_HINT.as_nanos().cast_signed())
            })
            .max();
        longest.map_or(Hint::Absent, |nanos| Hint::Value(Duration::from_nanos(u64::try_from(nanos).unwrap())))
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(&STATUS_DETAILS, value.clone());
                headers.insert(&PUSHBACK, value);
                retry_info(&headers);
                prop_assert!(grpc_retry_pushback(&headers).value().is_some());
            }
            if let Hint::Value(delay) = hint(&[in_base64(&bytes)]) {
                prop_assert!(delay <= MAX_HINT);
            }
        }

        #[test]
        fn prost_encoded_message_is_read(
            code in any::<i32>(),
            message in ".{0,20}",
            details in proptest::collection::vec(any_detail(), 0..4),
            unknown in 4_u32..1 << 29,
        ) {
            let expected = expected(&details);
            let mut status = Vec::new();
            prost::encoding::fixed64::encode(unknown, &1, &mut status);
            Status { code, message, details }.encode(&mut status).unwrap();
            prost::encoding::fixed32::encode(unknown, &1, &mut status);
            prost::encoding::string::encode(unknown, &"new".to_owned(), &mut status);
            prop_assert_eq!(hint(&[in_base64(&status)]), expected);
        }

        #[test]
        fn retry_info_with_flipped_byte_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut status = status(vec![other(), info(3, 1)]);
            let at = at.index(status.len());
            status[at] = byte;
            if let Hint::Value(delay) = hint(&[in_base64(&status)]) {
                prop_assert!(delay <= MAX_HINT);
            }
        }
    }
}
