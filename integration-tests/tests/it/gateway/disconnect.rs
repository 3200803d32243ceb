//! Clients that go away while their request is under way.

use integration_tests::TIMEOUT;
use test_servers::Action;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_breaker::CircuitState;

use super::{Gateway, OPEN_FOR, authority, comes_true};

/// Asks for an order that the downstream does not answer; it has arrived there.
async fn asks(gateway: &Gateway) -> TcpStream {
    let before = gateway.orders.requests().len();
    let mut client = TcpStream::connect(gateway.url.replace("http://", "")).await.unwrap();
    client.write_all(b"GET /orders/1 HTTP/1.1\r\nhost: gateway\r\n\r\n").await.unwrap();
    gateway.orders.wait_for_requests(before + 1).await;
    client
}

#[tokio::test]
async fn client_disconnect_cancels_its_call() {
    let gateway = Gateway::start().await;
    gateway.orders.script([Action::Hang, Action::Hang]);
    for number in 1..=2 {
        drop(asks(&gateway).await);
        let circuit = gateway.circuits.get(&authority(&gateway.orders)).unwrap();
        comes_true(|| circuit.status().window.cancelled == number).await;
        assert_eq!(circuit.status().window.calls, 0);
    }
    assert_eq!(gateway.orders.requests().len(), 2, "nobody sends it again for a client that is gone");
    assert_eq!(gateway.status("/orders/2").await, 200);
}

#[tokio::test]
async fn half_open_probe_of_disconnected_client_frees_slot() {
    let gateway = Gateway::start().await;
    let circuit = gateway.circuits.get_or_insert(authority(&gateway.orders)).unwrap();
    circuit.trip().unwrap();
    gateway.clock.advance(OPEN_FOR);
    gateway.orders.script([Action::Hang]);
    let client = asks(&gateway).await;
    assert_eq!((circuit.status().state, gateway.status("/orders/2").await), (CircuitState::HalfOpen, 503));
    drop(client);
    // The clock stands still, and with it the lease: the place is free because the probe was given
    // up.
    comes_true(|| circuit.try_acquire().is_ok()).await;
    assert_eq!(gateway.status("/orders/2").await, 200);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test]
async fn gateway_shutdown_after_client_disconnect_completes() {
    let gateway = Gateway::start().await;
    gateway.orders.script([Action::Hang]);
    let client = asks(&gateway).await;
    gateway.stop.notify_one();
    drop(client);
    timeout(TIMEOUT, gateway.serving).await.unwrap().unwrap().unwrap();
}
