//! The fallback takes another request: the compiler's own text is enough.
//~ type mismatch in closure arguments
//~ expected closure signature `for<'a> fn(String, &'a Rejection) -> _`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, Rejection};

async fn shout(word: String) -> Result<String, io::Error> {
    Ok(word.to_uppercase())
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default()).fallback(|_: u32, _: &Rejection| String::new());
    let service = ServiceBuilder::new().layer(layer).service(service_fn(shout));
    check::<String, _>(&service);
}
