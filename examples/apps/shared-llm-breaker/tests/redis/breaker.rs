//! One worker.

use std::future::ready;
use std::time::Duration;

use shared_llm_breaker::{CircuitBreaker, CircuitState};
use test_servers::Redis;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::support::{
    CallError, RESET_TIMEOUT, fail, fail_times, rejection, settings, start, succeed, until_admitted,
    until_state,
};

type Outcome = Result<&'static str, CallError>;

#[tokio::test]
async fn starts_closed() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    assert_eq!((breaker.state(), breaker.fail_counter()), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn successful_call_stays_closed() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    assert_eq!(succeed(&breaker).await.unwrap(), "reply");
    assert_eq!((breaker.state(), breaker.fail_counter()), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn opens_after_5_failures() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    for count in 1..=5 {
        assert_eq!(breaker.state(), CircuitState::Closed, "before failure {count}");
        assert_eq!(fail(&breaker).await.unwrap_err().to_string(), "status 503");
        assert_eq!(breaker.fail_counter(), count);
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn open_circuit_rejects_calls() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "claude_api", settings("a")).await;
    fail_times(&breaker, 5).await;
    let unreachable = async { panic!("an open breaker makes no call") };
    let error = rejection(breaker.call(unreachable).await);
    assert_eq!(error.breaker_name, "claude_api");
    assert_eq!(error.state, CircuitState::Open);
    let text = "Circuit breaker 'claude_api' is open. Service temporarily unavailable.";
    assert_eq!(error.to_string(), text);
    let left = error.retry_after().unwrap();
    // A clock with a coarse resolution rounds it up.
    assert!(left > Duration::ZERO && left < 2 * RESET_TIMEOUT, "{left:?}");
}

#[tokio::test]
async fn half_open_after_timeout() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    let begin = Instant::now();
    fail_times(&breaker, 5).await;
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    assert!(begin.elapsed() >= RESET_TIMEOUT);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
}

#[tokio::test]
async fn closes_after_2_successes_in_half_open() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    fail_times(&breaker, 5).await;
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_state(&breaker, CircuitState::Closed).await;
    assert_eq!(breaker.fail_counter(), 0);
}

#[tokio::test]
async fn failure_in_half_open_reopens() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    fail_times(&breaker, 5).await;
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_admitted(async || fail(&breaker).await).await.unwrap_err();
    until_state(&breaker, CircuitState::Open).await;
    assert_eq!(rejection(fail(&breaker).await).state, CircuitState::Open);

    // The success before the failure is forgotten: one more does not close the circuit.
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_state(&breaker, CircuitState::Closed).await;
}

/// Starts a call whose outcome is sent later.
async fn slow_call(breaker: &CircuitBreaker) -> (oneshot::Sender<Outcome>, JoinHandle<Outcome>) {
    let (begun, has_begun) = oneshot::channel();
    let (finish, finished) = oneshot::channel();
    let breaker = breaker.clone();
    let call = tokio::spawn(async move {
        let call = async {
            begun.send(()).unwrap();
            finished.await.unwrap()
        };
        breaker.call(call).await
    });
    has_begun.await.unwrap();
    (finish, call)
}

#[tokio::test]
async fn outcome_from_before_the_opening_changes_nothing() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    let (finish_failure, failing) = slow_call(&breaker).await;
    let (finish_success, succeeding) = slow_call(&breaker).await;
    fail_times(&breaker, 5).await;
    until_admitted(async || succeed(&breaker).await).await.unwrap();

    finish_success.send(Ok("late reply")).unwrap();
    assert_eq!(succeeding.await.unwrap().unwrap(), "late reply");
    finish_failure.send(Err(CallError::Failed("late error"))).unwrap();
    assert_eq!(failing.await.unwrap().unwrap_err().to_string(), "late error");
    // The success is no second probe, and the failure does not open the circuit again.
    assert_eq!((breaker.state(), breaker.fail_counter()), (CircuitState::HalfOpen, 0));
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_state(&breaker, CircuitState::Closed).await;
}

#[tokio::test]
async fn panic_of_a_call_counts_and_propagates() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    let panicking = breaker.clone();
    let call = tokio::spawn(async move {
        let call = async { panic!("no reply") };
        let _: Outcome = panicking.call(call).await;
    });
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(breaker.fail_counter(), 1);
}

#[tokio::test]
async fn protect_decorator() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    let double = breaker.protect(|number: u32| ready(Ok::<_, CallError>(2 * number)));
    assert_eq!(double(21).await.unwrap(), 42);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test]
async fn protect_decorator_with_failure() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    let failing = breaker.protect(|text| ready(Err::<&str, _>(CallError::Failed(text))));
    for _ in 0..5 {
        assert_eq!(failing("no connection").await.unwrap_err().to_string(), "no connection");
    }
    assert_eq!(rejection(failing("not called").await).state, CircuitState::Open);
}

#[tokio::test]
async fn success_resets_failure_count() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    fail_times(&breaker, 4).await;
    succeed(&breaker).await.unwrap();
    assert_eq!(breaker.fail_counter(), 0);
    fail_times(&breaker, 4).await;
    assert_eq!((breaker.state(), breaker.fail_counter()), (CircuitState::Closed, 4));
}

#[tokio::test]
async fn reset_method() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    let other = start(&redis.url(), "api", settings("b")).await;
    fail_times(&breaker, 5).await;
    until_state(&other, CircuitState::Open).await;
    breaker.reset().await.unwrap();
    assert_eq!((breaker.state(), breaker.fail_counter()), (CircuitState::Closed, 0));
    until_state(&other, CircuitState::Closed).await;
    succeed(&breaker).await.unwrap();
    succeed(&other).await.unwrap();
}

#[tokio::test]
async fn multiple_breakers_independent() {
    let redis = Redis::start();
    let first = start(&redis.url(), "first", settings("a")).await;
    let second = start(&redis.url(), "second", settings("a")).await;
    let other_worker = start(&redis.url(), "first", settings("b")).await;
    fail_times(&first, 5).await;
    until_state(&other_worker, CircuitState::Open).await;
    assert_eq!((first.state(), second.state()), (CircuitState::Open, CircuitState::Closed));
    assert_eq!(second.fail_counter(), 0);
    succeed(&second).await.unwrap();
}
