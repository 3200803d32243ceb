//! The breaker below a retry layer knows which calls are retries.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, CircuitState};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

fn breaker() -> BreakerLayer {
    let config = BreakerConfig::builder().consecutive_failures(3).consecutive_failures_span(Duration::ZERO);
    BreakerLayer::new(config.build().unwrap())
}

type Sent = Request<Full<Bytes>>;

fn retry(attempts: u32) -> JitterRetryLayer {
    let policy = RetryPolicy::builder().max_attempts(attempts).budget(None);
    JitterRetryLayer::new(policy.build().unwrap())
}

/// Returns a service that always answers with 503, and the number of requests that it has received.
fn unavailable() -> (
    impl Service<Sent, Response = Response<Full<Bytes>>, Error = io::Error, Future: Send> + Clone + Send,
    Arc<AtomicU32>,
) {
    let sent = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&sent);
    let service = service_fn(move |_: Sent| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            // The answer comes in a later poll than the call.
            tokio::task::yield_now().await;
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        }
    });
    (service, sent)
}

/// Makes one call, and returns the number of failures that the circuit has counted and the number
/// of requests that were sent.
async fn one_call<S>(service: S, circuit: &Circuit, sent: &AtomicU32) -> (u64, u32)
where
    S: Service<Sent>,
{
    let _ = service.oneshot(Request::get("/").body(Full::default()).unwrap()).await;
    (circuit.status().consecutive_failures, sent.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn breaker_counts_the_first_attempt_of_a_call_only() {
    let (service, sent) = unavailable();
    let breaker = breaker();
    let circuit: Circuit = breaker.circuit();
    let service = ServiceBuilder::new().layer(retry(4)).layer(breaker).service(service);
    assert_eq!(one_call(service.clone(), &circuit, &sent).await, (1, 4));
    assert_eq!(one_call(service.clone(), &circuit, &sent).await, (2, 8));
    // The first attempt of the third call opens the circuit, which rejects its retries.
    let (_, requests) = one_call(service, &circuit, &sent).await;
    assert_eq!((circuit.status().state, requests), (CircuitState::Open, 9));
}

/// The breaker's `call` runs in the first or the second poll of the middleware's future, not in the
/// middleware's `call`.
#[tokio::test(start_paused = true)]
async fn breaker_below_an_async_middleware_counts_the_first_attempt_only() {
    for yields in [false, true] {
        let (service, sent) = unavailable();
        let breaker = breaker();
        let circuit: Circuit = breaker.circuit();
        let inner = breaker.layer(service);
        let middleware = service_fn(move |request: Sent| {
            let inner = inner.clone();
            async move {
                if yields {
                    tokio::task::yield_now().await;
                }
                inner.oneshot(request).await
            }
        });
        let service = retry(4).layer(middleware);
        assert_eq!(one_call(service, &circuit, &sent).await, (1, 4), "yields: {yields}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_after_a_retried_call_count_again() {
    let (service, sent) = unavailable();
    let breaker = breaker();
    let circuit: Circuit = breaker.circuit();
    let inner = breaker.layer(service);
    one_call(retry(4).layer(inner.clone()), &circuit, &sent).await;
    // On the same thread.
    assert_eq!(one_call(retry(1).layer(inner), &circuit, &sent).await, (2, 5));
}

/// A layer that moves calls to another task hides that they are retries.
#[tokio::test(start_paused = true)]
async fn breaker_below_a_buffer_counts_every_attempt() {
    let (service, sent) = unavailable();
    let breaker = breaker();
    let circuit: Circuit = breaker.circuit();
    let service = ServiceBuilder::new()
        .layer(retry(4))
        .map_err(io::Error::other)
        .buffer(8)
        .layer(breaker)
        .service(service);
    let (_, requests) = one_call(service, &circuit, &sent).await;
    assert_eq!((circuit.status().state, requests), (CircuitState::Open, 3));
}
