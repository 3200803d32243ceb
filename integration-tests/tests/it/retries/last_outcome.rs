//! Which outcome the caller gets, over real clients, when a later attempt is rejected. The last
//! response never blocks the next attempt.

use std::fmt::{self, Debug};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::{Request, Response};
use http_body_util::Empty;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{TIMEOUT, reqwest_client, retry_at_once};
use test_servers::{Action, Grpc, Http, Reply};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::transport::Endpoint;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, TimedOut};
use tower_fault_classify::{FaultClassifyLayer, Kind};
use tower_jitter_retry::{GiveUp, JitterRetryLayer, Retried};

/// The counts of a server that allows one stream at a time.
#[derive(Clone, Default)]
struct Counts {
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

/// Serves HTTP/2 with one stream at a time on each connection. It answers the first two requests
/// with 502 and a body that does not end, and the others with 200.
async fn one_stream_at_a_time(counts: Counts) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counts.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answer(stream, Arc::clone(&counts.requests)));
        }
    });
    address
}

async fn answer(stream: TcpStream, requests: Arc<AtomicUsize>) {
    let mut server = h2::server::Builder::new();
    let mut connection = server.max_concurrent_streams(1).handshake::<_, Bytes>(stream).await.unwrap();
    // Keeps the bodies that do not end.
    let mut unfinished: Vec<SendStream<Bytes>> = Vec::new();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let fails = requests.fetch_add(1, Ordering::SeqCst) < 2;
        let head = Response::builder().status(if fails { 502 } else { 200 }).body(()).unwrap();
        let mut body = respond.send_response(head, !fails).unwrap();
        if fails {
            body.send_data(Bytes::from_static(b"the gateway"), false).unwrap();
            unfinished.push(body);
        }
    }
}

/// Makes a call, and returns the status and the number of attempts.
async fn call<S, R, B>(client: S, request: R) -> (u16, Retried)
where
    S: Service<R, Response = B, Error: Debug>,
    B: Answer,
{
    let answer = tokio::time::timeout(TIMEOUT, client.oneshot(request))
        .await
        .expect("the call does not wait for itself");
    answer.unwrap().status_and_retried()
}

trait Answer {
    fn status_and_retried(&self) -> (u16, Retried);
}

impl<B> Answer for Response<B> {
    fn status_and_retried(&self) -> (u16, Retried) {
        (self.status().as_u16(), *self.extensions().get().expect("the call was retried"))
    }
}

impl Answer for reqwest::Response {
    fn status_and_retried(&self) -> (u16, Retried) {
        (self.status().as_u16(), *self.extensions().get().expect("the call was retried"))
    }
}

#[tokio::test]
async fn response_holding_only_stream_does_not_block_next_attempt() {
    let retry = || JitterRetryLayer::new(retry_at_once().build().unwrap());
    let seen =
        |counts: &Counts| (counts.connections.load(Ordering::SeqCst), counts.requests.load(Ordering::SeqCst));

    let counts = Counts::default();
    let url = format!("http://{}/", one_stream_at_a_time(counts.clone()).await);
    let client = HyperClient::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::get(&url).body(Empty::<Bytes>::new()).unwrap();
    let (status, retried) = call(retry().layer(client), request).await;
    assert_eq!((status, retried.attempts, seen(&counts)), (200, 3, (1, 3)));

    let counts = Counts::default();
    let url = format!("http://{}/", one_stream_at_a_time(counts.clone()).await);
    let client = reqwest_client().http2_prior_knowledge();
    let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
    let (status, retried) = call(retry().layer(client.build().unwrap()), request).await;
    assert_eq!((status, retried.attempts, seen(&counts)), (200, 3, (1, 3)));
}

fn breaker() -> BreakerLayer {
    let config = BreakerConfig::builder().consecutive_failures(1).consecutive_failures_span(Duration::ZERO);
    BreakerLayer::new(config.build().unwrap())
}

#[tokio::test]
async fn circuit_opened_by_502_returns_502_over_hyper_and_reqwest() {
    let server = Http::start().await;
    server.set_default(Action::status(502).body("the upstream is down"));
    let retry = || JitterRetryLayer::new(retry_at_once().build().unwrap());

    let client = HyperClient::builder(TokioExecutor::new()).build_http();
    let stack = ServiceBuilder::new()
        .layer(retry())
        .layer(breaker().track_body())
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(client);
    let request = Request::get(server.url()).body(Empty::<Bytes>::new()).unwrap();
    let (status, retried) = call(stack, request).await;
    assert_eq!((status, retried.attempts, retried.ended), (502, 2, Some(GiveUp::Rejected)));
    assert_eq!(server.requests().len(), 1);

    let stack = ServiceBuilder::new()
        .layer(retry())
        .layer(breaker())
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());
    let request = reqwest::Request::new(http::Method::GET, server.url().parse().unwrap());
    let (status, retried) = call(stack, request).await;
    assert_eq!((status, retried.attempts, retried.ended), (502, 2, Some(GiveUp::Rejected)));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn circuit_opened_by_grpc_status_returns_that_status() {
    let server = Grpc::start().await;
    server.set_default(Reply::trailers_only(14).trailer("grpc-message", "the shard moves"));
    let policy = retry_at_once().idempotent_methods(["echo.Echo/Say"]).build().unwrap();
    let channel = Endpoint::from_shared(server.url()).unwrap().timeout(TIMEOUT).connect_lazy();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy))
        .layer(breaker())
        .layer(FaultClassifyLayer::new())
        .service(channel);
    let status = EchoClient::new(stack).say(Words { text: "hello".to_owned() }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the shard moves"));
    assert_eq!(server.requests().len(), 1);
}

/// The error of the refused connection says more than the rejection of the next attempt.
#[tokio::test]
async fn circuit_opened_by_refused_connection_returns_that_error() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(breaker())
        .layer(FaultClassifyLayer::new())
        .service(reqwest_client().build().unwrap());
    let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
    let error = stack.oneshot(request).await.unwrap_err();
    let retried = Retried::of(&error).expect("the call was retried");
    assert_eq!((retried.attempts, retried.ended), (2, Some(GiveUp::Rejected)));
    let error = error.into_inner().expect("the error is not a rejection");
    let kind = retried.last_sent.map(|fault| fault.kind());
    assert_eq!((kind, error.fault().kind()), (Some(Kind::Unavailable), Kind::Unavailable));
}

#[tokio::test]
async fn clone_of_retried_breaker_error_keeps_number_of_attempts() {
    let timed_out = |_: Request<String>| async {
        Err::<Response<String>, _>(BreakerError::<fmt::Error>::TimedOut(TimedOut::new(TIMEOUT)))
    };
    let retry = JitterRetryLayer::new(retry_at_once().build().unwrap());
    let error = retry.layer(service_fn(timed_out)).oneshot(Request::new(String::new())).await.unwrap_err();
    let retried = Retried::of(&error).expect("the call was retried");
    assert!(retried.attempts > 1);
    assert_eq!(Retried::of(&error.clone()), Some(retried));
}
