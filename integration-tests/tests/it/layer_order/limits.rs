//! Concurrency limits, above and below the retry.

use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_breaker::CircuitState;
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};

use super::{ATTEMPT_TIMEOUT, Act, Backend, boxed, breaker, call, calls, retry};

#[tokio::test(start_paused = true)]
async fn concurrency_limit_below_retry_is_free_during_backoff() {
    let client = Backend::new([Act::Fail], Act::Take(ATTEMPT_TIMEOUT / 4));
    let backend = client.clone();
    let (attempt_timeout, slots) = (ATTEMPT_TIMEOUT, 1);
    let retry = retry();
    let (breaker, _) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .concurrency_limit(slots)
            .timeout(attempt_timeout)
            .service(client),
    );
    let start = Instant::now();
    let answers = calls(&stack, 4).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // The three other calls complete, one after the other, during the delay of the first.
    assert_eq!(
        (start.elapsed(), backend.max_running(), backend.requests()),
        (ATTEMPT_TIMEOUT + ATTEMPT_TIMEOUT / 4, 1, 5)
    );
}

#[tokio::test(start_paused = true)]
async fn concurrency_limit_above_retry_is_held_during_backoff() {
    let client = Backend::new([Act::Fail], Act::Take(ATTEMPT_TIMEOUT / 4));
    let backend = client.clone();
    let (attempt_timeout, slots) = (ATTEMPT_TIMEOUT, 1);
    let retry = retry();
    let (breaker, _) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .concurrency_limit(slots)
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(attempt_timeout)
            .service(client),
    );
    let start = Instant::now();
    let answers = calls(&stack, 4).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((start.elapsed(), backend.max_running(), backend.requests()), (2 * ATTEMPT_TIMEOUT, 1, 5));
}

#[tokio::test(start_paused = true)]
async fn call_shed_below_retry_is_retried_and_not_counted() {
    let client = Backend::new([], Act::Take(ATTEMPT_TIMEOUT / 4));
    let backend = client.clone();
    let (attempt_timeout, slots) = (ATTEMPT_TIMEOUT, 1);
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .load_shed()
            .concurrency_limit(slots)
            .timeout(attempt_timeout)
            .service(client),
    );
    let answers = calls(&stack, 8).await;
    // One of eight attempts gets the slot at 0 s, one of seven at 1 s, and one of six at 2 s.
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(classify_error(&**error).kind(), Kind::Rejected);
    }
    let status = circuit.status();
    assert_eq!((status.state, status.window.failures, backend.requests()), (CircuitState::Closed, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn call_shed_above_retry_fails_immediately() {
    let client = Backend::new([], Act::Take(ATTEMPT_TIMEOUT / 4));
    let backend = client.clone();
    let (attempt_timeout, slots) = (ATTEMPT_TIMEOUT, 1);
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(slots)
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(attempt_timeout)
            .service(client),
    );
    let start = Instant::now();
    let answers = calls(&stack, 8).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(
        (start.elapsed(), backend.requests(), circuit.status().window.calls),
        (ATTEMPT_TIMEOUT / 4, 1, 1)
    );
    call(&stack).await.unwrap();
}
