//! A request of its own type that can be sent again.

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{JitterRetryLayer, RequestInfo, RetryPolicy};

#[derive(Clone)]
struct Query;

impl RequestInfo for Query {}

async fn query(_: Query) -> Result<u32, io::Error> {
    Ok(7)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let database = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()).clone_requests())
        .service(service_fn(query));
    check::<Query, _>(&database);
}
