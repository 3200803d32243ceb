//! Retry, breaker and timeout, in each useful order.

use std::time::Duration;

use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_breaker::CircuitState;
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};

use super::{ATTEMPT_TIMEOUT, Act, Backend, CALL_TIMEOUT, boxed, breaker, call, calls, retry};

#[tokio::test(start_paused = true)]
async fn attempt_is_timed_counted_and_rejected_when_open() {
    let client = Backend::new([], Act::Hang);
    let backend = client.clone();
    let attempt_timeout = ATTEMPT_TIMEOUT;
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(attempt_timeout)
            .service(client),
    );
    for failures in 1..=4 {
        let error = call(&stack).await.unwrap_err();
        assert_eq!((classify_error(&*error).kind(), backend.requests()), (Kind::Timeout, 3 * failures));
        // The failures of the two retries do not count.
        assert_eq!(circuit.status().consecutive_failures, failures as u64);
    }
    // The first attempt of the fifth call is the fifth failure. Its retries are not sent.
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), backend.requests()), (Kind::Timeout, 13));
    assert_eq!(circuit.status().state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn failed_retry_is_not_counted_and_successful_retry_is() {
    let client = Backend::new([Act::Fail, Act::Fail, Act::Answer], Act::Fail);
    let backend = client.clone();
    let (breaker, circuit) = breaker();
    let stack = boxed(ServiceBuilder::new().layer(retry()).layer(breaker).service(client));
    assert_eq!((call(&stack).await.unwrap(), backend.requests()), (7, 3));
    let status = circuit.status();
    assert_eq!((status.window.calls, status.window.failures, status.consecutive_failures), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn timeout_above_retry_limits_attempts_and_delays() {
    let client = Backend::new([], Act::Hang);
    let backend = client.clone();
    let (attempt_timeout, call_timeout) = (ATTEMPT_TIMEOUT, CALL_TIMEOUT);
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .timeout(call_timeout)
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(attempt_timeout)
            .service(client),
    );
    let start = Instant::now();
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), start.elapsed()), (Kind::Timeout, CALL_TIMEOUT));
    // The second attempt starts at 2 s. The outer timeout ends it at 2.5 s, so it is not counted.
    let status = circuit.status();
    assert_eq!(
        (backend.times(), status.window.calls, status.window.failures),
        (vec![Duration::ZERO, 2 * ATTEMPT_TIMEOUT], 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn breaker_above_retry_counts_calls_not_attempts() {
    let client = Backend::new([], Act::Fail);
    let backend = client.clone();
    let attempt_timeout = ATTEMPT_TIMEOUT;
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .layer(breaker)
            .layer(retry)
            .layer(FaultClassifyLayer::new())
            .timeout(attempt_timeout)
            .service(client),
    );
    for _ in 0..5 {
        assert_eq!(circuit.status().state, CircuitState::Closed);
        call(&stack).await.unwrap_err();
    }
    assert_eq!((circuit.status().state, backend.requests()), (CircuitState::Open, 15));
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), backend.requests()), (Kind::Rejected, 15));
}

#[tokio::test(start_paused = true)]
async fn timeout_above_breaker_opens_it_if_nothing_completes() {
    let client = Backend::new([Act::Answer], Act::Hang);
    let backend = client.clone();
    let call_timeout = CALL_TIMEOUT;
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .timeout(call_timeout)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .service(client),
    );
    call(&stack).await.unwrap();
    calls(&stack, 20).await;
    // The calls are cancelled at the same time, so they do not show that the server hangs.
    assert_eq!((circuit.status().state, backend.requests()), (CircuitState::Closed, 21));
    // Since the last completed call, 21 calls were cancelled, over more than a second.
    tokio::time::advance(Duration::from_secs(1)).await;
    call(&stack).await.unwrap_err();
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), backend.requests()), (Kind::Rejected, 22));
    assert_eq!(circuit.status().state, CircuitState::Open);
}
