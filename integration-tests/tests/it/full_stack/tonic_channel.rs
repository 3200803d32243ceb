//! The stack around a tonic `Channel`, in a generated client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::TIMEOUT;
use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use integration_tests::echo::echo_server::{Echo, EchoServer};
use integration_tests::{channel, words};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tower::ServiceBuilder;
use tower_breaker::{BreakerLayer, CircuitState};
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{circuit, policy};

struct Upper(Arc<AtomicUsize>);

#[tonic::async_trait]
impl Echo for Upper {
    async fn say(&self, request: Request<Words>) -> Result<Response<Words>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let text = request.into_inner().text.to_uppercase();
        if text.is_empty() {
            Err(Status::invalid_argument("say something"))
        } else {
            Ok(Response::new(Words { text }))
        }
    }
}

async fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().add_service(EchoServer::new(Upper(Arc::clone(&calls))));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    (address, calls)
}

#[tokio::test]
async fn stack_under_generated_client_retries_opens_and_rejects() {
    let (address, calls) = serve().await;
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(channel(&format!("http://{address}")));
    let mut client = EchoClient::new(stack);

    let answer = client.say(words("hello")).await.unwrap();
    assert_eq!((&*answer.into_inner().text, calls.load(Ordering::Relaxed)), ("HELLO", 1));
    let status = client.clone().say(words("")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(handle.status().state, CircuitState::Closed);
}

#[tokio::test]
async fn dead_endpoint_under_generated_client_opens_circuit() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(channel(&format!("http://{free}")));
    let mut client = EchoClient::new(stack);
    // Each call is sent three times, because a refused connection cannot have processed it.
    for _ in 0..2 {
        let status = client.say(words("hello")).await.unwrap_err();
        assert_eq!(classify_error(&status).kind(), Kind::Unavailable, "{status:?}");
    }
    assert_eq!(handle.status().state, CircuitState::Open);
    let status = client.say(words("hello")).await.unwrap_err();
    assert_eq!((status.code(), classify_error(&status).kind()), (Code::Unavailable, Kind::Rejected));
}
