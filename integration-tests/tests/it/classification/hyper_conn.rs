//! hyper's connections without a pool.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use test_servers::{Action, Grpc, Http, RefusedPort, Reply};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_fault_classify::{
    ClassifiedError, FaultClassifyLayer, Health, Kind, Origin, Retryable, classify_error,
};

use super::http2_rows::UNCERTAIN;
use super::{
    Axes, BROKEN, BROKEN_UNSENT, INVALID_RESPONSE, Table, UNAVAILABLE_UNSENT, axes, expect_error, http1_rows,
    http2_rows, is_unsent, verdict,
};

/// The request may have been sent, and the server did not cause the failure.
const CONNECTION_TASK_GONE: Axes = axes(Kind::Transient, Retryable::IfIdempotent, Health::Neutral);

/// Spawns tasks, and can abort all of them like a runtime that shuts down.
#[derive(Clone, Debug, Default)]
struct AbortingExecutor(Arc<Mutex<JoinSet<()>>>);

impl AbortingExecutor {
    fn abort(&self) {
        self.0.lock().unwrap().abort_all();
    }
}

impl<F> Executor<F> for AbortingExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.lock().unwrap().spawn(async {
            task.await;
        });
    }
}

type HttpResult = Result<Response<Incoming>, ClassifiedError>;

fn post() -> Request<Full<Bytes>> {
    Request::post("/").header("host", "localhost").body(Full::from("body")).unwrap()
}

fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Connects, sends one request through the layer, and returns the result.
async fn over_http1(url: &str) -> HttpResult {
    let client = service_fn(async |request| {
        let io = TokioIo::new(TcpStream::connect(address(url)).await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok::<_, BoxError>(sender.send_request(request).await?)
    });
    FaultClassifyLayer::new().layer(client).oneshot(post()).await
}

async fn over_http2(url: &str) -> HttpResult {
    let client = service_fn(async |request| {
        let io = TokioIo::new(TcpStream::connect(address(url)).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok::<_, BoxError>(sender.send_request(request).await?)
    });
    FaultClassifyLayer::new().layer(client).oneshot(post()).await
}

async fn read_body(result: HttpResult) -> Result<(), BoxError> {
    result?.into_body().collect().await?;
    Ok(())
}

#[tokio::test]
async fn status_over_hyper_connection_matches_table() {
    http1_rows::statuses(async |url| over_http1(url).await.unwrap()).await;
}

#[tokio::test]
async fn connection_lost_after_request_is_if_idempotent() {
    http1_rows::lost_connections(async |url| read_body(over_http1(url).await).await).await;
}

#[tokio::test]
async fn invalid_response_is_protocol_never() {
    http1_rows::invalid_responses(async |url| read_body(over_http1(url).await).await).await;
}

#[tokio::test]
async fn connection_lost_on_accept_is_unsent_if_hyper_cancelled() {
    http1_rows::connections_lost_on_accept(async |url| read_body(over_http1(url).await).await).await;
}

#[tokio::test]
async fn refused_connection_as_bare_io_error_is_unsent() {
    let error = over_http1(&RefusedPort::bind().url()).await.unwrap_err();
    Table::default().error(&"refused", &error, UNAVAILABLE_UNSENT);
}

#[tokio::test]
async fn request_on_closed_connection_is_unsent() {
    let mut table = Table::default();
    for action in [Action::CloseOnAccept, Action::ResetOnAccept] {
        let server = Http::start().await;
        server.set_default(action.clone());
        let io = TokioIo::new(TcpStream::connect(address(&server.url())).await.unwrap());
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        let _ = connection.await;
        let error = expect_error(sender.send_request(post()).await);
        assert!(is_unsent(&*error), "{error:?}");
        table.row(&(action, &error), verdict(&*error), BROKEN_UNSENT);
    }
}

#[tokio::test]
async fn refused_stream_is_unsent_until_response_begins() {
    http2_rows::streams(async |url| read_body(over_http2(url).await).await, UNCERTAIN).await;
}

#[tokio::test]
async fn stream_that_requires_another_connection_is_protocol_never() {
    http2_rows::other_connection_required(async |url| read_body(over_http2(url).await).await).await;
}

/// A runtime that shuts down drops the task of a connection.
#[tokio::test]
async fn dropped_http1_connection_task_is_transient_and_neutral() {
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let io = TokioIo::new(TcpStream::connect(address(&server.url())).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    let task = tokio::spawn(connection);
    let response = tokio::spawn(sender.send_request(post()));
    server.wait_for_requests(1).await;
    task.abort();
    let error = expect_error(response.await.unwrap());
    Table::default().error(&"HTTP/1.1", &*error, CONNECTION_TASK_GONE);
    assert_eq!(classify_error(&*error).origin(), Origin::Local);
}

#[tokio::test]
async fn dropped_http2_connection_task_is_transient_and_neutral() {
    let server = Grpc::start().await;
    server.set_default(Reply::nothing());
    let executor = AbortingExecutor::default();
    let io = TokioIo::new(TcpStream::connect(address(&server.url())).await.unwrap());
    let (mut sender, connection) = http2::handshake(executor.clone(), io).await.unwrap();
    executor.execute(connection);
    let response = tokio::spawn(sender.send_request(post()));
    server.wait_for_requests(1).await;
    executor.abort();
    Table::default().error(&"HTTP/2", &*expect_error(response.await.unwrap()), CONNECTION_TASK_GONE);
}

#[tokio::test]
async fn dropped_task_of_pooled_connection_is_transient_and_neutral() {
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let executor = AbortingExecutor::default();
    let client = Client::builder(executor.clone()).build_http();
    let mut request = post();
    *request.uri_mut() = server.url().parse().unwrap();
    let response = tokio::spawn(client.request(request));
    server.wait_for_requests(1).await;
    executor.abort();
    Table::default().error(&"pooled", &*expect_error(response.await.unwrap()), CONNECTION_TASK_GONE);
}

#[tokio::test]
async fn http2_connection_lost_is_if_idempotent() {
    http2_rows::lost_connections(async |url| read_body(over_http2(url).await).await, BROKEN).await;
}

#[tokio::test]
async fn http2_request_to_http1_server_is_transient() {
    http2_rows::http1_server(async |url| read_body(over_http2(url).await).await).await;
}

#[tokio::test]
async fn http2_connection_to_http1_server_ends_as_invalid() {
    let server = Http::start().await;
    server.set_default(Action::status(200).body("a body that is longer than the head of a frame"));
    let io = TokioIo::new(TcpStream::connect(address(&server.url())).await.unwrap());
    let (_sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    Table::default().error(&"HTTP/1.1", &connection.await.unwrap_err(), INVALID_RESPONSE);
}
