//! The listeners for new circuits of a registry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry};

use crate::support::{FAILURE, send};

/// The names of the new circuits, in their order.
fn listen(registry: &CircuitRegistry) -> Arc<Mutex<Vec<&'static str>>> {
    let names = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&names);
    registry.on_create(move |circuit| log.lock().unwrap().push(circuit.name()));
    names
}

fn registry() -> CircuitRegistry {
    CircuitRegistry::new(BreakerConfig::default())
}

#[test]
fn listener_is_called_once_for_each_new_circuit() {
    let registry = registry();
    registry.circuit("before");
    let names = listen(&registry);
    registry.configure(BreakerConfig::builder().name("configured").build().unwrap()).unwrap();
    for name in ["before", "search", "search", "configured"] {
        registry.circuit(name);
    }
    registry.remove("search");
    registry.circuit("search");
    assert_eq!(*names.lock().unwrap(), ["search", "configured", "search"]);
}

#[test]
fn removed_listener_is_not_called_for_new_circuit() {
    let registry = registry();
    let names = listen(&registry);
    let id = registry.on_create(|_| panic!("it was removed"));
    assert!(registry.remove_observer(id) && !registry.remove_observer(id));
    registry.circuit("search");
    assert_eq!(names.lock().unwrap().len(), 1);
}

#[test]
fn panic_of_create_listener_does_not_reach_caller() {
    let registry = registry();
    registry.on_create(|_| panic!("listener"));
    let names = listen(&registry);
    registry.circuit("search");
    assert_eq!((names.lock().unwrap().len(), registry.circuits().len()), (1, 1));
}

#[test]
fn listener_sees_circuit_before_other_callers_and_its_first_call() {
    let registry = registry();
    let listed = registry.clone();
    registry.on_create(move |circuit| {
        assert_eq!(circuit.status().window.calls, 0);
        assert!(listed.circuits().is_empty() && listed.get(circuit.name()).is_none());
        // The panic of a failed assertion is caught, so that the record is missing.
        circuit.record(FAILURE);
    });
    assert_eq!(registry.circuit("search").status().window.failures, 1);
}

#[test]
fn concurrent_caller_waits_for_listener() {
    let registry = registry();
    let (began, returned, ended) =
        (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (begins, is_returned, ends) = (Arc::clone(&began), Arc::clone(&returned), Arc::clone(&ended));
    registry.on_create(move |_| {
        begins.wait();
        // Time enough for the other caller to return too early.
        for _ in 0..10_000 {
            if is_returned.load(Ordering::SeqCst) {
                break;
            }
            thread::yield_now();
        }
        ends.store(true, Ordering::SeqCst);
    });
    thread::scope(|scope| {
        scope.spawn(|| registry.circuit("search"));
        began.wait();
        registry.circuit("search");
        assert!(ended.load(Ordering::SeqCst), "the caller got the circuit before the listener returned");
        returned.store(true, Ordering::SeqCst);
    });
}

#[test]
fn threads_get_circuits_after_one_call_of_listener() {
    const THREADS: usize = 8;
    for _ in 0..50 {
        let registry = registry();
        let names = listen(&registry);
        let barrier = Barrier::new(THREADS);
        let counts = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        registry.circuit("search");
                        names.lock().unwrap().len()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(counts, [1; THREADS]);
    }
}

#[test]
fn listener_added_during_creation_misses_no_circuit() {
    for _ in 0..200 {
        let registry = registry();
        listen(&registry);
        let barrier = Barrier::new(2);
        let (created, present) = thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                registry.circuit("search");
            });
            barrier.wait();
            let created = listen(&registry);
            (created, registry.circuits().len())
        });
        let created = created.lock().unwrap().len();
        assert!(created + present >= 1, "the circuit is neither new nor present");
    }
}

#[test]
fn listener_may_use_its_registry() {
    let registry = registry();
    let own = registry.clone();
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let counts = Arc::clone(&seen);
    let id = registry.on_create(move |circuit| {
        *counts.lock().unwrap().entry(circuit.name()).or_insert(0) += 1;
        // The circuit itself, another one that is new, and one that a listener creates and removes.
        own.circuit(circuit.name()).record(FAILURE);
        own.circuit("other");
        if circuit.name() == "removed" {
            own.remove("removed");
        }
    });
    assert_eq!(registry.circuit("search").status().window.failures, 1);
    assert!(send(&registry.circuit("removed"), FAILURE));
    let names: Vec<_> = registry.circuits().iter().map(Circuit::name).collect();
    assert_eq!(names, ["other", "search"]);
    assert_eq!(*seen.lock().unwrap(), BTreeMap::from([("other", 1), ("removed", 1), ("search", 1)]));
    registry.remove_observer(id);
}

/// Each listener needs the circuit that the other one is called for.
#[test]
fn listeners_of_two_threads_do_not_wait_for_each_other() {
    let registry = registry();
    let both = Barrier::new(2);
    let own = registry.clone();
    registry.on_create(move |circuit| {
        both.wait();
        own.circuit(if circuit.name() == "first" { "second" } else { "first" });
        both.wait();
    });
    thread::scope(|scope| {
        for name in ["first", "second"] {
            let registry = &registry;
            scope.spawn(move || registry.circuit(name));
        }
    });
    assert_eq!(registry.circuits().len(), 2);
}
