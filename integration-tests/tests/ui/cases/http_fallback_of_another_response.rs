//! A ready-made HTTP answer over a service that does not return an `http::Response`.
//~ the body of the response `String` cannot be read or replaced
//~ `.http_fallback()` and `.grpc_fallback()` need an `http::Response<B>`
//~ whose `B` implements `http_body::Body`
//~ call `.fallback(...)` with a closure that returns it

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

async fn shout(word: String) -> Result<String, io::Error> {
    Ok(word.to_uppercase())
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default()).http_fallback();
    let service = ServiceBuilder::new().layer(layer).service(service_fn(shout));
    check::<String, _>(&service);
}
