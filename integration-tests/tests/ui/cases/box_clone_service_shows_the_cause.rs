//! A function that returns a `BoxCloneService` shows the text of the crates.
//~ `Auto<_>` cannot classify a `Result<Rows, std::io::Error>`
//~ write `impl Outcome for Rows {}`

use std::io;

use tower::util::BoxCloneService;
use tower::{ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};

struct Rows;

async fn query(_: u32) -> Result<Rows, io::Error> {
    Ok(Rows)
}

fn database() -> BoxCloneService<u32, Rows, BreakerError<io::Error>> {
    let service =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(query));
    BoxCloneService::new(service)
}

fn main() {
    drop(database());
}
