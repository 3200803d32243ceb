//! A stack whose request type is unknown.
//~ type annotations needed
//~ cannot infer type of the type parameter

use std::io;

use tower::{ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

async fn count(_: u32) -> Result<u32, io::Error> {
    Ok(7)
}

fn main() {
    let service =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(count));
    drop(service);
}
