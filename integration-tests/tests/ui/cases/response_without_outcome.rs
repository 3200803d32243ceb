//! The response type does not implement `Outcome`.
//~ `Auto<_>` cannot classify a `Result<Rows, std::io::Error>`
//~ `Rows` must implement `Outcome`: write `impl Outcome for Rows {}`, or call `.errors_only()`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

struct Rows;

async fn query(_: u32) -> Result<Rows, io::Error> {
    Ok(Rows)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let database =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(query));
    check::<u32, _>(&database);
}
