//! The stack in an axum route. Each request uses its own clone of the service, and errors must
//! become responses.

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use integration_tests::{TIMEOUT, reqwest_client};
use tower::ServiceBuilder;
use tower_breaker::{BreakerError, BreakerLayer, CircuitState, Kind};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{circuit, policy};

async fn explain(error: BreakerError<ClassifiedError>) -> impl IntoResponse {
    let kind = classify_error(&error).kind();
    let status =
        if kind == Kind::Rejected { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_GATEWAY };
    (status, kind.as_str())
}

#[tokio::test]
async fn stack_under_axum_route_retries_opens_and_rejects() {
    let breaker = BreakerLayer::new(circuit());
    let handle = breaker.circuit();
    let stack = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(explain))
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(TIMEOUT);
    let router = Router::new()
        .route("/fine", get(async || StatusCode::OK))
        .route("/ill", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .layer(stack);
    let url = format!("http://{}", integration_tests::serve(router).await);
    let status = async |path: &str| {
        let response = reqwest_client().build().unwrap().get(format!("{url}{path}")).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };

    assert_eq!(status("/fine").await.0, 200);
    // Three attempts each: the empty body of a GET can be sent again.
    assert_eq!(status("/ill").await.0, 500);
    assert_eq!(status("/ill").await.0, 500);
    assert_eq!(handle.status().state, CircuitState::Open);
    assert_eq!(status("/fine").await, (503, "rejected".to_owned()));
}

#[tokio::test]
async fn stack_without_breaker_stays_infallible() {
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(FaultClassifyLayer::new().keep_errors());
    let router = Router::new().route("/", get(async || StatusCode::OK)).layer(stack);
    let url = format!("http://{}", integration_tests::serve(router).await);
    assert_eq!(reqwest_client().build().unwrap().get(url).send().await.unwrap().status(), 200);
}
