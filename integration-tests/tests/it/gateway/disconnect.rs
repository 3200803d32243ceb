//! Clients that disconnect during their request.

use integration_tests::TIMEOUT;
use test_servers::Action;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_breaker::CircuitState;

use super::{Gateway, OPEN_FOR, authority, wait_until};

/// Sends a request that the downstream service receives but does not answer.
async fn send_unanswered(gateway: &Gateway) -> TcpStream {
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
        drop(send_unanswered(&gateway).await);
        let circuit = gateway.circuits.get(&authority(&gateway.orders)).unwrap();
        wait_until(|| circuit.status().window.cancelled == number).await;
        assert_eq!(circuit.status().window.calls, 0);
    }
    assert_eq!(gateway.orders.requests().len(), 2, "a call of a disconnected client is not retried");
    assert_eq!(gateway.status("/orders/2").await, 200);
}

#[tokio::test]
async fn half_open_probe_of_disconnected_client_frees_slot() {
    let gateway = Gateway::start().await;
    let circuit = gateway.circuits.get_or_insert(authority(&gateway.orders)).unwrap();
    circuit.trip().unwrap();
    gateway.clock.advance(OPEN_FOR);
    gateway.orders.script([Action::Hang]);
    let client = send_unanswered(&gateway).await;
    assert_eq!((circuit.status().state, gateway.status("/orders/2").await), (CircuitState::HalfOpen, 503));
    drop(client);
    // The clock does not advance, so the lease does not expire. The slot is free because the probe
    // was cancelled.
    wait_until(|| circuit.try_acquire().is_ok()).await;
    assert_eq!(gateway.status("/orders/2").await, 200);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test]
async fn gateway_shutdown_after_client_disconnect_completes() {
    let gateway = Gateway::start().await;
    gateway.orders.script([Action::Hang]);
    let client = send_unanswered(&gateway).await;
    gateway.stop.notify_one();
    drop(client);
    timeout(TIMEOUT, gateway.serving).await.unwrap().unwrap().unwrap();
}
