//! Retries around a circuit around a send, and the circuits of the backends.

use std::error::Error;
use std::fmt;
use std::future::pending;
use std::time::Duration;

use futures::FutureExt;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tower_breaker::{
    BreakerConfig, BreakerError, CancelledPolicy, Circuit, CircuitRegistry, Clock, ConfigError,
    HumanDuration, Rejection, Status, Verdict,
};
use tower_jitter_retry::{Budget, Jitter, RetryPolicy};

use crate::backend::{Backend, Message, Response, SendError};

/// The settings of the retries. A missing setting has its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// The delay before the first retry. **Default**: 100 ms.
    pub initial_backoff: HumanDuration,
    /// The longest delay, without its jitter. **Default**: 10 s.
    pub max_backoff: HumanDuration,
    /// The time after which no retry starts. **Default**: 2 minutes.
    pub max_elapsed: HumanDuration,
    /// The factor between a delay and the next. **Default**: 2.
    pub backoff_multiplier: f64,
    /// The share of a delay by which it is shortened or lengthened at random. **Default**: 0.5.
    pub jitter: f64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            initial_backoff: HumanDuration(Duration::from_millis(100)),
            max_backoff: HumanDuration(Duration::from_secs(10)),
            max_elapsed: HumanDuration(Duration::from_secs(120)),
            backoff_multiplier: 2.0,
            jitter: 0.5,
        }
    }
}

impl RetrySettings {
    /// Creates the policy. The number of attempts has no limit: only the time ends the retries.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range.
    pub fn policy(&self) -> Result<RetryPolicy, ConfigError> {
        RetryPolicy::builder()
            .max_attempts(None)
            .initial_backoff(self.initial_backoff.into())
            .max_backoff(self.max_backoff.into())
            .max_elapsed(Duration::from(self.max_elapsed))
            .backoff_multiplier(self.backoff_multiplier)
            .jitter(Jitter::CenkaltiProportional(self.jitter))
            // The circuit limits the sends to a backend that fails.
            .budget(None::<Budget>)
            .build()
    }
}

/// The settings of the circuits. A missing setting has its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitSettings {
    /// The number of failures in a row that opens a circuit. **Default**: 5.
    pub consecutive_failures: u32,
    /// How long a circuit stays open before it admits probes. **Default**: 30 s.
    pub open_for: HumanDuration,
    /// The number of concurrent sends that a half-open circuit admits. **Default**: 3.
    pub probes: u32,
    /// The number of successful probes that closes a circuit. **Default**: 3.
    pub successes_to_close: u32,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            open_for: HumanDuration(Duration::from_secs(30)),
            probes: 3,
            successes_to_close: 3,
        }
    }
}

/// The longest time for which a probe holds its slot. A send may take long. It always ends or is
/// dropped, and then frees its slot.
const PROBE_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

impl CircuitSettings {
    /// Creates the configuration.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range.
    pub fn config(&self) -> Result<BreakerConfig, ConfigError> {
        BreakerConfig::builder()
            .consecutive_failures(self.consecutive_failures)
            .consecutive_failures_span(Duration::ZERO)
            .failure_rate(None)
            // Most sends of a failing backend are retries.
            .count_failed_retries(true)
            .cancelled(CancelledPolicy::Ignore)
            .open_for(self.open_for.into())
            .open_jitter(0.0)
            .probes(self.probes)
            .successes_to_close(self.successes_to_close)
            .probe_lease(PROBE_LEASE)
            // The clock of the delays between retries.
            .clock(Clock::tokio())
            .build()
    }
}

/// The circuits of the backends: one for each type. A clone refers to the same circuits.
///
/// Their transitions are logged by `tower-breaker`: openings at the level `warn`, others at `info`.
#[derive(Clone, Debug)]
pub struct Circuits {
    registry: CircuitRegistry,
}

impl Circuits {
    /// Creates the set without circuits. Each circuit is created when its backend is first used.
    pub fn new(config: BreakerConfig) -> Self {
        Self { registry: CircuitRegistry::new(config) }
    }

    /// Returns the circuit of a backend type, whose name is the type.
    pub fn circuit(&self, backend_type: &str) -> Circuit {
        self.registry.circuit(backend_type.to_owned())
    }

    /// Returns the status of every circuit, sorted by name.
    pub fn statuses(&self) -> Vec<Status> {
        self.registry.statuses()
    }
}

/// The error of [`send_with_retry`].
#[derive(Debug)]
pub enum SendFailure {
    /// The backend failed. This is the error of the last send.
    Backend(SendError),
    /// The circuit rejected the first attempt: nothing was sent.
    Rejected(Rejection),
    /// The run was cancelled.
    Cancelled,
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(error) => error.fmt(f),
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Cancelled => f.write_str("the run was cancelled; run the plan again"),
        }
    }
}

impl Error for SendFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Backend(error) => error.source(),
            Self::Rejected(rejection) => rejection.source(),
            Self::Cancelled => None,
        }
    }
}

/// Sends a message through a circuit, and sends it again while the error is transient.
///
/// A circuit that is open after a failed send ends the retries without a delay, because it would
/// reject the next attempt. A rejection ends the retries, too.
///
/// # Errors
///
/// Returns the error of the last send, or the rejection if nothing was sent.
///
/// # Cancellation
///
/// When `cancel` is cancelled, the running send or the delay is dropped, and the function returns
/// [`SendFailure::Cancelled`]. The circuit does not count a cancelled send.
///
/// The function is not an `async fn`: the compiler could not prove that the future of an `async`
/// block with a retry of borrowed values is [`Send`].
pub fn send_with_retry<'a>(
    backend: &'a dyn Backend,
    message: &'a Message,
    circuit: &Circuit,
    retry: &RetryPolicy,
    cancel: &'a CancellationToken,
) -> impl Future<Output = Result<Response, SendFailure>> + Send + use<'a> {
    let guard = circuit.errors_only().rule(verdict_of_send);
    let circuit = circuit.clone();
    let retry = retry
        .errors_only()
        .rule(verdict_of_attempt)
        // A retry that the circuit would reject needs no wait.
        .retry_while(move || !circuit.status().rejects_calls());
    let response = retry.retry(move || {
        // `run_until_cancelled` polls the attempts before the token.
        if cancel.is_cancelled() {
            pending().left_future()
        } else {
            guard.call(send(backend, message)).right_future()
        }
    });
    cancel.run_until_cancelled(response).map(|result| match result {
        None => Err(SendFailure::Cancelled),
        Some(Ok(response)) => Ok(response),
        Some(Err(BreakerError::Inner(error))) => Err(SendFailure::Backend(error)),
        Some(Err(BreakerError::Rejected(rejection))) => Err(SendFailure::Rejected(rejection)),
        // Only `Circuit::call_within` returns other errors.
        Some(Err(error)) => Err(SendFailure::Backend(SendError::transient(error.to_string()))),
    })
}

/// Sends a message once. The backend is not called before the circuit has admitted the send.
async fn send(backend: &dyn Backend, message: &Message) -> Result<Response, SendError> {
    backend.send(message).await
}

fn verdict_of_send(outcome: Result<&Response, &SendError>) -> Option<Verdict> {
    outcome.err().map(|error| error.fault().into())
}

/// Defers to the classifier for a rejection, which is never retried.
fn verdict_of_attempt(outcome: Result<&Response, &BreakerError<SendError>>) -> Option<Verdict> {
    match outcome.err()? {
        BreakerError::Inner(error) => Some(error.fault().into()),
        _ => None,
    }
}
