//! Uploads that wait for their source when a timeout ends the attempt: the server did not cause the
//! timeout, and the request is not sent again.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{error::Elapsed, timeout};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_breaker::{BreakerConfig, BreakerLayer, CircuitState};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer};
use tower_jitter_retry::fault_classify::{Health, Kind, Origin, Retryable, classify_error};
use tower_jitter_retry::{JitterRetryLayer, ReplayBody};

use crate::support::{Calls, immediate, send};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A body that sends these frames, and then waits forever or ends.
struct Upload {
    frames: VecDeque<Bytes>,
    stalls: bool,
}

fn upload(frames: usize, stalls: bool) -> ReplayBody<Upload> {
    ReplayBody::new(Upload { frames: vec![Bytes::from_static(&[7; 1_000]); frames].into(), stalls })
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.frames.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

type Put = Request<ReplayBody<Upload>>;

/// A client that reads this many frames of the request's body, and never gets a response.
fn hangs(
    frames: usize,
    calls: &Calls,
) -> impl Service<Put, Response = Response<()>, Error = Elapsed, Future: Send> + Clone {
    let calls = calls.clone();
    service_fn(move |request: Put| {
        calls.next();
        timeout(TIMEOUT, async move {
            let mut body = request.into_body();
            for _ in 0..frames {
                if body.frame().await.is_none() {
                    break;
                }
            }
            std::future::pending().await
        })
    })
}

fn put(body: ReplayBody<Upload>) -> Put {
    Request::put("/").body(body).unwrap()
}

/// Returns how many times a request is sent by a retry layer alone.
async fn attempts(body: ReplayBody<Upload>, read: usize) -> usize {
    let calls = Calls::default();
    let layer = JitterRetryLayer::new(immediate().replay_limit(10_000).build().unwrap());
    send(&mut layer.layer(hangs(read, &calls)), put(body)).await.unwrap_err();
    calls.made()
}

#[tokio::test(start_paused = true)]
async fn timeout_while_upload_waits_is_not_retried() {
    assert_eq!(attempts(upload(0, true), 100).await, 1);
    assert_eq!(attempts(upload(3, true), 100).await, 1);
}

#[tokio::test(start_paused = true)]
async fn timeout_of_complete_or_unread_upload_is_retried() {
    assert_eq!(attempts(upload(3, false), 100).await, 3, "the upload is complete");
    assert_eq!(attempts(upload(3, true), 2).await, 3, "the client has stopped reading");
    assert_eq!(attempts(upload(3, true), 0).await, 3, "the client has not read at all");
}

/// An upload that has exceeded the limit is no longer kept, but it is still tracked.
#[tokio::test(start_paused = true)]
async fn upload_over_replay_limit_is_tracked() {
    let calls = Calls::default();
    let verdicts = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&verdicts);
    let mut service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(immediate().replay_limit(10_000).build().unwrap()))
        .map_err(move |error: ClassifiedError| {
            noted.lock().unwrap().push(error.fault());
            error
        })
        .layer(FaultClassifyLayer::new())
        .service(hangs(100, &calls));
    send(&mut service, put(upload(30, true))).await.unwrap_err();
    let verdict = verdicts.lock().unwrap().pop().unwrap();
    assert_eq!((verdict.kind(), verdict.origin()), (Kind::Timeout, Origin::Caller));
    assert_eq!((verdict.retryable(), verdict.health()), (Retryable::Never, Health::Neutral));
}

#[tokio::test(start_paused = true)]
async fn upload_is_tracked_in_its_last_attempt() {
    let calls = Calls::default();
    let counted = calls.clone();
    let config = BreakerConfig::builder().consecutive_failures(2).build().unwrap();
    let breaker = BreakerLayer::new(config);
    let circuit = breaker.circuit();
    let inner = service_fn(move |request: Put| {
        let call = counted.next();
        async move {
            let mut body = request.into_body();
            if call == 1 {
                body.frame().await;
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            let hang = async { while body.frame().await.is_some() {} };
            timeout(TIMEOUT, hang).await.map_err(io::Error::other)?;
            Ok(Response::new(()))
        }
    });
    let policy = immediate().max_attempts(2).build().unwrap();
    let mut service =
        ServiceBuilder::new().layer(JitterRetryLayer::new(policy)).layer(breaker).service(inner);
    send(&mut service, put(upload(3, true))).await.unwrap_err();
    assert_eq!((calls.made(), circuit.status().window.failures), (2, 1), "only the reset counts");
}

#[tokio::test(start_paused = true)]
async fn stalled_uploads_leave_circuit_below_closed() {
    let calls = Calls::default();
    let config = BreakerConfig::builder().consecutive_failures(3).consecutive_failures_span(Duration::ZERO);
    let breaker = BreakerLayer::new(config.build().unwrap());
    let circuit = breaker.circuit();
    let mut service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(immediate().build().unwrap()))
        .layer(breaker)
        .layer(FaultClassifyLayer::new())
        .service(hangs(100, &calls));
    for _ in 0..10 {
        send(&mut service, put(upload(1, true))).await.unwrap_err();
    }
    let status = circuit.status();
    assert_eq!((status.state, status.window.failures, calls.made()), (CircuitState::Closed, 0, 10));
    // The first attempt of each call counts.
    for _ in 0..3 {
        send(&mut service, put(upload(1, false))).await.unwrap_err();
    }
    assert_eq!(circuit.status().state, CircuitState::Open, "a server that hangs still opens the circuit");
}

/// The upload state of one call does not reach another call.
#[tokio::test(start_paused = true)]
async fn stalled_upload_does_not_affect_another_call() {
    let calls = Calls::default();
    let layer = JitterRetryLayer::new(immediate().build().unwrap());
    let mut service = layer.layer(hangs(100, &calls));
    let stalled = service.call(put(upload(1, true)));
    let complete = service.call(put(upload(1, false)));
    let (stalled, complete) = tokio::join!(stalled, complete);
    assert!(stalled.is_err() && complete.is_err());
    assert_eq!(calls.made(), 1 + 3);
    assert_eq!(
        classify_error(&stalled.unwrap_err()).health(),
        Health::Unhealthy,
        "classified outside of the call"
    );
}
