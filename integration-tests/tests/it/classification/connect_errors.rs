//! Connect errors that can be tested on Linux: a full queue of connections, and a missing Unix
//! socket.

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tower::service_fn;

use super::{
    CONNECT_TIMEOUT, SHORT, Table, UNAVAILABLE_UNSENT, expect_error, hyper_util_client, reqwest_client,
    tonic_channel,
};

/// A port that neither accepts nor refuses a connection, because its queue of connections is full.
struct FullQueue {
    listener: TcpListener,
    _queued: TcpStream,
}

impl FullQueue {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(0).unwrap();
        let queued = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        Self { listener, _queued: queued }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}

#[tokio::test]
async fn connect_timeout_over_hyper_util_is_unsent() {
    let unresponsive = FullQueue::start().await;
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(SHORT));
    let client = hyper_util_client::client_with(connector);
    let error = expect_error(hyper_util_client::exchange(&client, &unresponsive.url()).await);
    Table::default().error(&"no response to a SYN", &*error, CONNECT_TIMEOUT);
}

#[tokio::test]
async fn connect_timeout_over_reqwest_is_unsent() {
    let unresponsive = FullQueue::start().await;
    let client = reqwest_client::builder().connect_timeout(SHORT).build().unwrap();
    let error = expect_error(reqwest_client::exchange(&client, &unresponsive.url()).await);
    Table::default().error(&"no response to a SYN", &*error, CONNECT_TIMEOUT);
}

#[tokio::test]
async fn connect_timeout_over_tonic_is_unsent() {
    let unresponsive = FullQueue::start().await;
    let channel = tonic_channel::endpoint(&unresponsive.url()).connect_timeout(SHORT).connect_lazy();
    tonic_channel::check(&mut Table::default(), "no response to a SYN", channel, CONNECT_TIMEOUT).await;
}

const MISSING_SOCKET: &str = "no-such.socket";

#[tokio::test]
async fn missing_unix_socket_over_hyper_util_is_unavailable_unsent() {
    let connector =
        service_fn(|_: Uri| Box::pin(async { UnixStream::connect(MISSING_SOCKET).await.map(TokioIo::new) }));
    let client = hyper_util_client::client_with(connector);
    let error = expect_error(hyper_util_client::exchange(&client, "http://unix").await);
    Table::default().error(&"not found", &*error, UNAVAILABLE_UNSENT);
}

#[tokio::test]
async fn missing_unix_socket_over_reqwest_is_unavailable_unsent() {
    let client = reqwest_client::builder().unix_socket(MISSING_SOCKET).build().unwrap();
    let error = expect_error(reqwest_client::exchange(&client, "http://unix").await);
    Table::default().error(&"not found", &*error, UNAVAILABLE_UNSENT);
}

#[tokio::test]
async fn missing_unix_socket_over_tonic_is_unavailable_unsent() {
    let connector = service_fn(async |_: Uri| UnixStream::connect(MISSING_SOCKET).await.map(TokioIo::new));
    let channel = tonic_channel::endpoint("http://unix").connect_with_connector_lazy(connector);
    tonic_channel::check(&mut Table::default(), "not found", channel, UNAVAILABLE_UNSENT).await;
}
