//! A buffer, where something beneath cannot be cloned.

use std::time::Duration;

use tower::{ServiceBuilder, service_fn};
use tower_breaker::CircuitState;
use tower_fault_classify::FaultClassifyLayer;

use super::{Act, Backend, EACH, boxed, breaker, call, calls, retry};

#[tokio::test(start_paused = true)]
async fn rate_limit_wait_is_outside_the_attempt_timeout() {
    let client = Backend::new([Act::Fail], Act::Take(EACH / 2));
    let (backend, each, waiting) = (client.clone(), EACH, 16);
    let (retry, (breaker, circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .buffer(waiting)
            .rate_limit(1, Duration::from_secs(2))
            .timeout(each)
            .service(client),
    );
    let answers = calls(&stack, 3).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // Three calls and a retry, two seconds apart: nobody was charged for the six seconds that the
    // last one waited.
    let turns: Vec<_> = (0..4).map(|turn| 2 * EACH * turn).collect();
    assert_eq!((backend.times(), circuit.status().window.failures), (turns, 1));
}

#[tokio::test(start_paused = true)]
async fn client_that_is_not_clone_works_behind_buffer() {
    let backend = Backend::new([Act::Fail, Act::Hang], Act::Answer);
    let mut only = backend.clone();
    // It borrows itself to answer, as a connection does, so that it is no `Clone`.
    let client = service_fn(move |request| tower::Service::call(&mut only, request));
    let (each, waiting) = (EACH, 16);
    let (retry, (breaker, circuit)) = (retry(), breaker());
    let stack = boxed(
        ServiceBuilder::new()
            .layer(retry)
            .layer(breaker)
            .layer(FaultClassifyLayer::new())
            .timeout(each)
            .buffer(waiting)
            .service(NotClone(client)),
    );
    assert_eq!(call(&stack).await.unwrap(), 7);
    let status = circuit.status();
    assert_eq!((backend.requests(), status.window.failures, status.state), (3, 2, CircuitState::Closed));
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
