//! The deadline of a call, under tokio's paused time.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::time::Instant;
use tower::{Layer, service_fn};
use tower_jitter_retry::{
    Budget, Clock, Deadline, Jitter, JitterRetryLayer, Retried, RetryPolicy, RetryPolicyBuilder, RetrySafety,
};

use crate::support::{request, response, send};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// One second between attempts, without a limit.
fn policy() -> RetryPolicyBuilder {
    RetryPolicy::builder()
        .budget(None::<Budget>)
        .clock(Clock::tokio())
        .jitter(Jitter::None)
        .initial_backoff(SECOND)
        .backoff_multiplier(1.0)
        .max_attempts(1_000)
        .max_elapsed(None::<Duration>)
}

/// Sends a request to a server that responds with 503 after `takes`. Returns when each attempt was
/// sent, and its `grpc-timeout`.
async fn attempts(request: Request<String>, takes: Duration) -> Vec<(Duration, Option<String>)> {
    let (sent, before) = (Mutex::new(Vec::new()), Instant::now());
    let mut service =
        JitterRetryLayer::new(policy().build().unwrap()).layer(service_fn(|request: Request<String>| {
            let timeout =
                request.headers().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
            sent.lock().unwrap().push((before.elapsed(), timeout));
            async move {
                tokio::time::sleep(takes).await;
                Ok::<_, io::Error>(response(503))
            }
        }));
    let answer = send(&mut service, request).await.unwrap();
    assert_eq!(answer.status(), 503, "the outcome of the last attempt");
    let sent = sent.into_inner().unwrap();
    assert_eq!(before.elapsed(), sent.last().unwrap().0 + takes, "a delay that does not fit is not begun");
    if sent.len() > 1 {
        let retried = answer.extensions().get::<Retried>().unwrap();
        assert_eq!((retried.attempts as usize, retried.elapsed), (sent.len(), before.elapsed()));
    }
    sent
}

fn with(deadline: Deadline) -> Request<String> {
    let mut request = request(Method::GET);
    request.extensions_mut().insert(deadline);
    request
}

fn with_timeout(timeout: &str) -> Request<String> {
    let mut request = request(Method::POST);
    request.extensions_mut().insert(RetrySafety::Always);
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn delay_past_deadline_is_not_started() {
    for (within, expected) in [(500, 1), (1_000, 1), (1_001, 2), (2_500, 3), (3_000, 3), (3_001, 4)] {
        let sent = attempts(with(Deadline::within(within * MILLI)), Duration::ZERO).await;
        assert_eq!(sent.len(), expected, "within {within} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_time_counts_from_start_of_call() {
    let sent = attempts(with(Deadline::within(5 * SECOND)), 700 * MILLI).await;
    assert_eq!(sent.iter().map(|(at, _)| at.as_millis()).collect::<Vec<_>>(), [0, 1_700, 3_400]);
}

#[tokio::test(start_paused = true)]
async fn passed_deadline_leaves_one_attempt() {
    let before = Instant::now().into_std();
    tokio::time::advance(SECOND).await;
    let now = Instant::now().into_std();
    for deadline in [Deadline::within(Duration::ZERO), Deadline::at(before), Deadline::at(now)] {
        assert_eq!(attempts(with(deadline), Duration::ZERO).await.len(), 1, "{deadline:?}");
    }
    let immediate = policy().initial_backoff(Duration::ZERO).build().unwrap();
    let sent = Mutex::new(0);
    let mut service = JitterRetryLayer::new(immediate).layer(service_fn(|_: Request<String>| {
        *sent.lock().unwrap() += 1;
        async { Ok::<_, io::Error>(response(503)) }
    }));
    send(&mut service, with(Deadline::within(Duration::ZERO))).await.unwrap();
    assert_eq!(*sent.lock().unwrap(), 1, "a retry without a delay is not sent either");
}

#[tokio::test(start_paused = true)]
async fn instant_deadline_applies() {
    let moment = Instant::now().into_std() + 2_500 * MILLI;
    assert_eq!(attempts(with(Deadline::at(moment)), Duration::ZERO).await.len(), 3);
    // The deadline is now half a second away.
    assert_eq!(attempts(with(Deadline::at(moment)), Duration::ZERO).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn grpc_attempt_carries_time_left() {
    let sent = attempts(with_timeout("4S"), 100 * MILLI).await;
    let timeouts: Vec<_> = sent.iter().map(|(_, timeout)| timeout.as_deref().unwrap()).collect();
    assert_eq!(timeouts, ["4S", "2900000u", "1800000u", "700000u"]);
}

#[tokio::test(start_paused = true)]
async fn earlier_of_deadline_and_grpc_timeout_applies() {
    let mut request = with_timeout("1H");
    request.extensions_mut().insert(Deadline::within(1_500 * MILLI));
    let sent = attempts(request, Duration::ZERO).await;
    let timeouts: Vec<_> = sent.iter().map(|(_, timeout)| timeout.as_deref().unwrap()).collect();
    assert_eq!(timeouts, ["1500000u", "500000u"]);
    // A call without `grpc-timeout` gets none.
    let sent = attempts(with(Deadline::within(1_500 * MILLI)), Duration::ZERO).await;
    assert_eq!(sent.iter().filter(|(_, timeout)| timeout.is_none()).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn invalid_grpc_timeout_is_left_unchanged() {
    let sent = Mutex::new(Vec::new());
    let policy = policy().max_attempts(3).build().unwrap();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(|request: Request<String>| {
        sent.lock().unwrap().push(request.headers()["grpc-timeout"].clone());
        async { Ok::<Response<String>, io::Error>(response(503)) }
    }));
    send(&mut service, with_timeout("soon")).await.unwrap();
    assert_eq!(*sent.lock().unwrap(), ["soon"; 3]);
}

#[tokio::test(start_paused = true)]
async fn deadline_starts_at_call_not_at_first_poll() {
    let sent = Mutex::new(0);
    let mut service =
        JitterRetryLayer::new(policy().build().unwrap()).layer(service_fn(|_: Request<String>| {
            *sent.lock().unwrap() += 1;
            async { Ok::<_, io::Error>(response(503)) }
        }));
    let call = tower::Service::call(&mut service, with(Deadline::within(2_500 * MILLI)));
    tokio::time::advance(2 * SECOND).await;
    call.await.unwrap();
    assert_eq!(*sent.lock().unwrap(), 1);
}
