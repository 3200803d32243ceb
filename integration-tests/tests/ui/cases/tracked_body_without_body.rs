//! `track_body` over a response without a body.
//~ the body of the response `String` cannot be read or replaced
//~ need an `http::Response<B>` whose `B` implements `http_body::Body`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

async fn shout(word: String) -> Result<String, io::Error> {
    Ok(word.to_uppercase())
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default()).track_body();
    let service = ServiceBuilder::new().layer(layer).service(service_fn(shout));
    check::<String, _>(&service);
}
