//! The feature `reqwest` of `tower-jitter-retry` is missing.
//~ cannot classify a `Result<Response, reqwest::Error>`
//~ for `reqwest::Response`, enable the cargo feature `reqwest` of the layer's crate
//~ a retry layer cannot send the request `reqwest::Request` again
//~ `reqwest::Request` can be sent again with the cargo feature `reqwest` of `tower-jitter-retry`

use tower::{Service, ServiceBuilder};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .service(reqwest::Client::new());
    check::<reqwest::Request, _>(&client);
}
