//! Calls over tonic's channel that get no response or an incomplete one.
//!
//! Each row is checked with the channel alone and with the layer around the channel.

use std::sync::{Arc, Mutex};

use http::Response;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::words;
use test_servers::{Action, Grpc, Http, RefusedPort, Reply};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::util::BoxService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_fault_classify::{
    CarriedVerdict, ClassifiedError, FaultClassifyLayer, Health, Kind, Retryable, Verdict,
};

use super::http1_rows::{connections_lost_on_accept, failed_connects};
use super::{Axes, SHORT, TIMEOUT, Table, UNAVAILABLE_UNSENT, axes, expect_error, http2_rows};

/// A generated client over the layer and a channel. It keeps the verdict on the last response head.
pub(crate) struct Caller {
    client: EchoClient<BoxService<http::Request<Body>, Response<Body>, ClassifiedError>>,
    head: Arc<Mutex<Option<Verdict>>>,
}

impl Caller {
    pub(crate) fn new(server: &Grpc) -> Self {
        Self::with_channel(endpoint(&server.url()).connect_lazy())
    }

    pub(crate) fn with_channel(channel: Channel) -> Self {
        let head = Arc::<Mutex<_>>::default();
        let recorded = Arc::clone(&head);
        let stack = ServiceBuilder::new()
            .map_response(move |response| {
                *recorded.lock().unwrap() = CarriedVerdict::get(&response);
                response
            })
            .layer(FaultClassifyLayer::new())
            .service(channel);
        Self { client: EchoClient::new(BoxService::new(stack)), head }
    }

    /// Makes a call that fails. Returns the verdict on the response head, and the status that the
    /// generated client returns.
    pub(crate) async fn expect_error(&mut self) -> (Option<Axes>, Status) {
        *self.head.lock().unwrap() = None;
        let status = self.client.say(words("hi")).await.unwrap_err();
        (self.carried(), status)
    }

    /// Makes a call that succeeds. Returns the verdict on the response head.
    pub(crate) async fn expect_ok(&mut self) -> Option<Axes> {
        self.client.say(words("hi")).await.unwrap();
        self.carried()
    }

    fn carried(&self) -> Option<Axes> {
        self.head.lock().unwrap().as_ref().and_then(Verdict::fault).map(Axes::of)
    }
}

/// Returns the verdict on the response head of a call without a generated client.
pub(crate) async fn head(server: &Grpc) -> Option<Axes> {
    let channel = endpoint(&server.url()).connect_lazy();
    let classified = ServiceBuilder::new().layer(FaultClassifyLayer::new()).service(channel);
    let request = http::Request::post("/echo.Echo/Say").body(Body::empty()).unwrap();
    let response = classified.oneshot(request).await.unwrap();
    CarriedVerdict::get(&response).as_ref().and_then(Verdict::fault).map(Axes::of)
}

/// gRFC A6: after the headers have arrived, the call is committed and not retried.
const BROKEN_COMMITTED: Axes = axes(Kind::Transient, Retryable::Never, Health::Unhealthy);

pub(crate) fn endpoint(url: &str) -> Endpoint {
    Endpoint::from_shared(url.to_owned()).unwrap()
}

async fn bare(channel: Channel) -> Result<(), BoxError> {
    Ok(EchoClient::new(channel).say(words("hi")).await.map(drop)?)
}

/// Makes a call over the layer and the channel that fails.
pub(crate) async fn layered(channel: Channel) -> Result<(), BoxError> {
    Err(Caller::with_channel(channel).expect_error().await.1.into())
}

/// Checks the error of a call over the channel, with and without the layer.
pub(crate) async fn check(table: &mut Table, name: &str, channel: Channel, want: Axes) {
    table.error(&(name, "bare"), &*expect_error(bare(channel.clone()).await), want);
    table.error(&(name, "layered"), &*expect_error(layered(channel).await), want);
}

#[tokio::test]
async fn refused_stream_is_unsent_until_response_begins() {
    http2_rows::streams(async |url| bare(endpoint(url).connect_lazy()).await, &[Retryable::Never]).await;
}

#[tokio::test]
async fn refused_stream_under_generated_client_is_unsent() {
    http2_rows::streams(async |url| layered(endpoint(url).connect_lazy()).await, &[Retryable::Never]).await;
}

#[tokio::test]
async fn stream_that_requires_another_connection_is_protocol_never() {
    http2_rows::other_connection_required(async |url| bare(endpoint(url).connect_lazy()).await).await;
    http2_rows::other_connection_required(async |url| layered(endpoint(url).connect_lazy()).await).await;
}

#[tokio::test]
async fn connection_lost_is_if_idempotent_until_headers() {
    http2_rows::lost_connections(async |url| bare(endpoint(url).connect_lazy()).await, BROKEN_COMMITTED)
        .await;
    http2_rows::lost_connections(async |url| layered(endpoint(url).connect_lazy()).await, BROKEN_COMMITTED)
        .await;
}

#[tokio::test]
async fn connection_lost_on_accept_is_unsent_if_hyper_cancelled() {
    connections_lost_on_accept(async |url| bare(endpoint(url).connect_lazy()).await).await;
    connections_lost_on_accept(async |url| layered(endpoint(url).connect_lazy()).await).await;
}

#[tokio::test]
async fn call_to_http1_server_is_transient() {
    http2_rows::http1_server(async |url| bare(endpoint(url).connect_lazy()).await).await;
}

#[tokio::test]
async fn failed_connect_is_unsent() {
    failed_connects(async |url| bare(endpoint(url).connect_lazy()).await).await;
    failed_connects(async |url| layered(endpoint(url).connect_lazy()).await).await;
    let error = EchoClient::connect(RefusedPort::bind().url()).await.unwrap_err();
    Table::default().error(&"the channel's own", &error, UNAVAILABLE_UNSENT);
}

/// tonic reports its own timeout as CANCELLED, although no side cancelled the call.
#[tokio::test]
async fn request_timeout_of_tonic_is_timeout() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    server.set_default(Reply::nothing());
    check(&mut table, "the endpoint's", endpoint(&server.url()).timeout(SHORT).connect_lazy(), TIMEOUT).await;
    let mut request = Request::new(words("hi"));
    request.set_timeout(SHORT);
    let status = EchoClient::new(endpoint(&server.url()).connect_lazy()).say(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Cancelled);
    table.error(&"the request's", &status, TIMEOUT);
}

#[tokio::test]
async fn timeout_around_channel_is_if_idempotent() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    server.set_default(Reply::nothing());
    let channel = endpoint(&server.url()).connect_lazy();
    let timed =
        ServiceBuilder::new().layer(FaultClassifyLayer::new()).timeout(SHORT).service(channel.clone());
    table.error(&"tower's", &EchoClient::new(timed).say(words("hi")).await.unwrap_err(), TIMEOUT);
    let error = tokio::time::timeout(SHORT, EchoClient::new(channel).say(words("hi"))).await.unwrap_err();
    table.error(&"tokio's", &error, TIMEOUT);
}

/// The server accepts the connection and reads, but does not answer the PING.
#[tokio::test]
async fn keep_alive_ping_without_response_is_timeout() {
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let keep_alive = endpoint(&server.url()).http2_keep_alive_interval(SHORT).keep_alive_timeout(SHORT);
    check(&mut Table::default(), "ping", keep_alive.connect_lazy(), TIMEOUT).await;
}
