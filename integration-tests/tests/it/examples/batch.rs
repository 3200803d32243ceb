//! The batch example under tokio's paused clock.

#[path = "../../../../examples/batch/main.rs"]
#[expect(dead_code, reason = "the tests call `Batch::import` instead of `main`")]
mod example;

use std::time::Duration;

use example::{Batch, Server, import_circuit};
use tokio::time::Instant;
use tower_breaker::ControlError;

#[tokio::test(start_paused = true)]
async fn batch_with_server_outage_imports_every_item() {
    let (mut server, mut batch) = (Server::default(), Batch::new());
    batch.import(&mut server, &import_circuit().unwrap()).await.unwrap();
    assert_eq!(server.imported, (1..=100).collect::<Vec<_>>());
    assert!(batch.queue.is_empty() && batch.failed.is_empty());
    // Each item takes one request, and the five failures that open the circuit take one each.
    assert_eq!(server.requests, 105);
}

#[tokio::test(start_paused = true)]
async fn batch_pauses_before_each_health_check() {
    let start = Instant::now();
    let mut server = Server::default();
    Batch::new().import(&mut server, &import_circuit().unwrap()).await.unwrap();
    // The server is down for 3 s, and the worker checks once a second.
    assert_eq!(server.health_checks, 3);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn batch_with_refused_item_sets_it_aside() {
    let mut server = Server::refusing(70);
    let mut batch = Batch::new();
    batch.import(&mut server, &import_circuit().unwrap()).await.unwrap();
    assert_eq!(batch.failed, [70]);
    assert_eq!(server.imported.len(), 99);
    // 99 items, five failures in the outage, and eight failures of the refused item.
    assert_eq!(server.requests, 112);
}

#[tokio::test(start_paused = true)]
async fn batch_with_forced_circuit_returns_error_and_keeps_items() {
    let (mut server, mut batch) = (Server::default(), Batch::new());
    let circuit = import_circuit().unwrap();
    circuit.force_open().unwrap();
    let error = batch.import(&mut server, &circuit).await.unwrap_err();
    assert!(matches!(error, ControlError::Forced { .. }), "{error}");
    assert_eq!(batch.queue.len(), 100);
}
