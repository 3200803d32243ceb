//! A ready-made HTTP answer over a service that does not return an `http::Response`.
//~ the breaker cannot answer a rejected call: `Http503` does not fit a service from `String`
//~ need the response `http::Response<B>`, whose `B` implements `Default`
//~ call `.fallback(|request: String, rejection: &Rejection| ...)` with a closure

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
