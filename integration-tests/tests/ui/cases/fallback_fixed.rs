//! The fallback has the types of the service.

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, Rejection};

async fn shout(word: String) -> Result<String, io::Error> {
    Ok(word.to_uppercase())
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default()).fallback(|word: String, _: &Rejection| word);
    let service = ServiceBuilder::new().layer(layer).service(service_fn(shout));
    check::<String, _>(&service);
}
