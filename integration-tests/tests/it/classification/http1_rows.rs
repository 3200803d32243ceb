//! The rows for HTTP statuses, hints, and connections that die, as every client of HTTP/1.1 meets
//! them.

use std::time::Duration;

use test_servers::{Action, Http, RefusedPort};
use tower::BoxError;
use tower_fault_classify::hint::MAX_HINT;
use tower_fault_classify::{CarriedVerdict, Health, Kind, Outcome, Retryable, Verdict};

use super::{
    Axes, BROKEN, BROKEN_UNSENT, GARBLED, Table, UNREACHED, axes, failed, is_unsent,
    name_that_does_not_resolve,
};

const CLIENT: Axes = axes(Kind::Client, Retryable::Never, Health::Healthy);
const SERVER: Axes = axes(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy);
const MISCONFIGURED: Axes = axes(Kind::Server, Retryable::Never, Health::Unhealthy);
const CONFLICT: Axes = axes(Kind::Conflict, Retryable::Never, Health::Healthy);
const UNSUPPORTED: Axes = axes(Kind::Protocol, Retryable::Never, Health::Neutral);
const UNAVAILABLE: Axes = axes(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy);
const THROTTLED: Axes = axes(Kind::Throttled, Retryable::Refused, Health::Neutral);

/// The rows that the fault table names, in its order.
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

/// What the fault table says of a status. A success is nothing.
pub(crate) fn row_of(status: u16) -> Option<Axes> {
    let row = STATUSES.iter().find(|(statuses, _)| statuses.contains(&status));
    match status {
        ..400 => None,
        400..500 => Some(row.map_or(CLIENT, |(_, axes)| *axes)),
        _ => Some(row.map_or(SERVER, |(_, axes)| *axes)),
    }
}

fn carried(response: &impl Outcome) -> Option<Axes> {
    CarriedVerdict::get(response).as_ref().and_then(Verdict::fault).map(Axes::of)
}

/// Every status that can be a last answer, and one past the highest that anybody uses. `call` has
/// the layer around its client.
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

/// Sends an answer of each row, and holds what the layer says of it against the row.
async fn answers<R: Outcome>(
    call: impl AsyncFn(&str) -> R,
    rows: impl IntoIterator<Item = (Action, Option<Axes>)>,
) {
    let (server, mut table) = (Http::start().await, Table::default());
    for (act, want) in rows {
        server.script([act.clone()]);
        table.row(&act, carried(&call(&server.url()).await), want);
    }
}

const AFTER: &str = "retry-after";
const AFTER_MS: &str = "retry-after-ms";
const SHOULD: &str = "x-should-retry";
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

type Headers = &'static [(&'static str, &'static [u8])];

