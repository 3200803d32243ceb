//! The rows for HTTP/2 streams and connections, which every HTTP/2 client is checked against.

use test_servers::{Action, Grpc, Http, Reason, Reply};
use tower::BoxError;
use tower_fault_classify::{Health, Kind, Retryable};

use super::{Axes, BROKEN, REFUSED_STREAM_ROW, Table, axes, debug_chain, expect_error, verdict};

/// Returns the error of an exchange with a server that always sends this reply.
async fn exchange_error(reply: &Reply, exchange: &impl AsyncFn(&str) -> Result<(), BoxError>) -> BoxError {
    let server = Grpc::start().await;
    // A request that the client resends by itself gets the same reply.
    server.set_default(reply.clone());
    let error = expect_error(exchange(&server.url()).await);
    assert!(!server.requests().is_empty(), "{reply:?}");
    error
}

/// Checks streams that end with an error.
///
/// | The stream ends | Allowed retry |
/// |---|---|
/// | because the server refused it without processing it | unsent |
/// | for another reason, before the response | [`UNCERTAIN`] |
/// | for any reason, within the response | `committed` (gRFC A6) |
pub(crate) async fn streams(exchange: impl AsyncFn(&str) -> Result<(), BoxError>, committed: &[Retryable]) {
    let mut table = Table::default();
    for reply in [
        Reply::nothing().rst_stream(Reason::REFUSED_STREAM),
        Reply::nothing().go_away_below(Reason::NO_ERROR),
        Reply::nothing().go_away_below(Reason::ENHANCE_YOUR_CALM),
    ] {
        table.error(&reply, &*exchange_error(&reply, &exchange).await, REFUSED_STREAM_ROW);
    }
    let reasons = [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::PROTOCOL_ERROR];
    let uncertain = reasons.map(|reason| (Reply::nothing().rst_stream(reason), UNCERTAIN));
    let within_response = partial_responses().into_iter().flat_map(|reply| {
        let refused = reply.clone().rst_stream(Reason::REFUSED_STREAM);
        [refused, reply.rst_stream(Reason::INTERNAL_ERROR)].map(|reply| (reply, committed))
    });
    for (reply, allowed) in uncertain.into_iter().chain(within_response) {
        let error = exchange_error(&reply, &exchange).await;
        let retry = verdict(&*error).1;
        table.check(allowed.contains(&retry), || format!("{reply:?}: {retry:?}: {:?}", debug_chain(&*error)));
    }
}

/// Checks streams and connections for which the server requires HTTP/1.1 or a safer TLS. A retry
/// over the same connection would fail again.
pub(crate) async fn other_connection_required(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let (mut table, want) = (Table::default(), axes(Kind::Protocol, Retryable::Never, Health::Neutral));
    for reason in [Reason::HTTP_1_1_REQUIRED, Reason::INADEQUATE_SECURITY] {
        for reply in [
            Reply::nothing().rst_stream(reason),
            Reply::nothing().go_away_below(reason),
            Reply::headers().rst_stream(reason),
        ] {
            table.error(&reply, &*exchange_error(&reply, &exchange).await, want);
        }
    }
}

/// The retry axes that are allowed for a request that may have been processed.
pub(crate) const UNCERTAIN: &[Retryable] = &[Retryable::IfIdempotent, Retryable::Never];

fn partial_responses() -> [Reply; 3] {
    [Reply::headers(), Reply::message("text"), Reply::truncated_message("long text")]
}

/// Checks connections that are lost before and during a response, and a server that shuts down
/// immediately, which has the same effect.
pub(crate) async fn lost_connections(
    exchange: impl AsyncFn(&str) -> Result<(), BoxError>,
    within_response: Axes,
) {
    let mut table = Table::default();
    for reply in [
        Reply::nothing().close_connection(),
        Reply::nothing().reset_connection(),
        Reply::nothing().go_away_at_once(Reason::NO_ERROR),
        Reply::nothing().go_away_at_once(Reason::INTERNAL_ERROR),
    ] {
        table.error(&reply, &*exchange_error(&reply, &exchange).await, BROKEN);
    }
    for reply in partial_responses() {
        for reply in [reply.clone().close_connection(), reply.reset_connection()] {
            table.error(&reply, &*exchange_error(&reply, &exchange).await, within_response);
        }
    }
}

/// Checks a server that answers in HTTP/1.1. The request fails with a broken connection. Only the
/// error of the connection has the cause.
pub(crate) async fn http1_server(exchange: impl AsyncFn(&str) -> Result<(), BoxError>) {
    let server = Http::start().await;
    server.set_default(Action::status(200).body("a body that is longer than the head of a frame"));
    let error = expect_error(exchange(&server.url()).await);
    Table::default().error(&"HTTP/1.1", &*error, BROKEN);
}
