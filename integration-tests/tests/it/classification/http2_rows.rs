//! The rows for streams and connections of HTTP/2, as every client of it meets them.

use test_servers::{Action, Grpc, Http, Reason, Reply};
use tower::BoxError;
use tower_fault_classify::{Health, Kind, Retryable};

use super::{Axes, BROKEN, TURNED_AWAY, Table, axes, chain, failed, verdict};

async fn fails(reply: &Reply, exchange: &impl AsyncFn(&str) -> Result<(), BoxError>) -> BoxError {
    let server = Grpc::start().await;
    // Whatever the client resends by itself ends in the same way.
    server.set_default(reply.clone());
    let error = failed(exchange(&server.url()).await);
    assert!(!server.requests().is_empty(), "{reply:?}");
    error
}

/// Streams that the server says it did not look at; and ends that only look so, for an answer had
/// begun, or tell nothing of what the server did. `committed` is what a client may say of a retry
/// when an answer had begun (gRFC A6).
pub(crate) async fn streams(exchange: impl AsyncFn(&str) -> Result<(), BoxError>, committed: &[Retryable]) {
    let mut table = Table::default();
    for reply in [
        Reply::nothing().rst_stream(Reason::REFUSED_STREAM),
        Reply::nothing().go_away_below(Reason::NO_ERROR),
        Reply::nothing().go_away_below(Reason::ENHANCE_YOUR_CALM),
    ] {
        table.error(&reply, &*fails(&reply, &exchange).await, TURNED_AWAY);
    }
    let reasons = [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::PROTOCOL_ERROR];
    let told = reasons.map(|reason| (Reply::nothing().rst_stream(reason), UNCERTAIN));
    let begun = begun().into_iter().flat_map(|reply| {
        let refused = reply.clone().rst_stream(Reason::REFUSED_STREAM);
        [refused, reply.rst_stream(Reason::INTERNAL_ERROR)].map(|reply| (reply, committed))
    });
    for (reply, may_be) in told.into_iter().chain(begun) {
        let error = fails(&reply, &exchange).await;
        let retry = verdict(&*error).1;
        table.check(may_be.contains(&retry), || format!("{reply:?}: {retry:?}: {:?}", chain(&*error)));
    }
}

/// Streams and connections for which the server requires HTTP/1.1 or a safer TLS: the same request
/// over the same connection fails again.
pub(crate) async fn other_connection_required(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let (mut table, want) = (Table::default(), axes(Kind::Protocol, Retryable::Never, Health::Neutral));
    for reason in [Reason::HTTP_1_1_REQUIRED, Reason::INADEQUATE_SECURITY] {
        for reply in [
            Reply::nothing().rst_stream(reason),
            Reply::nothing().go_away_below(reason),
            Reply::headers().rst_stream(reason),
        ] {
            table.error(&reply, &*fails(&reply, &exchange).await, want);
        }
    }
}

/// What may be said of a retry of a request that may have been processed.
pub(crate) const UNCERTAIN: &[Retryable] = &[Retryable::IfIdempotent, Retryable::Never];

fn begun() -> [Reply; 3] {
    [Reply::headers(), Reply::message("text"), Reply::truncated_message("long text")]
}

/// A connection that ends with a stream on it, before and within the answer; and a server that goes
/// at once, which does the same.
pub(crate) async fn connections_that_die(
    exchange: impl AsyncFn(&str) -> Result<(), BoxError>,
    once_begun: Axes,
) {
    let mut table = Table::default();
    for reply in [
        Reply::nothing().close_connection(),
        Reply::nothing().reset_connection(),
        Reply::nothing().go_away_at_once(Reason::NO_ERROR),
        Reply::nothing().go_away_at_once(Reason::INTERNAL_ERROR),
    ] {
        table.error(&reply, &*fails(&reply, &exchange).await, BROKEN);
    }
    for reply in begun() {
        for reply in [reply.clone().close_connection(), reply.reset_connection()] {
            table.error(&reply, &*fails(&reply, &exchange).await, once_begun);
        }
    }
}

/// A server that answers in HTTP/1.1. Whoever has sent the request hears of a connection that
/// broke: why, the connection knows alone.
pub(crate) async fn another_protocol(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let server = Http::start().await;
    server.set_default(Action::status(200).body("a body that is longer than any head of a frame"));
    let error = failed(exchange(&server.url()).await);
    Table::default().error(&"HTTP/1.1", &*error, BROKEN);
}
