//! The layers around hyper-util's client and around a plain function.
//!
//! The program shows:
//!
//! - an upload that streams and is sent again after a 503;
//! - the same layers around an async function, without HTTP on the wire.
//!
//! ```text
//! cargo run --example hyper
//! ```

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::any;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};
use tower_fault_classify::{ErrorChain, FaultClassifyLayer};
use tower_jitter_retry::{JitterRetryLayer, ReplayBody, Retried, RetryPolicy};

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two uploads to the function.
const UPLOAD_INTERVAL: Duration = Duration::from_millis(300);

/// A streaming body that the retry layer can send again.
///
/// `ReplayBody` records the body while the first attempt sends it, up to the policy's
/// `replay_limit` of 64 KiB. A longer body is sent once, unchanged.
type Upload = ReplayBody<UnsyncBoxBody<Bytes, Infallible>>;

/// Makes a body whose length is not known in advance, such as one that another server sends.
fn upload() -> Upload {
    let chunks = ["to be ", "sent ", "again"].map(|text| Ok(Frame::data(Bytes::from(text))));
    let body = StreamBody::new(tokio_stream::iter(chunks));
    ReplayBody::new(body.boxed_unsync())
}

/// Uploads through hyper-util's client.
async fn upload_with_client(url: &str) -> Result<(), BoxError> {
    let breaker = BreakerLayer::new(BreakerConfig::builder().name("client").build()?);
    let circuit = breaker.circuit();
    let mut client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .layer(TimeoutLayer::new(ATTEMPT_TIMEOUT))
        .service(Client::builder(TokioExecutor::new()).build_http());

    // The server answers 503 twice. A PUT is idempotent, so the layer sends it again.
    let request = Request::put(url).body(upload())?;
    let response = client.ready().await?.call(request).await?;
    let attempts = response.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
    let received = response.into_body().collect().await?.to_bytes();
    println!("client: attempt {attempts} uploaded {:?}", String::from_utf8_lossy(&received));
    // The circuit counted one failure. It does not count the failures of retries.
    println!("client: the circuit is {}", circuit.status().state);
    Ok(())
}

/// Reads the upload and fails. Any async function from a request to a result can be a service.
async fn lose_connection(request: Request<Upload>) -> Result<Response<String>, BoxError> {
    let received = request.into_body().collect().await?.to_bytes();
    println!("function: received {} bytes", received.len());
    Err(io::Error::from(io::ErrorKind::ConnectionReset).into())
}

/// Uploads to a function.
async fn upload_to_function() -> Result<(), BoxError> {
    // A new breaker layer has its own circuit: the client's circuit does not count these failures.
    let breaker = BreakerLayer::new(BreakerConfig::builder().name("function").build()?);
    let mut function = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .layer(TimeoutLayer::new(ATTEMPT_TIMEOUT))
        .service(service_fn(lose_connection));

    // The PUT is sent three times, and the circuit counts its first attempt. A POST is sent once,
    // because the server may have processed it. The fourth POST is the fifth failure in a row, more
    // than a second after the first one. It opens the circuit, which rejects the last POST.
    let [put, post] = [Method::PUT, Method::POST];
    for method in [&put, &post, &post, &post, &post, &post] {
        let request = Request::builder().method(method).uri("/").body(upload())?;
        match function.ready().await?.call(request).await {
            Ok(response) => println!("function: {method}: status {}", response.status()),
            Err(BreakerError::Rejected(rejection)) => println!("function: {method} not sent: {rejection}"),
            Err(error) => println!("function: {method} failed: {}", ErrorChain(&error)),
        }
        tokio::time::sleep(UPLOAD_INTERVAL).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let url = start_server().await?;
    upload_with_client(&url).await?;
    upload_to_function().await
}

/// Starts a server on a loopback port. It answers 503 twice, then 200 with the request's body.
async fn start_server() -> Result<String, BoxError> {
    let requests = Arc::new(AtomicUsize::new(0));
    let answer = async move |body: String| {
        if requests.fetch_add(1, Ordering::Relaxed) < 2 {
            (StatusCode::SERVICE_UNAVAILABLE, String::new())
        } else {
            (StatusCode::OK, body)
        }
    };
    let router = Router::new().fallback(any(answer));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
