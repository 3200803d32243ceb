//! The batch on a paused clock.

#[path = "../../../../examples/batch/main.rs"]
#[expect(dead_code, reason = "the test calls what `main` calls")]
mod example;

use std::time::Duration;

use example::{Server, import_all};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn batch_over_dead_server_loses_no_item() {
    let mut server = Server::default();
    import_all(&mut server).await.unwrap();
    assert_eq!(server.imported, (1..=100).collect::<Vec<_>>());
    assert_eq!(server.requests, 105);
}

#[tokio::test(start_paused = true)]
async fn batch_pauses_before_each_health_check() {
    let began = Instant::now();
    let mut server = Server::default();
    import_all(&mut server).await.unwrap();
    // The server is down for 3 s, and the worker checks once a second.
    assert_eq!(server.health_checks, 3);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
