//! A classifier over an error that does not implement `Error`.
//~ cannot classify a `Result<u32, Code>`
//~ `Code` must implement `std::error::Error` and be `'static`, or be `BoxError`
//~ a `FaultClassifyLayer` cannot wrap the error `Code` in a `ClassifiedError`
//~ to return the error as it is, call `.keep_errors()` on the layer

use tower::{Service, ServiceBuilder, service_fn};
use tower_fault_classify::FaultClassifyLayer;

struct Code(u16);

async fn count(_: u32) -> Result<u32, Code> {
    Err(Code(7))
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let service = ServiceBuilder::new().layer(FaultClassifyLayer::new()).service(service_fn(count));
    check::<u32, _>(&service);
}
