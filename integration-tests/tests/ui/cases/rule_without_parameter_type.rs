//! The rule's closure does not name the type of its parameter.
//~ cannot classify a `Result<u32, std::io::Error>`
//~ a closure in `.rule(...)` must have the form `|outcome: Result<&u32, &std::io::Error>| ...`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, Verdict};

async fn count(_: u32) -> Result<u32, io::Error> {
    Ok(7)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default()).rule(|_| None::<Verdict>);
    let service = ServiceBuilder::new().layer(layer).service(service_fn(count));
    check::<u32, _>(&service);
}
