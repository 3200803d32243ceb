//! The feature `reqwest` of `tower-breaker` is missing.
//~ cannot classify a `Result<Response, reqwest::Error>`
//~ for `reqwest::Response`, enable the cargo feature `reqwest` of the layer's crate

use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let client = ServiceBuilder::new()
        .layer(BreakerLayer::new(BreakerConfig::default()))
        .service(reqwest::Client::new());
    check::<reqwest::Request, _>(&client);
}
