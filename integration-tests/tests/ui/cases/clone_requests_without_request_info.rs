//! `.clone_requests()` on the layer, and no `RequestInfo` for the request.
//~ a retry layer cannot see whether the request `Query` may be sent again
//~ write `impl RequestInfo for Query {}`

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
    let database = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()).clone_requests())
        .service(service_fn(query));
    check::<Query, _>(&database);
}
