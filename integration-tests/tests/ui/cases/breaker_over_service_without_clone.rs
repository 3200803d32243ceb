//! A breaker over a service that is not `Clone`: the compiler's own text is enough.
//~ the trait bound `Connection: Clone` is not satisfied
//~ required for `BreakerLayer<

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};

struct Connection;

impl Service<u32> for Connection {
    type Response = u32;
    type Error = io::Error;
    type Future = Ready<io::Result<u32>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let client = ServiceBuilder::new().layer(BreakerLayer::new(BreakerConfig::default())).service(Connection);
    check::<u32, _>(&client);
}
