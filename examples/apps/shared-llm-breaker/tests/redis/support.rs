//! A Redis server for one test, and calls through breakers.

use std::fmt;
use std::future::ready;
use std::time::Duration;

use shared_llm_breaker::{BreakerSettings, CircuitBreaker, CircuitBreakerError, CircuitState};
use tokio::time::{sleep, timeout};

use super::log;

/// The longest wait of a test. A machine under load is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long circuits stay open.
pub(crate) const RESET_TIMEOUT: Duration = Duration::from_millis(500);

/// An error of a call, or a rejection.
#[derive(Debug)]
pub(crate) enum CallError {
    Failed(&'static str),
    Rejected(CircuitBreakerError),
}

impl From<CircuitBreakerError> for CallError {
    fn from(error: CircuitBreakerError) -> Self {
        Self::Rejected(error)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) => f.write_str(text),
            Self::Rejected(error) => error.fmt(f),
        }
    }
}

/// Returns settings with short times. Probes come from Redis only, because the takeover is long.
pub(crate) fn settings(instance: &str) -> BreakerSettings {
    BreakerSettings {
        reset_timeout: RESET_TIMEOUT,
        probe_lease: Some(Duration::from_secs(10)),
        instance: Some(instance.to_owned()),
        heartbeat: Duration::from_millis(250),
        takeover: Duration::from_secs(30),
        ready_within: PATIENCE,
        ..BreakerSettings::default()
    }
}

/// Returns a breaker that has attached to its store.
pub(crate) async fn start(url: &str, name: &str, settings: BreakerSettings) -> CircuitBreaker {
    log::collect();
    let breaker = CircuitBreaker::start(url, name, settings).expect("the settings are valid");
    assert!(breaker.ready().await, "{:?}", breaker.fleet().status());
    breaker
}

pub(crate) async fn succeed(breaker: &CircuitBreaker) -> Result<&'static str, CallError> {
    breaker.call(ready(Ok("reply"))).await
}

pub(crate) async fn fail(breaker: &CircuitBreaker) -> Result<&'static str, CallError> {
    breaker.call(ready(Err(CallError::Failed("status 503")))).await
}

/// Makes calls that fail until `count` of them have reached the API.
pub(crate) async fn fail_times(breaker: &CircuitBreaker, count: u32) {
    for _ in 0..count {
        let error = fail(breaker).await.expect_err("the API fails");
        assert!(matches!(error, CallError::Failed(_)), "{error}");
    }
}

/// Repeats a call until the breaker admits it.
pub(crate) async fn until_admitted(
    mut call: impl AsyncFnMut() -> Result<&'static str, CallError>,
) -> Result<&'static str, CallError> {
    let admitted = async {
        loop {
            match call().await {
                Err(CallError::Rejected(_)) => sleep(Duration::from_millis(5)).await,
                admitted => return admitted,
            }
        }
    };
    timeout(PATIENCE, admitted).await.expect("the breaker admits no call")
}

/// Waits until a condition is true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("this has not happened: {what}"));
}

pub(crate) async fn until_state(breaker: &CircuitBreaker, state: CircuitState) {
    until(state.as_str(), || breaker.state() == state).await;
}

/// Returns the text of the rejection of a call.
pub(crate) fn rejection(result: Result<&'static str, CallError>) -> CircuitBreakerError {
    match result {
        Err(CallError::Rejected(error)) => error,
        other => panic!("not rejected: {other:?}"),
    }
}
