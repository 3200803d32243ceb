//! The circuits and the retries.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use tower_breaker::{BreakerConfig, CircuitRegistry, Clock, ConfigError};
use tower_fault_classify::{Fault, Kind, Origin, Retryable, Verdict, classify_error};
use tower_jitter_retry::{Budget, Jitter, RetryPolicy};

use super::{CircuitBreaker, ResilienceSettings};
use crate::error::CheckError;
use crate::timeouts::Seconds;

/// The waits of retries double without a limit: this is the largest one that a policy accepts.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A circuit for each external service, and the retries around them.
///
/// Clones share the circuits.
#[derive(Clone, Debug)]
pub struct Resilience {
    registry: CircuitRegistry,
    retry_wait: Seconds,
}

impl Resilience {
    /// Creates the circuits and the retries with these settings.
    ///
    /// # Panics
    ///
    /// Does not panic: every [`Seconds`] is in the range of the settings of a circuit.
    pub fn new(settings: &ResilienceSettings) -> Self {
        let default = breaker_config(settings).expect("`Seconds` has the range of `open_for`");
        Self { registry: CircuitRegistry::new(default), retry_wait: settings.retry_wait }
    }

    /// Returns the registry of the circuits, for manual control and for observers.
    pub const fn registry(&self) -> &CircuitRegistry {
        &self.registry
    }

    /// Returns the circuit with this name, and creates it if it does not exist.
    pub fn get_breaker(&self, name: impl Into<Cow<'static, str>>) -> CircuitBreaker {
        CircuitBreaker::new(self.registry.circuit(name))
    }

    /// Returns the circuit with this name, and changes its settings.
    ///
    /// # Errors
    ///
    /// Returns an error if the settings are not valid for a circuit.
    pub fn get_breaker_with(
        &self,
        name: &'static str,
        settings: &ResilienceSettings,
    ) -> Result<CircuitBreaker, ConfigError> {
        let config = breaker_config(settings)?.to_builder().name(name).build()?;
        self.registry.configure(config)?;
        Ok(self.get_breaker(name))
    }

    /// Closes all circuits, and clears their failures.
    pub fn reset_all_breakers(&self) {
        self.registry.reset_all();
    }

    /// Makes a call through the circuit with this name, up to `max_attempts` times.
    ///
    /// - The waits between the attempts are 1 s, 2 s, 4 s and so on, without jitter.
    /// - The call is repeated after connection errors and timeouts only.
    /// - The circuit counts every failed attempt.
    /// - While the circuit is open, the call fails without a wait, also between two attempts.
    ///
    /// # Errors
    ///
    /// Returns the error of the last attempt; a [`Rejection`](tower_breaker::Rejection) if the
    /// circuit was open at the start; a [`ConfigError`] if `max_attempts` is not in 1 to 1,000.
    pub async fn retry_with_breaker<T, F, Fut>(
        &self,
        name: &'static str,
        max_attempts: u32,
        mut call: F,
    ) -> Result<T, CheckError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, CheckError>>,
    {
        let circuit = self.registry.circuit(name);
        let guard = circuit.errors_only();
        let policy = self.retry_policy(max_attempts)?;
        let retrier = policy
            .errors_only()
            .rule(|outcome: Result<&T, &CheckError>| never_retried(outcome.err()?))
            // A retry that the circuit would reject needs no wait.
            .retry_while(move || !circuit.status().rejects_calls());
        retrier.retry(|| guard.call(call())).await
    }

    fn retry_policy(&self, max_attempts: u32) -> Result<RetryPolicy, ConfigError> {
        RetryPolicy::builder()
            .max_attempts(max_attempts)
            .initial_backoff(self.retry_wait.into())
            .max_backoff(MAX_WAIT)
            .jitter(Jitter::None)
            // The number of attempts is the only limit.
            .max_elapsed(None)
            .budget(None::<Budget>)
            .build()
    }
}

fn breaker_config(settings: &ResilienceSettings) -> Result<BreakerConfig, ConfigError> {
    BreakerConfig::builder()
        .consecutive_failures(settings.fail_max.get())
        // Few calls are made, so failures in a row open the circuit, however soon they follow.
        .consecutive_failures_span(Duration::ZERO)
        .failure_rate(None)
        .count_failed_retries(true)
        .open_for(settings.reset_timeout.into())
        .open_jitter(0.0)
        .successes_to_close(1)
        .clock(Clock::tokio())
        .build()
}

/// Returns the verdict on an error after which the call is not repeated. `None`: the tables decide.
fn never_retried(error: &CheckError) -> Option<Verdict> {
    let fault = classify_error(&**error);
    let repeat = is_connection_error_or_timeout(&fault);
    if repeat { None } else { Some(fault.with_retryable(Retryable::Never).into()) }
}

fn is_connection_error_or_timeout(fault: &Fault) -> bool {
    // A status, such as 503 or 504, has the origin `Remote`.
    fault.origin() == Origin::Transport || (fault.kind() == Kind::Timeout && fault.origin() != Origin::Remote)
}
