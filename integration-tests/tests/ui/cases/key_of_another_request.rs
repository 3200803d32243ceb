//! The key function takes another request: the compiler's own text is enough.
//~ type mismatch in function arguments
//~ expected function signature `for<'a> fn(&'a String) -> _`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};

async fn shout(word: String) -> Result<String, io::Error> {
    Ok(word.to_uppercase())
}

fn tenant(_: &u32) -> u64 {
    7
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = KeyedBreakerLayer::new(KeyedConfig::default(), tenant);
    let service = ServiceBuilder::new().layer(layer).service(service_fn(shout));
    check::<String, _>(&service);
}
