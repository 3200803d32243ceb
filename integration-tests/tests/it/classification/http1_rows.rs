//! The rows for HTTP statuses, hints and lost connections, which every HTTP/1.1 client is checked
//! against.

use std::time::Duration;

use test_servers::{Action, Http, RefusedPort};
use tower::BoxError;
use tower_fault_classify::hint::MAX_HINT;
use tower_fault_classify::{CarriedVerdict, Health, Kind, Outcome, Retryable, Verdict};

use super::{
    Axes, BROKEN, BROKEN_UNSENT, INVALID_RESPONSE, Table, UNAVAILABLE_UNSENT, axes, expect_error, is_unsent,
    unresolvable_url,
};

const CLIENT: Axes = axes(Kind::Client, Retryable::Never, Health::Healthy);
const SERVER: Axes = axes(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy);
const MISCONFIGURED: Axes = axes(Kind::Server, Retryable::Never, Health::Unhealthy);
const CONFLICT: Axes = axes(Kind::Conflict, Retryable::Never, Health::Healthy);
const UNSUPPORTED: Axes = axes(Kind::Protocol, Retryable::Never, Health::Neutral);
const UNAVAILABLE: Axes = axes(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy);
const THROTTLED: Axes = axes(Kind::Throttled, Retryable::Refused, Health::Neutral);

/// The rows of the fault table for single statuses, in its order.
const STATUSES: [(&[u16], Axes); 19] = [
    (&[401, 403], axes(Kind::Auth, Retryable::Never, Health::Healthy)),
    (&[407], axes(Kind::Auth, Retryable::Never, Health::Neutral)),
    (&[408], axes(Kind::Timeout, Retryable::IfIdempotent, Health::Neutral)),
    (&[409, 423], CONFLICT),
    (&[421], axes(Kind::Unavailable, Retryable::Refused, Health::Neutral)),
    (&[425], axes(Kind::Transient, Retryable::Refused, Health::Neutral)),
    (&[429], THROTTLED),
    (&[499], axes(Kind::Cancelled, Retryable::Never, Health::Neutral)),
    (&[500], SERVER),
    (&[501, 505, 510, 511], UNSUPPORTED),
    (&[502, 503], UNAVAILABLE),
    (&[504], axes(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy)),
    (&[506, 508, 507], MISCONFIGURED),
    (&[509], THROTTLED),
    (&[521, 523], UNAVAILABLE),
    (&[522, 524], axes(Kind::Timeout, Retryable::IfIdempotent, Health::Unhealthy)),
    (&[520, 527], axes(Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy)),
    (&[525, 526, 530], MISCONFIGURED),
    (&[529], axes(Kind::Overloaded, Retryable::Refused, Health::Unhealthy)),
];

/// Returns the row of a status, or `None` for a success.
pub(crate) fn row_of(status: u16) -> Option<Axes> {
    let row = STATUSES.iter().find(|(statuses, _)| statuses.contains(&status));
    match status {
        ..400 => None,
        400..500 => Some(row.map_or(CLIENT, |(_, axes)| *axes)),
        _ => Some(row.map_or(SERVER, |(_, axes)| *axes)),
    }
}

/// Returns the fault that the layer attached to a response.
fn carried(response: &impl Outcome) -> Option<Axes> {
    CarriedVerdict::get(response).as_ref().and_then(Verdict::fault).map(Axes::of)
}

/// Checks every status of a final response up to 600, 999, and a response after informational ones.
///
/// `call` sends a request through the layer and a client.
pub(crate) async fn statuses<R: Outcome>(call: impl AsyncFn(&str) -> R) {
    let (server, mut table) = (Http::start().await, Table::default());
    for status in (200..=600).chain([999]) {
        server.script([Action::status(status)]);
        let response = call(&server.url()).await;
        assert_eq!(response.status().map(|status| status.as_u16()), Some(status));
        table.row(&status, carried(&response), row_of(status));
    }
    server.script([Action::status(503).after_informational(100).after_informational(103)]);
    table.row(&"103, then 503", carried(&call(&server.url()).await), UNAVAILABLE);
}

