//! reqwest and reqwest-middleware under the whole stack, over it and inside its chain: what reaches
//! the server, and what comes back.

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

/// The README's layers: three attempts without a delay, and a circuit that stays closed. Not a
/// function, for what it makes fits around a service of any lifetime, which a returned type could
/// not say.
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

async fn send<S, R>(stack: &mut S, request: R) -> Result<S::Response, S::Error>
where
    S: Service<R>,
{
    stack.ready().await?.call(request).await
}
