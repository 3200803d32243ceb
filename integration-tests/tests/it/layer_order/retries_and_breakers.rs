//! Retry, breaker and timeout, in every order that makes sense.

use std::time::Duration;

use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_breaker::CircuitState;
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};

use super::{Act, Backend, EACH, TOTAL, boxed, breaker, call, calls, retry};

#[tokio::test(start_paused = true)]
async fn attempt_is_timed_counted_and_rejected_when_open() {
    let client = Backend::new([], Act::Hang);
    let (backend, each) = (client.clone(), EACH);
    let (retry, (breaker, circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(each)
            .service(client),
    );
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), backend.requests()), (Kind::Timeout, 3));
    // The second call's second attempt is the fifth failure: the third is not sent.
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), backend.requests()), (Kind::Timeout, 5));
    assert_eq!(circuit.status().state, CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn timeout_above_retry_limits_attempts_and_delays() {
    let client = Backend::new([], Act::Hang);
    let (backend, each, total) = (client.clone(), EACH, TOTAL);
    let (retry, (breaker, circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .timeout(total)
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(each)
            .service(client),
    );
    let begun = Instant::now();
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), begun.elapsed()), (Kind::Timeout, TOTAL));
    // At 0 s and at 2 s; the second was cut after half a second, and says nothing of the server.
    let status = circuit.status();
    assert_eq!(
        (backend.times(), status.window.calls, status.window.failures),
        (vec![Duration::ZERO, 2 * EACH], 1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn breaker_above_retry_counts_calls_not_attempts() {
    let client = Backend::new([], Act::Fail);
    let (backend, each) = (client.clone(), EACH);
    let (retry, (breaker, circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .layer(breaker)
            .layer(retry)
            .layer(FaultClassifyLayer::new())
            .timeout(each)
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
    let (backend, each) = (client.clone(), EACH);
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new().timeout(each).layer(breaker).layer(FaultClassifyLayer::new()).service(client),
    );
    call(&stack).await.unwrap();
    calls(&stack, 20).await;
    // Calls that were given up are no failures while others are answered.
    assert_eq!((circuit.status().state, backend.requests()), (CircuitState::Closed, 21));
    // A window later, a bucket of it included, it holds given up calls alone.
    tokio::time::advance(Duration::from_secs(65)).await;
    calls(&stack, 10).await;
    let error = call(&stack).await.unwrap_err();
    assert_eq!((classify_error(&*error).kind(), backend.requests()), (Kind::Rejected, 31));
    assert_eq!(circuit.status().state, CircuitState::Open);
}