/// The headers of an answer, and the delay that they ask for.
const DELAYS: [(Headers, Duration); 27] = [
    (&[(AFTER, b"3")], seconds(3)),
    (&[(AFTER, b"0")], seconds(0)),
    (&[(AFTER, b"  120\t")], seconds(120)),
    (&[(AFTER, b"99999999999999999999999")], MAX_HINT),
    // Of several the longest counts, and the garbled not.
    (&[(AFTER, b"1"), (AFTER, b"5"), (AFTER, b"2")], seconds(5)),
    (&[(AFTER, b"soon"), (AFTER, b"1")], seconds(1)),
    (&[(AFTER, b"\xff"), (AFTER, b"1")], seconds(1)),
    // A date is held against the server's own clock, in its three forms.
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
    // Without one, against this side's: that was long ago, and this is far away.
    (&[(AFTER, b"Wed, 21 Oct 2015 07:28:00 GMT")], seconds(0)),
    (&[(AFTER, b"Wed, 21 Oct 2015 07:28:00 GMT"), ("date", b"yesterday")], seconds(0)),
    (&[(AFTER, b"Fri, 31 Dec 9999 23:59:59 GMT")], MAX_HINT),
    // The finer unit goes first, whichever is longer, unless it is garbled.
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

/// What makes no sense, and says nothing.
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

/// The delay that a server asks for stands on every fault that may be sent again, and on no other.
pub(crate) async fn delays<R: Outcome>(call: impl AsyncFn(&str) -> R) {
    let with = |status, headers: &[(&str, &[u8])]| {
        headers.iter().fold(Action::status(status), |act, (name, value)| act.header(*name, *value))
    };
    let asked = DELAYS.map(|(headers, delay)| (with(429, headers), THROTTLED.after(delay)));
    let garbled = NO_DELAYS.map(|headers| (with(429, headers), THROTTLED));
    let too_large = axes(Kind::Throttled, Retryable::IfIdempotent, Health::Healthy);
    let of_413 = [
        (with(413, &[(AFTER, b"3")]), too_large.after(seconds(3))),
        (with(413, &[(AFTER, b"0")]), too_large.after(seconds(0))),
        (with(413, &[(AFTER, b"soon")]), CLIENT),
    ];
    let of_all = (200..=600).filter(|status| *status != 413).filter_map(|status| {
        let row = row_of(status)?;
        let want = if row.1 == Retryable::Never { row } else { row.after(seconds(7)) };
        Some((with(status, &[(AFTER, b"7")]), want))
    });
    let rows = asked.into_iter().chain(garbled).chain(of_413).chain(of_all);
    answers(call, rows.map(|(act, want)| (act, Some(want)))).await;
}

/// `x-should-retry` overrides the retry axis, and no other.
pub(crate) async fn should_retry<R: Outcome>(call: impl AsyncFn(&str) -> R) {
    let said = |status, text: &[u8]| Action::status(status).header(SHOULD, text);
    let mut rows = Vec::new();
    for status in (200..=600).filter(|status| *status != 413) {
        let with = |retry| row_of(status).map(|row| axes(row.0, retry, row.2));
        let raised = row_of(status).map(|row| match row.1 {
            Retryable::Never => axes(row.0, Retryable::IfIdempotent, row.2),
            retryable => axes(row.0, retryable, row.2),
        });
        rows.push((said(status, b"true"), raised));
        rows.push((said(status, b"false"), with(Retryable::Never)));
    }
    let again = axes(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy);
    let never = axes(Kind::Server, Retryable::Never, Health::Unhealthy);
    rows.extend([
        (said(500, b"TRUE"), Some(again)),
        (said(500, b"False"), Some(never)),
        (said(500, b"true").header(SHOULD, "true"), Some(again)),
        (said(500, b"true").header(AFTER, "2"), Some(again.after(seconds(2)))),
        (said(500, b"false").header(AFTER, "2"), Some(never)),
        (
            said(429, b"false").header(AFTER_MS, "20"),
            Some(axes(Kind::Throttled, Retryable::Never, Health::Neutral)),
        ),
        (
            said(404, b"true").header(AFTER, "2"),
            Some(axes(Kind::Client, Retryable::IfIdempotent, Health::Healthy).after(seconds(2))),
        ),
    ]);
    // What makes no sense, or contradicts itself, leaves the status's row.
    for garbled in [&b""[..], b"yes", b"1", b"truly", b"true,false", b"\xff"] {
        rows.push((said(500, garbled), Some(SERVER)));
    }
    rows.push((said(500, b"true").header(SHOULD, "false"), Some(SERVER)));
    rows.push((said(404, b"true").header(SHOULD, "maybe"), Some(CLIENT)));
    answers(call, rows).await;
}

/// What a connection may come to, once the request was read. `exchange` sends a request, and reads
/// the answer to its end.
pub(crate) async fn connections_that_die(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let cut = || Action::status(200).body("0123").content_length(10);
    let endless = || Action::status(200).body("0123").chunked_without_end();
    let acts = [
        Action::ResetBeforeRequest,
        Action::ResetAfterRequest,
        Action::CloseAfterRequest,
        Action::raw("HTTP/1.1 200 OK\r\ncontent-"),
        cut().then_close(),
        cut().then_half_close(),
        cut().then_reset(),
        endless().then_close(),
        endless().then_half_close(),
        endless().then_reset(),
        Action::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n0123"),
    ];
    each(acts, exchange, BROKEN).await;
}

/// Answers that are none.
pub(crate) async fn garbled_answers(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let chunk =
        |size| Action::raw(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\n0123"));
    let acts = [
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
    each(acts, exchange, GARBLED).await;
}

async fn each(
    acts: impl IntoIterator<Item = Action>,
    exchange: impl AsyncFn(&str) -> Result<(), BoxError>,
    want: Axes,
) {
    let mut table = Table::default();
    for act in acts {
        let server = Http::start().await;
        server.script([act.clone()]);
        let error = failed(exchange(&server.url()).await);
        table.error(&format!("{act:?}").chars().take(200).collect::<String>(), &*error, want);
    }
}

/// A connection that ends when it is accepted: whether the request was still written to it is up to
/// chance, and hyper knows.
pub(crate) async fn connections_that_die_on_accept(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let mut table = Table::default();
    for act in [Action::CloseOnAccept, Action::ResetOnAccept] {
        let server = Http::start().await;
        server.set_default(act.clone());
        let error = failed(exchange(&server.url()).await);
        table.error(&act, &*error, if is_unsent(&*error) { BROKEN_UNSENT } else { BROKEN });
    }
}

/// A connection that was good for one request and dies in the next, which may have been acted on.
pub(crate) async fn kept_connections_that_die<E: AsyncFn(&str) -> Result<(), BoxError>>(
    client: impl Fn() -> E,
) {
    let mut table = Table::default();
    for act in [Action::CloseAfterRequest, Action::ResetAfterRequest, Action::ResetBeforeRequest] {
        let (server, exchange) = (Http::start().await, client());
        server.script([Action::status(200).body("ok"), act.clone()]);
        exchange(&server.url()).await.unwrap();
        let error = failed(exchange(&server.url()).await);
        table.error(&act, &*error, BROKEN);
        assert_eq!((server.connections(), server.remaining()), (1, 0), "{act:?}");
    }
}

/// Nobody there, and no address to go to.
pub(crate) async fn nobody_is_reached(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let (refused, mut table) = (RefusedPort::bind(), Table::default());
    for url in [refused.url(), name_that_does_not_resolve()] {
        let error = failed(exchange(&url).await);
        table.error(&url, &*error, UNREACHED);
    }
}
