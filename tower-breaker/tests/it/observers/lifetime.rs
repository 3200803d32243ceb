//! Observers that are removed, and observers that refer to their own circuit.

use std::sync::Weak;

use tower_breaker::keyed::KeyedCircuits;
use tower_breaker::telemetry::ObserverId;

use super::*;

/// Counts its calls. The count shows that it was dropped when the last `Arc` is gone.
fn counter(count: &Arc<AtomicUsize>) -> impl Fn(&Transition) + Send + Sync + 'static {
    let count = Arc::clone(count);
    move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn keyed_circuits() -> KeyedCircuits<u64> {
    let (each, _time) = timed(config());
    KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), by_number).circuits()
}

#[test]
fn removed_observer_is_dropped_and_not_called() {
    let (circuit, _time) = circuit(config());
    let [first, second] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let id = circuit.on_transition(counter(&first));
    circuit.on_transition(counter(&second));
    circuit.trip().unwrap();
    assert!(circuit.remove_observer(id));
    assert_eq!(Arc::strong_count(&first), 1, "the observer is dropped");
    circuit.reset().unwrap();
    let counts = [&first, &second].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [1, 2]);
    assert!(!circuit.remove_observer(id), "it was removed before");
}

#[test]
fn observer_is_removed_only_where_it_was_added() {
    let (each, _time) = timed(config());
    let registry = CircuitRegistry::new(each);
    let (circuit, keyed) = (registry.circuit("search"), keyed_circuits());
    let count = Arc::new(AtomicUsize::new(0));
    let ids = [
        circuit.on_transition(counter(&count)),
        registry.on_transition(counter(&count)),
        keyed.on_transition(counter(&count)),
    ];
    let remove = |id: ObserverId| {
        [circuit.remove_observer(id), registry.remove_observer(id), keyed.remove_observer(id)]
    };
    let trip = || {
        circuit.trip().unwrap();
        circuit.reset().unwrap();
        keyed.get_or_insert(7).unwrap().reset().unwrap();
        count.swap(0, Ordering::Relaxed)
    };
    assert_eq!(trip(), 2 + 2 + 1);
    assert_eq!(remove(ids[0]), [true, false, false]);
    assert_eq!(trip(), 2 + 1);
    assert_eq!(remove(ids[1]), [false, true, false]);
    assert_eq!(trip(), 1);
    assert_eq!(remove(ids[2]), [false, false, true]);
    assert_eq!(trip(), 0);
}

/// An observer whose `Drop` uses the circuit. It would block forever if it ran under a lock.
#[test]
fn observer_removes_itself_and_its_drop_uses_circuit() {
    struct OnDrop(Circuit);

    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.on_transition(|_| {});
            self.0.trip().unwrap();
        }
    }

    let (circuit, _time) = circuit(config());
    let (id, own) = (Arc::new(Mutex::new(None)), OnDrop(circuit.clone()));
    let added = circuit.on_transition({
        let id = Arc::clone(&id);
        move |transition| {
            assert_eq!(transition.to, CircuitState::Closed, "the first transition is a reset");
            let id = id.lock().unwrap().take().expect("the observer must be called once");
            assert!(own.0.remove_observer(id));
        }
    });
    *id.lock().unwrap() = Some(added);
    circuit.reset().unwrap();
    assert_eq!(state(&circuit), CircuitState::Open, "the observer is dropped after its call");
}

#[test]
fn observer_with_weak_handle_does_not_keep_circuit() {
    let (circuit, _time) = circuit(config().name("search"));
    let (weak, seen) = (circuit.downgrade(), Arc::new(AtomicUsize::new(0)));
    let dropped: Weak<AtomicUsize> = Arc::downgrade(&seen);
    circuit.on_transition(move |transition| {
        let circuit = weak.upgrade().expect("the circuit that notifies has not ended");
        assert_eq!((circuit.name(), circuit.status().state), ("search", transition.to));
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let (weak, other) = (circuit.downgrade(), circuit.clone());
    assert_eq!(weak.name(), "search");
    drop(circuit);
    let upgraded = weak.clone().upgrade().expect("a handle is left");
    drop(other);
    upgraded.trip().unwrap();
    assert_eq!(dropped.upgrade().unwrap().load(Ordering::Relaxed), 1);
    drop(upgraded);
    assert!(weak.upgrade().is_none() && dropped.upgrade().is_none(), "circuit and observer have ended");
}

#[test]
fn keyed_weak_handle_does_not_keep_circuit() {
    let (each, _time) = timed(config());
    let config = KeyedConfig::builder(each).max_keys(1).build().unwrap();
    let circuits = KeyedBreakerLayer::<_, _>::new(config, by_number).circuits();
    let first = circuits.get_or_insert(1).unwrap();
    let weak = first.downgrade();
    assert_eq!(weak.upgrade().unwrap().key(), &1);
    assert!(circuits.get_or_insert(2).is_none(), "a handle prevents the eviction");
    drop(first);
    assert!(circuits.get_or_insert(2).is_some(), "a weak handle does not");
    assert!(weak.upgrade().is_none());
}
