//! Which circuits open, for which requests, and what clients and the readiness page show.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, any};
use integration_tests::reqwest_client;
use test_servers::Action;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_breaker::{BreakerLayer, Clock};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

use super::{Gateway, MARKER, OPEN_FOR, config};

#[tokio::test]
async fn dead_downstream_leaves_other_circuit_closed() {
    let gateway = Gateway::start().await;
    gateway.prices.set_default(Action::ResetAfterRequest);
    gateway.orders.set_default(Action::Echo);

    assert_eq!(gateway.status("/prices/1").await, 502);
    let (status, after, _) = gateway.get("/prices/2").await;
    assert_eq!((status, after.as_deref()), (503, Some("30")));
    assert_eq!(gateway.prices.requests().len(), 3, "three attempts open the circuit, and no more follow");
    for number in 1..=5 {
        let (status, _, body) = gateway.get(&format!("/orders/{number}?a=b")).await;
        assert_eq!((status, body), (200, format!("/{number}?a=b\n")));
    }
}

#[tokio::test]
async fn guarded_route_answers_503_until_open_duration_ends() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.status("/report").await, 200);
    gateway.report.store(500, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(gateway.get("/report").await, (500, None, String::new()));
    }
    gateway.report.store(200, Ordering::Relaxed);
    assert_eq!(gateway.get("/report").await, (503, Some("30".to_owned()), String::new()));
    assert_eq!(gateway.status("/ready").await, 200, "other routes are not affected");
    gateway.clock.advance(OPEN_FOR);
    assert_eq!(gateway.get("/report").await, (200, None, String::new()));
}

/// A router accepts only services whose error type is `Infallible`.
#[tokio::test]
async fn guarded_route_error_stays_infallible() {
    fn infallible<S: Service<Request, Error = Infallible>>(service: S) -> S {
        service
    }
    let breaker = BreakerLayer::new(config(Clock::manual().0));
    breaker.circuit().trip().unwrap();
    let route: MethodRouter<(), Infallible> =
        any(async || StatusCode::OK).layer(breaker.clone().http_fallback());
    let Ok(response) = infallible(route).oneshot(Request::new(Body::empty())).await;
    assert_eq!(response.status(), 503);

    let fine = service_fn(async |_: Request| Ok::<_, Infallible>(http::Response::new(Body::empty())));
    let Ok(response) = infallible(breaker.http_fallback().layer(fine)).oneshot(Request::default()).await;
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn readiness_page_shows_open_circuits() {
    let gateway = Gateway::start().await;
    let ready = async || {
        let (status, _, open) = gateway.get("/ready").await;
        (status, open)
    };
    assert_eq!(ready().await, (200, String::new()));

    gateway.prices.set_default(Action::status(503));
    assert_eq!(gateway.status("/prices/1").await, 503);
    assert_eq!(ready().await, (200, "prices".to_owned()));
    gateway.orders.set_default(Action::status(500));
    assert_eq!(gateway.status("/orders/1").await, 500);
    assert_eq!(ready().await, (503, "orders prices".to_owned()));

    gateway.orders.set_default(Action::status(200));
    gateway.clock.advance(OPEN_FOR);
    assert_eq!(ready().await, (200, String::new()), "both circuits admit the next call as a probe");
    assert_eq!(gateway.status("/orders/1").await, 200);
    assert_eq!(gateway.status("/prices/1").await, 503, "the probe fails, and is not retried");
    assert_eq!(gateway.prices.requests().len(), 4);
    assert_eq!(ready().await, (200, "prices".to_owned()));

    gateway.prices.set_default(Action::status(200));
    gateway.clock.advance(OPEN_FOR);
    assert_eq!(gateway.status("/prices/1").await, 200);
    assert_eq!(ready().await, (200, String::new()));
}

#[tokio::test]
async fn readiness_page_shows_forced_open_circuit() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.status("/orders/1").await, 200);
    let orders = gateway.circuits.get(&super::authority(&gateway.orders)).unwrap();
    orders.force_open().unwrap();
    assert_eq!(gateway.get("/ready").await, (503, None, "orders".to_owned()));
    orders.release();
    assert_eq!(gateway.status("/ready").await, 200);
}

#[tokio::test]
async fn downstream_gets_only_marker_of_gateway() {
    let gateway = Gateway::start().await;
    gateway.orders.script([Action::status(503), Action::status(503)]);
    let request = reqwest_client().build().unwrap().get(format!("{}/orders/1", gateway.url));
    let request = request.header("x-mine", "1").header("grpc-previous-rpc-attempts", "2");
    assert_eq!(request.send().await.unwrap().status(), 200);

    let requests = gateway.orders.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        let names: BTreeSet<_> = request.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, BTreeSet::from(["accept", "host", MARKER, "x-mine"]));
        assert_eq!(request.headers["host"], gateway.orders.url().replace("http://", ""));
    }
}

/// The caller's retry layer runs in the same process. It marks a request in its extensions, which a
/// router passes on.
#[tokio::test]
async fn retry_counts_of_client_and_gateway_are_separate() {
    let policy =
        || RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None).build().unwrap();
    for (remove, times) in [(true, 9), (false, 3)] {
        let server = test_servers::Http::start().await;
        server.set_default(Action::status(503));
        let own = JitterRetryLayer::new(policy());
        let own = if remove { own.remove_marker() } else { own };
        let client =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
        let (stack, url) = (own.layer(client), server.url());
        let forward = async move |mut request: Request| {
            *request.uri_mut() = url.parse().unwrap();
            stack.oneshot(request).await.unwrap().map(Body::new)
        };
        let app = axum::Router::new().fallback(forward);
        let caller = JitterRetryLayer::new(policy()).layer(app);
        assert_eq!(caller.clone().oneshot(Request::new(Body::empty())).await.unwrap().status(), 503);
        assert_eq!(server.requests().len(), times, "{remove}");
    }
}
