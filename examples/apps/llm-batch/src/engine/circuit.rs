//! The circuit of a job, which stops the job when its calls can never succeed.

use std::error::Error;
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::telemetry::LastFailure;
use tower_breaker::{
    BreakerConfig, CancelledPolicy, Circuit, Fault, Health, Kind, Permit, Rejection, Verdict,
};

use crate::errors::FatalLlmError;
use crate::unit::Unit;

/// A fatal error. That the API rejects the request is no failure of the API, but of the job.
const FATAL: Fault = Fault::new(Kind::Client, Retryable::Never, Health::Unhealthy, Origin::Remote);

/// Counts consecutive fatal errors. At the threshold it opens, and stays open until it is reset.
#[derive(Debug)]
pub struct JobCircuit {
    circuit: Circuit,
    threshold: u32,
}

impl JobCircuit {
    /// Creates a closed circuit. With a threshold of 0 it never opens. A threshold above 1,000,000
    /// has the effect of 1,000,000.
    #[expect(clippy::missing_panics_doc, reason = "every threshold is allowed")]
    pub fn new(threshold: u32) -> Self {
        let config = BreakerConfig::single_flight()
            .name("job")
            .consecutive_failures(threshold.min(1_000_000))
            // A dropped call says nothing about the key or the requests.
            .cancelled(CancelledPolicy::Ignore)
            .build()
            .expect("every threshold is allowed");
        Self { circuit: Circuit::new(config), threshold }
    }

    /// Asks for the permit of a call. Drop the permit, or [cancel](Permit::cancel) it, if the call
    /// ends in an error that is not fatal.
    ///
    /// # Errors
    ///
    /// Returns an error if the circuit is open.
    pub fn try_acquire(&self) -> Result<Permit, Rejection> {
        self.circuit.try_acquire()
    }

    /// Records a reply.
    pub fn record_success(&self, permit: Permit) {
        permit.record(Verdict::Success);
    }

    /// Records a fatal error, and keeps it and its unit. Returns whether the circuit is open.
    pub fn record_failure(&self, permit: Permit, error: &FatalLlmError, unit: &Unit) -> bool {
        permit.fail_as(FATAL, error, Value::from(unit.clone()));
        self.circuit.status().rejects_calls()
    }

    /// Closes the circuit, and forgets the errors.
    #[expect(clippy::missing_panics_doc, reason = "only a circuit that is forced open refuses a reset")]
    pub fn reset(&self) {
        self.circuit.reset().expect("the circuit is never forced open");
    }

    /// Returns the state of the circuit.
    pub fn status(&self) -> TripStatus {
        let status = self.circuit.status();
        let mut trip_status = TripStatus {
            consecutive_failures: status.consecutive_failures,
            threshold: self.threshold,
            is_tripped: status.rejects_calls(),
            last_error_type: None,
            last_error_message: None,
            last_failed_unit: None,
        };
        // The circuit keeps the last failure after a success, too.
        if let Some(failure) = status.last_failure.filter(|_| status.consecutive_failures > 0) {
            trip_status.set_last_failure(failure);
        }
        trip_status
    }
}

/// The state of a job's circuit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TripStatus {
    /// The number of fatal errors since the last reply or reset.
    pub consecutive_failures: u64,
    /// The number of fatal errors at which the circuit opens. Zero: never.
    pub threshold: u32,
    /// Whether the circuit is open.
    pub is_tripped: bool,
    /// The type of the last fatal error, such as `AuthenticationError`.
    pub last_error_type: Option<String>,
    /// The message of the last fatal error.
    pub last_error_message: Option<String>,
    /// The unit of the last fatal error.
    pub last_failed_unit: Option<Value>,
}

impl TripStatus {
    fn set_last_failure(&mut self, failure: LastFailure) {
        // The text of a fatal error is `Type: message`.
        match failure.message.split_once(": ") {
            Some((error_type, message)) => {
                self.last_error_type = Some(error_type.to_owned());
                self.last_error_message = Some(message.to_owned());
            }
            None => self.last_error_message = Some(failure.message),
        }
        self.last_failed_unit = serde_json::from_str(&failure.subject).ok();
    }
}

/// The job's circuit has stopped the job.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreakerTripped(pub TripStatus);

impl fmt::Display for CircuitBreakerTripped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Circuit breaker tripped after {} failures", self.0.consecutive_failures)
    }
}

impl Error for CircuitBreakerTripped {}
