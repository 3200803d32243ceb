//! A function that returns `impl Service` shows the text of the crates.
//~ `Auto<_>` cannot classify a `Result<Rows, std::io::Error>`
//~ write `impl Outcome for Rows {}`

use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

struct Rows;

async fn query(_: u32) -> Result<Rows, io::Error> {
    Ok(Rows)
}

fn database() -> impl Service<u32, Response = Rows> + Clone {
    ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(query))
}

fn main() {
    database();
}
