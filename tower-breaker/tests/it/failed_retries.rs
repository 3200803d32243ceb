//! How the outcomes of retries count.

use std::time::Duration;

use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{BreakerConfigBuilder, Circuit, CircuitState, Verdict};

use crate::support::{FAILURE, OPEN_FOR, circuit, config, send, state, timed};

/// Makes a retry through the circuit.
fn retry(circuit: &Circuit, verdict: Verdict) {
    circuit.try_acquire().expect("the circuit admits the call").retry().record(verdict);
}

fn three_in_a_row() -> BreakerConfigBuilder {
    config().failure_rate(None).consecutive_failures(3)
}

#[test]
fn failed_retries_count_in_no_run_and_no_rate() {
    let (by_run, _) = circuit(three_in_a_row());
    let (by_rate, _) = circuit(config().consecutive_failures(0).minimum_calls(3));
    for circuit in [by_run, by_rate] {
        send(&circuit, FAILURE);
        send(&circuit, FAILURE);
        for _ in 0..100 {
            retry(&circuit, FAILURE);
        }
        let status = circuit.status();
        assert_eq!((status.state, status.window.calls), (CircuitState::Closed, 2));
        assert_eq!(status.consecutive_failures, 2, "a failed retry does not reset the run either");
        send(&circuit, FAILURE);
        assert_eq!(state(&circuit), CircuitState::Open);
    }
}

#[test]
fn successful_retry_counts_as_a_success() {
    for timed in [false, true] {
        let config = if timed {
            three_in_a_row().slow_call_rate(Duration::from_secs(1), 1.0)
        } else {
            three_in_a_row()
        };
        let (circuit, _) = circuit(config);
        for _ in 0..10 {
            send(&circuit, FAILURE);
            send(&circuit, FAILURE);
            retry(&circuit, Verdict::Success);
        }
        assert_eq!(circuit.status().window.calls, 30, "timed: {timed}");
        assert_eq!(state(&circuit), CircuitState::Closed, "timed: {timed}");
    }
}

#[test]
fn slow_failed_retries_do_not_count_as_slow() {
    let (circuit, time) =
        circuit(config().failure_rate(None).minimum_calls(3).slow_call_rate(Duration::from_secs(1), 0.5));
    for _ in 0..10 {
        let permit = circuit.try_acquire().unwrap().retry();
        time.advance(Duration::from_secs(2));
        permit.record(FAILURE);
    }
    assert_eq!((state(&circuit), circuit.status().window.slow), (CircuitState::Closed, 0));
    for _ in 0..3 {
        let permit = circuit.try_acquire().unwrap().retry();
        time.advance(Duration::from_secs(2));
        permit.record(Verdict::Success);
    }
    assert_eq!(state(&circuit), CircuitState::Open, "a slow retry that succeeds counts as slow");
}

#[test]
fn failed_retries_count_if_configured_and_after_reconfiguration() {
    let counting = || three_in_a_row().count_failed_retries(true);
    let (circuit, _) = circuit(counting());
    (0..3).for_each(|_| retry(&circuit, FAILURE));
    assert_eq!(state(&circuit), CircuitState::Open);
    circuit.reset().unwrap();
    circuit.reconfigure(three_in_a_row().build().unwrap()).unwrap();
    (0..9).for_each(|_| retry(&circuit, FAILURE));
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn failed_retry_as_probe_opens_the_circuit_again() {
    let (circuit, time) = circuit(three_in_a_row());
    (0..3).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(OPEN_FOR);
    retry(&circuit, FAILURE);
    assert_eq!(state(&circuit), CircuitState::Open);
    time.advance(OPEN_FOR);
    retry(&circuit, Verdict::Success);
    retry(&circuit, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn failed_retries_of_keyed_circuit_do_not_count() {
    let (config, _) = timed(three_in_a_row());
    let config = KeyedConfig::builder(config).build().unwrap();
    let layer = KeyedBreakerLayer::<_, _>::new(config, |key: &u64| *key);
    let circuit = layer.circuits().get_or_insert(7).unwrap();
    for _ in 0..9 {
        circuit.try_acquire().unwrap().retry().record(FAILURE);
    }
    assert_eq!(circuit.status().consecutive_failures, 0);
    for _ in 0..3 {
        circuit.try_acquire().unwrap().record(FAILURE);
    }
    assert_eq!(circuit.status().state, CircuitState::Open);
}

#[test]
fn failed_retries_in_slow_start_free_their_slots_and_do_not_count() {
    let (circuit, time) = circuit(three_in_a_row().slow_start_successes(10));
    (0..3).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(OPEN_FOR);
    assert!(send(&circuit, Verdict::Success) && send(&circuit, Verdict::Success));
    assert_eq!(circuit.status().slow_start, Some(0.0));
    for _ in 0..9 {
        let held = circuit.try_acquire().expect("the slot is free").retry();
        assert!(circuit.try_acquire().is_err(), "one call at a time");
        held.record(FAILURE);
    }
    assert_eq!((state(&circuit), circuit.status().consecutive_failures), (CircuitState::Closed, 0));
}
