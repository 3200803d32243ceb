//! A buffer above a service that is not `Clone`.

use std::time::Duration;

use tower::ServiceBuilder;
use tower_breaker::CircuitState;
use tower_fault_classify::FaultClassifyLayer;

use super::{ATTEMPT_TIMEOUT, Act, Backend, boxed, breaker, call, calls, retry};

#[tokio::test(start_paused = true)]
async fn rate_limit_wait_is_outside_the_attempt_timeout() {
    let client = Backend::new([Act::Fail], Act::Take(ATTEMPT_TIMEOUT / 2));
    let backend = client.clone();
    let (attempt_timeout, capacity) = (ATTEMPT_TIMEOUT, 16);
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .buffer(capacity)
            .rate_limit(1, Duration::from_secs(2))
            .timeout(attempt_timeout)
            .service(client),
    );
    let answers = calls(&stack, 3).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // Three calls and one retry, two seconds apart. The last request waited for six seconds, and
    // did not time out.
    let expected: Vec<_> = (0..4).map(|request| 2 * ATTEMPT_TIMEOUT * request).collect();
    assert_eq!(backend.times(), expected);
    assert_eq!(circuit.status().window.failures, 1);
}

#[tokio::test(start_paused = true)]
async fn client_that_is_not_clone_works_behind_buffer() {
    let backend = Backend::new([Act::Fail, Act::Hang], Act::Answer);
    let client = backend.clone();
    let (attempt_timeout, capacity) = (ATTEMPT_TIMEOUT, 16);
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(attempt_timeout)
            .buffer(capacity)
            .service(NotClone(client)),
    );
    assert_eq!(call(&stack).await.unwrap(), 7);
    let status = circuit.status();
    assert_eq!(backend.requests(), 3);
    // The first attempt failed. The failure of its first retry does not count.
    assert_eq!((status.window.failures, status.window.calls, status.state), (1, 2, CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_counts_with_buffer_between_retry_and_breaker() {
    let client = Backend::new([], Act::Fail);
    let (breaker, circuit) = breaker();
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry())
            .layer(FaultClassifyLayer::new())
            .buffer(16)
            .layer(breaker)
            .service(client),
    );
    call(&stack).await.unwrap_err();
    assert_eq!(circuit.status().window.failures, 3);
}

/// A service that is not `Clone`.
struct NotClone<S>(S);

impl<S: tower::Service<u32>> tower::Service<u32> for NotClone<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: u32) -> S::Future {
        self.0.call(request)
    }
}
