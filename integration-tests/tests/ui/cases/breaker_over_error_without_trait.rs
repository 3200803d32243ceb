//! A breaker over an error that does not implement `Error`.
//~ cannot classify a `Result<u32, Code>`
//~ `Code` must implement `std::error::Error` and be `'static`, or be `BoxError`
//~ the breaker cannot answer a rejected call: `ReturnError<_>` does not fit a service
//~ without a fallback, `Code` must implement `std::error::Error` and be `'static`

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

struct Code(u16);

async fn count(_: u32) -> Result<u32, Code> {
    Err(Code(7))
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let service =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(count));
    check::<u32, _>(&service);
}
