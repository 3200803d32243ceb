//! The caller gets the outcome of the last attempt that was sent, and no attempt is sent too late.

mod support;

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::time::Instant;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, service_fn};
use tower_jitter_retry::{
    Budget, Clock, Deadline, GiveUp, Jitter, JitterRetryLayer, ManualClock, Retried, RetryPolicy,
    RetryPolicyBuilder,
};

use support::{Calls, at_once, now, request, response, send};

const SECOND: Duration = Duration::from_secs(1);

/// A second before each retry.
fn policy() -> RetryPolicyBuilder {
    RetryPolicy::builder()
        .budget(None::<Budget>)
        .jitter(Jitter::None)
        .base(SECOND)
        .factor(1.0)
        .max_attempts(9)
}

/// Answers the first request with 503 at once, and every later one with 200 after 20 s.
fn slow_after_first(
    calls: &Calls,
) -> impl Service<Request<String>, Response = Response<String>, Error = io::Error, Future: Send> + Clone + use<>
{
    let calls = calls.clone();
    service_fn(move |_: Request<String>| {
        let call = calls.next();
        async move {
            if call == 1 {
                return Ok(response(503));
            }
            tokio::time::sleep(20 * SECOND).await;
            Ok(response(200))
        }
    })
}

/// Sends a request whose retry finds the one place of a limit taken by another call for 20 s.
/// Returns the answer, when it came, and how many requests were sent until then.
async fn retry_without_place(
    policy: RetryPolicyBuilder,
    request: Request<String>,
) -> (Response<String>, Duration, usize) {
    let calls = Calls::default();
    let limited = ConcurrencyLimit::new(slow_after_first(&calls), 1);
    let mut service = JitterRetryLayer::new(policy.build().unwrap()).layer(limited.clone());
    let mut other = limited;
    let before = Instant::now();
    let call = send(&mut service, request);
    tokio::pin!(call);
    tokio::select! {
        biased;
        _ = &mut call => panic!("it waits a second before its retry"),
        () = tokio::time::sleep(SECOND / 2) => {}
    }
    let other = tokio::spawn(async move { send(&mut other, support::request(Method::GET)).await });
    let answer = call.await.unwrap();
    let (took, sent) = (before.elapsed(), calls.made());
    other.abort();
    (answer, took, sent)
}

/// How many attempts were made, and why no other followed.
fn attempts_and_end(answer: &Response<String>) -> (u32, Option<GiveUp>) {
    let retried = answer.extensions().get::<Retried>().expect("a retry was decided on");
    (retried.attempts, retried.ended)
}

fn with_deadline(within: Duration) -> Request<String> {
    let mut request = request(Method::GET);
    request.extensions_mut().insert(Deadline::within(within));
    request
}

