//! The feature `axum` of `tower-jitter-retry` is missing.
//~ a retry layer cannot send the body `Body` again
//~ again with the cargo features `axum`, `reqwest` and `tonic` of `tower-jitter-retry`

use std::io;

use axum::body::Body;
use http::{Request, Response};
use tower::{Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

fn check<Request, S: Service<Request>>(_: &S) {}

async fn respond(_: Request<Body>) -> Result<Response<()>, io::Error> {
    Ok(Response::new(()))
}

fn main() {
    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .service(service_fn(respond));
    check::<Request<Body>, _>(&client);
}
