//! Retries around a circuit around a send.

use std::time::Duration;

use futures::future::join_all;
use orchestrator::backend::SendError;
use orchestrator::resilience::{CircuitSettings, Circuits, RetrySettings, SendFailure, send_with_retry};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower_breaker::{Circuit, CircuitState, Reason};
use tower_jitter_retry::{Jitter, RetryPolicy};

use crate::common::{TestBackend, message, response, short_retries};

fn circuit(settings: &CircuitSettings) -> Circuit {
    Circuits::new(settings.config().unwrap()).circuit("claude")
}

fn default_circuit() -> Circuit {
    circuit(&CircuitSettings::default())
}

/// A circuit that does not open.
fn no_circuit() -> Circuit {
    circuit(&CircuitSettings { consecutive_failures: 0, ..CircuitSettings::default() })
}

fn policy() -> RetryPolicy {
    short_retries().policy().unwrap()
}

async fn send(backend: &TestBackend, circuit: &Circuit) -> Result<String, SendFailure> {
    let cancel = CancellationToken::new();
    let result = send_with_retry(backend, &message("hello"), circuit, &policy(), &cancel).await;
    result.map(|response| response.text)
}

/// A backend that fails until the send with this number.
fn fails_until(success: u32) -> TestBackend {
    TestBackend::new(move |_, send| async move {
        if send < success { Err(SendError::transient("not yet")) } else { Ok(response("done")) }
    })
}