fn with_grpc_timeout(timeout: &str) -> Request<String> {
    let mut request = request(Method::GET);
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn readiness_wait_ends_at_deadline_with_last_response() {
    for request in [with_deadline(3 * SECOND), with_grpc_timeout("3S")] {
        let (answer, took, sent) = retry_without_place(policy(), request).await;
        assert_eq!((answer.status().as_u16(), took, sent), (503, 3 * SECOND, 2));
        assert_eq!(attempts_and_end(&answer), (1, Some(GiveUp::Deadline)));
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_wait_ends_at_max_elapsed_with_last_response() {
    let policy = policy().max_elapsed(5 * SECOND);
    let (answer, took, sent) = retry_without_place(policy, request(Method::GET)).await;
    assert_eq!((answer.status().as_u16(), took, sent), (503, 5 * SECOND, 2));
    assert_eq!(attempts_and_end(&answer), (1, Some(GiveUp::MaxElapsed)));
}

/// Answers 503. After its first request it moves its clock whenever it is polled for readiness, and
/// then is ready.
struct Late {
    hand: ManualClock,
    by: Duration,
    sent: Calls,
    reserved: Option<Arc<()>>,
    reservations: Weak<()>,
}

impl Late {
    /// The service, and what counts its reservations, itself included.
    fn new(hand: ManualClock, by: Duration) -> (Self, Arc<()>) {
        let reservations = Arc::new(());
        let late = Self {
            hand,
            by,
            sent: Calls::default(),
            reserved: None,
            reservations: Arc::downgrade(&reservations),
        };
        (late, reservations)
    }
}

impl Clone for Late {
    fn clone(&self) -> Self {
        let Self { hand, by, sent, reservations, .. } = self;
        Self {
            hand: hand.clone(),
            by: *by,
            sent: sent.clone(),
            reserved: None,
            reservations: reservations.clone(),
        }
    }
}

impl Service<Request<String>> for Late {
    type Response = Response<String>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Response<String>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sent.made() > 0 {
            self.hand.advance(self.by);
        }
        self.reserved = self.reservations.upgrade();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        self.reserved = None;
        self.sent.next();
        std::future::ready(Ok(response(503)))
    }
}

#[test]
fn readiness_granted_after_deadline_sends_nothing_and_is_given_back() {
    let policy = |clock| at_once().clock(clock).max_elapsed(5 * SECOND).max_attempts(9).build().unwrap();
    for (by, request, sent, ended) in [
        (SECOND, request(Method::GET), 6, GiveUp::MaxElapsed),
        (6 * SECOND, request(Method::GET), 1, GiveUp::MaxElapsed),
        (5 * SECOND, request(Method::GET), 2, GiveUp::MaxElapsed),
        (SECOND, with_deadline(SECOND), 1, GiveUp::Deadline),
        (SECOND, with_grpc_timeout("1S"), 1, GiveUp::Deadline),
    ] {
        let (clock, hand) = Clock::manual();
        let (inner, reservations) = Late::new(hand, by);
        let calls = inner.sent.clone();
        let mut service = JitterRetryLayer::new(policy(clock)).layer(inner);
        now(poll_fn(|cx| service.poll_ready(cx))).unwrap();
        let mut call = tokio_test::task::spawn(service.call(request));
        let Poll::Ready(Ok(answer)) = call.poll() else { panic!("nothing waits") };
        assert_eq!((answer.status().as_u16(), calls.made()), (503, sent), "{by:?}");
        assert_eq!(attempts_and_end(&answer), (u32::try_from(sent).unwrap(), Some(ended)));
        assert_eq!(Arc::strong_count(&reservations), 1, "the future is alive, and holds no reservation");
    }
}

#[test]
fn grpc_timeout_of_1n_leaves_the_first_attempt() {
    let (clock, hand) = Clock::manual();
    let (inner, _) = Late::new(hand, Duration::ZERO);
    let calls = inner.sent.clone();
    let mut service = JitterRetryLayer::new(at_once().clock(clock).build().unwrap()).layer(inner);
    let answer = now(send(&mut service, with_grpc_timeout("1n"))).unwrap();
    assert_eq!((answer.status().as_u16(), calls.made()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn place_in_queue_is_given_back_when_time_is_over() {
    let calls = Calls::default();
    let limited = ConcurrencyLimit::new(slow_after_first(&calls), 1);
    let mut service = JitterRetryLayer::new(policy().build().unwrap()).layer(limited.clone());
    poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let call = service.call(with_deadline(3 * SECOND));
    tokio::pin!(call);
    let mut first_in_queue = limited.clone();
    let holder = async {
        tokio::time::sleep(SECOND / 2).await;
        send(&mut first_in_queue, request(Method::GET)).await
    };
    let (answer, holds) = tokio::join!(&mut call, holder);
    assert_eq!((answer.unwrap().status().as_u16(), holds.unwrap().status().as_u16()), (503, 200));
    // The future is still there, and was in the queue for the place before this request.
    let mut next = limited;
    let answer = tokio::time::timeout(60 * SECOND, send(&mut next, request(Method::GET))).await;
    assert_eq!(answer.expect("the place is free").unwrap().status(), 200);
}

#[test]
fn wait_for_readiness_without_limit_needs_no_timer() {
    let (calls, policy) = (Calls::default(), at_once().max_elapsed(None::<Duration>).build().unwrap());
    let limited = ConcurrencyLimit::new(
        service_fn(|_: Request<String>| {
            let call = calls.next();
            async move {
                tokio::task::yield_now().await;
                Ok::<_, io::Error>(response(if call == 1 { 503 } else { 200 }))
            }
        }),
        1,
    );
    let mut service = JitterRetryLayer::new(policy).layer(limited.clone());
    let mut other = limited;
    let both = async {
        tokio::join!(send(&mut service, request(Method::GET)), send(&mut other, request(Method::GET)))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (answer, other) = runtime.block_on(both);
    assert_eq!((answer.unwrap().status().as_u16(), other.unwrap().status().as_u16()), (200, 200));
    assert_eq!(calls.made(), 3);
}

/// A clock that a delay moves far beyond the limits, as if the machine had been suspended.
#[tokio::test(start_paused = true)]
async fn delay_that_ends_too_late_sends_nothing() {
    let policy = |clock| policy().clock(clock).max_elapsed(5 * SECOND).build().unwrap();
    let oversleep = |hand: ManualClock| async move {
        tokio::time::sleep(SECOND / 2).await;
        hand.advance(6 * SECOND);
    };

    let (clock, hand) = Clock::manual();
    let (inner, _) = Late::new(hand.clone(), Duration::ZERO);
    let calls = inner.sent.clone();
    let mut service = JitterRetryLayer::new(policy(clock)).layer(inner);
    let (answer, ()) = tokio::join!(send(&mut service, request(Method::GET)), oversleep(hand));
    assert_eq!(attempts_and_end(&answer.unwrap()), (1, Some(GiveUp::MaxElapsed)));
    assert_eq!(calls.made(), 1);

    let (clock, hand) = Clock::manual();
    let (policy, calls) = (policy(clock), Calls::default());
    let attempt = async || {
        calls.next();
        Ok::<_, io::Error>(response(503))
    };
    let (answer, ()) = tokio::join!(policy.retry(attempt), oversleep(hand));
    assert_eq!(attempts_and_end(&answer.unwrap()), (1, Some(GiveUp::MaxElapsed)));
    assert_eq!(calls.made(), 1);
}
