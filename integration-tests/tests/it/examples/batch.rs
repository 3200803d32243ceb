//! The batch example under tokio's paused clock.

#[path = "../../../../examples/batch/main.rs"]
#[expect(dead_code, reason = "the tests call `Batch::import` instead of `main`")]
mod example;

use std::time::Duration;

use example::{Batch, Item, SETTINGS, Server, Settings, import_circuit};
use tokio::time::Instant;
use tower_breaker::{Circuit, CircuitState, ControlError, Reason, Status};

fn settings() -> Settings {
    toml::from_str(SETTINGS).unwrap()
}

/// Imports a batch, and returns the rest of it with the status of the circuit.
async fn import(server: &Server, settings: &Settings) -> (Batch, Status) {
    let (circuit, mut batch) = (import_circuit(settings), Batch::new());
    batch.import(server, &circuit, settings).await.unwrap();
    assert!(batch.queue.is_empty());
    (batch, circuit.status())
}

fn all_items() -> Vec<Item> {
    (1..=100).map(Item).collect()
}

#[tokio::test(start_paused = true)]
async fn batch_with_server_outage_imports_every_item() {
    let server = Server::default();
    let (batch, status) = import(&server, &settings()).await;
    assert_eq!(*server.imported.borrow(), all_items());
    assert!(batch.set_aside.is_empty());
    // Each item takes one request, and the four failures that open the circuit take one each.
    assert_eq!(server.requests.get(), 104);
    // One retry and one item.
    assert_eq!((status.state, status.rejected_calls), (CircuitState::Closed, 2));
    assert_eq!(status.last_trip.unwrap().consecutive_failures, 4);
    let failure = status.last_failure.unwrap();
    assert_eq!((&*failure.subject, &*failure.message), ("item 41", "connection refused"));
}

#[tokio::test(start_paused = true)]
async fn batch_pauses_before_each_health_check() {
    let start = Instant::now();
    let server = Server::default();
    import(&server, &settings()).await;
    // The server is down for 3 s, and the worker checks once a second.
    assert_eq!(server.health_checks.get(), 3);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn batch_with_open_time_pauses_without_health_check() {
    let start = Instant::now();
    let timed = SETTINGS.replace("[breaker]", "[breaker]\nopen_until_reset = false\nopen_for = \"2s\"");
    let server = Server::default();
    let (batch, status) = import(&server, &toml::from_str(&timed).unwrap()).await;
    assert_eq!(*server.imported.borrow(), all_items());
    assert!(batch.set_aside.is_empty());
    assert_eq!(server.health_checks.get(), 0);
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(status.last_transition.unwrap().reason, Reason::ProbesSucceeded);
}

#[tokio::test(start_paused = true)]
async fn batch_with_refused_item_sets_it_aside() {
    let server = Server { refused_item: Some(Item(70)), ..Server::default() };
    let (batch, status) = import(&server, &settings()).await;
    assert_eq!(batch.set_aside, [Item(70)]);
    assert_eq!(server.imported.borrow().len(), 99);
    // 99 items, four failures in the outage, and one request of the refused item.
    assert_eq!(server.requests.get(), 104);
    assert_eq!(status.last_failure.unwrap().subject, "item 41", "a refused item is no failure");
}

#[tokio::test(start_paused = true)]
async fn batch_with_broken_item_sets_it_aside() {
    let server = Server { broken_item: Some(Item(70)), ..Server::default() };
    let (batch, status) = import(&server, &settings()).await;
    assert_eq!(batch.set_aside, [Item(70)]);
    assert_eq!(server.imported.borrow().len(), 99);
    // 99 items, four failures in the outage, four that open the circuit again, and a failed probe.
    assert_eq!(server.requests.get(), 108);
    let failure = status.last_failure.unwrap();
    assert_eq!((&*failure.subject, &*failure.message), ("item 70", "internal error"));
}

#[tokio::test(start_paused = true)]
async fn batch_with_hanging_item_stops_its_retries_at_deadline() {
    let patient = SETTINGS.replace("max_attempts = 3", "max_attempts = 10\nbudget = \"none\"");
    let server = Server { hanging_item: Some(Item(1)), ..Server::default() };
    let (batch, status) = import(&server, &toml::from_str(&patient).unwrap()).await;
    assert_eq!(batch.set_aside, [Item(1)]);
    // Each of the first two failures of the item takes two requests, because the deadline is over
    // during the second one. These four requests open the circuit. The third failure is a probe.
    assert_eq!(server.requests.get(), 99 + 4 + 1 + 4);
    assert_eq!(status.last_failure.unwrap().subject, "item 42", "the outage follows");
}

#[tokio::test(start_paused = true)]
async fn batch_with_forced_circuit_returns_error_and_keeps_items() {
    let (server, mut batch, settings) = (Server::default(), Batch::new(), settings());
    let circuit: Circuit = import_circuit(&settings);
    circuit.force_open().unwrap();
    let error = batch.import(&server, &circuit, &settings).await.unwrap_err();
    assert!(matches!(error, ControlError::Forced { .. }), "{error}");
    assert_eq!((batch.queue.len(), server.requests.get()), (100, 0));
}
