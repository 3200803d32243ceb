//! The response implements `Outcome`, or is not read.

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_fault_classify::Outcome;

struct Rows;
impl Outcome for Rows {}

async fn query(_: u32) -> Result<Rows, io::Error> {
    Ok(Rows)
}

struct OtherRows;

async fn other_query(_: u32) -> Result<OtherRows, io::Error> {
    Ok(OtherRows)
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let database =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(query));
    check::<u32, _>(&database);

    let database = ServiceBuilder::new()
        .layer(BreakerLayer::new(BreakerConfig::default()).errors_only())
        .service(service_fn(other_query));
    check::<u32, _>(&database);
}
