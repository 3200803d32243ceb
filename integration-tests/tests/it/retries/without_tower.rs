//! A retry around a guarded call, without tower.

use std::io;
use std::time::Duration;

use http::Response;
use integration_tests::{reqwest_client, retry_at_once};
use test_servers::{Action, Http};
use tokio::time::{Instant, sleep};
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, BreakerError, Circuit, CircuitState, Clock};
use tower_jitter_retry::{Deadline, Jitter, RetryPolicy, RetryPolicyBuilder};

const SECOND: Duration = Duration::from_secs(1);

/// Opens after two failures in a row, also of retries.
fn config() -> BreakerConfigBuilder {
    BreakerConfig::builder()
        .consecutive_failures(2)
        .consecutive_failures_span(Duration::ZERO)
        .count_failed_retries(true)
}

fn circuit() -> Circuit {
    Circuit::new(config().clock(Clock::manual().0).build().unwrap())
}

fn policy() -> RetryPolicyBuilder {
    retry_at_once().max_attempts(5).budget(None)
}

#[tokio::test]
async fn retry_around_circuit_repeats_status_of_client() {
    let server = Http::start().await;
    server.script([Action::status(503)]);
    let (client, circuit, policy) = (reqwest_client().build().unwrap(), circuit(), policy().build().unwrap());

    let response = policy.retry(|| circuit.call(client.get(server.url()).send())).await.unwrap();
    assert_eq!((response.status().as_u16(), server.requests().len()), (200, 2));
    let window = circuit.status().window;
    assert_eq!((window.calls, window.failures), (2, 1));
}

#[tokio::test]
async fn retry_around_guard_stops_when_circuit_opens() {
    let server = Http::start().await;
    server.set_default(Action::status(503));
    let (client, circuit, policy) = (reqwest_client().build().unwrap(), circuit(), policy().build().unwrap());
    let search =
        circuit.protect(async |path: &str| client.get(format!("{}/{path}", server.url())).send().await);

    let response = policy.retry(|| search("rust")).await.unwrap();
    assert_eq!(response.status(), 503, "the outcome of the last attempt that was sent");
    assert_eq!((server.requests().len(), circuit.status().state), (2, CircuitState::Open));

    let error = policy.retry(|| search("rust")).await.unwrap_err();
    assert!(matches!(error, BreakerError::Rejected(_)));
    assert_eq!(server.requests().len(), 2, "a rejection is not retried");
}

#[test]
fn blocking_retry_around_guard_stops_when_circuit_opens() {
    let (circuit, policy) = (circuit(), policy().build().unwrap());
    let mut calls = 0;
    let mut fails = || {
        calls += 1;
        Err::<Response<()>, _>(anyhow::Error::from(io::Error::from(io::ErrorKind::ConnectionReset)))
    };
    let deadline = Deadline::within(SECOND);
    let error = policy.deadline(deadline).retry_blocking(|| circuit.call_blocking(&mut fails)).unwrap_err();
    assert!(error.is::<io::Error>());
    assert_eq!((calls, circuit.status().state), (2, CircuitState::Open));
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_retries_around_guard_with_timeouts() {
    let circuit = Circuit::new(config().consecutive_failures(100).clock(Clock::tokio()).build().unwrap());
    let policy = RetryPolicy::builder().budget(None).jitter(Jitter::None).max_attempts(100);
    let policy = policy.initial_backoff(SECOND).backoff_multiplier(1.0).build().unwrap();
    let hangs = || async {
        sleep(60 * SECOND).await;
        Ok::<u32, io::Error>(7)
    };

    let began = Instant::now();
    let limited = policy.deadline(Deadline::within(10 * SECOND));
    let error = limited.retry(|| circuit.call_within(2 * SECOND, hangs())).await.unwrap_err();
    assert!(matches!(error, BreakerError::TimedOut(_)));
    // Attempts of 2 s start after 0 s, 3 s, 6 s and 9 s. The next one would start after 12 s.
    assert_eq!((began.elapsed(), circuit.status().window.failures), (11 * SECOND, 4));
}
