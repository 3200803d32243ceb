//! The stack over reqwest-middleware's `ClientWithMiddleware`.

use integration_tests::{TIMEOUT, reqwest_client};
use reqwest::{Method, Request};
use reqwest_middleware::ClientBuilder;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerError, BreakerLayer, CircuitState};
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{Upstream, circuit, policy};

#[tokio::test]
async fn stack_over_middleware_retries_opens_and_rejects() {
    let upstream = Upstream::start().await;
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(ClientBuilder::new(reqwest_client().build().unwrap()).build());
    let get = |status| Request::new(Method::GET, upstream.url(status).parse().unwrap());

    let response = stack.ready().await.unwrap().call(get(200)).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.requests()), (200, 1));
    for _ in 0..2 {
        stack.ready().await.unwrap().call(get(503)).await.unwrap();
    }
    assert_eq!((handle.status().state, upstream.requests()), (CircuitState::Open, 6));
    let error = stack.ready().await.unwrap().call(get(200)).await.unwrap_err();
    assert!(matches!(error, BreakerError::Rejected(_)));
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn refused_connection_over_middleware_is_classified() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let client = ClientBuilder::new(reqwest_client().build().unwrap()).build();
    let error = client.get(format!("http://{free}/")).send().await.unwrap_err();
    assert_eq!(classify_error(&error).kind(), Kind::Unavailable);
}
