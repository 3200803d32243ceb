//! The request type implements neither `RequestInfo` nor `RetryRequest`.
//~ a retry layer cannot send the request `Query` again
//~ write `impl RequestInfo for Query {}` and call `.clone_requests()` on the layer

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

#[derive(Clone)]
struct Query;

async fn query(_: Query) -> Result<u32, io::Error> {
    Ok(7)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let database =
        ServiceBuilder::new().layer(JitterRetryLayer::new(RetryPolicy::default())).service(service_fn(query));
    check::<Query, _>(&database);
}
