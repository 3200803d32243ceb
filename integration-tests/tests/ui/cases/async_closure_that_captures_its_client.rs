//! An `async` closure that borrows its captured client is no client of a stack.
//~ error: async closure does not implement `FnMut` because it captures state from its environment
use std::io;
use std::sync::Arc;

use tower::{Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer};

struct Client;

impl Client {
    async fn send(&self, request: u32) -> Result<u32, io::Error> {
        Ok(request)
    }
}

fn check<Request, S: Service<Request>>(_: &S) {}

fn main() {
    let client = Arc::new(Client);
    let stack = ServiceBuilder::new()
        .layer(BreakerLayer::new(BreakerConfig::default()))
        .service(service_fn(async move |request: u32| client.send(request).await));
    check::<u32, _>(&stack);
}