#[tokio::test(start_paused = true)]
async fn send_with_retry_transient_then_success() {
    let backend = fails_until(3);
    let circuit = default_circuit();
    assert_eq!(send(&backend, &circuit).await.unwrap(), "done");
    assert_eq!(backend.sends(), 3);
    let status = circuit.status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn send_with_retry_permanent_failure_circuit_open() {
    let backend = TestBackend::dead();
    let circuit = default_circuit();
    let failure = send(&backend, &circuit).await.unwrap_err();
    assert!(matches!(&failure, SendFailure::Backend(_)), "{failure}");
    assert_eq!(failure.to_string(), "the backend is down");
    assert_eq!(backend.sends(), 5);
    let open = circuit.status().retry_after;
    assert_eq!(open, Some(Duration::from_secs(30)), "no delay follows the failure that opens the circuit");
    let trip = circuit.status().last_trip.expect("the circuit is open");
    assert_eq!((trip.reason, trip.consecutive_failures), (Reason::ConsecutiveFailures, 5));

    let start = Instant::now();
    for _ in 0..10 {
        let failure = send(&backend, &circuit).await.unwrap_err();
        assert!(matches!(&failure, SendFailure::Rejected(_)), "{failure}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "a rejected call does not sleep");
    assert_eq!(backend.sends(), 5);
}

#[tokio::test(start_paused = true)]
async fn send_with_retry_context_cancelled_stops_retry() {
    // Each delay is longer than 200 ms.
    let retry = RetrySettings { initial_backoff: Duration::from_secs(1).into(), ..short_settings() };
    let backend = TestBackend::dead();
    let cancel = CancellationToken::new();
    cancel_after(Duration::from_millis(200), &cancel);
    let start = Instant::now();
    let (message, circuit, retry) = (message("hello"), default_circuit(), retry.policy().unwrap());
    let failure = send_with_retry(&backend, &message, &circuit, &retry, &cancel).await.unwrap_err();
    assert!(matches!(failure, SendFailure::Cancelled), "{failure}");
    assert_eq!(start.elapsed(), Duration::from_millis(200));
    assert_eq!(backend.sends(), 1);
}

fn short_settings() -> RetrySettings {
    RetrySettings { max_backoff: Duration::from_secs(1).into(), ..RetrySettings::default() }
}

fn cancel_after(delay: Duration, cancel: &CancellationToken) {
    let cancel = cancel.clone();
    tokio::spawn(async move {
        sleep(delay).await;
        cancel.cancel();
    });
}

#[tokio::test(start_paused = true)]
async fn cancelled_token_prevents_first_send() {
    let backend = TestBackend::echo();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (message, circuit) = (message("hello"), default_circuit());
    let failure = send_with_retry(&backend, &message, &circuit, &policy(), &cancel).await.unwrap_err();
    assert!(matches!(failure, SendFailure::Cancelled), "{failure}");
    assert_eq!(backend.sends(), 0);
}

#[tokio::test(start_paused = true)]
async fn error_of_this_machine_is_retried_and_not_counted() {
    let backend = TestBackend::new(async |_, send| match send {
        1..=10 => Err(SendError::local("too many open files")),
        _ => Ok(response("done")),
    });
    let circuit = default_circuit();
    assert_eq!(send(&backend, &circuit).await.unwrap(), "done");
    let status = circuit.status();
    assert_eq!((backend.sends(), status.consecutive_failures), (11, 0));
    assert!(status.last_trip.is_none());
}

#[tokio::test(start_paused = true)]
async fn token_cancelled_by_attempt_prevents_retry_without_delay() {
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let backend = TestBackend::new(move |_, _| {
        token.cancel();
        async { Err(SendError::transient("the backend is down")) }
    });
    let immediate = RetrySettings {
        initial_backoff: Duration::ZERO.into(),
        max_backoff: Duration::ZERO.into(),
        ..RetrySettings::default()
    };
    let (message, circuit, retry) = (message("hello"), default_circuit(), immediate.policy().unwrap());
    let failure = send_with_retry(&backend, &message, &circuit, &retry, &cancel).await.unwrap_err();
    assert!(matches!(failure, SendFailure::Cancelled), "{failure}");
    assert_eq!(backend.sends(), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelled_sends_do_not_change_circuit() {
    let circuit = default_circuit();
    let failed = TestBackend::new(async |_, _| Err(SendError::transient("the backend is down")));
    let single = RetrySettings { max_elapsed: Duration::ZERO.into(), ..RetrySettings::default() };
    let (single, message) = (single.policy().unwrap(), message("hello"));
    let hanging = TestBackend::hanging();
    for _ in 0..4 {
        let token = CancellationToken::new();
        send_with_retry(&failed, &message, &circuit, &single, &token).await.unwrap_err();
        cancel_after(Duration::from_secs(2), &token);
        let failure = send_with_retry(&hanging, &message, &circuit, &single, &token).await.unwrap_err();
        assert!(matches!(failure, SendFailure::Cancelled), "{failure}");
    }
    let status = circuit.status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 4));
    // A cancelled send between two failures does not restart the count.
    let token = CancellationToken::new();
    send_with_retry(&failed, &message, &circuit, &single, &token).await.unwrap_err();
    assert_eq!(circuit.status().state, CircuitState::Open);
    assert_eq!((failed.sends(), hanging.sends()), (5, 4));
}

#[tokio::test(start_paused = true)]
async fn permanent_error_is_sent_once_and_not_counted() {
    let backend = TestBackend::new(async |_, _| Err(SendError::permanent("the prompt is too long")));
    let circuit = default_circuit();
    for _ in 0..6 {
        let failure = send(&backend, &circuit).await.unwrap_err();
        assert!(matches!(&failure, SendFailure::Backend(_)), "{failure}");
    }
    let status = circuit.status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 0));
    assert_eq!(backend.sends(), 6);
}

#[tokio::test(start_paused = true)]
async fn retries_continue_until_max_elapsed() {
    let backend = TestBackend::dead();
    let start = Instant::now();
    let failure = send(&backend, &no_circuit()).await.unwrap_err();
    assert!(matches!(&failure, SendFailure::Backend(_)), "{failure}");
    assert!(start.elapsed() <= Duration::from_secs(1), "{:?}", start.elapsed());
    // 1 s holds at least 13 delays of at most 75 ms. The default of the crate is 3 attempts.
    assert!(backend.sends() >= 13, "{}", backend.sends());
}

#[test]
fn default_settings_have_documented_values() {
    let policy = RetrySettings::default().policy().unwrap();
    let backoff = policy.backoff();
    assert_eq!(backoff.initial_backoff(), Duration::from_millis(100));
    assert_eq!(backoff.max_backoff(), Duration::from_secs(10));
    assert!((backoff.backoff_multiplier() - 2.0).abs() < f64::EPSILON);
    assert_eq!(backoff.jitter(), Jitter::CenkaltiProportional(0.5));
    assert_eq!(policy.max_elapsed(), Some(Duration::from_secs(120)));
    assert_eq!(policy.max_attempts(), None);
    assert!(policy.budget().is_none());
}

#[test]
fn empty_settings_have_default_values() {
    let retry: RetrySettings = serde_json::from_str("{}").unwrap();
    let default = RetrySettings::default().policy().unwrap();
    assert_eq!(retry.policy().unwrap().backoff(), default.backoff());
    let circuit: CircuitSettings = serde_json::from_str("{}").unwrap();
    assert_eq!(circuit.config(), CircuitSettings::default().config());
}

#[tokio::test(start_paused = true)]
async fn circuit_breaker_registry_per_backend_type() {
    let circuits = Circuits::new(CircuitSettings::default().config().unwrap());
    assert!(circuits.statuses().is_empty(), "a circuit is created when it is first used");
    let dead = TestBackend::dead();
    send(&dead, &circuits.circuit("claude")).await.unwrap_err();

    assert_eq!(circuits.circuit("claude").status().state, CircuitState::Open);
    assert_eq!(circuits.circuit("codex").status().state, CircuitState::Closed);
    assert_eq!(send(&fails_until(1), &circuits.circuit("codex")).await.unwrap(), "done");
    let names: Vec<_> = circuits.statuses().iter().map(|status| status.circuit).collect();
    assert_eq!(names, ["claude", "codex"]);
}

#[tokio::test(start_paused = true)]
async fn open_circuit_half_opens_and_third_success_closes() {
    let circuit = default_circuit();
    send(&TestBackend::dead(), &circuit).await.unwrap_err();
    let backend = fails_until(1);
    sleep(Duration::from_secs(29)).await;
    assert!(matches!(send(&backend, &circuit).await, Err(SendFailure::Rejected(_))));
    sleep(Duration::from_secs(1)).await;
    for expected in [CircuitState::HalfOpen, CircuitState::HalfOpen, CircuitState::Closed] {
        send(&backend, &circuit).await.unwrap();
        assert_eq!(circuit.status().state, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn half_open_circuit_rejects_fourth_concurrent_send() {
    let circuit = default_circuit();
    send(&TestBackend::dead(), &circuit).await.unwrap_err();
    sleep(Duration::from_secs(31)).await;
    let slow = TestBackend::new(async |_, _| {
        sleep(Duration::from_secs(600)).await;
        Ok(response("done"))
    });
    let results = join_all((0..4).map(|_| send(&slow, &circuit))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert!(matches!(results[3], Err(SendFailure::Rejected(_))));
    assert_eq!((slow.sends(), circuit.status().state), (3, CircuitState::Closed));
}