/// Makes the server send the answer of each row, and checks the verdict of the layer.
async fn check_responses<R: Outcome>(
    call: impl AsyncFn(&str) -> R,
    rows: impl IntoIterator<Item = (Action, Option<Axes>)>,
) {
    let (server, mut table) = (Http::start().await, Table::default());
    for (action, want) in rows {
        server.script([action.clone()]);
        table.row(&action, carried(&call(&server.url()).await), want);
    }
}

const AFTER: &str = "retry-after";
const AFTER_MS: &str = "retry-after-ms";
const SHOULD_RETRY: &str = "x-should-retry";
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

type Headers = &'static [(&'static str, &'static [u8])];

/// Headers of an answer, and the delay that they ask for.
const DELAYS: [(Headers, Duration); 27] = [
    (&[(AFTER, b"3")], seconds(3)),
    (&[(AFTER, b"0")], seconds(0)),
    (&[(AFTER, b"  120\t")], seconds(120)),
    (&[(AFTER, b"99999999999999999999999")], MAX_HINT),
    // The longest of several values applies. Invalid values are ignored.
    (&[(AFTER, b"1"), (AFTER, b"5"), (AFTER, b"2")], seconds(5)),
    (&[(AFTER, b"soon"), (AFTER, b"1")], seconds(1)),
    (&[(AFTER, b"\xff"), (AFTER, b"1")], seconds(1)),
    // A date, in each of its three formats, is compared with the response's `date` header.
    (&[(AFTER, b"Wed, 21 Oct 2015 07:28:00 GMT"), ("date", b"Wed, 21 Oct 2015 07:27:15 GMT")], seconds(45)),
    (
        &[(AFTER, b"Wednesday, 21-Oct-15 07:28:00 GMT"), ("date", b"Wed, 21 Oct 2015 07:27:15 GMT")],
        seconds(45),
    ),
    (&[(AFTER, b"Wed Oct 21 07:28:00 2015"), ("date", b"Wed, 21 Oct 2015 07:27:15 GMT")], seconds(45)),
    (&[(AFTER, b"Wed, 21 Oct 2015 07:28:00 GMT"), ("date", b"Wed, 21 Oct 2015 09:00:00 GMT")], seconds(0)),
    (
        &[
            (AFTER, b"Wed, 21 Oct 2015 07:28:00 GMT"),
            (AFTER, b"60"),
            ("date", b"Wed, 21 Oct 2015 07:27:15 GMT"),
        ],
        seconds(60),
    ),
    // Without a valid `date`, it is compared with the client's clock: the past, and the far future.
    (&[(AFTER, b"Wed, 21 Oct 2015 07:28:00 GMT")], seconds(0)),
    (&[(AFTER, b"Wed, 21 Oct 2015 07:28:00 GMT"), ("date", b"yesterday")], seconds(0)),
    (&[(AFTER, b"Fri, 31 Dec 9999 23:59:59 GMT")], MAX_HINT),
    // A valid `retry-after-ms` takes precedence over `retry-after`, whichever delay is longer.
    (&[(AFTER_MS, b"1500")], micros(1_500_000)),
    (&[(AFTER_MS, b"1500.5")], micros(1_500_500)),
    (&[(AFTER_MS, b"0")], seconds(0)),
    (&[(AFTER_MS, b"20"), (AFTER_MS, b"30")], micros(30_000)),
    (&[(AFTER, b"3"), (AFTER_MS, b"20")], micros(20_000)),
    (&[(AFTER, b"3"), (AFTER_MS, b"9000")], seconds(9)),
    (&[(AFTER, b"3"), (AFTER_MS, b"-20")], seconds(3)),
    (&[(AFTER, b"3"), (AFTER_MS, b"NaN")], seconds(3)),
    (&[(AFTER, b"3"), (AFTER_MS, b"1e3")], seconds(3)),
    (&[(AFTER, b"3"), (AFTER_MS, b"\xc3\xa9")], seconds(3)),
    (&[(AFTER, b"3"), (AFTER_MS, b"")], seconds(3)),
    (&[(AFTER, b"later"), (AFTER_MS, b"20")], micros(20_000)),
];

