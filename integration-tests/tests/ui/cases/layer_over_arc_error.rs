//! An error that is a typed and a boxed one: the markers of the layer stay unknown.
//~ type annotations needed
//~ cannot infer type of the type parameter `C` declared on the struct `BreakerLayer`

use std::sync::Arc;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

async fn count(_: u32) -> Result<u32, Arc<dyn std::error::Error + Send + Sync>> {
    Ok(7)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let service =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(count));
    check::<u32, _>(&service);
}
