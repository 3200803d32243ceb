//! Error bodies over reqwest's `Client`, with retries and a breaker.

use std::io::ErrorKind;
use std::time::Duration;

use integration_tests::{TIMEOUT, reqwest_client};
use reqwest::{Client, Method, Request, Response};
use test_servers::{Action, Http};
use tokio::time::timeout;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerLayer, CircuitState, Clock};
use tower_fault_classify::body::{ErrorBodies, LlmErrors};
use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, Health, Kind, Retryable};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

use super::{Axes, OUT_OF_QUOTA, OVERLOADED, RATE_LIMITED, axes, io_kind, json, server};

const QUOTA: Axes = (Kind::Quota, Retryable::Never, Health::Neutral);
const WITH_LONG_TIMEOUT: ErrorBodies<LlmErrors> = ErrorBodies::new(LlmErrors::new()).timeout(TIMEOUT);

fn client() -> Client {
    reqwest_client().build().unwrap()
}

fn post(server: &Http) -> Request {
    let mut request = Request::new(Method::POST, server.url().parse().unwrap());
    *request.body_mut() = Some("prompt".into());
    request
}

fn carried(response: &Response) -> Option<Axes> {
    CarriedVerdict::get(response).and_then(axes)
}

/// Returns a retry layer with three attempts and no delay.
fn retries() -> JitterRetryLayer {
    JitterRetryLayer::new(
        RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None).build().unwrap(),
    )
}

/// Sends one POST through the layers.
async fn send<L>(layers: L, server: &Http) -> Response
where
    L: Layer<Client, Service: Service<Request, Response = Response, Error: std::fmt::Debug>>,
{
    layers.layer(client()).ready().await.unwrap().call(post(server)).await.unwrap()
}

#[tokio::test]
async fn exhausted_quota_is_sent_once() {
    let again = std::iter::repeat_n(json(429, OUT_OF_QUOTA).header("retry-after", "0"), 3);
    let server = server(again).await;
    let layers = ServiceBuilder::new()
        .layer(retries())
        .layer(FaultClassifyLayer::new().read_error_bodies(WITH_LONG_TIMEOUT));
    let response = send(layers.clone(), &server).await;
    assert_eq!((server.requests().len(), server.remaining()), (1, 2));
    assert_eq!((response.status().as_u16(), carried(&response)), (429, Some(QUOTA)));
    assert_eq!(response.text().await.unwrap(), OUT_OF_QUOTA);

    // By its head alone, the response is an ordinary 429.
    let layers = ServiceBuilder::new().layer(retries()).layer(FaultClassifyLayer::new());
    send(layers, &server).await;
    assert_eq!((server.requests().len(), server.remaining()), (4, 0));
}

#[tokio::test]
async fn rate_limit_is_retried_until_success() {
    let server = server([json(429, RATE_LIMITED), json(529, OVERLOADED)]).await;
    server.set_default(Action::status(200).body("answer"));
    let layers = ServiceBuilder::new()
        .layer(retries())
        .layer(FaultClassifyLayer::new().read_error_bodies(WITH_LONG_TIMEOUT));
    let response = send(layers, &server).await;
    assert_eq!((response.status().as_u16(), server.remaining()), (200, 0));
    assert_eq!(response.text().await.unwrap(), "answer");
    let bodies = server.requests().into_iter().map(|request| request.body).collect::<Vec<_>>();
    assert_eq!(bodies, ["prompt"; 3], "a refused POST is retried");
}

#[tokio::test]
async fn last_response_of_retries_is_returned_unchanged() {
    let server = server(std::iter::repeat_n(json(529, OVERLOADED), 3)).await;
    let layers = ServiceBuilder::new()
        .layer(retries())
        .layer(FaultClassifyLayer::new().read_error_bodies(WITH_LONG_TIMEOUT));
    let response = send(layers, &server).await;
    assert_eq!(server.requests().len(), 3);
    assert_eq!(carried(&response), Some((Kind::Overloaded, Retryable::Refused, Health::Unhealthy)));
    assert_eq!(response.text().await.unwrap(), OVERLOADED);
}

#[tokio::test]
async fn response_with_layer_differs_only_in_verdict() {
    let action = || json(429, OUT_OF_QUOTA).header("x-one", "1").header("x-one", "2");
    let server = server([action(), action()]).await;
    let bare = client().execute(post(&server)).await.unwrap();
    let read = send(FaultClassifyLayer::new().read_error_bodies(WITH_LONG_TIMEOUT), &server).await;
    assert_eq!(read.url(), bare.url());
    assert_eq!(read.url().as_str(), format!("{}/", server.url()));
    assert_eq!(read.remote_addr(), bare.remote_addr());
    assert!(read.remote_addr().is_some());
    assert_eq!((read.version(), read.headers()), (bare.version(), bare.headers()));
    assert_eq!(read.content_length(), Some(OUT_OF_QUOTA.len() as u64));
    assert_eq!(read.content_length(), bare.content_length());
    assert_eq!(read.bytes().await.unwrap(), bare.bytes().await.unwrap());
}

