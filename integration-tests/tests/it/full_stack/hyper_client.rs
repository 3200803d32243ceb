//! The stack over hyper-util's legacy client.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::TIMEOUT;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerError, BreakerLayer, CircuitState, Kind};
use tower_fault_classify::{FaultClassifyLayer, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{Upstream, circuit, policy};

fn put(url: &str) -> Request<Full<Bytes>> {
    Request::put(url).body(Full::new(Bytes::from_static(b"body"))).unwrap()
}

#[tokio::test]
async fn stack_over_hyper_util_retries_opens_and_rejects() {
    let upstream = Upstream::start().await;
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(Client::builder(TokioExecutor::new()).build_http());

    let response = stack.ready().await.unwrap().call(put(&upstream.url(200))).await.unwrap();
    assert_eq!((response.status(), upstream.requests()), (StatusCode::OK, 1));
    for _ in 0..2 {
        stack.ready().await.unwrap().call(put(&upstream.url(503))).await.unwrap();
    }
    assert_eq!((handle.status().state, upstream.requests()), (CircuitState::Open, 6));
    let error = stack.ready().await.unwrap().call(put(&upstream.url(200))).await.unwrap_err();
    assert!(matches!(error, BreakerError::Rejected(_)));
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn refused_connection_over_hyper_util_is_classified() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let error = client.oneshot(put(&format!("http://{free}/"))).await.unwrap_err();
    assert_eq!(classify_error(&error).kind(), Kind::Unavailable);
}
