//! The error implements `Error`, or is converted below the layer.

use std::fmt;
use std::io;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

#[derive(Debug)]
struct Code(u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}", self.0)
    }
}

impl std::error::Error for Code {}

async fn count(_: u32) -> Result<u32, Code> {
    Err(Code(7))
}

async fn text(_: u32) -> Result<u32, String> {
    Err("no such row".to_owned())
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let service =
        ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(service_fn(count));
    check::<u32, _>(&service);

    let service = ServiceBuilder::new()
        .layer(BreakerLayer::new(BreakerConfig::default()))
        .map_err(io::Error::other)
        .service(service_fn(text));
    check::<u32, _>(&service);
}
