//! The method `ready` cannot show the crates' texts: see the check function of the guide.
//~ the method `ready` exists for struct `Breaker<
//~ trait bounds were not satisfied

use std::io;

use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

struct Rows;

async fn query(_: u32) -> Result<Rows, io::Error> {
    Ok(Rows)
}

fn main() {
    let mut database =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(query));
    let _ = database.ready();
}
