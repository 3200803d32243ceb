//! Errors that no table has a row for: the default, and `UnknownErrors`, which changes it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use integration_tests::retry_at_once;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerLayer, Circuit, CircuitState};
use tower_fault_classify::rules::UnknownErrors;
use tower_fault_classify::{FaultClassifyLayer, Health, Kind, Origin, Retryable, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::circuit;

/// An error that no table has a row for.
#[derive(Debug)]
struct DriverError;

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("row not found")
    }
}

impl std::error::Error for DriverError {}

/// Classifies unknown errors as neutral and not retryable.
fn setting() -> UnknownErrors {
    UnknownErrors::new(UnknownErrors::row().with_health(Health::Neutral).with_retryable(Retryable::Never))
}

/// A driver that counts its calls and fails.
#[derive(Clone, Default)]
struct Driver(Arc<AtomicU32>);

impl Driver {
    async fn query(&self) -> Result<u32, DriverError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err(DriverError)).await
    }

    fn calls(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn service(&self) -> impl Service<(), Response = u32, Error = DriverError, Future: Send> + Clone + use<> {
        let driver = self.clone();
        service_fn(move |()| {
            let driver = driver.clone();
            async move { driver.query().await }
        })
    }
}

/// Makes five calls, which open a circuit if they count as failures.
async fn call_five_times<S: Service<()> + Clone>(service: S) {
    for _ in 0..5 {
        assert!(service.clone().oneshot(()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_error_by_default_counts_and_is_retried() {
    let fault = classify_error(&DriverError);
    assert_eq!((fault.kind(), fault.retryable()), (Kind::Unknown, Retryable::IfIdempotent));
    assert_eq!((fault.health(), fault.origin()), (Health::Unhealthy, Origin::Unknown));

    let (driver, breaker) = (Driver::default(), BreakerLayer::new(circuit().build().unwrap()));
    call_five_times(breaker.layer(driver.service())).await;
    assert_eq!(breaker.circuit().status().state, CircuitState::Open);

    let retry = JitterRetryLayer::new(retry_at_once().build().unwrap()).clone_requests();
    assert!(retry.layer(driver.service()).oneshot(()).await.is_err());
    assert_eq!(driver.calls(), 5 + 3);
}

#[tokio::test(start_paused = true)]
async fn unknown_errors_next_to_client_applies_to_layers_above() {
    let (driver, breaker) = (Driver::default(), BreakerLayer::new(circuit().build().unwrap()));
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()).clone_requests())
        .layer(breaker.clone())
        .layer(FaultClassifyLayer::new().rule(setting()))
        .service(driver.service());
    call_five_times(stack).await;
    assert_eq!((driver.calls(), breaker.circuit().status().state), (5, CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn unknown_errors_is_accepted_by_every_layer_and_policy() {
    let (driver, breaker) = (Driver::default(), BreakerLayer::new(circuit().build().unwrap()));
    let breaker = breaker.rule(setting());
    call_five_times(breaker.layer(driver.service())).await;
    assert_eq!(breaker.circuit().status().state, CircuitState::Closed);

    let policy = retry_at_once().build().unwrap();
    let retry = JitterRetryLayer::new(policy.clone()).clone_requests().rule(setting());
    assert!(retry.layer(driver.service()).oneshot(()).await.is_err());
    assert!(policy.errors_only().rule(setting()).retry(|| driver.query()).await.is_err());
    assert_eq!(driver.calls(), 5 + 1 + 1);
}

#[tokio::test(start_paused = true)]
async fn unknown_errors_is_accepted_by_circuit_without_layer() {
    let (driver, circuit) = (Driver::default(), Circuit::new(circuit().build().unwrap()));
    for _ in 0..5 {
        assert!(circuit.errors_only().rule(setting()).call(driver.query()).await.is_err());
    }
    assert_eq!((driver.calls(), circuit.status().state), (5, CircuitState::Closed));
}
