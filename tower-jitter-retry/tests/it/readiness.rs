//! Every attempt waits for the readiness of the service that it is sent to.

use std::fmt::Debug;
use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::task::JoinSet;
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, Service, service_fn};
use tower_jitter_retry::JitterRetryLayer;
use tower_jitter_retry::fault_classify::classifiers::{Auto, BoxedError};
use tower_jitter_retry::replay::RetryBody;
use tower_test::mock;

use crate::support::{Broken, Calls, block_on, immediate, request, response, send};

/// Always fails. A clone becomes ready only after the given number of polls. Panics if it is called
/// without being ready.
#[derive(Debug)]
struct Strict {
    shared: Arc<Shared>,
    number: usize,
    polls: usize,
    ready: bool,
}

#[derive(Debug)]
struct Shared {
    /// The number of polls at which a clone is pending. With `None`, a clone fails to become ready.
    pending: Option<usize>,
    clones: AtomicUsize,
    calls: std::sync::Mutex<Vec<usize>>,
}

impl Strict {
    fn new(pending: Option<usize>) -> Self {
        let shared = Shared { pending, clones: AtomicUsize::new(0), calls: std::sync::Mutex::default() };
        Self { shared: Arc::new(shared), number: 0, polls: 0, ready: false }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        let number = self.shared.clones.fetch_add(1, Ordering::SeqCst) + 1;
        Self { shared: Arc::clone(&self.shared), number, polls: 0, ready: false }
    }
}

impl<R> Service<R> for Strict {
    type Response = ();
    type Error = Broken;
    type Future = Ready<Result<(), Broken>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.number > 0 {
            let Some(pending) = self.shared.pending else { return Poll::Ready(Err(Broken(99))) };
            self.polls += 1;
            if self.polls <= pending {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: R) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.polls = 0;
        let mut calls = self.shared.calls.lock().unwrap();
        calls.push(self.number);
        ready(Err(Broken(calls.len())))
    }
}

fn layer(attempts: u32) -> JitterRetryLayer {
    JitterRetryLayer::new(immediate().max_attempts(attempts).build().unwrap())
}

fn boxed(attempts: u32) -> JitterRetryLayer<Auto<BoxedError>> {
    JitterRetryLayer::new(immediate().max_attempts(attempts).build().unwrap())
}

#[test]
fn first_attempt_uses_polled_readiness() {
    let inner = Strict::new(Some(0));
    let shared = Arc::clone(&inner.shared);
    let mut service = layer(3).layer(inner);
    for call in 0..3 {
        assert_eq!(block_on(send(&mut service, 7_u32)), Err(Broken(3 * call + 3)));
    }
    let calls = shared.calls.lock().unwrap();
    assert_eq!(*calls, [0, 1, 1, 0, 2, 2, 0, 3, 3], "the service that each attempt was sent to");
}

#[test]
fn retry_waits_for_readiness_of_its_clone() {
    let inner = Strict::new(Some(4));
    let shared = Arc::clone(&inner.shared);
    let mut service = layer(3).layer(inner);
    let mut call = task::spawn(call(&mut service, 7_u32));
    for calls in [1, 2] {
        for _ in 0..4 {
            assert_pending!(call.poll());
            assert!(call.is_woken());
            assert_eq!(shared.calls.lock().unwrap().len(), calls);
        }
    }
    assert_eq!(assert_ready_err!(call.poll()), Broken(3));
}

#[test]
fn readiness_error_of_retry_returns_last_sent_outcome() {
    let inner = Strict::new(None);
    let shared = Arc::clone(&inner.shared);
    assert_eq!(block_on(send(&mut layer(5).layer(inner), 7_u32)), Err(Broken(1)));
    assert_eq!(*shared.calls.lock().unwrap(), [0]);
}

#[test]
fn readiness_error_of_first_attempt_is_returned_unchanged() {
    let mut inner = Strict::new(None);
    inner.number = 1;
    assert_eq!(block_on(send(&mut layer(5).layer(inner), 7_u32)), Err(Broken(99)));
}

#[test]
fn inner_service_is_cloned_once_per_call() {
    for attempts in [2, 3, 10] {
        let inner = Strict::new(Some(0));
        let shared = Arc::clone(&inner.shared);
        block_on(send(&mut layer(attempts).layer(inner), 7_u32)).unwrap_err();
        assert_eq!(shared.clones.load(Ordering::SeqCst), 1);
        assert_eq!(shared.calls.lock().unwrap().len(), attempts as usize);
    }
}

#[test]
fn inner_service_is_not_cloned_for_request_sent_once() {
    struct Once;
    impl RetryBody for Once {
        type Saved = std::convert::Infallible;
        fn save(&mut self, _: usize) -> Option<Self::Saved> {
            None
        }
        fn replay(saved: Self::Saved, _: bool) -> Option<(Self, Option<Self::Saved>)> {
            match saved {}
        }
    }

    let inner = Strict::new(Some(0));
    let shared = Arc::clone(&inner.shared);
    block_on(send(&mut layer(3).layer(inner.clone()), Request::new(Once))).unwrap_err();
    block_on(send(&mut layer(1).layer(inner), 7_u32)).unwrap_err();
    assert_eq!(shared.clones.load(Ordering::SeqCst), 1, "only the clone of this test");
    assert_eq!(shared.calls.lock().unwrap().len(), 2);
}

