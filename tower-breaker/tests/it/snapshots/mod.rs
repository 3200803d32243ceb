//! Snapshots of circuits, and their restore in another process.
//!
//! The wall clock advances by itself in these tests, so a remaining time is compared up to a
//! tolerance of ten seconds.

#[cfg(feature = "serde")]
mod files;
mod keyed;
mod registry;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_breaker::snapshot::{CircuitSnapshot, RestoreError, Restored};
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, Circuit, CircuitState, Mode, Reason};

use crate::support::{FAILURE, OPEN_FOR, SECOND, circuit, config, send, state};

const TOLERANCE: Duration = Duration::from_secs(10);

/// Returns whether a remaining time is as expected, or less by at most [`TOLERANCE`].
fn is_about(remaining: Option<Duration>, expected: Duration) -> bool {
    remaining.is_some_and(|remaining| remaining <= expected && remaining + TOLERANCE > expected)
}

/// Restores a snapshot in a new circuit.
fn restored(snapshot: &CircuitSnapshot, config: BreakerConfigBuilder) -> Circuit {
    let (circuit, _) = circuit(config);
    assert_eq!(circuit.restore(snapshot), Ok(Restored::Applied));
    circuit
}

fn tripped() -> Circuit {
    let (circuit, _) = circuit(config());
    for _ in 0..5 {
        send(&circuit, FAILURE);
    }
    assert_eq!(state(&circuit), CircuitState::Open);
    circuit
}

#[test]
fn open_circuit_is_open_before_first_call_after_restart() {
    let (circuit, _) = circuit(config());
    let transitions = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&transitions);
    circuit.on_transition(move |transition| seen.lock().unwrap().push(transition.clone()));
    assert_eq!(circuit.restore(&tripped().snapshot()), Ok(Restored::Applied));
    assert!(circuit.try_acquire().is_err());
    assert!(is_about(circuit.status().retry_after, OPEN_FOR));
    let transitions = transitions.lock().unwrap();
    let [transition] = &transitions[..] else { panic!("{transitions:?}") };
    assert_eq!(
        (transition.from, transition.to, transition.reason, transition.epoch),
        (CircuitState::Closed, CircuitState::Open, Reason::Restored, 1)
    );
}

#[test]
fn last_trip_is_that_of_earlier_process() {
    let original = tripped();
    let circuit = restored(&original.snapshot(), config());
    let [trip, copy] = [&original, &circuit].map(|circuit| circuit.status().last_trip.unwrap());
    assert_eq!((copy.reason, copy.consecutive_failures), (Reason::ConsecutiveFailures, 5));
    assert_eq!((copy.fault, copy.at, copy.epoch), (trip.fault, trip.at, 0));
    assert_eq!(circuit.status().last_transition.unwrap().reason, Reason::Restored);
    assert_eq!(circuit.snapshot().last_trip, original.snapshot().last_trip, "also after a second restart");
}

#[test]
fn time_since_snapshot_is_subtracted() {
    let mut snapshot = tripped().snapshot();
    snapshot.taken_at -= 15 * SECOND;
    let status = restored(&snapshot, config()).status();
    assert!(is_about(status.retry_after, 15 * SECOND), "{:?}", status.retry_after);
    snapshot.taken_at -= 1_000 * SECOND;
    let circuit = restored(&snapshot, config());
    assert_eq!(circuit.status().retry_after, Some(Duration::ZERO));
    assert!(circuit.try_acquire().is_ok(), "the call is a probe");
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
}

#[test]
fn wall_clock_that_ran_back_extends_no_open_time() {
    let mut snapshot = tripped().snapshot();
    snapshot.taken_at += Duration::from_secs(1 << 40);
    assert!(is_about(restored(&snapshot, config()).status().retry_after, OPEN_FOR));
    snapshot.open_remaining = Some(Duration::MAX);
    let longest = restored(&snapshot, config().max_retry_after(60 * SECOND)).status().retry_after;
    assert_eq!(longest, Some(60 * SECOND));
}