#[tokio::test]
async fn error_body_sent_byte_by_byte_is_read_whole() {
    let drip = |action: Action| action.drip_body(Duration::from_micros(1));
    let server = server([drip(json(429, OUT_OF_QUOTA)), drip(json(429, OUT_OF_QUOTA).chunked())]).await;
    for _ in 0..2 {
        let response = send(FaultClassifyLayer::new().read_error_bodies(WITH_LONG_TIMEOUT), &server).await;
        assert_eq!(carried(&response), Some(QUOTA));
        assert_eq!(response.text().await.unwrap(), OUT_OF_QUOTA);
    }
}

#[tokio::test]
async fn truncated_error_body_is_classified_and_fails_for_reader() {
    let cut = || json(429, OUT_OF_QUOTA).content_length(1_000).then_close();
    let halved = || json(429, &OUT_OF_QUOTA[..40]).chunked_without_end().then_close();
    let throttled = (Kind::Throttled, Retryable::Refused, Health::Neutral);
    for (action, expected) in [(cut(), QUOTA), (halved(), throttled)] {
        let server = server([action.clone(), action]).await;
        let bare = client().execute(post(&server)).await.unwrap();
        let read = send(FaultClassifyLayer::new().read_error_bodies(WITH_LONG_TIMEOUT), &server).await;
        assert_eq!(carried(&read), Some(expected));
        assert_eq!(read.content_length(), bare.content_length());
        let (read, bare) = (read.text().await.unwrap_err(), bare.text().await.unwrap_err());
        assert_eq!(io_kind(&read), Some(ErrorKind::UnexpectedEof), "{read:?}");
        assert_eq!(io_kind(&read), io_kind(&bare));
        assert_eq!((read.to_string(), read.is_body()), (bare.to_string(), bare.is_body()));
        assert_eq!(read.is_decode(), bare.is_decode());
    }
}

#[tokio::test]
async fn stalled_error_body_does_not_block_response() {
    let server = server([json(503, "half").content_length(8)]).await;
    let bodies = ErrorBodies::new(LlmErrors::new()).timeout(Duration::from_millis(1));
    let mut response = send(FaultClassifyLayer::new().read_error_bodies(bodies), &server).await;
    assert_eq!(carried(&response).unwrap().0, Kind::Unavailable);
    assert_eq!(response.content_length(), Some(8));
    let mut text = Vec::new();
    while text.len() < 4 {
        text.extend_from_slice(&response.chunk().await.unwrap().unwrap());
    }
    assert_eq!(text, b"half");
    assert!(timeout(Duration::ZERO, response.chunk()).await.is_err());
}

/// Returns the state of a circuit that opens at the second failure, after four of these answers.
async fn circuit_after<L>(layer: L, action: Action) -> CircuitState
where
    L: Layer<Client, Service: Service<Request, Response = Response, Error: Into<tower::BoxError>>>,
    BreakerLayer: Layer<L::Service, Service: Service<Request, Response = Response>>,
{
    let server = server(std::iter::repeat_n(action, 4)).await;
    let config = BreakerConfig::builder()
        .consecutive_failures(2)
        .consecutive_failures_span(Duration::ZERO)
        .clock(Clock::manual().0)
        .build()
        .unwrap();
    let breaker = BreakerLayer::new(config);
    let circuit = breaker.circuit();
    let mut stack = breaker.layer(layer.layer(client()));
    for _ in 0..4 {
        if let Ok(service) = stack.ready().await {
            drop(service.call(post(&server)).await);
        }
    }
    circuit.status().state
}

#[tokio::test]
async fn breaker_above_uses_health_from_error_body() {
    let read = || FaultClassifyLayer::new().read_error_bodies(WITH_LONG_TIMEOUT);
    for status in [429, 500] {
        let state = circuit_after(read(), json(status, OUT_OF_QUOTA)).await;
        assert_eq!(state, CircuitState::Closed, "{status}: the server is healthy");
    }
    let state = circuit_after(FaultClassifyLayer::new(), json(500, OUT_OF_QUOTA)).await;
    assert_eq!(state, CircuitState::Open, "by its head alone, the response is a failure");
    assert_eq!(circuit_after(read(), json(429, RATE_LIMITED)).await, CircuitState::Closed);
    for status in [400, 529] {
        let state = circuit_after(read(), json(status, OVERLOADED)).await;
        assert_eq!(state, CircuitState::Open, "{status}");
    }
}
