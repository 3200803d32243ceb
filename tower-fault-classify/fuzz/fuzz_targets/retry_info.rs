//! Fuzzes `retry_info` with any bytes as `grpc-status-details-bin`.
//!
//! The delay must be the one that prost decodes. Groups are an exception: they are `Hint::Invalid`.
//!
//!     cargo +nightly fuzz run retry_info

#![no_main]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use tower_fault_classify::hint::{Hint, MAX_HINT, retry_info};

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(bytes = "vec", tag = "1")]
    type_url: Vec<u8>,
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

fuzz_target!(|status: &[u8]| {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status-details-bin", STANDARD.encode(status).parse().unwrap());
    let hint = retry_info(&headers);
    if let Ok(delay) = prost_delay(status)
        && hint != Hint::Invalid
    {
        assert_eq!(hint.value(), delay);
    }
});

fn prost_delay(status: &[u8]) -> Result<Option<Duration>, prost::DecodeError> {
    let mut longest = None;
    for detail in Status::decode(status)?.details {
        if detail.type_url.ends_with(b"/google.rpc.RetryInfo") {
            let delay = RetryInfo::decode(&detail.value[..])?.retry_delay.unwrap_or_default();
            let nanos = i128::from(delay.seconds) * 1_000_000_000 + i128::from(delay.nanos);
            let nanos = nanos.clamp(0, MAX_HINT.as_nanos() as i128);
            longest = longest.max(Some(Duration::from_nanos(nanos as u64)));
        }
    }
    Ok(longest)
}