#[test]
fn attempt_is_sent_only_when_mock_is_ready() {
    let (mut service, mut handle) =
        mock::spawn_with::<&'static str, &'static str, _, _>(|inner| boxed(3).layer(inner));
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());

    let mut call = task::spawn(service.call("ping"));
    assert_pending!(call.poll());
    assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().1.send_error(Broken(1));
    assert!(call.is_woken());
    assert_pending!(call.poll());
    assert_pending!(task::spawn(handle.next_request()).poll(), "a clone was called before it was ready");

    handle.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    let (request, answer) = assert_ready!(task::spawn(handle.next_request()).poll()).unwrap();
    assert_eq!(request, "ping");
    answer.send_response("pong");
    assert_eq!(assert_ready_ok!(call.poll()), "pong");
}

#[test]
fn mock_readiness_error_in_retry_returns_last_sent_outcome() {
    let (mut service, mut handle) =
        mock::spawn_with::<&'static str, &'static str, _, _>(|inner| boxed(3).layer(inner));
    handle.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("ping"));
    assert_pending!(call.poll());
    assert_ready!(task::spawn(handle.next_request()).poll()).unwrap().1.send_error(Broken(1));
    assert_pending!(call.poll());
    handle.send_error(Broken(7));
    let error: BoxError = assert_ready_err!(call.poll());
    assert_eq!(error.downcast_ref(), Some(&Broken(1)));
}

#[test]
fn failed_attempt_releases_permit_before_next_waits() {
    let calls = Calls::default();
    let inner = ConcurrencyLimit::new(
        service_fn(|_: u32| {
            let call = calls.next();
            async move { if call < 3 { Err(Broken(call)) } else { Ok(call) } }
        }),
        1,
    );
    // The limit has one permit, and panics if it is called without being ready.
    assert_eq!(block_on(send(&mut layer(3).layer(inner), 7)), Ok(3));
}

#[tokio::test(start_paused = true)]
async fn concurrency_limit_below_applies_to_retries() {
    let (running, most, calls) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Calls::default());
    let inner = ConcurrencyLimit::new(
        service_fn({
            let (running, most, calls) = (Arc::clone(&running), Arc::clone(&most), calls.clone());
            move |_: u32| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                let call = calls.next();
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Err::<(), _>(Broken(call))
                }
            }
        }),
        3,
    );
    let service = layer(4).layer(inner);
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let mut service = service.clone();
        tasks.spawn(async move { send(&mut service, 7).await });
    }
    assert!(tasks.join_all().await.iter().all(Result::is_err));
    assert_eq!(calls.made(), 200);
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[test]
fn dropped_call_releases_its_permit() {
    let inner = ConcurrencyLimit::new(service_fn(|_: u32| std::future::pending::<Result<(), Broken>>()), 1);
    let mut service = layer(3).layer(inner);
    for _ in 0..3 {
        let mut call = task::spawn(send(&mut service, 7));
        assert_pending!(call.poll());
        drop(call);
    }
}

#[test]
fn service_can_be_polled_while_call_runs() {
    let mut service = layer(3)
        .layer(service_fn(async |_: Request<String>| Ok::<Response<String>, io::Error>(response(503))));
    let calls: Vec<_> = (0..3).map(|_| call(&mut service, request(Method::GET))).collect();
    for call in calls {
        assert_eq!(block_on(call).unwrap().status(), 503);
    }
}

#[test]
fn future_is_send_if_its_parts_are() {
    fn assert_send(_: impl Future + Send) {}
    assert_send(call(&mut layer(3).layer(Strict::new(Some(0))), 7_u32));
}

/// Returns the future of a call to a service that is ready.
fn call<S, R>(service: &mut S, request: R) -> S::Future
where
    S: Service<R, Error: Debug>,
{
    block_on(poll_fn(|cx| service.poll_ready(cx))).unwrap();
    service.call(request)
}

#[test]
fn attempt_is_sent_only_to_service_polled_ready() {
    struct Strict {
        ready: bool,
        calls: Calls,
    }
    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self { ready: false, calls: self.calls.clone() }
        }
    }
    impl Service<u32> for Strict {
        type Response = ();
        type Error = Broken;
        type Future = std::future::Ready<Result<(), Broken>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: u32) -> Self::Future {
            assert!(
                std::mem::take(&mut self.ready),
                "called without being ready, or twice for one readiness"
            );
            std::future::ready(Err(Broken(self.calls.next())))
        }
    }
    let calls = Calls::default();
    let mut service = layer(5).layer(Strict { ready: false, calls: calls.clone() });
    for _ in 0..3 {
        block_on(send(&mut service, 7)).unwrap_err();
    }
    assert_eq!(calls.made(), 15);
}
