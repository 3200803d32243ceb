//! A server that answers before it has received the complete body. Its client is still sending the
//! body when the retry begins.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use integration_tests::{TIMEOUT, retry_at_once};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_jitter_retry::{JitterRetryLayer, ReplayBody};

/// A body whose frames come from a channel.
struct Channel(mpsc::UnboundedReceiver<&'static str>);

impl Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data.into()))))
    }
}

/// Reads until the received text contains `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{:?}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn retry_after_early_response_has_whole_body() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (body, frames) = mpsc::unbounded_channel();
    body.send("begun ").unwrap();
    let server = async {
        let (mut first, _) = listener.accept().await.unwrap();
        read_until(&mut first, "begun ").await;
        first.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        read_until(&mut second, "begun ").await;
        body.send("ended").unwrap();
        drop(body);
        let rest = read_until(&mut second, "0\r\n\r\n").await;
        assert!(rest.contains("ended"), "{rest}");
        second.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        // The connection may end with a FIN or a RST.
        let _ = first.read_to_end(&mut rest).await;
        let rest = String::from_utf8(rest).unwrap();
        assert!(
            !rest.contains("0\r\n\r\n") && !rest.contains("ended"),
            "the first body is truncated: {rest:?}"
        );
    };
    let client = async {
        let mut stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
            .timeout(TIMEOUT)
            .service(Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Channel>>());
        let request = Request::put(url).body(ReplayBody::new(Channel(frames))).unwrap();
        let answer = stack.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    tokio::time::timeout(TIMEOUT, async { tokio::join!(server, client) }).await.unwrap();
}
