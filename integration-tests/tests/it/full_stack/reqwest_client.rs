//! The stack over reqwest's `Client`.

use integration_tests::{TIMEOUT, reqwest_client};
use reqwest::{Method, Request};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerError, BreakerLayer, CircuitState, Kind};
use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{Upstream, circuit, policy};

fn get(url: &str) -> Request {
    Request::new(Method::GET, url.parse().unwrap())
}

#[tokio::test]
async fn stack_over_reqwest_retries_opens_and_rejects() {
    let upstream = Upstream::start().await;
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());

    let response = stack.ready().await.unwrap().call(get(&upstream.url(200))).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.requests()), (200, 1));

    let response = stack.ready().await.unwrap().call(get(&upstream.url(503))).await.unwrap();
    assert_eq!((response.status().as_u16(), upstream.requests()), (503, 3));
    assert_eq!(CarriedVerdict::get(&response).unwrap().fault().unwrap().kind(), Kind::Unavailable);

    stack.ready().await.unwrap().call(get(&upstream.url(503))).await.unwrap();
    assert_eq!(handle.status().state, CircuitState::Open);
    upstream.requests();
    let error = stack.ready().await.unwrap().call(get(&upstream.url(200))).await.unwrap_err();
    assert!(matches!(&error, BreakerError::Rejected(rejection) if rejection.circuit() == "stack"));
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn post_is_sent_once_unless_connection_refused() {
    let upstream = Upstream::start().await;
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());
    for (status, requests) in [(500, 1), (503, 1), (429, 3)] {
        let mut request = Request::new(Method::POST, upstream.url(status).parse().unwrap());
        *request.body_mut() = Some("body".into());
        stack.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(upstream.requests(), requests, "{status}");
    }
}

#[tokio::test]
async fn refused_connection_over_reqwest_is_classified() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let mut stack = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT)
        .service(reqwest_client().build().unwrap());
    let error = stack.ready().await.unwrap().call(get(&format!("http://{free}/"))).await.unwrap_err();
    let fault = classify_error(&error);
    assert_eq!(
        (fault.kind(), fault.retryable()),
        (Kind::Unavailable, tower_fault_classify::Retryable::Unsent)
    );
    assert!(error.get_ref().unwrap().downcast_ref::<reqwest::Error>().unwrap().is_connect());
}
