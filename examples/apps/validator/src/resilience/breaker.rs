//! A view of a circuit: its state, its failures, and outcomes that the caller records.

use std::fmt;
use std::time::Duration;

use tower_breaker::fault_classify::Retryable;
use tower_breaker::{Circuit, CircuitState, Fault, Health, Kind, Verdict};
use tower_fault_classify::Origin;

/// The fault that [`CircuitBreaker::record_failure`] records.
const FAILURE: Fault = Fault::new(Kind::Unknown, Retryable::IfIdempotent, Health::Unhealthy, Origin::Unknown);

/// The circuit of an external service: its state, its failures, and outcomes that are recorded by
/// the caller.
///
/// The `Display` text is `CircuitBreaker(questdb, state=open, failures=5)`.
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    circuit: Circuit,
}

impl CircuitBreaker {
    pub(super) const fn new(circuit: Circuit) -> Self {
        Self { circuit }
    }

    /// Returns the circuit, for calls and for manual control.
    pub const fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Returns the name of the external service.
    pub const fn name(&self) -> &'static str {
        self.circuit.name()
    }

    /// Returns the state. A circuit whose open time is over stays open until the next call.
    pub fn state(&self) -> CircuitState {
        self.circuit.status().state
    }

    /// Returns the number of failures since the last success. It remains while the circuit is open,
    /// and a failed probe adds 1.
    pub fn failures(&self) -> u64 {
        self.circuit.status().consecutive_failures
    }

    /// Returns the time since the last failure. `None`: there was none.
    pub fn last_failure(&self) -> Option<Duration> {
        self.circuit.status().since_last_failure
    }

    /// Returns whether the circuit admits the next call. If its open time is over, that call is a
    /// probe.
    pub fn should_attempt(&self) -> bool {
        !self.circuit.status().rejects_calls()
    }

    /// Records a failed call that did not run through the circuit.
    pub fn record_failure(&self) {
        self.circuit.record(FAILURE.into());
    }

    /// Records a successful call that did not run through the circuit.
    pub fn record_success(&self) {
        self.circuit.record(Verdict::Success);
    }
}

impl fmt::Display for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, state, failures) = (self.name(), self.state(), self.failures());
        write!(f, "CircuitBreaker({name}, state={state}, failures={failures})")
    }
}
