//! The rule's closure does not return an `Option`.
//~ cannot classify a `Result<u32, std::io::Error>`
//~ a closure in `.rule(...)` must have the form
//~ and return `Option<Verdict>`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, Verdict};

async fn count(_: u32) -> Result<u32, io::Error> {
    Ok(7)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer =
        BreakerLayer::new(BreakerConfig::default()).rule(|_: Result<&u32, &io::Error>| Verdict::Success);
    let service = ServiceBuilder::new().layer(layer).service(service_fn(count));
    check::<u32, _>(&service);
}
