//! Limits on what runs at once, above and below the retry.

use tokio::time::Instant;
use tower::ServiceBuilder;
use tower_breaker::CircuitState;
use tower_fault_classify::{FaultClassifyLayer, Kind, classify_error};

use super::{Act, Backend, EACH, boxed, breaker, call, calls, retry};

#[tokio::test(start_paused = true)]
async fn concurrency_limit_below_retry_is_free_during_backoff() {
    let client = Backend::new([Act::Fail], Act::Take(EACH / 4));
    let (backend, each, places) = (client.clone(), EACH, 1);
    let (retry, (breaker, _circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .concurrency_limit(places)
            .timeout(each)
            .service(client),
    );
    let begun = Instant::now();
    let answers = calls(&stack, 4).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // While the first waits its second, the three others are answered, one after the other.
    assert_eq!((begun.elapsed(), backend.most(), backend.requests()), (EACH + EACH / 4, 1, 5));
}

#[tokio::test(start_paused = true)]
async fn concurrency_limit_above_retry_is_held_during_backoff() {
    let client = Backend::new([Act::Fail], Act::Take(EACH / 4));
    let (backend, each, places) = (client.clone(), EACH, 1);
    let (retry, (breaker, _circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .concurrency_limit(places)
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(each)
            .service(client),
    );
    let begun = Instant::now();
    let answers = calls(&stack, 4).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((begun.elapsed(), backend.most(), backend.requests()), (2 * EACH, 1, 5));
}

#[tokio::test(start_paused = true)]
async fn call_shed_below_retry_is_retried_and_not_counted() {
    let client = Backend::new([], Act::Take(EACH / 4));
    let (backend, each, places) = (client.clone(), EACH, 1);
    let (retry, (breaker, circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .load_shed()
            .concurrency_limit(places)
            .timeout(each)
            .service(client),
    );
    let answers = calls(&stack, 8).await;
    // One of eight at once has the place at 0 s, one of seven at 1 s, one of six at 2 s.
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(classify_error(&**error).kind(), Kind::Rejected);
    }
    let status = circuit.status();
    assert_eq!((status.state, status.window.failures, backend.requests()), (CircuitState::Closed, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn call_shed_above_retry_fails_at_once() {
    let client = Backend::new([], Act::Take(EACH / 4));
    let (backend, each, places) = (client.clone(), EACH, 1);
    let (retry, (breaker, circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(places)
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(each)
            .service(client),
    );
    let begun = Instant::now();
    let answers = calls(&stack, 8).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!((begun.elapsed(), backend.requests(), circuit.status().window.calls), (EACH / 4, 1, 1));
    call(&stack).await.unwrap();
}
