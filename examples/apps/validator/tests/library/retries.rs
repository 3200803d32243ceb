//! Retries around circuits, on tokio's paused clock.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, advance};
use tower_breaker::{CircuitState, Rejection};
use validator::error::CheckError;
use validator::resilience::{Resilience, ResilienceSettings};
use validator::timeouts::with_timeout;

const NAME: &str = "questdb";

fn resilience(fail_max: u32) -> Resilience {
    let fail_max = NonZeroU32::new(fail_max).unwrap();
    Resilience::new(&ResilienceSettings { fail_max, ..ResilienceSettings::default() })
}

fn refused() -> CheckError {
    io::Error::from(ErrorKind::ConnectionRefused).into()
}

/// Makes a call whose first attempts fail. Returns its result, the attempts and the seconds.
async fn call_failing(
    resilience: &Resilience,
    failures: u32,
    error: impl Fn() -> CheckError,
) -> (Result<u32, CheckError>, u32, u64) {
    let (attempts, start) = (Cell::new(0), Instant::now());
    let attempt = async || {
        attempts.set(attempts.get() + 1);
        if attempts.get() > failures { Ok(attempts.get()) } else { Err(error()) }
    };
    let result = resilience.retry_with_breaker(NAME, 3, attempt).await;
    (result, attempts.get(), start.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn retry_succeeds_on_second_attempt() {
    let resilience = resilience(5);
    let (result, attempts, seconds) = call_failing(&resilience, 1, refused).await;
    assert_eq!((result.unwrap(), attempts, seconds), (2, 2, 1));
    assert_eq!(resilience.get_breaker(NAME).failures(), 0);
}

#[tokio::test(start_paused = true)]
async fn retry_respects_max_attempts() {
    let (result, attempts, seconds) = call_failing(&resilience(5), u32::MAX, refused).await;
    assert_eq!(result.unwrap_err().to_string(), "connection refused");
    // It waits 1 s and 2 s.
    assert_eq!((attempts, seconds), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn retry_waits_double() {
    let start = Instant::now();
    let times = Cell::new(Vec::new());
    let attempt = async || {
        let mut earlier = times.take();
        earlier.push(start.elapsed().as_secs());
        times.set(earlier);
        Err::<(), _>(refused())
    };
    resilience(100).retry_with_breaker(NAME, 7, attempt).await.unwrap_err();
    assert_eq!(times.take(), [0, 1, 3, 7, 15, 31, 63]);
}

#[tokio::test(start_paused = true)]
async fn retry_records_failures_to_breaker() {
    let resilience = resilience(5);
    let breaker = resilience.get_breaker(NAME);
    call_failing(&resilience, u32::MAX, refused).await.0.unwrap_err();
    assert_eq!((breaker.failures(), breaker.state()), (3, CircuitState::Closed));
    // The fifth failed attempt is the second one of the second call. The third is not made, and the
    // call does not wait for it.
    let (result, attempts, seconds) = call_failing(&resilience, u32::MAX, refused).await;
    assert_eq!(result.unwrap_err().to_string(), "connection refused");
    assert_eq!((attempts, seconds), (2, 1));
    assert_eq!((breaker.failures(), breaker.state()), (5, CircuitState::Open));
}

#[tokio::test(start_paused = true)]
async fn retry_skips_when_circuit_open() {
    let resilience = resilience(1);
    let breaker = resilience.get_breaker(NAME);
    breaker.record_failure();
    let (result, attempts, seconds) = call_failing(&resilience, 0, refused).await;
    assert!(result.unwrap_err().is::<Rejection>());
    assert_eq!((attempts, seconds), (0, 0));

    advance(Duration::from_secs(60)).await;
    let (result, attempts, _) = call_failing(&resilience, 0, refused).await;
    assert_eq!((result.unwrap(), attempts, breaker.state()), (1, 1, CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn timed_out_attempts_are_retried() {
    let resilience = resilience(5);
    let attempts = Cell::new(0);
    let attempt = async || {
        attempts.set(attempts.get() + 1);
        Ok(with_timeout(pending::<()>(), Duration::from_secs(10), NAME).await?)
    };
    let error = resilience.retry_with_breaker(NAME, 3, attempt).await.unwrap_err();
    assert!(error.to_string().starts_with("`questdb` did not finish in 10 s"), "{error}");
    assert_eq!((attempts.get(), resilience.get_breaker(NAME).failures()), (3, 3));
}

/// An error that is neither a connection error nor a timeout.
#[derive(Debug)]
struct InvalidLine;

impl fmt::Display for InvalidLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid line")
    }
}

impl Error for InvalidLine {}

#[tokio::test(start_paused = true)]
async fn other_errors_are_counted_and_not_retried() {
    let resilience = resilience(5);
    let (result, attempts, _) = call_failing(&resilience, 1, || InvalidLine.into()).await;
    assert!(result.unwrap_err().is::<InvalidLine>());
    assert_eq!((attempts, resilience.get_breaker(NAME).failures()), (1, 1));
}

#[tokio::test]
async fn invalid_max_attempts_are_an_error() {
    let resilience = resilience(5);
    let error = resilience.retry_with_breaker(NAME, 0, async || Ok(())).await.unwrap_err();
    assert_eq!(error.to_string(), "`max_attempts` is 0; allowed is 1 to 1000");
}
