//! A `Buffer` is `Clone`, and `without_clone` needs no `Clone`.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use tower::{Service, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

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
    let client = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(RetryPolicy::default()))
        .buffer(8)
        .service(Connection);
    check::<u32, _>(&client);

    let client = ServiceBuilder::new()
        .layer(BreakerLayer::new(BreakerConfig::default()).without_clone())
        .service(Connection);
    check::<u32, _>(&client);
}
