//! reqwest and reqwest-middleware with the whole stack, around the client and inside its chain:
//! what reaches the server, and what comes back.

mod counts;
mod own_retries;
mod redirected_posts;
mod redirects;
mod streams;

use integration_tests::{TIMEOUT, retry_at_once};
use reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Clock};
use tower_fault_classify::middleware::TowerMiddleware;
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::JitterRetryLayer;

/// The layers of the README, with three attempts without a delay and a circuit that stays closed.
///
/// This is a macro because the layers fit around a service of any lifetime. The return type of a
/// function could not express that.
macro_rules! layers {
    () => {{
        let policy = retry_at_once().build().unwrap();
        let circuit = BreakerConfig::builder().consecutive_failures(0).clock(Clock::manual().0);
        ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy))
            .layer(BreakerLayer::new(circuit.build().unwrap()))
            .layer(FaultClassifyLayer::new())
            .timeout(TIMEOUT)
            .into_inner()
    }};
}

/// Puts the layers around a client.
fn stack<S>(inner: S) -> impl Service<Request, Response = Response, Error = BreakerError<ClassifiedError>>
where
    S: Service<Request, Response = Response, Error: Into<BoxError>> + Clone,
{
    layers!().layer(inner)
}

/// Puts the layers inside the chain of a client.
fn inside(client: Client) -> ClientWithMiddleware {
    ClientBuilder::new(client).with(TowerMiddleware::new(layers!())).build()
}

async fn send<S, R>(stack: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    stack.ready().await?.call(request).await
}
