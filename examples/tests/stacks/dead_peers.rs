//! A peer that is gone while an upload waits: it does not acknowledge the pings of HTTP/2.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use examples::echo::Words;
use examples::echo::echo_client::EchoClient;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tower::{ServiceBuilder, ServiceExt};
use tower_breaker::BreakerLayer;
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::upload::UploadLayer;
use tower_jitter_retry::JitterRetryLayer;

use crate::{circuit, policy};

const PING: Duration = Duration::from_secs(20);

/// Greets as HTTP/2, and then neither answers nor acknowledges anything. Resolves when the
/// beginning of an upload, "four", has arrived.
async fn dead_peer() -> (String, oneshot::Receiver<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, begun) = oneshot::channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        socket.write_all(&empty_settings).await.unwrap();
        let mut received = Vec::new();
        while !received.windows(4).any(|bytes| bytes == b"four") {
            assert!(socket.read_buf(&mut received).await.unwrap() > 0);
        }
        sender.send(()).unwrap();
        while socket.read_buf(&mut received).await.is_ok_and(|read| read > 0) {}
    });
    (url, begun)
}

/// Lets the clock run to each next timer from the time on when the upload waits.
async fn waits(begun: oneshot::Receiver<()>) {
    begun.await.unwrap();
    tokio::time::pause();
}

#[tokio::test]
async fn lost_pings_while_upload_waits_are_a_failure_over_hyper_util() {
    let (url, begun) = dead_peer().await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_only(true)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .build_http();
    let stack = ServiceBuilder::new()
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(client);
    let (sender, frames) = mpsc::channel::<Result<_, Infallible>>(1);
    sender.send(Ok(Frame::data(Bytes::from_static(b"four")))).await.unwrap();
    let request = Request::post(url).body(StreamBody::new(ReceiverStream::new(frames))).unwrap();
    let (called, ()) = tokio::join!(stack.oneshot(request), waits(begun));
    called.unwrap_err();
    assert_eq!(circuit.status().window.failures, 1);
}

#[tokio::test]
async fn lost_pings_while_upload_waits_are_a_failure_over_reqwest() {
    let (url, begun) = dead_peer().await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .build()
        .unwrap();
    let stack = ServiceBuilder::new()
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(client);
    let (sender, frames) = mpsc::channel::<Result<_, Infallible>>(1);
    sender.send(Ok(Bytes::from_static(b"four"))).await.unwrap();
    let mut request = reqwest::Request::new(reqwest::Method::POST, url.parse().unwrap());
    *request.body_mut() = Some(reqwest::Body::wrap_stream(ReceiverStream::new(frames)));
    let (called, ()) = tokio::join!(stack.oneshot(request), waits(begun));
    called.unwrap_err();
    assert_eq!(circuit.status().window.failures, 1);
}

#[tokio::test]
async fn lost_pings_while_client_stream_waits_are_a_failure_over_tonic() {
    let (url, begun) = dead_peer().await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let endpoint = Endpoint::from_shared(url).unwrap();
    let channel = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING).connect_lazy();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(channel);
    let (sender, words) = mpsc::channel(1);
    sender.send(Words { text: "four".to_owned() }).await.unwrap();
    let mut client = EchoClient::new(stack);
    let (called, ()) = tokio::join!(client.gather(ReceiverStream::new(words)), waits(begun));
    called.unwrap_err();
    assert_eq!(circuit.status().window.failures, 1);
}
