//! The circuit belongs to the layer, so it opens even under axum, which creates many services.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::thread;

use axum::Router;
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use futures::executor::block_on;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::telemetry::Transition;
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Circuit, CircuitState, Verdict};

use crate::support::config;

fn two_failures() -> BreakerConfig {
    config().consecutive_failures(2).build().unwrap()
}

async fn status(router: &Router, path: &str) -> StatusCode {
    router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap().status()
}

#[tokio::test]
async fn two_layer_calls_share_one_circuit() {
    let breaker = BreakerLayer::new(two_failures());
    let circuit = breaker.circuit();
    let stack = || {
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(async |_: BreakerError<std::convert::Infallible>| {
                StatusCode::SERVICE_UNAVAILABLE
            }))
            .layer(breaker.clone())
    };
    let failing = || get(async || StatusCode::INTERNAL_SERVER_ERROR);
    // Each of the two routes calls `layer()`.
    let router =
        Router::new().route("/one", failing().layer(stack())).route("/two", failing().layer(stack()));
    assert_eq!(status(&router, "/one").await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(circuit.status().state, CircuitState::Closed);
    assert_eq!(status(&router, "/two").await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(circuit.status().state, CircuitState::Open);
    assert_eq!(status(&router, "/one").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status(&router, "/two").await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn new_layer_has_own_circuit() {
    let inner = service_fn(async |()| Err::<(), _>(std::io::Error::other("down")));
    for _ in 0..10 {
        let error = BreakerLayer::new(two_failures()).layer(inner).oneshot(()).await.unwrap_err();
        assert!(matches!(error, BreakerError::Inner(_)));
    }
}

#[tokio::test]
async fn client_errors_and_throttling_do_not_open() {
    let breaker = BreakerLayer::new(two_failures());
    let circuit = breaker.circuit();
    let service = breaker.layer(service_fn(async |status: u16| {
        Ok::<_, std::io::Error>(http::Response::builder().status(status).body(()).unwrap())
    }));
    for status in [400, 401, 404, 409, 422, 429, 429, 429, 408, 499, 501] {
        service.clone().oneshot(status).await.unwrap();
    }
    assert_eq!((circuit.status().state, circuit.status().consecutive_failures), (CircuitState::Closed, 0));
    for status in [500, 503] {
        service.clone().oneshot(status).await.unwrap();
    }
    assert_eq!(circuit.status().state, CircuitState::Open);
}

#[tokio::test]
async fn calls_of_dropped_circuit_do_not_affect_next_circuit() {
    // The second circuit reuses the storage of the first one.
    let first = Circuit::new(two_failures());
    let permits: Vec<_> = (0..4).map(|_| first.try_acquire().unwrap()).collect();
    drop(first);
    let second = Circuit::new(two_failures());
    let failure = tower_breaker::fault_classify::classify_error(&std::io::Error::other("down"));
    for permit in permits {
        permit.record(Verdict::Fault(failure));
    }
    assert_eq!((second.status().state, second.status().consecutive_failures), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn transition_has_reason_fault_and_counts() {
    let (sender, transitions) = std::sync::mpsc::channel::<Transition>();
    let breaker =
        BreakerLayer::new(config().name("search").consecutive_failures(0).minimum_calls(4).build().unwrap())
            .on_transition(move |transition| sender.send(transition.clone()).unwrap());
    let mut service = breaker.layer(service_fn(async |status: u16| {
        Ok::<_, std::io::Error>(http::Response::builder().status(status).body(()).unwrap())
    }));
    for status in [200, 200, 500, 503] {
        service.ready().await.unwrap();
        tower::Service::call(&mut service, status).await.unwrap();
    }
    let transition = transitions.try_recv().unwrap();
    assert_eq!(
        (transition.circuit, transition.from, transition.to),
        ("search", CircuitState::Closed, CircuitState::Open)
    );
    assert_eq!(transition.reason, tower_breaker::Reason::FailureRate);
    assert_eq!(transition.fault.unwrap().kind(), tower_breaker::Kind::Unavailable);
    assert!((transition.counts.unwrap().failure_rate() - 0.5).abs() < f64::EPSILON);
    assert!(transitions.try_recv().is_err(), "the observer is notified once");
}

/// Each task makes some calls, with a clone of its service for each call. After each call, another
/// thread may take over the task.
#[test]
fn circuit_of_a_thousand_tasks_ends_with_last_service() {
    for keeps_first_service in [true, false] {
        let layer = BreakerLayer::new(BreakerConfig::default());
        let weak = layer.circuit().downgrade();
        let service = layer.layer(service_fn(async |(): ()| Ok::<_, io::Error>(())));
        let tasks: VecDeque<_> = (0..1_000).map(|number| (service.clone(), number % 7)).collect();
        let tasks = Mutex::new(tasks);
        let kept = keeps_first_service.then_some(service);
        drop(layer);
        assert!(weak.upgrade().is_some(), "the tasks have services");

        let next = || tasks.lock().unwrap().pop_front();
        let run = || {
            while let Some((service, calls)) = next() {
                block_on(service.clone().oneshot(())).unwrap();
                if calls > 0 {
                    tasks.lock().unwrap().push_back((service.clone(), calls - 1));
                }
            }
        };
        thread::scope(|scope| (0..16).for_each(|_| _ = scope.spawn(run)));
        assert_eq!(weak.upgrade().is_some(), keeps_first_service);
        drop(kept);
        assert!(weak.upgrade().is_none());
    }
}
