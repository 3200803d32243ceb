//! One stack over hyper-util's client, with a body that streams, and over a function.
//!
//! `cargo run --example hyper`

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::any;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{JitterRetryLayer, ReplayBody, Retried, RetryPolicy};

/// A body whose length nobody knows, as it comes from a file or from another server.
fn lines() -> StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Unpin> {
    let lines = ["to be ", "sent ", "again"].map(|line| Ok(Frame::data(Bytes::from(line))));
    StreamBody::new(tokio_stream::iter(lines))
}

/// Fails twice, and then tells what it was sent.
async fn upstream() -> Result<String, BoxError> {
    let asked = Arc::new(AtomicUsize::new(0));
    let answer = async move |body: String| match asked.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        _ => (StatusCode::OK, body),
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(any(answer))).await });
    Ok(url)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let policy = RetryPolicy::builder().initial_backoff(Duration::from_millis(10)).build()?;
    // Each service has a breaker layer, and so a circuit, of its own.
    let layers = |name| {
        let breaker = BreakerLayer::new(BreakerConfig::builder().name(name).consecutive_failures(4).build()?);
        let circuit = breaker.circuit();
        let layers = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy.clone()))
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(Duration::from_secs(5));
        Ok::<_, BoxError>((layers, circuit))
    };

    let (stack, circuit) = layers("upstream")?;
    let client = stack.service(Client::builder(TokioExecutor::new()).build_http());
    let url = upstream().await?;
    let request = Request::put(&url).body(ReplayBody::new(lines()))?;
    let response = client.clone().oneshot(request).await?;
    let attempts = response.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
    let text = response.into_body().collect().await?.to_bytes();
    println!("hyper: attempt {attempts} of PUT was told {:?}", String::from_utf8_lossy(&text));
    println!("hyper: the circuit is {}", circuit.status().state);

    let (stack, circuit) = layers("function")?;
    let function = stack.service(service_fn(async |request: Request<ReplayBody<_>>| {
        let size = request.into_body().collect().await?.to_bytes().len();
        println!("function: read {size} bytes, and failed");
        Err::<Response<String>, _>(BoxError::from(io::Error::from(io::ErrorKind::ConnectionReset)))
    }));
    for method in ["PUT", "POST", "POST"] {
        let request = Request::builder().method(method).uri("/").body(ReplayBody::new(lines()))?;
        if function.clone().oneshot(request).await.is_err() {
            println!("function: {method} failed; the circuit is {}", circuit.status().state);
        }
    }
    Ok(())
}
