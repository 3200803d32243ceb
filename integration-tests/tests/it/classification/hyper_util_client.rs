//! hyper-util's legacy client over HTTP/1.1.

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use test_servers::{Action, Http, RefusedPort};
use tokio::net::TcpStream;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_http::timeout::TimeoutBody;

use super::http1_rows as rows;
use super::{BROKEN_UNSENT, CALLER, SHORT, TIMEOUT, Table, UNAVAILABLE_UNSENT, expect_error, verdict};

pub(crate) type Http1<C = HttpConnector> = Client<C, Full<Bytes>>;

pub(crate) fn client_with<C: Connect + Clone>(connector: C) -> Http1<C> {
    Client::builder(TokioExecutor::new()).build(connector)
}

fn client() -> Http1 {
    client_with(HttpConnector::new())
}

fn post(url: &str) -> Request<Full<Bytes>> {
    Request::post(url).body(Full::from("body")).unwrap()
}

async fn send<C>(
    client: &Http1<C>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClassifiedError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    FaultClassifyLayer::new().layer(client.clone()).oneshot(request).await
}

pub(crate) async fn exchange<C>(client: &Http1<C>, url: &str) -> Result<(), BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    send(client, post(url)).await?.into_body().collect().await?;
    Ok(())
}

/// Sends a request and reads the body, so that the connection is kept.
async fn response(client: &Http1, url: &str) -> Response<Bytes> {
    let (head, body) = send(client, post(url)).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn status_over_hyper_util_matches_table() {
    let client = client();
    rows::statuses(async |url| response(&client, url).await).await;
}

#[tokio::test]
async fn retry_delay_is_kept_for_retryable_faults() {
    let client = client();
    rows::delays(async |url| response(&client, url).await).await;
}

#[tokio::test]
async fn should_retry_header_overrides_only_retryable() {
    let client = client();
    rows::should_retry(async |url| response(&client, url).await).await;
}

#[tokio::test]
async fn connection_lost_after_request_is_if_idempotent() {
    rows::lost_connections(async |url| exchange(&client(), url).await).await;
}

#[tokio::test]
async fn invalid_response_is_protocol_never() {
    rows::invalid_responses(async |url| exchange(&client(), url).await).await;
}

#[tokio::test]
async fn connection_lost_on_accept_is_unsent_if_hyper_cancelled() {
    rows::connections_lost_on_accept(async |url| exchange(&client(), url).await).await;
}

/// The connector returns the connection after it was closed, so the result does not depend on
/// timing.
#[tokio::test]
async fn connection_lost_before_request_is_unsent() {
    let connector = service_fn(|url: http::Uri| {
        Box::pin(async move {
            let stream = TcpStream::connect(url.authority().unwrap().as_str()).await?;
            // Waits for the FIN or the RST.
            let _ = stream.peek(&mut [0]).await;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        })
    });
    let mut table = Table::default();
    for action in [Action::CloseOnAccept, Action::ResetOnAccept] {
        let server = Http::start().await;
        server.set_default(action.clone());
        let error = expect_error(exchange(&client_with(connector), &server.url()).await);
        table.error(&action, &*error, BROKEN_UNSENT);
    }
}

#[tokio::test]
async fn reused_connection_lost_in_request_is_if_idempotent() {
    rows::reused_connections_lost(|| {
        let client = client();
        async move |url: &str| exchange(&client, url).await
    })
    .await;
}

#[tokio::test]
async fn failed_connect_is_unsent() {
    rows::failed_connects(async |url| exchange(&client(), url).await).await;
}

#[tokio::test]
async fn timeout_around_client_is_if_idempotent() {
    let (server, mut table) = (Http::start().await, Table::default());
    server.set_default(Action::Hang);
    let timed = ServiceBuilder::new().layer(FaultClassifyLayer::new()).timeout(SHORT).service(client());
    table.error(&"tower's", &*expect_error(timed.oneshot(post(&server.url())).await), TIMEOUT);
    let timed = service_fn(async |request| {
        Ok::<_, BoxError>(tokio::time::timeout(SHORT, client().request(request)).await??)
    });
    let classified = FaultClassifyLayer::new().layer(timed);
    table.error(&"tokio's", &*expect_error(classified.oneshot(post(&server.url())).await), TIMEOUT);
}

#[tokio::test]
async fn body_timeout_is_timeout() {
    let server = Http::start().await;
    server.set_default(Action::status(200).body("0123").content_length(10));
    let response = send(&client(), post(&server.url())).await.unwrap();
    let error = expect_error(TimeoutBody::new(SHORT, response.into_body()).collect().await);
    Table::default().error(&"tower-http's", &*error, TIMEOUT);
}

#[tokio::test]
async fn invalid_request_is_client_never_neutral() {
    let (server, mut table) = (Http::start().await, Table::default());
    let mut requests = [post("/relative"), post(&server.url()), post(&server.url())];
    *requests[1].version_mut() = Version::HTTP_2;
    *requests[2].version_mut() = Version::HTTP_3;
    for request in requests {
        let what = format!("{request:?}");
        table.error(&what, &send(&client(), request).await.unwrap_err(), CALLER);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn error_without_layer_has_same_verdict() {
    let refused = RefusedPort::bind();
    let error = client().request(post(&refused.url())).await.unwrap_err();
    assert_eq!(verdict(&error), UNAVAILABLE_UNSENT);
}
