//! Outcomes that are recorded without a permit, and durations that the caller measures.

use std::time::Duration;

use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{
    BreakerConfigBuilder, CircuitRegistry, CircuitState, ControlError, Mode, Permit, Reason, Verdict,
};

use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, SECOND, circuit, config, state};

/// Opens if half of at least four calls take a second.
fn slow_calls() -> BreakerConfigBuilder {
    config().consecutive_failures(0).failure_rate(None).slow_call_rate(SECOND, 0.5).minimum_calls(4)
}

#[test]
fn record_in_closed_circuit_counts_like_a_call() {
    let (circuit, _) = circuit(config());
    circuit.record(Verdict::Success);
    circuit.record(NEUTRAL);
    (0..4).for_each(|_| circuit.record(FAILURE));
    let status = circuit.status();
    assert_eq!((status.window.calls, status.window.failures, status.consecutive_failures), (5, 4, 4));
    circuit.record(FAILURE);
    let trip = circuit.status().last_trip.unwrap();
    assert_eq!((trip.to, trip.reason), (CircuitState::Open, Reason::ConsecutiveFailures));
}

#[test]
fn record_in_open_circuit_is_ignored_until_open_time_is_over() {
    let (circuit, time) = circuit(config().successes_to_close(2));
    circuit.trip().unwrap();
    time.advance(OPEN_FOR / 2);
    circuit.record(Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Open);
    time.advance(OPEN_FOR / 2);
    circuit.record(Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
    circuit.record(Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
    assert_eq!(circuit.status().last_transition.unwrap().reason, Reason::ProbesSucceeded);
}

#[test]
fn record_of_failure_after_open_time_opens_again() {
    let (circuit, time) = circuit(config());
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    circuit.record(FAILURE);
    let last = circuit.status().last_transition.unwrap();
    assert_eq!((last.from, last.to), (CircuitState::HalfOpen, CircuitState::Open));
    assert_eq!((last.reason, last.fault), (Reason::ProbeFailed, FAILURE.fault().copied()));
}

#[test]
fn record_in_half_open_circuit_needs_no_slot() {
    let (circuit, time) = circuit(config().probes(1).successes_to_close(2));
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    let probe = circuit.try_acquire().unwrap();
    circuit.record(NEUTRAL);
    circuit.record(Verdict::Success);
    assert!(circuit.try_acquire().is_err(), "the probe still holds the slot");
    circuit.record(Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
    probe.record(FAILURE);
    assert_eq!(circuit.status().window.failures, 0, "the probe belongs to an earlier epoch");
}

#[test]
fn record_leaves_open_until_reset_forced_and_disabled_circuits_unchanged() {
    let (circuit, time) = circuit(config().open_until_reset(true));
    circuit.trip().unwrap();
    let assert_ignored = |expected| {
        time.advance(10 * OPEN_FOR);
        let before = circuit.status().last_transition;
        for verdict in [Verdict::Success, FAILURE] {
            (0..9).for_each(|_| circuit.record(verdict));
            (0..9).for_each(|_| circuit.record_with_duration(verdict, Duration::ZERO));
        }
        let status = circuit.status();
        assert_eq!((status.state, status.window.calls), (expected, 0));
        assert_eq!(status.last_transition.map(|last| last.epoch), before.map(|last| last.epoch));
    };
    assert_ignored(CircuitState::Open);
    circuit.force_open().unwrap();
    assert_ignored(CircuitState::ForcedOpen);
    circuit.force_closed().unwrap();
    assert_ignored(CircuitState::ForcedClosed);
    circuit.release();
    circuit.reconfigure(config().mode(Mode::Disabled).build().unwrap()).unwrap();
    assert_ignored(CircuitState::Disabled);
}

#[test]
fn record_in_slow_start_takes_no_share() {
    let (circuit, time) = circuit(config().successes_to_close(1).slow_start(10 * SECOND));
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    circuit.record(Verdict::Success);
    (0..50).for_each(|_| circuit.record(Verdict::Success));
    assert_eq!(circuit.status().window.calls, 50);
    assert!(circuit.try_acquire().is_ok(), "the credit of the slow start is unused");
}

#[test]
fn record_of_call_from_before_the_state_is_ignored() {
    let (circuit, time) = circuit(config().successes_to_close(2));
    circuit.trip().unwrap();
    time.advance(OPEN_FOR + SECOND);
    circuit.record_with_duration(FAILURE, OPEN_FOR + 2 * SECOND);
    assert_eq!(state(&circuit), CircuitState::Open, "the call began before the circuit opened");
    circuit.record_with_duration(Verdict::Success, SECOND);
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
    time.advance(SECOND);
    circuit.record_with_duration(FAILURE, 2 * SECOND);
    assert_eq!(state(&circuit), CircuitState::HalfOpen, "the call began before the circuit half-opened");
    circuit.record_with_duration(Verdict::Success, SECOND);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn record_with_duration_uses_the_duration_for_slow_calls() {
    type Record = fn(&tower_breaker::Circuit, Verdict, Duration);
    let records: [Record; 2] = [
        |circuit, verdict, took| circuit.record_with_duration(verdict, took),
        |circuit, verdict, took| circuit.try_acquire().unwrap().record_with_duration(verdict, took),
    ];
    for record in records {
        let (circuit, time) = circuit(slow_calls());
        record(&circuit, Verdict::Success, Duration::MAX);
        (0..2).for_each(|_| record(&circuit, Verdict::Success, Duration::from_millis(999)));
        assert_eq!(circuit.status().window.slow, 1);
        record(&circuit, FAILURE, SECOND);
        let trip = circuit.status().last_trip.unwrap();
        assert_eq!((trip.reason, trip.counts.unwrap().slow), (Reason::SlowRate, 2));
        time.advance(OPEN_FOR);
        let probe = circuit.try_acquire().unwrap();
        time.advance(SECOND);
        record(&circuit, Verdict::Success, SECOND);
        assert_eq!(circuit.status().last_transition.unwrap().reason, Reason::ProbeSlow);
        probe.cancel();
    }
}

#[test]
fn permit_duration_replaces_the_measured_time() {
    let (circuit, time) = circuit(slow_calls());
    let permits: Vec<Permit> = (0..4).map(|_| circuit.try_acquire().unwrap()).collect();
    time.advance(10 * SECOND);
    for permit in permits {
        permit.record_with_duration(Verdict::Success, SECOND / 2);
    }
    let status = circuit.status();
    assert_eq!((status.state, status.window.calls, status.window.slow), (CircuitState::Closed, 4, 0));
}

#[test]
fn record_without_duration_is_never_slow() {
    let (circuit, _) = circuit(slow_calls());
    (0..9).for_each(|_| circuit.record(Verdict::Success));
    assert_eq!((circuit.status().window.calls, circuit.status().window.slow), (9, 0));
}

#[test]
fn registry_records_by_name() {
    let registry = CircuitRegistry::new(slow_calls().build().unwrap());
    let search = registry.circuit("search");
    registry.record("search", FAILURE).unwrap();
    registry.record_with_duration("search", Verdict::Success, 2 * SECOND).unwrap();
    let window = search.status().window;
    assert_eq!((window.calls, window.failures, window.slow), (2, 1, 1));
    for result in
        [registry.record("serach", FAILURE), registry.record_with_duration("serach", FAILURE, SECOND)]
    {
        assert!(matches!(result, Err(ControlError::Unknown { circuit, .. }) if circuit == "serach"));
    }
    assert!(registry.get("serach").is_none());
}

#[test]
fn keyed_circuit_records_outcomes() {
    let each = config().consecutive_failures(2).build().unwrap();
    let layer: KeyedBreakerLayer<_, u32> =
        KeyedBreakerLayer::new(KeyedConfig::builder(each).build().unwrap(), |tenant: &u32| *tenant);
    let (first, second) =
        (layer.circuits().get_or_insert(1).unwrap(), layer.circuits().get_or_insert(2).unwrap());
    first.record(FAILURE);
    second.record(FAILURE);
    first.record_with_duration(FAILURE, SECOND);
    assert_eq!([first.status().state, second.status().state], [CircuitState::Open, CircuitState::Closed]);
}
