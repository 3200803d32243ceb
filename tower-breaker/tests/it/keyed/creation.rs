//! The listeners for new circuits by key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use tower_breaker::Verdict;
use tower_breaker::control::Signal;
use tower_breaker::keyed::{KeyedCircuits, Overflow};

use super::circuits::circuits;
use crate::support::FAILURE;

type Keys = Arc<Mutex<Vec<String>>>;

/// Returns the keys of new circuits, in their order.
fn listen(circuits: &KeyedCircuits<String>) -> Keys {
    let keys = Keys::default();
    let log = Arc::clone(&keys);
    circuits.on_create(move |circuit| log.lock().unwrap().push(circuit.key().clone()));
    keys
}

#[test]
fn create_listener_is_called_once_for_each_new_circuit() {
    let (circuits, _time) = circuits::<String>(2, Overflow::Shared);
    circuits.circuit("before");
    let keys = listen(&circuits);
    for key in ["before", "a", "a"] {
        circuits.try_acquire(key).unwrap().cancel();
    }
    circuits.get_or_insert("b".to_owned()).unwrap();
    assert_eq!(circuits.evicted(), 1);
    circuits.remove("b");
    let held = [circuits.circuit("b"), circuits.circuit("a")];
    circuits.circuit("c");
    assert_eq!(circuits.overflowed(), 1);
    drop(held);
    assert_eq!(*keys.lock().unwrap(), ["a", "b", "b"]);
    assert_eq!(circuits.len(), 2);
}

#[test]
fn removed_create_listener_is_not_called() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let keys = listen(&circuits);
    let id = circuits.on_create(|_| panic!("it was removed"));
    assert!(circuits.remove_observer(id) && !circuits.remove_observer(id));
    circuits.circuit("a");
    assert_eq!(keys.lock().unwrap().len(), 1);
}

#[test]
fn panic_of_key_create_listener_does_not_reach_call() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    circuits.on_create(|_| panic!("listener"));
    let keys = listen(&circuits);
    circuits.try_acquire("a").unwrap().record(Verdict::Success);
    assert_eq!((keys.lock().unwrap().len(), circuits.len()), (1, 1));
}

#[test]
fn create_listener_sees_circuit_before_its_first_call_and_before_lists() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let listed = circuits.downgrade();
    circuits.on_create(move |circuit| {
        let listed = listed.upgrade().unwrap();
        assert!(listed.is_empty() && listed.circuits().is_empty());
        assert!(listed.get(circuit.key()).is_none() && listed.remove(circuit.key()).is_none());
        // The panic of a failed assertion is caught, so that the circuit stays closed.
        circuit.force_open().unwrap();
    });
    assert!(circuits.try_acquire("a").is_err());
    assert_eq!(circuits.len(), 1);
}

#[test]
fn signals_are_armed_after_create_listener() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let keys = Keys::default();
    let log = Arc::clone(&keys);
    circuits.on_signal(move |circuit, signal| {
        assert_eq!(signal, Signal::Failure);
        log.lock().unwrap().push(circuit.key().clone());
    });
    circuits.on_create(|circuit| circuit.record(FAILURE));
    let circuit = circuits.circuit("a");
    assert!(keys.lock().unwrap().is_empty());
    circuit.record(FAILURE);
    assert_eq!(*keys.lock().unwrap(), ["a"]);
}

#[test]
fn create_listener_gets_circuit_of_its_key_immediately() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let used = circuits.downgrade();
    let calls = Arc::new(Mutex::new(0));
    let called = Arc::clone(&calls);
    circuits.on_create(move |circuit| {
        *called.lock().unwrap() += 1;
        used.upgrade().unwrap().circuit(circuit.key().as_str()).record(FAILURE);
    });
    assert_eq!(circuits.circuit("a").status().window.failures, 1);
    assert_eq!((*calls.lock().unwrap(), circuits.len()), (1, 1));
}

#[test]
fn circuit_that_is_cleared_during_its_listener_is_not_in_map() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let cleared = circuits.downgrade();
    circuits.on_create(move |_| cleared.upgrade().unwrap().clear());
    let circuit = circuits.circuit("a");
    assert!(circuits.get("a").is_none() && circuits.is_empty());
    assert_eq!(circuit.key(), "a");
}

#[test]
fn concurrent_call_with_key_waits_for_create_listener() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    let began = Arc::new(Barrier::new(2));
    let (begins, returned, ended) =
        (Arc::clone(&began), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_returned, ends) = (Arc::clone(&returned), Arc::clone(&ended));
    circuits.on_create(move |circuit| {
        if circuit.key() == "a" {
            begins.wait();
            // Time enough for the other call to return too early.
            for _ in 0..10_000 {
                if is_returned.load(Ordering::SeqCst) {
                    break;
                }
                thread::yield_now();
            }
            ends.store(true, Ordering::SeqCst);
        }
    });
    let other = circuits.clone();
    let creator = thread::spawn(move || other.circuit("a").status().window.calls);
    began.wait();
    // Another key does not wait.
    circuits.circuit("b");
    assert!(!ended.load(Ordering::SeqCst) || returned.load(Ordering::SeqCst));
    circuits.circuit("a");
    returned.store(true, Ordering::SeqCst);
    assert!(ended.load(Ordering::SeqCst), "the call returned before the listener");
    creator.join().unwrap();
    assert_eq!(circuits.len(), 2);
}
