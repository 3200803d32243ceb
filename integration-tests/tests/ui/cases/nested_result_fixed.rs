//! The response is a `Result`, and the classifier reads both errors.

use std::io;

use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::classifiers::NestedErrors;

async fn nested(_: u32) -> Result<Result<u32, BoxError>, io::Error> {
    Ok(Ok(7))
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let layer = BreakerLayer::new(BreakerConfig::default()).classify(NestedErrors::new());
    let service = ServiceBuilder::new().layer(layer).service(service_fn(nested));
    check::<u32, _>(&service);
}
