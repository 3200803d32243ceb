//! Peers that are lost while an upload waits: one does not acknowledge HTTP/2 pings, and one closes
//! the connection because the rest of the request does not arrive in time.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{Frames, put, reqwest_client, upload, words};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::BreakerLayer;
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::upload::UploadLayer;
use tower_jitter_retry::{JitterRetryLayer, ReplayBody, RetrySafety};

use super::{circuit, policy};

const PING: Duration = Duration::from_secs(20);

/// The first bytes of an HTTP/2 server: an empty SETTINGS frame.
const HTTP2: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const HTTP1: &[u8] = &[];

/// A server that reads the beginning of an upload, "four", and never answers.
struct Peer {
    url: String,
    connections: Arc<AtomicUsize>,
    /// Notified when the beginning of an upload has arrived.
    begun: Arc<Notify>,
}

#[derive(Clone, Copy)]
enum Then {
    Silence,
    Close,
}

impl Peer {
    async fn start(greeting: &'static [u8], then: Then) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (connections, begun) = (Arc::default(), Arc::new(Notify::new()));
        let (counter, notify) = (Arc::<AtomicUsize>::clone(&connections), Arc::clone(&begun));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(read_beginning(socket, greeting, then, Arc::clone(&notify)));
            }
        });
        Self { url, connections, begun }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits for the beginning of an upload, and then pauses the clock. A paused clock jumps to the
    /// next timer.
    async fn pause_when_begun(&self) {
        self.begun.notified().await;
        tokio::time::pause();
    }
}

async fn read_beginning(mut socket: TcpStream, greeting: &[u8], then: Then, begun: Arc<Notify>) {
    socket.write_all(greeting).await.unwrap();
    let mut received = Vec::new();
    while !received.windows(4).any(|bytes| bytes == b"four") {
        assert!(socket.read_buf(&mut received).await.unwrap() > 0);
    }
    begun.notify_one();
    match then {
        Then::Silence => while socket.read_buf(&mut received).await.is_ok_and(|read| read > 0) {},
        Then::Close => {}
    }
}

fn reqwest_put(url: &str, body: Frames<Infallible>) -> reqwest::Request {
    let mut request = reqwest::Request::new(reqwest::Method::PUT, url.parse().unwrap());
    *request.body_mut() = Some(reqwest::Body::wrap(body));
    request
}

/// Sends an upload that waits, with a paused clock, until the pings time out.
async fn lose_pings<S, R>(peer: &Peer, stack: S, request: impl Fn(&str, Frames<Infallible>) -> R)
where
    S: Service<R, Error: std::fmt::Debug>,
{
    let (_sender, body) = upload().await;
    let call = stack.oneshot(request(&peer.url, body));
    let (called, ()) = tokio::join!(call, peer.pause_when_begun());
    assert!(called.is_err());
}

#[tokio::test]
async fn ping_timeout_in_upload_over_hyper_util_is_failure() {
    let peer = Peer::start(HTTP2, Then::Silence).await;
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
    lose_pings(&peer, stack, put).await;
    assert_eq!(circuit.status().window.failures, 1);
}

#[tokio::test]
async fn ping_timeout_in_upload_over_reqwest_is_failure() {
    let peer = Peer::start(HTTP2, Then::Silence).await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let client = reqwest_client()
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
    lose_pings(&peer, stack, reqwest_put).await;
    assert_eq!(circuit.status().window.failures, 1);
}

#[tokio::test]
async fn ping_timeout_in_client_stream_over_tonic_is_failure() {
    let peer = Peer::start(HTTP2, Then::Silence).await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let endpoint = Endpoint::from_shared(peer.url.clone()).unwrap();
    let channel = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING).connect_lazy();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(channel);
    let (sender, messages) = mpsc::channel(1);
    sender.send(words("four")).await.unwrap();
    let mut client = EchoClient::new(stack);
    let call = client.gather(ReceiverStream::new(messages));
    let (called, ()) = tokio::join!(call, peer.pause_when_begun());
    called.unwrap_err();
    assert_eq!(circuit.status().window.failures, 1);
}

/// Sends three uploads that wait until the peer closes the connection.
async fn close_three<S, R>(peer: &Peer, stack: S, request: impl Fn(&str, Frames<Infallible>) -> R)
where
    S: Service<R, Error: std::fmt::Debug> + Clone,
{
    for number in 1..=3 {
        let (_sender, body) = upload().await;
        assert!(stack.clone().oneshot(request(&peer.url, body)).await.is_err());
        assert_eq!(peer.connections(), number, "the request is sent once");
    }
}

#[tokio::test]
async fn upload_closed_by_peer_over_hyper_util_is_neutral() {
    for (greeting, http2) in [(HTTP1, false), (HTTP2, true)] {
        let peer = Peer::start(greeting, Then::Close).await;
        let breaker = BreakerLayer::new(circuit());
        let circuit = breaker.circuit();
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy()))
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
        close_three(&peer, stack, |url, body| put(url, ReplayBody::new(body))).await;
        assert_eq!(circuit.status().window.failures, 0, "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn upload_closed_by_peer_under_upload_layer_is_neutral() {
    let peer = Peer::start(HTTP1, Then::Close).await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(UploadLayer::new())
        .layer(breaker)
        .service(Client::builder(TokioExecutor::new()).build_http());
    close_three(&peer, stack, put).await;
    assert_eq!(circuit.status().window.failures, 0);
}

/// The retry layer does not record the stream of a `reqwest::Request`.
#[tokio::test]
async fn upload_closed_by_peer_over_reqwest_is_neutral() {
    for (greeting, http2) in [(HTTP1, false), (HTTP2, true)] {
        let peer = Peer::start(greeting, Then::Close).await;
        let breaker = BreakerLayer::new(circuit());
        let circuit = breaker.circuit();
        let builder = reqwest_client();
        let client = if http2 { builder.http2_prior_knowledge() } else { builder }.build().unwrap();
        let stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy()))
            .layer(UploadLayer::new())
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .service(client);
        close_three(&peer, stack, reqwest_put).await;
        assert_eq!(circuit.status().window.failures, 0, "HTTP/2: {http2}");
    }
}

/// The call is not retried even if the client declares it idempotent.
#[tokio::test]
async fn client_stream_closed_by_peer_over_tonic_is_neutral() {
    let peer = Peer::start(HTTP2, Then::Close).await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let channel = Endpoint::from_shared(peer.url.clone()).unwrap().connect_lazy();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(channel);
    for number in 1..=3 {
        let (sender, messages) = mpsc::channel(1);
        sender.send(words("four")).await.unwrap();
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        request.extensions_mut().insert(RetrySafety::Always);
        EchoClient::new(stack.clone()).gather(request).await.unwrap_err();
        assert_eq!(peer.connections(), number, "the request is sent once");
    }
    assert_eq!(circuit.status().window.failures, 0);
}

/// The upload is complete, so the call waits only for the server.
#[tokio::test]
async fn complete_upload_with_lost_connection_is_failure() {
    let peer = Peer::start(HTTP1, Then::Close).await;
    let breaker = BreakerLayer::new(circuit());
    let circuit = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(Client::builder(TokioExecutor::new()).build_http());
    let request = Request::post(&peer.url).body(http_body_util::Full::<Bytes>::from("four")).unwrap();
    assert!(stack.oneshot(request).await.is_err());
    assert_eq!(circuit.status().window.failures, 1);
}
