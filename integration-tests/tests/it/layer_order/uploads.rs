//! Uploads whose source stalls.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::CircuitState;
use tower_fault_classify::FaultClassifyLayer;
use tower_fault_classify::upload::{UploadBody, UploadLayer};
use tower_jitter_retry::ReplayBody;

use super::{ATTEMPT_TIMEOUT, breaker, retry};

/// A streaming request body, as in a gateway: frames arrive over a channel. Dropping the sender
/// ends the body.
type Body = StreamBody<ReceiverStream<Result<Frame<Bytes>, BoxError>>>;

fn put(frames: mpsc::Receiver<Result<Frame<Bytes>, BoxError>>) -> Request<ReplayBody<Body>> {
    Request::put("/").body(ReplayBody::new(StreamBody::new(ReceiverStream::new(frames)))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn stalled_upload_is_not_retried_and_not_counted() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    // Reads the whole body, and never responds.
    let client = service_fn(move |request: Request<UploadBody<ReplayBody<Body>>>| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut body = request.into_body();
            while body.frame().await.is_some_and(|frame| frame.is_ok()) {}
            pending::<Result<http::Response<()>, BoxError>>().await
        }
    });
    let attempt_timeout = ATTEMPT_TIMEOUT;
    let retry = retry();
    let (breaker, circuit) = breaker();
    let stack = ServiceBuilder::new()
        .layer(retry)
        .layer(UploadLayer::new())
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .timeout(attempt_timeout)
        .service(client);
    for _ in 0..10 {
        let (_sender, frames) = mpsc::channel(1);
        stack.clone().oneshot(put(frames)).await.unwrap_err();
    }
    assert_eq!((sent.load(Ordering::Relaxed), circuit.status().window.failures), (10, 0));
    assert_eq!(circuit.status().state, CircuitState::Closed);

    // The body is complete, so each timeout is a failure of the server. The call is retried twice,
    // and the failures of its retries do not count.
    let (_, frames) = mpsc::channel(1);
    stack.clone().oneshot(put(frames)).await.unwrap_err();
    assert_eq!((sent.load(Ordering::Relaxed), circuit.status().window.failures), (13, 1));
}
