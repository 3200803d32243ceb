//! A retry over an error that does not implement `Error`.
//~ cannot classify a `Result<u32, Code>`
//~ `Code` must implement `std::error::Error` and be `'static`, or be `BoxError`

use tower::{Service, ServiceBuilder, service_fn};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

struct Code(u16);

async fn count(_: u32) -> Result<u32, Code> {
    Err(Code(7))
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let service =
        ServiceBuilder::new().layer(JitterRetryLayer::new(RetryPolicy::default())).service(service_fn(count));
    check::<u32, _>(&service);
}
