//! Uploads that stall, over real clients: with a retry layer, with an `UploadLayer`, with both, and
//! without them.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{Frames, put, upload, words};
use integration_tests::{TIMEOUT, reqwest_client};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerLayer, Circuit};
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::upload::UploadLayer;
use tower_jitter_retry::{JitterRetryLayer, ReplayBody, RetryPolicy};

use super::{circuit, policy};

/// A server for HTTP/1.1 and HTTP/2 that reads requests and never answers.
struct HangingServer {
    url: String,
    /// Receives a value when the first bytes of a request's body have arrived.
    begun: mpsc::UnboundedReceiver<()>,
}

impl HangingServer {
    async fn start() -> Self {
        let (sender, begun) = mpsc::unbounded_channel();
        let hang = async move |mut body: Body| -> StatusCode {
            body.frame().await.unwrap().unwrap();
            sender.send(()).unwrap();
            while let Some(Ok(_)) = body.frame().await {}
            std::future::pending().await
        };
        let router = axum::Router::new().fallback(hang);
        Self { url: format!("http://{}/", integration_tests::serve(router).await), begun }
    }
}

/// Makes a call. Each attempt times out when the server has received the beginning of the body.
///
/// Returns the number of attempts.
async fn attempts<S, R>(server: &mut HangingServer, service: S, request: R) -> usize
where
    S: Service<R, Response: Send, Error: Send, Future: Send> + Send + 'static,
    R: Send + 'static,
{
    let mut call = tokio::spawn(async move { service.oneshot(request).await.is_err() });
    let mut sent = 0;
    loop {
        tokio::select! {
            failed = &mut call => {
                assert!(failed.unwrap());
                return sent;
            }
            begun = server.begun.recv() => begun.unwrap(),
        }
        sent += 1;
        tokio::time::pause();
        tokio::time::advance(2 * TIMEOUT).await;
        tokio::time::resume();
    }
}

/// How an upload continues after its first four bytes.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Stalls,
    Ends,
}

/// Makes three calls. Returns the number of requests, and the number of failures that the circuit
/// counted.
async fn make_three_calls<S, R>(
    service: S,
    circuit: Circuit,
    then: Then,
    request: impl Fn(&str, Frames<Infallible>) -> R,
) -> (usize, u64)
where
    S: Service<R, Response: Send, Error: Send, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    let mut server = HangingServer::start().await;
    let mut sent = 0;
    for _ in 0..3 {
        let (sender, frames) = upload().await;
        // Dropping the sender ends the body.
        let _sender = (then == Then::Stalls).then_some(sender);
        let request = request(&server.url, frames);
        sent += attempts(&mut server, service.clone(), request).await;
    }
    (sent, circuit.status().window.failures)
}

#[tokio::test]
async fn stalled_upload_under_upload_layer_is_neutral() {
    for http2 in [false, true] {
        let breaker = BreakerLayer::new(circuit());
        let circuit = breaker.circuit();
        let stack = ServiceBuilder::new()
            .layer(UploadLayer::new())
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
        assert_eq!(make_three_calls(stack, circuit, Then::Stalls, put).await, (3, 0), "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn complete_upload_to_hung_server_is_failure() {
    for http2 in [false, true] {
        let breaker = BreakerLayer::new(circuit());
        let circuit = breaker.circuit();
        let stack = ServiceBuilder::new()
            .layer(UploadLayer::new())
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
        assert_eq!(make_three_calls(stack, circuit, Then::Ends, put).await, (3, 3), "HTTP/2: {http2}");
    }
}

/// The limit that the documentation states.
#[tokio::test]
async fn stalled_upload_without_tracking_is_failure() {
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(Client::builder(TokioExecutor::new()).build_http());
    assert_eq!(make_three_calls(stack, circuit, Then::Stalls, put).await, (3, 3));
}

#[tokio::test]
async fn stalled_upload_under_retry_layer_is_neutral_and_sent_once() {
    let replayed = |url: &str, frames| put(url, ReplayBody::new(frames));
    for http2 in [false, true] {
        let breaker = BreakerLayer::new(circuit());
        let circuit = breaker.circuit();
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy()))
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
        assert_eq!(make_three_calls(stack, circuit, Then::Stalls, replayed).await, (3, 0), "HTTP/2: {http2}");
    }
}

/// Without a classify layer and an upload layer, the breaker classifies by itself.
#[tokio::test]
async fn stalled_upload_under_retry_and_breaker_is_neutral() {
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .timeout(TIMEOUT)
        .service(Client::builder(TokioExecutor::new()).build_http());
    let replayed = |url: &str, frames| put(url, ReplayBody::new(frames));
    assert_eq!(make_three_calls(stack, circuit, Then::Stalls, replayed).await, (3, 0));
}

