//! The condition that ends the retries.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_jitter_retry::budget::{RetryBudget, Ticket};
use tower_jitter_retry::decision::{CallOptions, Decision};
use tower_jitter_retry::fault_classify::{Fault, Verdict, classify_response};
use tower_jitter_retry::{
    Budget, GiveUp, Jitter, PolicyHandle, Retried, Retrier, RetryPolicy, RetryPolicyBuilder, RetrySafety,
};

use crate::support::{Broken, Calls, block_on, immediate, layer, request, response, send};

const HOUR: Duration = Duration::from_secs(3_600);

/// Returns a condition that holds for the first `times` checks, and the number of its checks.
fn holds(times: usize) -> (impl Fn() -> bool + Send + Sync + 'static, Calls) {
    let checks = Calls::default();
    let counted = checks.clone();
    (move || counted.next() <= times, checks)
}

/// Returns the end of the retries: the number of attempts, and the reason.
fn ended(answer: &Response<String>) -> Option<(u32, Option<GiveUp>)> {
    answer.extensions().get::<Retried>().map(|retried| (retried.attempts, retried.ended))
}

/// Sends a request through the layer to a server that always responds with 503.
fn send_to_failing(policy: RetryPolicyBuilder) -> Response<String> {
    let mut service =
        layer(policy).layer(service_fn(async |_: Request<String>| Ok::<_, io::Error>(response(503))));
    block_on(send(&mut service, request(Method::GET))).unwrap()
}

#[test]
fn false_condition_ends_retries_of_layer() {
    let (condition, checks) = holds(2);
    let answer = send_to_failing(immediate().max_attempts(9).retry_while(condition));
    assert_eq!((answer.status().as_u16(), answer.body().as_str()), (503, "it is 503"));
    assert_eq!((ended(&answer), checks.made()), (Some((3, Some(GiveUp::Stopped))), 3));

    // A call for which no retry was planned has no history.
    let (condition, checks) = holds(0);
    let answer = send_to_failing(immediate().retry_while(condition));
    assert_eq!((ended(&answer), checks.made()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn false_condition_skips_delay() {
    let begin = Instant::now();
    let policy = RetryPolicy::builder().jitter(Jitter::None).initial_backoff(HOUR).max_backoff(HOUR);
    let policy = policy.max_elapsed(None).max_attempts(9);
    let (condition, _) = holds(1);
    let mut service = layer(policy.retry_while(condition))
        .layer(service_fn(async |_: Request<String>| Ok::<_, io::Error>(response(503))));
    let answer = send(&mut service, request(Method::GET)).await.unwrap();
    assert_eq!((ended(&answer), begin.elapsed()), (Some((2, Some(GiveUp::Stopped))), HOUR));
}

#[tokio::test(start_paused = true)]
async fn false_condition_skips_pushback() {
    let pushback = |value: &'static str| async move {
        let answer = Response::builder().header("content-type", "application/grpc");
        let answer = answer.header("grpc-status", "14").header("grpc-retry-pushback-ms", value);
        Ok::<_, io::Error>(answer.body(()).unwrap())
    };
    // The condition is not checked after a pushback that itself ends the retries.
    for (value, expected) in [("30000", 1), ("0", 1), ("-1", 0), ("90000", 0)] {
        let begin = Instant::now();
        let (condition, checks) = holds(0);
        let calls = Calls::default();
        let layer = layer(immediate().safety(RetrySafety::Always).retry_while(condition));
        let mut service = layer.layer(service_fn(|_: Request<String>| {
            calls.next();
            pushback(value)
        }));
        send(&mut service, request(Method::POST)).await.unwrap();
        assert_eq!((calls.made(), checks.made()), (1, expected), "{value}");
        assert_eq!(begin.elapsed(), Duration::ZERO, "{value}");
    }
}

#[test]
fn condition_is_checked_only_before_a_retry() {
    let empty = || Budget::window().ratio(0.0).min_per_second(0).build().unwrap();
    for (policy, status, expected) in [
        (immediate(), 200, 0),
        (immediate(), 404, 0),
        (immediate().max_attempts(1), 503, 0),
        (immediate().safety(RetrySafety::Never), 503, 0),
        (immediate().initial_backoff(HOUR).max_backoff(HOUR).jitter(Jitter::None), 503, 0),
        // The condition is checked before the budget.
        (immediate().budget(empty()), 503, 1),
        (immediate().max_attempts(3), 503, 2),
    ] {
        let (condition, checks) = holds(9);
        let mut service = layer(policy.retry_while(condition))
            .layer(service_fn(async |_: Request<String>| Ok::<_, io::Error>(response(status))));
        block_on(send(&mut service, request(Method::GET))).unwrap();
        assert_eq!(checks.made(), expected, "{status}");
    }
}

/// A budget without a limit that counts its withdrawals.
#[derive(Debug)]
struct CountedBudget(Calls);

impl RetryBudget for CountedBudget {
    fn deposit(&self, _: &Verdict) {}

    fn withdraw(&self, _: &Fault) -> Option<Ticket> {
        self.0.next();
        Some(Ticket::paid())
    }
}

#[test]
fn false_condition_leaves_budget_untouched() {
    for (checks, withdrawals) in [(0, 0), (1, 1)] {
        let counted = Calls::default();
        let budget = Budget::custom(CountedBudget(counted.clone()));
        send_to_failing(immediate().budget(budget).retry_while(holds(checks).0));
        assert_eq!(counted.made(), withdrawals);
    }
}

#[test]
fn condition_panic_is_caught_and_retry_follows() {
    let answer = send_to_failing(immediate().retry_while(|| panic!("intended panic")));
    assert_eq!(ended(&answer), Some((3, Some(GiveUp::Attempts))));
}

#[test]
fn only_outer_condition_ends_retries_of_nested_layers() {
    let calls = Calls::default();
    let (outer, outer_checks) = holds(1);
    let (inner, inner_checks) = holds(9);
    let mut service = ServiceBuilder::new()
        .layer(layer(immediate().retry_while(outer)))
        .layer(layer(immediate().retry_while(inner)))
        .service(service_fn(|_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(503)) }
        }));
    let answer = block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(ended(&answer), Some((2, Some(GiveUp::Stopped))));
    assert_eq!((calls.made(), outer_checks.made(), inner_checks.made()), (2, 2, 0));
}

