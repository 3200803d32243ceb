//! The rule's closure names another error type than the inner service has.
//~ cannot classify a `Result<u32, Box<
//~ must have the form `|outcome: Result<&u32, &Box<

use std::io;

use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, Verdict};

async fn count(_: u32) -> Result<u32, BoxError> {
    Ok(7)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer =
        BreakerLayer::new(BreakerConfig::default()).rule(|_: Result<&u32, &io::Error>| None::<Verdict>);
    let service = ServiceBuilder::new().layer(layer).service(service_fn(count));
    check::<u32, _>(&service);
}