/// Invalid values, which give no delay.
const NO_DELAYS: [Headers; 11] = [
    &[(AFTER, b"")],
    &[(AFTER, b"soon")],
    &[(AFTER, b"-1")],
    &[(AFTER, b"+1")],
    &[(AFTER, b"1.5")],
    &[(AFTER, b"1e3")],
    &[(AFTER, b"5 seconds")],
    &[(AFTER, b"\xff\xfe")],
    &[(AFTER_MS, b".5")],
    &[(AFTER_MS, b"inf"), (AFTER, b"-3")],
    &[(AFTER, b"Wed, 21 Oct 2015 07:28:60 GMT"), ("date", b"Wed, 21 Oct 2015 07:27:15 GMT")],
];

/// Checks that exactly the faults that may be retried have the delay of the server.
pub(crate) async fn delays<R: Outcome>(call: impl AsyncFn(&str) -> R) {
    let with = |status, headers: &[(&str, &[u8])]| {
        headers.iter().fold(Action::status(status), |action, (name, value)| action.header(*name, *value))
    };
    let valid = DELAYS.map(|(headers, delay)| (with(429, headers), THROTTLED.after(delay)));
    let invalid = NO_DELAYS.map(|headers| (with(429, headers), THROTTLED));
    let too_large = axes(Kind::Throttled, Retryable::IfIdempotent, Health::Healthy);
    let content_too_large = [
        (with(413, &[(AFTER, b"3")]), too_large.after(seconds(3))),
        (with(413, &[(AFTER, b"0")]), too_large.after(seconds(0))),
        (with(413, &[(AFTER, b"soon")]), CLIENT),
    ];
    let all_statuses = (200..=600).filter(|status| *status != 413).filter_map(|status| {
        let row = row_of(status)?;
        let want = if row.1 == Retryable::Never { row } else { row.after(seconds(7)) };
        Some((with(status, &[(AFTER, b"7")]), want))
    });
    let rows = valid.into_iter().chain(invalid).chain(content_too_large).chain(all_statuses);
    check_responses(call, rows.map(|(action, want)| (action, Some(want)))).await;
}

/// Checks that `x-should-retry` overrides only the retry axis.
pub(crate) async fn should_retry<R: Outcome>(call: impl AsyncFn(&str) -> R) {
    let should_retry_header = |status, text: &[u8]| Action::status(status).header(SHOULD_RETRY, text);
    let mut rows = Vec::new();
    for status in (200..=600).filter(|status| *status != 413) {
        let with = |retry| row_of(status).map(|row| axes(row.0, retry, row.2));
        let allowed = row_of(status).map(|row| match row.1 {
            Retryable::Never => axes(row.0, Retryable::IfIdempotent, row.2),
            other => axes(row.0, other, row.2),
        });
        rows.push((should_retry_header(status, b"true"), allowed));
        rows.push((should_retry_header(status, b"false"), with(Retryable::Never)));
    }
    let retryable = axes(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy);
    let never = axes(Kind::Server, Retryable::Never, Health::Unhealthy);
    rows.extend([
        (should_retry_header(500, b"TRUE"), Some(retryable)),
        (should_retry_header(500, b"False"), Some(never)),
        (should_retry_header(500, b"true").header(SHOULD_RETRY, "true"), Some(retryable)),
        (should_retry_header(500, b"true").header(AFTER, "2"), Some(retryable.after(seconds(2)))),
        (should_retry_header(500, b"false").header(AFTER, "2"), Some(never)),
        (
            should_retry_header(429, b"false").header(AFTER_MS, "20"),
            Some(axes(Kind::Throttled, Retryable::Never, Health::Neutral)),
        ),
        (
            should_retry_header(404, b"true").header(AFTER, "2"),
            Some(axes(Kind::Client, Retryable::IfIdempotent, Health::Healthy).after(seconds(2))),
        ),
    ]);
    // An invalid or contradictory value is ignored.
    for invalid in [&b""[..], b"yes", b"1", b"truly", b"true,false", b"\xff"] {
        rows.push((should_retry_header(500, invalid), Some(SERVER)));
    }
    rows.push((should_retry_header(500, b"true").header(SHOULD_RETRY, "false"), Some(SERVER)));
    rows.push((should_retry_header(404, b"true").header(SHOULD_RETRY, "maybe"), Some(CLIENT)));
    check_responses(call, rows).await;
}

