//! A `BoxCloneService` that a spawned future borrows is not `Sync`.
//~ error: future cannot be sent between threads safely
//~ the trait `Sync` is not implemented for `dyn CloneService<
use std::io;

use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer};

struct Search {
    client: BoxCloneService<u32, u32, BreakerError<io::Error>>,
}

impl Search {
    async fn send(&self, request: u32) -> Result<u32, BreakerError<io::Error>> {
        self.client.clone().oneshot(request).await
    }
}

fn main() {
    let stack = ServiceBuilder::new()
        .layer(BreakerLayer::new(BreakerConfig::default()))
        .service(service_fn(async |request: u32| Ok::<_, io::Error>(request)));
    let search = Search { client: BoxCloneService::new(stack) };
    tokio::spawn(async move { search.send(7).await });
}
