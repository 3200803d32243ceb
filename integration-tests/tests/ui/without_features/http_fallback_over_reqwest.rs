//! A ready-made HTTP answer over reqwest. The feature `reqwest` of `tower-breaker` is missing.
//~ the body of the response `Response` cannot be read or replaced
//~ for `reqwest::Response`, enable the cargo feature `reqwest` of the layer's crate

use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let client = ServiceBuilder::new()
        .layer(BreakerLayer::new(BreakerConfig::default()).errors_only().http_fallback())
        .service(reqwest::Client::new());
    check::<reqwest::Request, _>(&client);
}
