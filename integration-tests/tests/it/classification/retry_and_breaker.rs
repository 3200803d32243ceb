//! How the layers around a real client use its verdicts, and the verdicts on the errors of these
//! layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use integration_tests::{reqwest_client, retry_at_once};
use reqwest::{Client, Method, Request, Response};
use test_servers::{Action, Http, RefusedPort};
use tokio::task::JoinSet;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Circuit, CircuitState, Clock};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Health, Kind, Retryable};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use super::{SHED, Table, axes, verdict};

const OPEN_FOR: Duration = Duration::from_secs(30);

/// Returns a client that follows no redirects, so a refused connection belongs to the first
/// request.
fn client() -> Client {
    reqwest_client().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

fn request(method: Method, url: &str) -> Request {
    let mut request = Request::new(method, url.parse().unwrap());
    *request.body_mut() = Some("body".into());
    request
}

fn post(url: &str) -> Request {
    request(Method::POST, url)
}

/// Returns a breaker that opens after three failed attempts in a row. Its clock does not advance.
fn breaker() -> BreakerLayer {
    let config = BreakerConfig::builder()
        .name("verdicts")
        .consecutive_failures(3)
        .consecutive_failures_span(Duration::ZERO)
        .count_failed_retries(true)
        .open_for(OPEN_FOR)
        .open_jitter(0.0)
        .clock(Clock::manual().0);
    BreakerLayer::new(config.build().unwrap())
}

fn policy() -> RetryPolicy {
    let policy = retry_at_once().budget(None);
    policy.follows_redirects(false).build().unwrap()
}

/// Starts a server, and returns it with a circuit and its breaker around reqwest's client.
async fn guarded()
-> (Http, Circuit, impl Service<Request, Response = Response, Error = BreakerError<ClassifiedError>>) {
    let breaker = breaker();
    let circuit = breaker.circuit();
    let service = ServiceBuilder::new().layer(breaker).layer(FaultClassifyLayer::new()).service(client());
    (Http::start().await, circuit, service)
}

#[tokio::test]
async fn circuit_after_429s_and_client_errors_stays_closed() {
    for status in [429, 404, 400, 401, 403, 407, 409, 413, 422, 499, 501] {
        let (server, circuit, mut service) = guarded().await;
        server.set_default(Action::status(status));
        for _ in 0..50 {
            let response = service.ready().await.unwrap().call(post(&server.url())).await.unwrap();
            assert_eq!(response.status(), status);
        }
        assert_eq!((circuit.status().state, server.requests().len()), (CircuitState::Closed, 50), "{status}");
    }
}

#[tokio::test]
async fn circuit_after_server_errors_opens() {
    for action in [
        Action::status(500),
        Action::status(503),
        Action::status(529),
        Action::ResetAfterRequest,
        Action::garbage(),
    ] {
        let (server, circuit, mut service) = guarded().await;
        server.set_default(action.clone());
        for _ in 0..3 {
            assert_eq!(circuit.status().state, CircuitState::Closed, "{action:?}");
            let _ = service.ready().await.unwrap().call(post(&server.url())).await;
        }
        assert_eq!((circuit.status().state, server.requests().len()), (CircuitState::Open, 3), "{action:?}");
    }
}

/// A neutral outcome does not change the count of failures. A healthy fault resets it.
#[tokio::test]
async fn circuit_after_429s_between_failures_opens() {
    for (between, state) in [(429, CircuitState::Open), (404, CircuitState::Closed)] {
        let (server, circuit, mut service) = guarded().await;
        server.script([500, between, 500, between, 500].map(Action::status));
        for _ in 0..5 {
            service.ready().await.unwrap().call(post(&server.url())).await.unwrap();
        }
        assert_eq!(circuit.status().state, state, "{between}");
    }
}

/// With one axis for both, a POST would be retried after a 500, or the circuit would stay closed.
#[tokio::test]
async fn retry_and_breaker_read_different_axes_of_one_verdict() {
    let refused = RefusedPort::bind().url();
    for (action, method, requests, state) in [
        (Action::status(429), Method::POST, 3, CircuitState::Closed),
        (Action::status(425), Method::POST, 3, CircuitState::Closed),
        (Action::status(408), Method::GET, 3, CircuitState::Closed),
        (Action::status(408), Method::POST, 1, CircuitState::Closed),
        (Action::status(404), Method::GET, 1, CircuitState::Closed),
        (Action::status(500), Method::GET, 3, CircuitState::Open),
        (Action::status(529), Method::POST, 3, CircuitState::Open),
        (Action::ResetAfterRequest, Method::GET, 3, CircuitState::Open),
    ] {
        let (server, circuit) = make_calls(action.clone(), method.clone(), 1).await;
        assert_eq!(
            (server.requests().len(), circuit.status().state),
            (requests, state),
            "{method} {action:?}"
        );
    }
    for action in [
        Action::status(500),
        Action::status(503),
        Action::status(507),
        Action::ResetAfterRequest,
        Action::CloseAfterRequest,
    ] {
        let (server, circuit) = make_calls(action.clone(), Method::POST, 3).await;
        assert_eq!((server.requests().len(), circuit.status().state), (3, CircuitState::Open), "{action:?}");
    }
    let breaker = breaker();
    let circuit = breaker.circuit();
    assert!(stack(breaker).oneshot(post(&refused)).await.is_err());
    assert_eq!(circuit.status().state, CircuitState::Open, "three refused connections open the circuit");
}

fn stack(
    breaker: BreakerLayer,
) -> impl Service<Request, Response = Response, Error = BreakerError<ClassifiedError>> {
    ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(client())
}

/// Makes this number of calls through all layers.
async fn make_calls(action: Action, method: Method, calls: usize) -> (Http, Circuit) {
    let (server, breaker) = (Http::start().await, breaker());
    server.set_default(action);
    let circuit = breaker.circuit();
    let mut stack = stack(breaker);
    for _ in 0..calls {
        let _ = stack.ready().await.unwrap().call(request(method.clone(), &server.url())).await;
    }
    (server, circuit)
}

#[tokio::test]
async fn open_circuit_rejects_with_remaining_time() {
    let want = axes(Kind::Rejected, Retryable::Never, Health::Neutral).after(OPEN_FOR);
    let (server, _, mut service) = guarded().await;
    server.set_default(Action::status(500));
    for _ in 0..3 {
        service.ready().await.unwrap().call(post(&server.url())).await.unwrap();
    }
    let mut table = Table::default();
    let error = service.ready().await.unwrap().call(post(&server.url())).await.unwrap_err();
    table.error(&"the breaker's error", &error, want);
    let error = FaultClassifyLayer::new().layer(service).oneshot(post(&server.url())).await.unwrap_err();
    table.error(&"classified again", &error, want);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn shed_call_is_unsent_and_neutral() {
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let service = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new())
        .load_shed()
        .concurrency_limit(1)
        .service(client());
    let running = tokio::spawn(service.clone().oneshot(post(&server.url())));
    server.wait_for_requests(1).await;
    let error = service.oneshot(post(&server.url())).await.unwrap_err();
    Table::default().error(&"shed", &error, SHED);
    running.abort();
    assert_eq!(server.requests().len(), 1);
}

/// A load shedder rejects calls while the buffer is full.
#[tokio::test]
async fn full_buffer_under_load_shed_is_rejected_unsent() {
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let service = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new())
        .load_shed()
        .buffer(1)
        .concurrency_limit(1)
        .service(client());
    // One call is at the server, and one at the worker, which waits for the limit. The buffer holds
    // one more. All others are shed.
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        calls.spawn(service.clone().oneshot(post(&server.url())));
    }
    let error = calls.join_next().await.unwrap().unwrap().unwrap_err();
    Table::default().error(&"shed", &error, SHED);
}

#[tokio::test]
async fn rejection_is_not_retried() {
    let (server, rejections) = (Http::start().await, Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&rejections);
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .map_err(move |error| {
            counter.fetch_add(
                usize::from(matches!(error, BreakerError::<ClassifiedError>::Rejected(_))),
                Ordering::Relaxed,
            );
            error
        })
        .layer(breaker())
        .layer(FaultClassifyLayer::new())
        .service(client());
    server.set_default(Action::status(500));
    for _ in 0..3 {
        stack.ready().await.unwrap().call(post(&server.url())).await.unwrap();
    }
    let error = stack.ready().await.unwrap().call(request(Method::GET, &server.url())).await.unwrap_err();
    assert_eq!(verdict(&error), axes(Kind::Rejected, Retryable::Never, Health::Neutral).after(OPEN_FOR));
    assert_eq!((rejections.load(Ordering::Relaxed), server.requests().len()), (1, 3));
}
