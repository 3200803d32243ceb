//! Redis fails while the circuit is closed, open or half-open.

use std::time::Duration;

use futures::FutureExt;
use shared_llm_breaker::{BreakerSettings, CircuitBreaker, CircuitState};
use test_servers::{FaultyProxy, ProxyFault, Redis};

use super::support::{
    CallError, PATIENCE, fail, fail_times, rejection, settings, start, succeed, until, until_admitted,
    until_state,
};

/// How Redis fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Killed,
    Stopped,
}

const FAILURES: [Failure; 2] = [Failure::Killed, Failure::Stopped];

impl Failure {
    fn begin(self, redis: &mut Redis) {
        match self {
            Self::Killed => redis.kill(),
            Self::Stopped => redis.pause(),
        }
    }

    fn end(self, redis: &mut Redis) {
        match self {
            Self::Killed => redis.restart_with(&[]),
            Self::Stopped => redis.resume(),
        }
    }
}

/// Returns settings with which a worker soon continues by itself.
fn short_takeover(instance: &str) -> BreakerSettings {
    BreakerSettings { takeover: Duration::from_millis(100), ..settings(instance) }
}

async fn until_detached(breaker: &CircuitBreaker) {
    until("the store is lost", || !breaker.fleet().status().attached).await;
}

async fn until_attached(breaker: &CircuitBreaker) {
    until("the store is back", || breaker.fleet().status().attached).await;
}

#[tokio::test]
async fn redis_away_while_closed_local_circuit_opens_and_others_follow() {
    for failure in FAILURES {
        let mut redis = Redis::start();
        // The circuit is still open when Redis is back.
        let long = |instance| BreakerSettings { reset_timeout: 2 * PATIENCE, ..settings(instance) };
        let breaker = start(&redis.url(), "api", long("a")).await;
        let other = start(&redis.url(), "api", long("b")).await;
        failure.begin(&mut redis);
        succeed(&breaker).await.unwrap();
        until_detached(&breaker).await;
        succeed(&breaker).await.unwrap();
        fail_times(&breaker, 5).await;
        assert_eq!(breaker.state(), CircuitState::Open, "{failure:?}");
        rejection(fail(&breaker).await);
        succeed(&other).await.unwrap();
        assert_eq!(other.state(), CircuitState::Closed, "{failure:?}");

        failure.end(&mut redis);
        until_state(&other, CircuitState::Open).await;
        assert_eq!(breaker.state(), CircuitState::Open, "{failure:?}");
    }
}

#[tokio::test]
async fn redis_away_while_open_worker_probes_by_itself() {
    for failure in FAILURES {
        let mut redis = Redis::start();
        let breaker = start(&redis.url(), "api", short_takeover("a")).await;
        let other = start(&redis.url(), "api", short_takeover("b")).await;
        fail_times(&breaker, 5).await;
        until_state(&other, CircuitState::Open).await;
        failure.begin(&mut redis);
        until_admitted(async || succeed(&breaker).await).await.unwrap();
        until_admitted(async || succeed(&breaker).await).await.unwrap();
        assert_eq!(breaker.state(), CircuitState::Closed, "{failure:?}");

        // The success of this worker closes the circuit of the other one.
        failure.end(&mut redis);
        until_state(&other, CircuitState::Closed).await;
        assert_eq!(breaker.state(), CircuitState::Closed, "{failure:?}");
    }
}

#[tokio::test]
async fn redis_away_while_half_open_worker_continues_its_probes() {
    for failure in FAILURES {
        let mut redis = Redis::start();
        let breaker = start(&redis.url(), "api", short_takeover("a")).await;
        fail_times(&breaker, 5).await;
        until_admitted(async || succeed(&breaker).await).await.unwrap();
        assert_eq!(breaker.state(), CircuitState::HalfOpen, "{failure:?}");
        failure.begin(&mut redis);
        until_detached(&breaker).await;
        until_admitted(async || fail(&breaker).await).await.unwrap_err();
        until_state(&breaker, CircuitState::Open).await;
        until_admitted(async || succeed(&breaker).await).await.unwrap();
        until_admitted(async || succeed(&breaker).await).await.unwrap();
        until_state(&breaker, CircuitState::Closed).await;

        failure.end(&mut redis);
        until_attached(&breaker).await;
        succeed(&breaker).await.unwrap();
        until_state(&breaker, CircuitState::Closed).await;
    }
}

#[tokio::test]
async fn call_is_decided_at_its_first_poll_while_redis_is_stopped() {
    let mut redis = Redis::start();
    let breaker = start(&redis.url(), "api", short_takeover("a")).await;
    redis.pause();
    let at_first_poll = |call: Option<Result<&'static str, CallError>>| call.expect("the call waits");
    at_first_poll(succeed(&breaker).now_or_never()).unwrap();
    for _ in 0..5 {
        at_first_poll(fail(&breaker).now_or_never()).unwrap_err();
    }
    rejection(at_first_poll(fail(&breaker).now_or_never()));
    let probe = async || at_first_poll(succeed(&breaker).now_or_never());
    until_admitted(probe).await.unwrap();
    until_admitted(probe).await.unwrap();
    until_state(&breaker, CircuitState::Closed).await;
}

#[tokio::test]
async fn redis_away_at_start_worker_decides_for_itself_and_attaches_later() {
    let mut redis = Redis::start();
    redis.kill();
    let settings = BreakerSettings { ready_within: Duration::from_millis(50), ..settings("a") };
    let breaker = CircuitBreaker::start(&redis.url(), "api", settings).unwrap();
    assert!(!breaker.ready().await);
    succeed(&breaker).await.unwrap();
    redis.restart_with(&[]);
    until_attached(&breaker).await;
}

#[tokio::test]
async fn redis_with_full_memory_circuit_opens_and_probes_follow() {
    let redis = Redis::start();
    let breaker = start(&redis.url(), "api", settings("a")).await;
    let other = start(&redis.url(), "api", settings("b")).await;
    // Redis refuses most writes.
    redis.command("CONFIG SET maxmemory 1");
    for _ in 0..5 {
        fail(&breaker).now_or_never().expect("the call waits").unwrap_err();
    }
    assert_eq!(breaker.state(), CircuitState::Open);
    redis.command("CONFIG SET maxmemory 0");
    until_state(&other, CircuitState::Open).await;
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_admitted(async || succeed(&breaker).await).await.unwrap();
    until_state(&other, CircuitState::Closed).await;
}

#[tokio::test]
async fn redis_restarted_empty_gets_the_open_circuit_again() {
    let mut redis = Redis::start();
    let long = |instance| BreakerSettings { reset_timeout: 2 * PATIENCE, ..settings(instance) };
    let breaker = start(&redis.url(), "api", long("a")).await;
    fail_times(&breaker, 5).await;
    let has_record = |redis: &Redis| redis.command("EXISTS tb1:{circuit_breaker}:c:api") == "1";
    until("the decision is in the store", || has_record(&redis)).await;
    redis.kill();
    redis.restart_with(&[]);
    until("the decision is in the store again", || has_record(&redis)).await;
    let late = start(&redis.url(), "api", long("b")).await;
    assert_eq!(late.state(), CircuitState::Open);
}

#[tokio::test]
async fn redis_that_stalls_delays_no_call() {
    let server = Redis::start_tcp();
    let proxy = FaultyProxy::start(server.address()).await;
    let breaker = start(&format!("redis://{}", proxy.address()), "api", settings("a")).await;
    proxy.set(ProxyFault::Stall).await;
    for _ in 0..5 {
        fail(&breaker).now_or_never().expect("the call waits").unwrap_err();
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}