#[test]
fn manual_overrides_survive_restart() {
    let (circuit, _) = circuit(config());
    circuit.force_open().unwrap();
    let copy = restored(&circuit.snapshot(), config());
    assert_eq!((state(&copy), copy.status().override_ends_in), (CircuitState::ForcedOpen, None));

    circuit.force_closed_for(100 * SECOND).unwrap();
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.open_remaining, snapshot.override_remaining), (None, Some(100 * SECOND)));
    let copy = restored(&snapshot, config());
    assert_eq!(state(&copy), CircuitState::ForcedClosed);
    assert!(is_about(copy.status().override_ends_in, 100 * SECOND));
    let copy = restored(&snapshot, config().mode(Mode::Disabled));
    assert_eq!(state(&copy), CircuitState::ForcedClosed);
    copy.release();
    assert_eq!(state(&copy), CircuitState::Disabled);
}

#[test]
fn growing_open_time_continues_after_restart() {
    let growing = || config().open_backoff(2.0, 1_000 * SECOND).successes_to_close(1);
    let (mut circuit, mut time) = circuit(growing());
    for expected in [30, 60, 120, 240] {
        circuit.trip().unwrap();
        assert_eq!(circuit.status().retry_after, Some(expected * SECOND));
        // The process restarts while the circuit is open, and while it is closed.
        for _ in 0..2 {
            let (copy, copy_time) = crate::support::circuit(growing());
            assert_eq!(copy.restore(&circuit.snapshot()), Ok(Restored::Applied));
            (circuit, time) = (copy, copy_time);
            time.advance(circuit.status().retry_after.unwrap_or_default());
            assert!(send(&circuit, tower_breaker::Verdict::Success));
            assert_eq!(state(&circuit), CircuitState::Closed);
        }
    }
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.open_periods, snapshot.last_open_period), (4, 240 * SECOND));
    time.advance(240 * SECOND);
    let snapshot = circuit.snapshot();
    assert_eq!((snapshot.open_periods, snapshot.open_periods_end_in), (0, None));
}

#[test]
fn circuit_that_has_had_a_transition_keeps_its_state() {
    let open = tripped().snapshot();
    let (circuit, _) = circuit(config());
    circuit.reset().unwrap();
    assert_eq!(circuit.restore(&open), Ok(Restored::Superseded));
    assert_eq!(state(&circuit), CircuitState::Closed);

    let (forced, _) = crate::support::circuit(config());
    forced.force_closed().unwrap();
    let closed = crate::support::circuit(config()).0.snapshot();
    assert_eq!(forced.restore(&closed), Ok(Restored::Superseded));
    assert_eq!(state(&forced), CircuitState::ForcedClosed);

    let copy = restored(&open, config());
    assert_eq!(copy.restore(&open), Ok(Restored::Superseded), "a second restore changes nothing");
}

#[test]
fn circuit_with_calls_and_no_transition_is_restored() {
    let (circuit, _) = circuit(config());
    let permit = circuit.try_acquire().unwrap();
    send(&circuit, FAILURE);
    assert_eq!(circuit.restore(&tripped().snapshot()), Ok(Restored::Applied));
    permit.record(FAILURE);
    assert_eq!(circuit.status().consecutive_failures, 1, "the outcome of an earlier epoch is ignored");
}

#[test]
fn reused_storage_restores_a_new_circuit() {
    let (circuit, _) = circuit(config());
    circuit.trip().unwrap();
    let snapshot = circuit.snapshot();
    drop(circuit);
    assert_eq!(state(&restored(&snapshot, config())), CircuitState::Open);
}

#[test]
fn other_circuit_and_unknown_version_are_errors() {
    let (circuit, _) = circuit(config().name("search"));
    let mut snapshot = tripped().snapshot();
    let error = circuit.restore(&snapshot).unwrap_err();
    assert!(matches!(&error, RestoreError::OtherCircuit { circuit: "search", .. }), "{error:?}");
    let default = BreakerConfig::default();
    assert_eq!(
        error.to_string(),
        format!(
            "`circuit` of the snapshot is `{}`; allowed is `search`, the name of the circuit breaker",
            default.name()
        )
    );
    snapshot.version = 2;
    snapshot.circuit = "a\nb".into();
    let error = circuit.restore(&snapshot).unwrap_err();
    assert_eq!(error.to_string(), "`version` of the snapshot of circuit breaker `a\\nb` is 2; allowed is 1");
    assert_eq!(circuit.status().last_transition.map(|last| last.to), None);
}
