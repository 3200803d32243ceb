//! The response is a `Result` whose error is boxed.
//~ cannot classify a `Result<Result<u32, Box<
//~ use `.classify(NestedErrors::new())`

use std::io;

use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

async fn nested(_: u32) -> Result<Result<u32, BoxError>, io::Error> {
    Ok(Ok(7))
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default());
    let service = ServiceBuilder::new().layer(layer).service(service_fn(nested));
    check::<u32, _>(&service);
}
