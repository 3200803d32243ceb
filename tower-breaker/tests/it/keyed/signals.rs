//! Commands of a coordinator for circuits by key, and their signals and transitions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_breaker::control::{Command, Effect, ProbeOutcome, Signal};
use tower_breaker::keyed::{KeyedCircuits, Overflow};
use tower_breaker::{CircuitState, Reason, Verdict};

use super::circuits::circuits;
use crate::support::{FAILURE, SECOND};

/// The events of circuits by key, in their order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, Signal)>>>);

impl Log {
    fn of(circuits: &KeyedCircuits<String>) -> Self {
        let log = Self::default();
        log.listen(circuits);
        log
    }

    fn listen(&self, circuits: &KeyedCircuits<String>) -> tower_breaker::telemetry::ObserverId {
        let Self(log) = self.clone();
        circuits.on_signal(move |circuit, signal| log.lock().unwrap().push((circuit.key().clone(), signal)))
    }

    /// Returns the keys with a signal since the last call.
    fn take(&self, of: Signal) -> Vec<String> {
        let log = std::mem::take(&mut *self.0.lock().unwrap());
        log.into_iter().filter(|(_, signal)| *signal == of).map(|(key, _)| key).collect()
    }
}

fn call(circuits: &KeyedCircuits<String>, key: &str, verdict: Verdict) -> bool {
    circuits.try_acquire(key).map(|permit| permit.record(verdict)).is_ok()
}

const OPEN: Command = Command::Open { remaining: Some(SECOND), takeover: SECOND };

#[test]
fn failure_is_signalled_once_for_each_key_until_rearmed() {
    let (circuits, _time) = circuits(10, Overflow::Unguarded);
    let log = Log::of(&circuits);
    assert!(call(&circuits, "a", Verdict::Success));
    for key in ["a", "a", "b", "b"] {
        assert!(call(&circuits, key, FAILURE));
    }
    assert_eq!(log.take(Signal::Failure), ["a", "b"]);
    circuits.circuit("b").rearm(Signal::Failure);
    for key in ["a", "b", "b"] {
        assert!(call(&circuits, key, FAILURE));
    }
    assert_eq!(log.take(Signal::Failure), ["b"]);
}

#[test]
fn demand_is_signalled_once_for_each_key_until_rearmed() {
    let (circuits, _time) = circuits(10, Overflow::Unguarded);
    let log = Log::of(&circuits);
    for key in ["a", "b"] {
        assert_eq!(circuits.circuit(key).apply(OPEN), Effect::Changed);
    }
    for key in ["a", "a", "b"] {
        assert!(!call(&circuits, key, FAILURE));
    }
    assert_eq!(log.take(Signal::Demand), ["a", "b"]);
    circuits.circuit("a").rearm(Signal::Demand);
    for key in ["b", "a", "a"] {
        assert!(!call(&circuits, key, FAILURE));
    }
    assert_eq!(log.take(Signal::Demand), ["a"]);
}

#[test]
fn probe_of_command_is_signalled_with_its_outcome() {
    let (circuits, _time) = circuits(10, Overflow::Unguarded);
    let log = Log::of(&circuits);
    let circuit = circuits.circuit("a");
    circuit.apply(OPEN);
    circuit.apply(Command::Probe { start_within: SECOND, remaining: 10 * SECOND });
    assert!(call(&circuits, "a", FAILURE));
    let signals: Vec<_> = log.0.lock().unwrap().iter().map(|(_, signal)| *signal).collect();
    let completed = Signal::ProbeCompleted(ProbeOutcome::Failure);
    assert_eq!(signals, [Signal::ProbeStarted, completed, Signal::Failure]);
    assert_eq!(circuit.status().state, CircuitState::HalfOpen, "the coordinator decides");
    assert_eq!(circuit.apply(Command::Close), Effect::Changed);
    assert_eq!(circuit.next_open_time(), Some(Duration::from_secs(30)));
}

#[test]
fn removed_circuit_sends_no_signal_and_its_successor_does() {
    let (circuits, _time) = circuits(10, Overflow::Unguarded);
    let log = Log::of(&circuits);
    let removed = circuits.circuit("a");
    circuits.remove("a");
    removed.record(FAILURE);
    assert!(log.take(Signal::Failure).is_empty());
    assert!(call(&circuits, "a", FAILURE));
    assert_eq!(log.take(Signal::Failure), ["a"]);
}

#[test]
fn overflow_circuit_sends_no_signal() {
    let (circuits, _time) = circuits(1, Overflow::Shared);
    let log = Log::of(&circuits);
    let _held = circuits.circuit("a");
    assert!(call(&circuits, "b", FAILURE));
    assert_eq!(circuits.overflow().unwrap().status().window.failures, 1);
    assert!(log.take(Signal::Failure).is_empty());
}

#[test]
fn new_listener_arms_signals_of_all_circuits() {
    let (circuits, _time) = circuits(10, Overflow::Unguarded);
    let log = Log::of(&circuits);
    assert!(call(&circuits, "a", FAILURE));
    let second = Log::default();
    let id = second.listen(&circuits);
    assert!(call(&circuits, "a", FAILURE));
    assert_eq!((log.take(Signal::Failure).len(), second.take(Signal::Failure).len()), (2, 1));
    assert!(circuits.remove_observer(id) && !circuits.remove_observer(id));
    circuits.circuit("a").rearm(Signal::Failure);
    assert!(call(&circuits, "a", FAILURE));
    assert_eq!((log.take(Signal::Failure).len(), second.take(Signal::Failure).len()), (1, 0));
}

#[test]
fn signal_has_circuit_of_its_key() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    circuits.on_signal(|circuit, signal| {
        if signal == Signal::Failure {
            circuit.apply(OPEN);
        }
    });
    assert!(call(&circuits, "b", Verdict::Success));
    assert!(call(&circuits, "a", FAILURE));
    assert!(!call(&circuits, "a", FAILURE), "the listener has opened the circuit");
    assert!(call(&circuits, "b", Verdict::Success));
}

#[test]
fn key_transition_has_circuit_unless_it_was_removed() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let log: Arc<Mutex<Vec<(String, Reason)>>> = Arc::default();
    let listened = Arc::clone(&log);
    let id = circuits.on_key_transition(move |circuit, transition| {
        listened.lock().unwrap().push((circuit.key().clone(), transition.reason));
    });
    let circuit = circuits.circuit("a");
    circuit.trip().unwrap();
    circuits.circuit("b").force_open().unwrap();
    circuits.remove("a");
    circuit.reset().unwrap();
    let expected = [("a".to_owned(), Reason::Tripped), ("b".to_owned(), Reason::Forced)];
    assert_eq!(*log.lock().unwrap(), expected);
    assert!(circuits.remove_observer(id) && !circuits.remove_observer(id));
    circuits.circuit("b").release();
    assert_eq!(log.lock().unwrap().len(), 2);
}

#[test]
fn weak_handle_does_not_keep_circuits_alive() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let weak = circuits.downgrade();
    circuits.circuit("a");
    assert_eq!(weak.upgrade().unwrap().len(), 1);
    drop(circuits);
    assert!(weak.upgrade().is_none());
}
