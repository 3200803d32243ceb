//! The circuits, on tokio's paused clock.

use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::advance;
use tower_breaker::{BreakerError, CircuitState};
use validator::resilience::{self, CircuitBreaker, Resilience, ResilienceSettings};
use validator::timeouts::Seconds;

const RESET_TIMEOUT: Duration = Duration::from_secs(60);

fn new_breaker() -> CircuitBreaker {
    Resilience::new(&ResilienceSettings::default()).get_breaker("questdb")
}

fn open_breaker() -> CircuitBreaker {
    let breaker = new_breaker();
    for _ in 0..5 {
        breaker.record_failure();
    }
    breaker
}

/// Makes a successful call, and returns the state of the circuit during the call.
async fn call(breaker: &CircuitBreaker) -> Result<CircuitState, BreakerError<io::Error>> {
    breaker.circuit().errors_only().call(async { Ok::<_, io::Error>(breaker.state()) }).await
}

#[tokio::test(start_paused = true)]
async fn circuit_closed_allows_calls() {
    let breaker = new_breaker();
    assert!(breaker.should_attempt());
    assert_eq!(call(&breaker).await.unwrap(), CircuitState::Closed);
    assert_eq!(breaker.to_string(), "CircuitBreaker(questdb, state=closed, failures=0)");
    assert_eq!(breaker.last_failure(), None);
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_after_fail_max() {
    let breaker = new_breaker();
    for failures in 1..=4 {
        breaker.record_failure();
        assert_eq!((breaker.state(), breaker.failures()), (CircuitState::Closed, failures));
    }
    // The failures are counted in a row.
    breaker.record_success();
    assert_eq!(breaker.failures(), 0);
    for _ in 0..4 {
        breaker.record_failure();
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
    breaker.record_failure();
    assert_eq!(breaker.to_string(), "CircuitBreaker(questdb, state=open, failures=5)");
    advance(Duration::from_secs(7)).await;
    // The time is exact to about a millisecond.
    assert_eq!(breaker.last_failure().map(|time| time.as_secs()), Some(7));
}

#[tokio::test(start_paused = true)]
async fn circuit_rejects_when_open() {
    let breaker = open_breaker();
    assert!(!breaker.should_attempt());
    let BreakerError::Rejected(rejection) = call(&breaker).await.unwrap_err() else {
        panic!("the call was sent")
    };
    assert_eq!(rejection.to_string(), "circuit breaker `questdb` is open; retry after 60 s");
}

#[tokio::test(start_paused = true)]
async fn circuit_half_open_after_timeout() {
    let breaker = open_breaker();
    advance(Duration::from_millis(59_999)).await;
    assert!(!breaker.should_attempt());
    advance(Duration::from_millis(1)).await;
    assert!(breaker.should_attempt());
    assert_eq!(call(&breaker).await.unwrap(), CircuitState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn circuit_closes_on_success() {
    let breaker = open_breaker();
    advance(RESET_TIMEOUT).await;
    breaker.record_success();
    assert_eq!(breaker.to_string(), "CircuitBreaker(questdb, state=closed, failures=0)");
}

#[tokio::test(start_paused = true)]
async fn failed_probe_opens_circuit_again() {
    let breaker = open_breaker();
    advance(RESET_TIMEOUT).await;
    breaker.record_failure();
    assert_eq!(breaker.to_string(), "CircuitBreaker(questdb, state=open, failures=6)");
    assert!(!breaker.should_attempt());
}

#[tokio::test(start_paused = true)]
async fn circuit_registry_isolation() {
    let resilience = Resilience::new(&ResilienceSettings::default());
    let (questdb, mcp) = (resilience.get_breaker("questdb"), resilience.get_breaker("mcp"));
    for _ in 0..5 {
        // The same name is the same circuit.
        resilience.get_breaker("questdb").record_failure();
    }
    assert_eq!((questdb.state(), mcp.state()), (CircuitState::Open, CircuitState::Closed));
    assert_eq!(mcp.failures(), 0);

    resilience.reset_all_breakers();
    assert_eq!((questdb.state(), questdb.failures()), (CircuitState::Closed, 0));
}

#[tokio::test(start_paused = true)]
async fn breaker_settings_apply_to_one_name() {
    let resilience = Resilience::new(&ResilienceSettings::default());
    let settings = ResilienceSettings {
        fail_max: NonZeroU32::MIN,
        reset_timeout: Seconds::new(5),
        ..ResilienceSettings::default()
    };
    let mcp = resilience.get_breaker_with("mcp", &settings).unwrap();
    let questdb = resilience.get_breaker("questdb");
    mcp.record_failure();
    questdb.record_failure();
    assert_eq!((mcp.state(), questdb.state()), (CircuitState::Open, CircuitState::Closed));
    advance(Duration::from_secs(5)).await;
    assert!(mcp.should_attempt());
}

#[test]
fn global_circuits_are_shared() {
    resilience::global().get_breaker("global").record_failure();
    assert_eq!(resilience::global().get_breaker("global").failures(), 1);
    // The settings of the first use stay.
    let settings = ResilienceSettings { fail_max: NonZeroU32::MIN, ..ResilienceSettings::default() };
    resilience::init(&settings).get_breaker("global").record_failure();
    assert_eq!(resilience::global().get_breaker("global").state(), CircuitState::Closed);
}

#[test]
fn longest_and_shortest_reset_timeout_are_valid() {
    for seconds in [0.001, 31_536_000.0] {
        let reset_timeout = Seconds::try_from(seconds).unwrap();
        let settings = ResilienceSettings { reset_timeout, ..ResilienceSettings::default() };
        Resilience::new(&settings);
    }
}
