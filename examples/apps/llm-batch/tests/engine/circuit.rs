//! The job's circuit.

use llm_batch::engine::{CircuitBreakerTripped, JobCircuit};
use serde_json::{Value, json};

use crate::fake::{fatal_error, unit};

/// Records a fatal error of a unit. Returns whether the circuit is open.
fn fail(circuit: &JobCircuit, id: u32) -> bool {
    let permit = circuit.try_acquire().unwrap();
    circuit.record_failure(permit, &fatal_error(), &unit(json!({"id": id, "text": "Zoë"})))
}

fn succeed(circuit: &JobCircuit) {
    let permit = circuit.try_acquire().unwrap();
    circuit.record_success(permit);
}

fn status(circuit: &JobCircuit) -> Value {
    serde_json::to_value(circuit.status()).unwrap()
}

fn untouched(threshold: u32) -> Value {
    json!({
        "consecutive_failures": 0,
        "threshold": threshold,
        "is_tripped": false,
        "last_error_type": null,
        "last_error_message": null,
        "last_failed_unit": null,
    })
}

#[test]
fn circuit_breaker_initial_state() {
    assert_eq!(status(&JobCircuit::new(5)), untouched(5));
}

#[test]
fn circuit_breaker_records_failure() {
    let circuit = JobCircuit::new(5);
    assert!(!fail(&circuit, 1));
    assert!(!fail(&circuit, 2));
    let status = circuit.status();
    assert_eq!((status.consecutive_failures, status.is_tripped), (2, false));
    assert_eq!(status.last_error_type.as_deref(), Some("AuthenticationError"));
    assert_eq!(status.last_error_message.as_deref(), Some("the key is invalid: check it"));
    assert_eq!(status.last_failed_unit, Some(json!({"id": 2, "text": "Zoë"})));
}

#[test]
fn circuit_breaker_resets_on_success() {
    let circuit = JobCircuit::new(3);
    fail(&circuit, 1);
    fail(&circuit, 2);
    succeed(&circuit);
    assert_eq!(status(&circuit), untouched(3));
    assert!(!fail(&circuit, 3));
    assert!(!fail(&circuit, 4));
    assert!(fail(&circuit, 5));
}

#[test]
fn circuit_breaker_trips_at_threshold() {
    let circuit = JobCircuit::new(3);
    assert_eq!([1, 2, 3].map(|id| fail(&circuit, id)), [false, false, true]);
    let status = circuit.status();
    assert_eq!((status.consecutive_failures, status.is_tripped), (3, true));
    circuit.try_acquire().unwrap_err();
    let error = CircuitBreakerTripped(status);
    assert_eq!(error.to_string(), "Circuit breaker tripped after 3 failures");
}

#[test]
fn circuit_breaker_manual_reset() {
    let circuit = JobCircuit::new(1);
    assert!(fail(&circuit, 1));
    circuit.reset();
    assert_eq!(status(&circuit), untouched(1));
    succeed(&circuit);
    // A circuit that is not open can be reset, too.
    let circuit = JobCircuit::new(2);
    fail(&circuit, 1);
    circuit.reset();
    assert_eq!(status(&circuit), untouched(2));
    assert!(!fail(&circuit, 2));
}

#[test]
fn circuit_breaker_get_status() {
    let circuit = JobCircuit::new(2);
    fail(&circuit, 1);
    fail(&circuit, 2);
    let expected = json!({
        "consecutive_failures": 2,
        "threshold": 2,
        "is_tripped": true,
        "last_error_type": "AuthenticationError",
        "last_error_message": "the key is invalid: check it",
        "last_failed_unit": {"id": 2, "text": "Zoë"},
    });
    assert_eq!(status(&circuit), expected);
}

#[test]
fn call_without_a_fatal_error_counts_nothing() {
    let circuit = JobCircuit::new(2);
    fail(&circuit, 1);
    circuit.try_acquire().unwrap().cancel();
    drop(circuit.try_acquire().unwrap());
    assert_eq!(circuit.status().consecutive_failures, 1);
    assert!(fail(&circuit, 2));
}
