//! A fully qualified `ready` shows the text of the crates.
//~ `Auto<_>` cannot classify a `Result<Rows, std::io::Error>`
//~ write `impl Outcome for Rows {}`

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
    let _ = ServiceExt::<u32>::ready(&mut database);
}