#[test]
fn false_condition_ends_retries_of_closures() {
    let attempt = |calls: &Calls| Err::<(), _>(Broken(calls.next()));
    let policy_with = |condition| immediate().max_attempts(9).retry_while(condition).build().unwrap();
    let calls = Calls::default();
    let policy = policy_with(holds(2).0);
    assert_eq!(block_on(policy.retry(async || attempt(&calls))), Err(Broken(3)));
    let calls = Calls::default();
    let policy = policy_with(holds(2).0);
    assert_eq!(policy.retry_blocking(|| attempt(&calls)), Err(Broken(3)));
    assert_eq!(policy.retry_blocking(|| attempt(&calls)), Err(Broken(4)), "the condition stays false");
}

#[test]
fn condition_of_retrier_is_added_to_that_of_policy() {
    let running = Arc::new(AtomicBool::new(true));
    let read = Arc::clone(&running);
    let policy = immediate().max_attempts(9).retry_while(move || read.load(Ordering::Relaxed));
    let policy = policy.build().unwrap();
    let attempts = |retrier: &Retrier| {
        let calls = Calls::default();
        retrier.retry_blocking(|| Err::<(), _>(Broken(calls.next()))).unwrap_err();
        calls.made()
    };
    let retrier = policy.retry_while(holds(5).0);
    assert_eq!(attempts(&retrier), 6);
    assert_eq!(attempts(&retrier), 1, "the condition of the retrier");
    assert_eq!(attempts(&policy.retry_while(holds(5).0).retry_while(holds(3).0)), 4);
    running.store(false, Ordering::Relaxed);
    assert_eq!(attempts(&policy.retry_while(|| true)), 1, "the condition of the policy");
    running.store(true, Ordering::Relaxed);
    assert_eq!(attempts(&policy.retry_while(|| true)), 9, "the policy has only its own condition");
}

#[test]
fn false_condition_is_a_decision() {
    let (condition, _) = holds(1);
    let policy = immediate().retry_while(condition).build().unwrap();
    let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
    let unavailable = classify_response(&response(503));
    let retry = Decision::Retry { delay: Duration::ZERO };
    assert_eq!(call.record(&unavailable, Duration::ZERO), retry);
    assert_eq!(call.record(&unavailable, Duration::ZERO), Decision::GiveUp(GiveUp::Stopped));
}

#[test]
fn condition_stays_unless_policy_with_condition_replaces_it() {
    let handle = PolicyHandle::new(immediate().retry_while(|| false).build().unwrap());
    let attempts = || {
        let calls = Calls::default();
        handle.policy().retry_blocking(|| Err::<(), _>(Broken(calls.next()))).unwrap_err();
        calls.made()
    };
    assert_eq!(attempts(), 1);
    let header = http::HeaderName::from_static("x-attempt");
    handle.reconfigure(immediate().on_retry(|_| {}).marker_header(header.clone()).build().unwrap());
    assert_eq!((attempts(), handle.policy().marker_header()), (1, Some(&header)));
    handle.reconfigure(immediate().retry_while(|| true).build().unwrap());
    assert_eq!((attempts(), handle.policy().marker_header()), (3, None));
}
