//! The policy in tower's own retry layer.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::retry::RetryLayer;
use tower::{BoxError, Layer, service_fn};
use tower_jitter_retry::request::Attempt;
use tower_jitter_retry::{
    Budget, Clock, Deadline, Jitter, ReplayBody, RequestInfo, Retried, RetryPolicy, RetryPolicyBuilder,
    RetrySafety,
};

use crate::support::{Broken, Calls, block_on, immediate, request, response, send};

fn sent(policy: RetryPolicyBuilder, request: Request<String>, status: u16) -> Vec<Request<String>> {
    let sent = Mutex::new(Vec::new());
    let layer = RetryLayer::new(policy.build().unwrap().for_tower());
    let mut service = layer.layer(service_fn(|request: Request<String>| {
        sent.lock().unwrap().push(request);
        async move { Ok::<_, io::Error>(response(status)) }
    }));
    let answer = block_on(send(&mut service, request)).unwrap();
    assert_eq!(answer.status(), status);
    let sent = sent.into_inner().unwrap();
    assert_eq!(
        answer.extensions().get::<Retried>().map_or(1, |retried| retried.attempts as usize),
        sent.len()
    );
    sent
}

#[test]
fn tower_policy_decides_like_the_layer() {
    let marked = || {
        let mut request = request(Method::POST);
        request.extensions_mut().insert(RetrySafety::Always);
        request
    };
    for (request, status, expected) in [
        (request(Method::GET), 503, 3),
        (request(Method::GET), 200, 1),
        (request(Method::GET), 404, 1),
        (request(Method::POST), 503, 1),
        (request(Method::POST), 429, 3),
        (marked(), 503, 3),
    ] {
        assert_eq!(sent(immediate(), request, status).len(), expected, "{status}");
    }
    assert_eq!(sent(immediate().max_attempts(1), request(Method::GET), 503).len(), 1);
}

#[test]
fn tower_policy_checks_condition_before_each_retry() {
    let calls = Calls::default();
    let policy = immediate().max_attempts(9).retry_while(move || calls.next() < 3);
    assert_eq!(sent(policy, request(Method::GET), 503).len(), 3);
}

#[derive(Clone)]
struct Query;

impl RequestInfo for Query {}

#[test]
fn tower_policy_resets_state_for_each_call() {
    let calls = Calls::default();
    let policy = immediate().build().unwrap().for_tower().clone_requests();
    let mut service = RetryLayer::new(policy).layer(service_fn(|_: Query| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    for call in 1..=5 {
        assert_eq!(block_on(send(&mut service, Query)), Err(Broken(3 * call)));
    }
}

#[test]
fn tower_policy_infers_boxed_errors_and_checks_rules() {
    let calls = Calls::default();
    let policy =
        immediate().build().unwrap().for_tower().rule(|outcome: Result<&Response<()>, &BoxError>| {
            outcome.is_err().then_some(tower_jitter_retry::fault_classify::Verdict::Success)
        });
    let mut service = RetryLayer::new(policy).layer(service_fn(|_: Request<()>| {
        calls.next();
        async { Err::<Response<()>, BoxError>(Box::new(Broken(1))) }
    }));
    block_on(send(&mut service, Request::new(()))).unwrap_err();
    assert_eq!(calls.made(), 1);
}

#[test]
fn tower_policy_with_remove_marker_ignores_remote_marks() {
    let remote = |method| {
        let earlier = sent(immediate(), request(Method::GET), 503).remove(1);
        let mut request = request(method);
        request.extensions_mut().extend(earlier.extensions().clone());
        request.headers_mut().insert("x-attempt", "7".parse().unwrap());
        request
    };
    let policy = || immediate().marker_header(http::HeaderName::from_static("x-attempt")).remove_marker(true);
    let attempts = sent(policy(), remote(Method::GET), 503);
    let numbers: Vec<_> = attempts.iter().map(|sent| sent.headers()["x-attempt"].to_str().unwrap()).collect();
    assert_eq!(numbers, ["7", "2", "3"], "tower does not pass the first attempt to the policy");
    assert_eq!(sent(immediate(), remote(Method::GET), 503).len(), 1, "marks are respected by default");
}

#[test]
fn tower_policy_marks_retries_and_respects_marks() {
    let numbers = |sent: Vec<Request<String>>| -> Vec<_> {
        sent.iter().map(|sent| Attempt::of(sent.extensions()).map(Attempt::number)).collect()
    };
    let first = sent(immediate(), request(Method::GET), 503);
    let second = first[1].clone();
    assert_eq!(numbers(first), [None, Some(2), Some(3)]);
    assert_eq!(sent(immediate(), second, 503).len(), 1, "the request is marked by an outer layer");
}

#[test]
fn tower_policy_stream_is_sent_once() {
    let calls = Calls::default();
    let layer = RetryLayer::new(immediate().build().unwrap().for_tower());
    let mut service = layer.layer(service_fn(|_: Request<ReplayBody<Full<bytes::Bytes>>>| {
        calls.next();
        async { Ok::<_, io::Error>(response(503)) }
    }));
    block_on(send(&mut service, Request::new(ReplayBody::new(Full::default())))).unwrap();
    assert_eq!(calls.made(), 1);
}

#[test]
fn tower_policy_deposits_and_refunds() {
    let calls = Calls::default();
    let budget = Budget::aws().capacity(5).timeout_cost(5).increment(0).build().unwrap();
    let layer = RetryLayer::new(immediate().budget(budget).max_attempts(2).build().unwrap().for_tower());
    let mut service = layer.layer(service_fn(|fails: u32| {
        let call = calls.next();
        async move { if fails == 2 || call % 2 == 1 { Err(Broken(call)) } else { Ok(()) } }
    }));
    for _ in 0..10 {
        block_on(send(&mut service, 1)).expect("the successful retry is refunded");
    }
    block_on(send(&mut service, 2)).unwrap_err();
    let before = calls.made();
    block_on(send(&mut service, 2)).unwrap_err();
    assert_eq!(calls.made(), before + 1, "a failed retry is not refunded");
}

#[tokio::test(start_paused = true)]
async fn tower_policy_respects_delays_and_deadlines() {
    let second = Duration::from_secs(1);
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .clock(Clock::tokio())
        .jitter(Jitter::None)
        .initial_backoff(second);
    let times = Mutex::new(Vec::new());
    let layer = RetryLayer::new(policy.max_attempts(9).build().unwrap().for_tower());
    let mut service = layer.layer(service_fn(|request: Request<String>| {
        let timeout = request.headers()["grpc-timeout"].to_str().unwrap().to_owned();
        times.lock().unwrap().push((Instant::now(), timeout));
        async { Ok::<_, io::Error>(response(503)) }
    }));
    let mut request = request(Method::GET);
    request.headers_mut().insert("grpc-timeout", "1M".parse().unwrap());
    request.extensions_mut().insert(Deadline::within(4 * second));
    let before = Instant::now();
    send(&mut service, request).await.unwrap();
    let times: Vec<_> =
        times.into_inner().unwrap().into_iter().map(|(at, left)| ((at - before).as_secs(), left)).collect();
    let expected = [(0, "1M"), (1, "3000000u"), (3, "1000000u")];
    assert_eq!(times, expected.map(|(at, left)| (at, left.to_owned())));
}