#[tokio::test]
async fn stalled_upload_over_reqwest_is_neutral() {
    let request = |url: &str, frames| {
        let mut request = reqwest::Request::new(reqwest::Method::PUT, url.parse().unwrap());
        *request.body_mut() = Some(reqwest::Body::wrap(frames));
        request
    };
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    // Here reqwest's own timeout ends the call.
    let client = reqwest_client().timeout(TIMEOUT).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(client);
    assert_eq!(make_three_calls(stack, circuit, Then::Stalls, request).await, (3, 0));
}

/// The channel's own timeout ends the client stream.
#[tokio::test]
async fn stalled_client_stream_over_tonic_is_neutral() {
    for (then, failures) in [(Then::Stalls, 0), (Then::Ends, 3)] {
        let mut server = HangingServer::start().await;
        let breaker = BreakerLayer::new(circuit());
        let circuit = breaker.circuit();
        let channel = Endpoint::from_shared(server.url.clone()).unwrap().timeout(TIMEOUT).connect_lazy();
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy()))
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .service(channel);
        for _ in 0..3 {
            let (sender, messages) = mpsc::channel(1);
            sender.send(words("four")).await.unwrap();
            let _sender = (then == Then::Stalls).then_some(sender);
            let client = EchoClient::new(stack.clone());
            let gather = service_fn(move |messages| {
                let mut client = client.clone();
                async move { client.gather(ReceiverStream::new(messages)).await }
            });
            assert_eq!(
                attempts(&mut server, gather, messages).await,
                1,
                "the server may have processed the call"
            );
        }
        assert_eq!(circuit.status().window.failures, failures);
    }
}

/// Drops three calls when the server has received the beginning of their uploads. Returns the
/// number of cancelled calls that the circuit counted.
async fn drop_three_calls<S, R>(
    service: S,
    circuit: Circuit,
    then: Then,
    request: impl Fn(&str, Frames<Infallible>) -> R,
) -> u64
where
    S: Service<R, Response: Send, Error: Send, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    let mut server = HangingServer::start().await;
    for _ in 0..3 {
        let (sender, frames) = upload().await;
        // Dropping the sender ends the body.
        let _sender = (then == Then::Stalls).then_some(sender);
        let request = request(&server.url, frames);
        let call = tokio::spawn(service.clone().oneshot(request));
        server.begun.recv().await.unwrap();
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
    }
    circuit.status().window.cancelled
}

#[tokio::test]
async fn call_dropped_in_upload_under_upload_layer_is_not_counted() {
    for http2 in [false, true] {
        for (then, counted) in [(Then::Stalls, 0), (Then::Ends, 3)] {
            let breaker = BreakerLayer::new(circuit());
            let circuit = breaker.circuit();
            let stack = ServiceBuilder::new()
                .layer(UploadLayer::new())
                .layer(breaker)
                .layer(FaultClassifyLayer::new())
                .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
            assert_eq!(drop_three_calls(stack, circuit, then, put).await, counted, "HTTP/2: {http2}");
        }
    }
}

#[tokio::test]
async fn call_dropped_in_upload_under_retry_layer_is_not_counted() {
    let replayed = |url: &str, frames| put(url, ReplayBody::new(frames));
    for http2 in [false, true] {
        for (then, counted) in [(Then::Stalls, 0), (Then::Ends, 3)] {
            let breaker = BreakerLayer::new(circuit());
            let circuit = breaker.circuit();
            let stack = ServiceBuilder::new()
                .layer(JitterRetryLayer::new(policy()))
                .layer(breaker)
                .layer(FaultClassifyLayer::new())
                .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
            assert_eq!(drop_three_calls(stack, circuit, then, replayed).await, counted, "HTTP/2: {http2}");
        }
    }
}

/// A client that waits for an answer before it sends more, and a server that hangs.
#[tokio::test]
async fn hung_server_with_untracked_client_stream_is_failure() {
    let untracked = RetryPolicy::builder().track_uploads(false).build().unwrap();
    for (policy, failures) in [(untracked, 3), (RetryPolicy::default(), 0)] {
        let mut server = HangingServer::start().await;
        let breaker = BreakerLayer::new(circuit());
        let circuit = breaker.circuit();
        let channel = Endpoint::from_shared(server.url.clone()).unwrap().timeout(TIMEOUT).connect_lazy();
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy))
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .service(channel);
        for _ in 0..3 {
            let (sender, messages) = mpsc::channel(1);
            sender.send(words("four")).await.unwrap();
            let client = EchoClient::new(stack.clone());
            let gather = service_fn(move |messages| {
                let mut client = client.clone();
                async move { client.gather(ReceiverStream::new(messages)).await }
            });
            assert_eq!(attempts(&mut server, gather, messages).await, 1);
            drop(sender);
        }
        assert_eq!(circuit.status().window.failures, failures);
    }
}
