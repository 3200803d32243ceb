//! The batch example under tokio's paused clock.

#[path = "../../../../examples/batch/main.rs"]
#[expect(dead_code, reason = "the tests call `import_all` instead of `main`")]
mod example;

use std::time::Duration;

use example::{Server, import_all};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn batch_with_server_outage_imports_every_item() {
    let mut server = Server::default();
    import_all(&mut server).await.unwrap();
    assert_eq!(server.imported, (1..=100).collect::<Vec<_>>());
    // Each item takes one request, and the five failures that open the circuit take one each.
    assert_eq!(server.requests, 105);
}

#[tokio::test(start_paused = true)]
async fn batch_pauses_before_each_health_check() {
    let start = Instant::now();
    let mut server = Server::default();
    import_all(&mut server).await.unwrap();
    // The server is down for 3 s, and the worker checks once a second.
    assert_eq!(server.health_checks, 3);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