/// Checks connections that are lost after the request has begun to arrive.
///
/// `exchange` sends a request, and reads the response to its end.
pub(crate) async fn lost_connections(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let truncated = || Action::status(200).body("0123").content_length(10);
    let unterminated = || Action::status(200).body("0123").chunked_without_end();
    let actions = [
        Action::ResetBeforeRequest,
        Action::ResetAfterRequest,
        Action::CloseAfterRequest,
        Action::raw("HTTP/1.1 200 OK\r\ncontent-"),
        truncated().then_close(),
        truncated().then_half_close(),
        truncated().then_reset(),
        unterminated().then_close(),
        unterminated().then_half_close(),
        unterminated().then_reset(),
        Action::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n0123"),
    ];
    check_each(actions, exchange, BROKEN).await;
}

/// Checks invalid responses.
pub(crate) async fn invalid_responses(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let chunk =
        |size| Action::raw(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\n0123"));
    let actions = [
        Action::garbage(),
        Action::status(99),
        Action::status(200).header("x name", "a"),
        Action::status(200).header("x-name", "a\0b"),
        Action::status(200).header("x-large", "a".repeat(1 << 20)),
        Action::status(200).body("0123").header("content-length", "3"),
        Action::raw("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n0123"),
        chunk("zz"),
        chunk("4 4"),
        chunk("fffffffffffffffffff"),
    ];
    check_each(actions, exchange, INVALID_RESPONSE).await;
}

async fn check_each(
    actions: impl IntoIterator<Item = Action>,
    exchange: impl AsyncFn(&str) -> Result<(), BoxError>,
    want: Axes,
) {
    let mut table = Table::default();
    for action in actions {
        let server = Http::start().await;
        server.script([action.clone()]);
        let error = expect_error(exchange(&server.url()).await);
        table.error(&format!("{action:?}").chars().take(200).collect::<String>(), &*error, want);
    }
}

/// Checks connections that the server closes or resets when it accepts them.
///
/// Whether the request is written before depends on timing. hyper reports it.
pub(crate) async fn connections_lost_on_accept(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let mut table = Table::default();
    for action in [Action::CloseOnAccept, Action::ResetOnAccept] {
        let server = Http::start().await;
        server.set_default(action.clone());
        let error = expect_error(exchange(&server.url()).await);
        table.error(&action, &*error, if is_unsent(&*error) { BROKEN_UNSENT } else { BROKEN });
    }
}

/// Checks connections that are lost during their second request, which the server may have
/// processed.
pub(crate) async fn reused_connections_lost<E: AsyncFn(&str) -> Result<(), BoxError>>(
    client: impl Fn() -> E,
) {
    let mut table = Table::default();
    for action in [Action::CloseAfterRequest, Action::ResetAfterRequest, Action::ResetBeforeRequest] {
        let (server, exchange) = (Http::start().await, client());
        server.script([Action::status(200).body("ok"), action.clone()]);
        exchange(&server.url()).await.unwrap();
        let error = expect_error(exchange(&server.url()).await);
        table.error(&action, &*error, BROKEN);
        assert_eq!((server.connections(), server.remaining()), (1, 0), "{action:?}");
    }
}

/// Checks a refused connection and a name that cannot be resolved.
pub(crate) async fn failed_connects(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let (refused, mut table) = (RefusedPort::bind(), Table::default());
    for url in [refused.url(), unresolvable_url()] {
        let error = expect_error(exchange(&url).await);
        table.error(&url, &*error, UNAVAILABLE_UNSENT);
    }
}
