//! A kept connection that was closed while it was idle. The client notices it before the next
//! request, or after it has assigned the request to the connection and written nothing.
//!
//! The connection is in memory. With a socket, it would be random whether the client notices the
//! close before the request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::yield_now;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_fault_classify::{FaultClassifyLayer, Retryable, classify_error};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

struct Wire(TokioIo<DuplexStream>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Reads a request whose body is `once`, and answers it.
async fn answer(end: &mut DuplexStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"once") {
        assert_ne!(end.read_buf(&mut read).await.unwrap(), 0);
    }
    end.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
}

/// Sends two POSTs. The connection is closed between them. With `notices_close`, the client notices
/// this before the second POST.
///
/// Returns the second POST's status or the retryability of its fault, and the numbers of attempts
/// and connections.
async fn two_posts(
    client_retries: bool,
    max_attempts: u32,
    notices_close: bool,
) -> (Result<u16, Retryable>, usize, usize) {
    let (accepts, mut accepted) = unbounded_channel();
    let connector = service_fn(move |_: http::Uri| {
        let (near, far) = duplex(4096);
        accepts.send(far).unwrap();
        std::future::ready(Ok::<_, io::Error>(Wire(TokioIo::new(near))))
    });
    let client =
        Client::builder(TokioExecutor::new()).retry_canceled_requests(client_retries).build(connector);
    let (attempts, policy) =
        (Arc::new(AtomicUsize::new(0)), RetryPolicy::builder().initial_backoff(Duration::ZERO));
    let counter = Arc::clone(&attempts);
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy.max_attempts(max_attempts).build().unwrap()))
        .layer(FaultClassifyLayer::new())
        .map_request(move |request: Request<Full<Bytes>>| {
            counter.fetch_add(1, Ordering::Relaxed);
            request
        })
        .service(client);
    let post = || Request::post("http://server/").body(Full::from("once")).unwrap();

    let serve = async {
        let mut end = accepted.recv().await.unwrap();
        answer(&mut end).await;
        end
    };
    let (response, end) = tokio::join!(stack.ready().await.unwrap().call(post()), serve);
    response.unwrap().into_body().collect().await.unwrap();
    // Another task returns the connection to the pool.
    for _ in 0..8 {
        yield_now().await;
    }
    drop(end);
    // Without these yields no other task runs before the request, so the client does not notice.
    for _ in 0..if notices_close { 8 } else { 0 } {
        yield_now().await;
    }
    let call = stack.ready().await.unwrap().call(post());
    let mut connections = 1;
    let serve = async {
        while let Some(mut end) = accepted.recv().await {
            connections += 1;
            answer(&mut end).await;
        }
    };
    let result = tokio::select! {
        biased;
        result = call => result,
        () = serve => unreachable!("the client keeps the channel open"),
    };
    let status = result.map(|response| response.status().as_u16());
    (
        status.map_err(|error| classify_error(&error).retryable()),
        attempts.load(Ordering::Relaxed),
        connections,
    )
}

#[tokio::test]
async fn closed_idle_connection_is_not_reused() {
    assert_eq!(two_posts(false, 1, true).await, (Ok(200), 2, 2));
}

#[tokio::test]
async fn post_on_closed_idle_connection_is_resent_by_client() {
    assert_eq!(two_posts(true, 3, false).await, (Ok(200), 2, 2));
}

#[tokio::test]
async fn post_on_closed_idle_connection_is_resent_by_retry() {
    assert_eq!(two_posts(false, 3, false).await, (Ok(200), 3, 2));
    assert_eq!(two_posts(false, 1, false).await, (Err(Retryable::Unsent), 2, 1));
}
