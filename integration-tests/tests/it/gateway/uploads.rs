//! Uploads that fail or stall at the remote client do not count as failures of the downstream
//! service.

use std::convert::Infallible;

use axum::http::Request;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::TIMEOUT;
use test_servers::Action;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower_breaker::CircuitState;

use super::{Gateway, authority, wait_until};

/// How a remote client ends a chunked upload that is not complete.
#[derive(Clone, Copy, Debug)]
enum Breaks {
    /// Writes a chunk header that is not a number.
    BadChunk,
    /// Closes its half of the connection.
    Fin,
    /// Resets the connection.
    Reset,
}

/// Sends the beginning of a chunked upload, waits until the gateway has connected to the
/// downstream service, and breaks the upload.
async fn broken_upload(gateway: &Gateway, method: &str, how: Breaks) {
    let before = gateway.orders.connections();
    let mut client = TcpStream::connect(gateway.url.replace("http://", "")).await.unwrap();
    let head = format!("{method} /orders/1 HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n");
    client.write_all(format!("{head}5\r\nhello\r\n").as_bytes()).await.unwrap();
    wait_until(|| gateway.orders.connections() > before).await;
    match how {
        Breaks::BadChunk => client.write_all(b"not a number\r\n").await.unwrap(),
        Breaks::Fin => client.shutdown().await.unwrap(),
        Breaks::Reset => return client.set_zero_linger().unwrap(),
    }
    // The gateway answers or closes the connection. Either way the upload has ended.
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
}

#[tokio::test]
async fn broken_uploads_leave_circuit_closed_and_are_sent_once() {
    for method in ["POST", "PUT"] {
        for how in [Breaks::BadChunk, Breaks::Fin, Breaks::Reset] {
            let gateway = Gateway::start().await;
            gateway.orders.set_default(Action::Echo);
            for number in 1..=3 {
                broken_upload(&gateway, method, how).await;
                assert_eq!(
                    gateway.orders.connections(),
                    number,
                    "{method} {how:?}: the request is sent once"
                );
            }
            assert_eq!(gateway.status("/orders/2").await, 200, "{method} {how:?}: another request succeeds");
            let status = gateway.circuits.get(&authority(&gateway.orders)).unwrap().status();
            assert_eq!((status.state, status.window.failures), (CircuitState::Closed, 0), "{method} {how:?}");
        }
    }
}

/// Sends the beginning of an upload and then nothing until the gateway's timeout. Returns the start
/// of the status line.
async fn stalled_upload(gateway: &Gateway, method: &str) -> String {
    let mut client = TcpStream::connect(gateway.url.replace("http://", "")).await.unwrap();
    let head = format!(
        "{method} /orders/1 HTTP/1.1\r\nhost: gateway\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    // The gateway sends it when its client polls the body for the first time.
    let mut line = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    client.read_exact(&mut line).await.unwrap();
    assert!(line.starts_with(b"HTTP/1.1 100"));
    client.write_all(b"four").await.unwrap();
    tokio::time::pause();
    tokio::time::advance(2 * TIMEOUT).await;
    tokio::time::resume();
    let mut answer = [0; "HTTP/1.1 502".len()];
    client.read_exact(&mut answer).await.unwrap();
    String::from_utf8(answer.to_vec()).unwrap()
}

#[tokio::test]
async fn stalled_uploads_leave_circuit_closed_and_are_sent_once() {
    for method in ["POST", "PUT"] {
        let gateway = Gateway::start().await;
        gateway.orders.set_default(Action::Echo);
        for number in 1..=3 {
            assert_eq!(stalled_upload(&gateway, method).await, "HTTP/1.1 502", "{method}");
            assert_eq!(gateway.orders.connections(), number, "{method}: the request is sent once");
        }
        assert_eq!(gateway.status("/orders/2").await, 200, "{method}: another request succeeds");
        let status = gateway.circuits.get(&authority(&gateway.orders)).unwrap().status();
        assert_eq!((status.state, status.window.failures), (CircuitState::Closed, 0), "{method}");
    }
}

/// The downstream service limits the time of a request, and closes the connection.
#[tokio::test]
async fn stalled_uploads_ended_by_downstream_leave_circuit_closed() {
    for method in ["POST", "PUT"] {
        let gateway = Gateway::start().await;
        gateway.orders.script([
            Action::ResetBeforeRequest,
            Action::ResetBeforeRequest,
            Action::ResetBeforeRequest,
        ]);
        gateway.orders.set_default(Action::Echo);
        for number in 1..=3 {
            let mut client = TcpStream::connect(gateway.url.replace("http://", "")).await.unwrap();
            let head =
                format!("{method} /orders/1 HTTP/1.1\r\nhost: gateway\r\ncontent-length: 1000\r\n\r\nfour");
            client.write_all(head.as_bytes()).await.unwrap();
            let mut answer = [0; "HTTP/1.1 502".len()];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 502", "{method}");
            assert_eq!(gateway.orders.connections(), number, "{method}: the request is sent once");
        }
        assert_eq!(gateway.status("/orders/2").await, 200, "{method}: another request succeeds");
        let status = gateway.circuits.get(&authority(&gateway.orders)).unwrap().status();
        assert_eq!((status.state, status.window.failures), (CircuitState::Closed, 0), "{method}");
    }
}

/// More than the number of cancelled calls that open a circuit if no call is completed.
const MANY: usize = 12;

/// A remote HTTP/2 client resets the stream of its upload and keeps the connection. The gateway
/// then drops the call.
#[tokio::test]
async fn uploads_that_http2_clients_reset_leave_circuit_closed() {
    let gateway = Gateway::start().await;
    gateway.orders.set_default(Action::Echo);
    let remote = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for number in 1..=MANY {
        let (sender, frames) = mpsc::channel::<Result<_, Infallible>>(1);
        sender.send(Ok(Frame::data(Bytes::from_static(b"hello")))).await.unwrap();
        let body = StreamBody::new(ReceiverStream::new(frames));
        let request = Request::post(format!("{}/orders/1", gateway.url)).body(body).unwrap();
        let upload = tokio::spawn(remote.request(request));
        wait_until(|| gateway.orders.connections() == number).await;
        upload.abort();
        assert!(upload.await.is_err());
        // The gateway has dropped the body and the call.
        sender.closed().await;
        assert_eq!(gateway.status("/prices/1").await, 200);
    }
    assert_eq!(gateway.status("/orders/2").await, 200, "another request succeeds");
    let status = gateway.circuits.get(&authority(&gateway.orders)).unwrap().status();
    assert_eq!((status.state, status.window.cancelled), (CircuitState::Closed, 0));
}
