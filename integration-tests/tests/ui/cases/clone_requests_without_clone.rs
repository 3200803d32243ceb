//! `.clone_requests()` on the layer, and a request that is not `Clone`.
//~ a retry layer with `CloneRequests` cannot send the request `Query` again
//~ after `.clone_requests()`, the request must implement `Clone` and `RequestInfo`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{JitterRetryLayer, RequestInfo, RetryPolicy};

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
