//! reqwest and reqwest-middleware under the whole stack, over it and inside its chain: what reaches the server, and what comes back.

mod counts;
mod own_retries;
mod redirected_posts;
mod redirects;
mod streams;

use std::time::Duration;

use integration_tests::text_of_example;
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Clock};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

/// Far more than anything over loopback takes: no test waits for it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The README's layers: three attempts without a delay, and a circuit that stays closed. Not a function, for what it makes fits around a
/// service of any lifetime, which a returned type could not say.
macro_rules! layers {
    () => {{
        let policy =
            RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None).build().unwrap();
        let circuit = BreakerConfig::builder().consecutive_failures(0).clock(Clock::manual().0);
        ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy))
            .layer(BreakerLayer::new(circuit.build().unwrap()))
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .into_inner()
    }};
}

/// The layers over a client.
fn stack<S>(inner: S) -> impl Service<Request, Response = Response, Error = BreakerError<ClassifiedError>>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>> + Clone,
{
    layers!().layer(inner)
}

/// The layers inside the chain of a client.
fn inside(client: Client) -> ClientWithMiddleware {
    ClientBuilder::new(client).with(TowerMiddleware::new(layers!())).build()
}

/// A client that resends nothing by itself.
fn plain() -> reqwest::ClientBuilder {
    Client::builder().no_proxy().retry(reqwest::retry::never())
}

async fn send<S, R>(stack: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    stack.ready().await?.call(request).await
}

#[test]
fn reqwest_example_retries_opens_and_recovers() {
    let text = text_of_example("reqwest");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "price: 200, 5 bytes, 3 attempt(s), judged as success",
            "archive: 200, 23 bytes, 1 attempt(s), judged as success",
            "order: 500, 0 bytes, 1 attempt(s), judged as server",
            "order: 500, 0 bytes, 1 attempt(s), judged as server",
            "order: 500, 0 bytes, 1 attempt(s), judged as server",
        ]
    );
    assert!(lines[5].starts_with("order: not sent, circuit breaker `shop` is open"), "{text}");
    assert_eq!(
        lines[6..],
        [
            "the circuit is open",
            "archive: 200, 0 bytes, 1 attempt(s), judged as success",
            "the circuit is closed",
        ]
    );
}

#[test]
fn reqwest_middleware_example_counts_calls_and_attempts() {
    let text = text_of_example("reqwest_middleware");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), &lines[..2]), (8, &["over: 503", "over: 503"][..]));
    assert!(lines[2].starts_with("over: circuit breaker `over` is open"), "{text}");
    assert_eq!(lines[3..6], ["over: 6 requests passed the chain", "inside: 503", "inside: 503"]);
    assert!(lines[6].starts_with("inside: rejected (circuit breaker `inside` is open"), "{text}");
    assert_eq!(lines[7], "inside: 3 calls, 6 requests passed the rest of the chain");
}
