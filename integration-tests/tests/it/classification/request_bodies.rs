//! Request bodies that fail. The error is a fault of the caller regardless of its cause, with every
//! client, HTTP/1.1 and HTTP/2.

use std::io::{Error, ErrorKind};
use std::iter::once_with;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::client::conn::{http1, http2};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::reqwest_client;
use test_servers::{Grpc, Http, Reply};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Origin, classify_error};

use super::{CALLER, Table, expect_error, source_chain};

type Upload = BoxBody<Bytes, BoxError>;

type Cause = fn() -> BoxError;

/// Causes that would have another verdict if they were errors of the connection.
const CAUSES: [(&str, Cause); 9] = [
    ("refused", || Error::from(ErrorKind::ConnectionRefused).into()),
    ("reset", || Error::from(ErrorKind::ConnectionReset).into()),
    ("end of file", || Error::from(ErrorKind::UnexpectedEof).into()),
    ("timeout", || Error::from(ErrorKind::TimedOut).into()),
    ("malformed", || Error::from(ErrorKind::InvalidData).into()),
    ("unknown", || "the disk failed".into()),
    ("refused stream", || h2::Error::from(h2::Reason::REFUSED_STREAM).into()),
    ("unavailable", || tonic::Status::unavailable("the source is down").into()),
    ("elapsed", || tower::timeout::error::Elapsed::new().into()),
];

/// Returns a body that fails after this number of frames.
fn failing(frames: usize, cause: Cause) -> Upload {
    let frames = (0..frames).map(|_| Ok(Frame::data(Bytes::from_static(b"data"))));
    let frames = frames.chain(once_with(move || Err(cause())));
    BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>())))
}

/// Sends each failing body to a server that would answer, and checks the verdict.
async fn table(url: &str, send: impl AsyncFn(&str, Upload) -> Result<(), BoxError>) {
    let mut table = Table::default();
    for (name, cause) in CAUSES {
        for frames in [0, 1, 3] {
            let error = expect_error(send(url, failing(frames, cause)).await);
            table.error(&(name, frames), &*error, CALLER);
        }
    }
}

fn post(url: &str, body: Upload) -> Request<Upload> {
    Request::post(url).header("host", "localhost").body(body).unwrap()
}

/// Starts an HTTP/2 server that never answers.
async fn http2_server() -> Grpc {
    let server = Grpc::start().await;
    server.set_default(Reply::nothing());
    server
}

async fn classified<S, R>(service: S, request: R) -> Result<(), BoxError>
where
    S: Service<R, Error: Into<BoxError> + std::error::Error + Send + Sync + 'static>,
{
    FaultClassifyLayer::new().errors_only().layer(service).oneshot(request).await?;
    Ok(())
}

#[tokio::test]
async fn failed_request_body_over_hyper_util_is_fault_of_caller() {
    let server = Http::start().await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    table(&server.url(), async |url, body| classified(client.clone(), post(url, body)).await).await;
    assert!(server.requests().is_empty(), "no request is complete");

    let server = http2_server().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    table(&server.url(), async |url, body| classified(client.clone(), post(url, body)).await).await;
}

#[tokio::test]
async fn failed_request_body_over_hyper_connection_is_fault_of_caller() {
    let server = Http::start().await;
    table(&server.url(), async |url, body| {
        let io = TokioIo::new(TcpStream::connect(url.trim_start_matches("http://")).await?);
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(post("/", body)).await.map(drop)?)
    })
    .await;
    let server = http2_server().await;
    table(&server.url(), async |url, body| {
        let io = TokioIo::new(TcpStream::connect(url.trim_start_matches("http://")).await?);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(post(url, body)).await.map(drop)?)
    })
    .await;
}

#[tokio::test]
async fn failed_request_body_over_reqwest_is_fault_of_caller() {
    let send = async |client: &reqwest::Client, url: &str, body: Upload| {
        let mut request = reqwest::Request::new(reqwest::Method::POST, url.parse()?);
        *request.body_mut() = Some(reqwest::Body::wrap(body));
        classified(client.clone(), request).await
    };
    let server = Http::start().await;
    let client = reqwest_client().build().unwrap();
    table(&server.url(), async |url, body| send(&client, url, body).await).await;
    let server = http2_server().await;
    let client = reqwest_client().http2_prior_knowledge().build().unwrap();
    table(&server.url(), async |url, body| send(&client, url, body).await).await;
}

#[tokio::test]
async fn failed_request_body_over_tonic_is_fault_of_caller() {
    let server = http2_server().await;
    let channel = Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    table(&server.url(), async |_, body| {
        let body = Arc::new(Mutex::new(Some(body)));
        let stack = ServiceBuilder::new()
            .map_request(move |request: Request<tonic::body::Body>| {
                let body = body.lock().unwrap().take().expect("one call is made");
                request.map(|_| tonic::body::Body::new(body))
            })
            .layer(FaultClassifyLayer::new())
            .service(channel.clone());
        let messages = tokio_stream::iter([Words { text: "one".to_owned() }]);
        let status = EchoClient::new(stack).gather(messages).await.map(drop).unwrap_err();
        let classified = source_chain(&status).any(<dyn std::error::Error>::is::<ClassifiedError>);
        assert!(classified, "{status:?}");
        Err(status.into())
    })
    .await;
}

#[tokio::test]
async fn request_body_below_content_length_is_fault_of_caller() {
    let server = Http::start().await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let frames = tokio_stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"data")))]);
    let mut request = post(&server.url(), BodyExt::boxed(StreamBody::new(frames)));
    request.headers_mut().insert("content-length", 9.into());
    let error = client.request(request).await.unwrap_err();
    Table::default().error(&"short", &error, CALLER);
    assert_eq!(classify_error(&error).origin(), Origin::Caller);
}
