//! Hints of a gRPC server about retries, over tonic.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use test_servers::{Grpc, Reply};
use tower_fault_classify::hint::MAX_HINT;
use tower_fault_classify::{Health, Kind, Retryable};

use super::tonic_channel::{Caller, head};
use super::tonic_codes::{CODES, SERVER};
use super::{Axes, Table, axes};

const PUSHBACK: &str = "grpc-retry-pushback-ms";
const DETAILS: &str = "grpc-status-details-bin";

const THROTTLED: Axes = axes(Kind::Throttled, Retryable::Refused, Health::Neutral);
const THROTTLED_NEVER: Axes = axes(Kind::Throttled, Retryable::Never, Health::Neutral);
const UNAVAILABLE: Axes = axes(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy);
const UNAVAILABLE_NEVER: Axes = axes(Kind::Unavailable, Retryable::Never, Health::Unhealthy);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Checks the verdict on each reply below the generated client, where the reply has only a head,
/// and above it.
async fn check_replies(rows: impl IntoIterator<Item = (Reply, Axes)>) {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for (reply, want) in rows {
        server.script([reply.clone()]);
        let (below, status) = caller.expect_error().await;
        table.row(&("below", &reply), below, want);
        table.error(&("above", &reply), &status, want);
    }
}

fn with_pushback(code: u32, value: impl AsRef<[u8]>) -> Reply {
    Reply::trailers_only(code).trailer(PUSHBACK, value)
}

#[tokio::test]
async fn pushback_sets_delay() {
    check_replies([
        (with_pushback(14, "20"), UNAVAILABLE.after(ms(20))),
        (with_pushback(14, "0"), UNAVAILABLE.after(ms(0))),
        (with_pushback(8, "20"), THROTTLED.after(ms(20))),
        (with_pushback(8, "1500"), THROTTLED.after(ms(1500))),
        (with_pushback(8, "99999999999999999999999"), THROTTLED.after(MAX_HINT)),
    ])
    .await;
}

#[tokio::test]
async fn pushback_negative_or_invalid_forbids_retry() {
    let invalid_values: [&[u8]; 9] = [b"-1", b"-20", b"", b"soon", b"1.5", b"20ms", b"+20", b"1e3", b"\xff"];
    let rows = invalid_values.into_iter().flat_map(|value| {
        [(with_pushback(14, value), UNAVAILABLE_NEVER), (with_pushback(8, value), THROTTLED_NEVER)]
    });
    let twice = (with_pushback(14, "20").trailer(PUSHBACK, "20"), UNAVAILABLE_NEVER);
    check_replies(rows.chain([twice])).await;
}

/// A code that is never retried is not retried with a delay either.
#[tokio::test]
async fn pushback_on_other_codes_does_not_allow_retry() {
    let other = CODES.into_iter().filter(|(code, _)| ![8, 14].contains(code));
    check_replies(
        other.flat_map(|(code, want)| [(with_pushback(code, "20"), want), (with_pushback(code, "-1"), want)]),
    )
    .await;
}

#[derive(Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn info(seconds: i64, nanos: i32) -> Any {
    let info = RetryInfo { retry_delay: Some(Delay { seconds, nanos }) };
    Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: info.encode_to_vec().into(),
    }
}

fn other() -> Any {
    let type_url = "type.googleapis.com/google.rpc.ErrorInfo".to_owned();
    Any { type_url, value: Bytes::from_static(b"\x0a\x04busy") }
}

fn detailed(code: i32, details: Vec<Any>) -> Reply {
    let status = RpcStatus { code, message: "why".to_owned(), details };
    Reply::trailers_only(code).binary_trailer(DETAILS, &status.encode_to_vec())
}

#[tokio::test]
async fn retry_info_sets_delay() {
    check_replies([
        (detailed(8, vec![info(2, 500_000_000)]), THROTTLED.after(ms(2500))),
        (detailed(14, vec![info(2, 0)]), UNAVAILABLE.after(ms(2000))),
        (detailed(8, vec![other(), info(0, 20_000_000)]), THROTTLED.after(ms(20))),
        (detailed(8, vec![info(1, 0), info(3, 0), info(2, 0)]), THROTTLED.after(ms(3000))),
        (detailed(8, vec![info(0, 0)]), THROTTLED.after(ms(0))),
        (detailed(8, vec![info(-2, 0)]), THROTTLED.after(ms(0))),
        (detailed(8, vec![info(i64::MAX, 0)]), THROTTLED.after(MAX_HINT)),
        // None of these details has a delay.
        (detailed(8, vec![]), THROTTLED_NEVER),
        (detailed(8, vec![other()]), THROTTLED_NEVER),
        (detailed(14, vec![other()]), UNAVAILABLE),
        (Reply::trailers_only(8).binary_trailer(DETAILS, b"\xff\xff\xff"), THROTTLED_NEVER),
        (Reply::trailers_only(14).binary_trailer(DETAILS, b"\x1a\x7f"), UNAVAILABLE),
        // A delay does not make another code retryable.
        (detailed(13, vec![info(2, 0)]), SERVER),
    ])
    .await;
}

/// tonic panics when it reads such a status, so no generated client is used. The layer must not
/// panic.
#[tokio::test]
async fn details_with_invalid_base64_set_no_delay() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    for (code, want) in [(8, THROTTLED_NEVER), (14, UNAVAILABLE)] {
        let reply = Reply::trailers_only(code).trailer(DETAILS, "!!!!");
        server.script([reply.clone()]);
        table.row(&reply, head(&server).await, want);
    }
}

#[tokio::test]
async fn pushback_overrides_retry_info() {
    let both = |pushback| detailed(8, vec![info(2, 0)]).trailer(PUSHBACK, pushback);
    let rows =
        [("20", THROTTLED.after(ms(20))), ("9000", THROTTLED.after(ms(9000))), ("-1", THROTTLED_NEVER)];
    check_replies(rows.map(|(pushback, want)| (both(pushback), want))).await;
}

/// A `Status` also has the hints of the trailers.
#[tokio::test]
async fn hints_in_trailers_are_found_above_generated_client() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    let info = RpcStatus { code: 14, message: String::new(), details: vec![info(2, 0)] }.encode_to_vec();
    for (reply, want) in [
        (Reply::headers().status(14).trailer(PUSHBACK, "20"), UNAVAILABLE.after(ms(20))),
        (Reply::message("text").status(14).trailer(PUSHBACK, "-1"), UNAVAILABLE_NEVER),
        (Reply::message("text").status(14).binary_trailer(DETAILS, &info), UNAVAILABLE.after(ms(2000))),
    ] {
        server.script([reply.clone()]);
        table.error(&reply, &caller.expect_error().await.1, want);
    }
}

/// A response of an intermediary has the hints of HTTP.
#[tokio::test]
async fn response_without_code_uses_http_hints() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for (reply, want) in [
        (Reply::http(503).header("retry-after", "2"), UNAVAILABLE.after(ms(2000))),
        (Reply::http(429).header("retry-after", "2").header("retry-after-ms", "30"), THROTTLED.after(ms(30))),
        (Reply::http(503).header("x-should-retry", "false"), UNAVAILABLE_NEVER),
    ] {
        server.script([reply.clone()]);
        table.row(&reply, caller.expect_error().await.0, want);
    }
}
