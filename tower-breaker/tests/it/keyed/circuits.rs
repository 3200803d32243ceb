//! Circuits by key without a layer, and the removal of circuits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tower::{Layer, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig, Overflow};
use tower_breaker::{BreakerConfig, CircuitState, ManualClock, Verdict};

use super::{respond, text};
use crate::support::{FAILURE, call_once, config, timed};

/// Returns circuits that open after five failures, at most `max_keys` of them.
pub(super) fn circuits<K: Eq + std::fmt::Debug + std::hash::Hash>(
    max_keys: usize,
    overflow: Overflow,
) -> (KeyedCircuits<K>, ManualClock) {
    let (each, time) = timed(config().name("tenants"));
    let config = KeyedConfig::builder(each).max_keys(max_keys).overflow(overflow).build().unwrap();
    (KeyedCircuits::new(config), time)
}

fn fail(circuits: &KeyedCircuits<String>, key: &str, times: usize) {
    for _ in 0..times {
        circuits.try_acquire(key).unwrap().record(FAILURE);
    }
}

#[test]
fn circuits_without_layer_are_independent_by_key() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    fail(&circuits, "a", 5);
    let rejection = circuits.try_acquire("a").unwrap_err();
    assert_eq!((rejection.circuit(), rejection.key().as_deref()), ("tenants", Some("a")));
    fail(&circuits, "b", 4);
    circuits.try_acquire("b").unwrap().record(Verdict::Success);
    assert_eq!(circuits.circuit("b").key(), "b");
    assert_eq!(circuits.len(), 2, "a handle to a known key creates no circuit");
    let states = |circuits: &KeyedCircuits<String>| {
        let statuses = circuits.statuses().into_iter();
        statuses.map(|status| (status.key.unwrap().to_string(), status.state)).collect::<Vec<_>>()
    };
    fail(&circuits, "B", 1);
    let expected = [
        ("B".to_owned(), CircuitState::Closed),
        ("a".to_owned(), CircuitState::Open),
        ("b".to_owned(), CircuitState::Closed),
    ];
    assert_eq!(states(&circuits), expected, "sorted by key");
}

#[test]
fn not_closed_counts_circuits_in_other_states() {
    let (circuits, time) = circuits::<u64>(3, Overflow::Shared);
    let held = [1, 2, 3].map(|key| circuits.circuit(&key));
    assert_eq!(circuits.not_closed(), 0);
    held[0].trip().unwrap();
    held[1].force_closed().unwrap();
    assert_eq!(circuits.not_closed(), 2);
    circuits.circuit(&4).trip().unwrap();
    assert_eq!(circuits.not_closed(), 2, "the overflow circuit is not counted");
    time.advance(held[0].status().retry_after.unwrap());
    let probe = held[0].try_acquire().unwrap();
    assert_eq!(circuits.not_closed(), 2, "it is half-open");
    probe.record(Verdict::Success);
    held[1].release();
    while circuits.not_closed() > 0 {
        held[0].try_acquire().unwrap().record(Verdict::Success);
    }
    assert_eq!(held[0].status().state, CircuitState::Closed);
}

/// Returns the label of a key, after setting limits for it by `label`.
fn label_with_limits<K: Eq + fmt::Debug + std::hash::Hash + Clone>(key: &K, label: &str) -> String {
    let each = BreakerConfig::builder().name("upstreams");
    let limits = each.clone().consecutive_failures(1).build().unwrap();
    let config = KeyedConfig::builder(each.build().unwrap()).key(label, limits).build().unwrap();
    let circuits = KeyedCircuits::<K>::new(config);
    circuits.try_acquire(key).unwrap().record(FAILURE);
    let status = circuits.circuit(key).status();
    assert_eq!(status.state, CircuitState::Open, "the limits of `{label}` apply");
    status.key.unwrap().to_string()
}

#[test]
fn label_of_newtype_contains_type_name_unless_its_debug_omits_it() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Upstream(String);

    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Plain(String);

    impl fmt::Debug for Plain {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }

    let orders = || "orders".to_owned();
    let derived = r#"Upstream("orders")"#;
    assert_eq!(label_with_limits(&Upstream(orders()), derived), derived);
    assert_eq!(label_with_limits(&Plain(orders()), "orders"), "orders");
    assert_eq!(label_with_limits(&orders(), "orders"), "orders");
    assert_eq!(label_with_limits(&7, "7"), "7");
}

#[test]
fn layers_with_circuits_share_them() {
    let (numbers, _time) = circuits::<u64>(10, Overflow::Unguarded);
    let layer = KeyedBreakerLayer::<_, _>::with_circuits(numbers.clone(), |request: &(u64, bool)| request.0);
    let mut service = layer.layer(service_fn(respond));
    for _ in 0..5 {
        numbers.try_acquire(&1).unwrap().record(FAILURE);
    }
    assert!(call_once(&mut service, (1, false)).unwrap_err().rejection().is_some());
    call_once(&mut service, (2, false)).unwrap();
    assert_eq!(numbers.len(), 2);

    let (texts, _time) = circuits::<String>(10, Overflow::Unguarded);
    let layer = KeyedBreakerLayer::<_, _>::with_circuits_by_ref(texts.clone(), text);
    let inner = service_fn(|(_, fails): (String, bool)| respond((0, fails)));
    let mut service = layer.layer(inner);
    fail(&texts, "a", 5);
    assert!(call_once(&mut service, ("a".to_owned(), false)).unwrap_err().rejection().is_some());
}

#[test]
fn circuit_of_new_key_in_full_map_is_overflow_circuit() {
    for overflow in [Overflow::Unguarded, Overflow::Shared] {
        let (circuits, _time) = circuits::<String>(1, overflow);
        fail(&circuits, "a", 1);
        fail(&circuits, "b", 5);
        assert_eq!((circuits.len(), circuits.overflowed()), (1, 5));
        let shared = overflow == Overflow::Shared;
        assert_eq!(circuits.try_acquire("c").is_err(), shared, "{overflow}");
        let status = circuits.circuit("d").status();
        let expected = if shared { CircuitState::Open } else { CircuitState::Disabled };
        assert_eq!((status.key.as_deref(), status.state), (Some("(overflow)"), expected));
    }
}

#[test]
fn removed_circuit_keeps_running_calls_and_next_call_has_new_circuit() {
    let (circuits, _time) = circuits::<String>(10, Overflow::Unguarded);
    fail(&circuits, "a", 4);
    let running = circuits.try_acquire("a").unwrap();
    let removed = circuits.remove("a").unwrap();
    assert!(circuits.remove("a").is_none() && circuits.get("a").is_none());
    assert!(circuits.is_empty());
    circuits.try_acquire("a").unwrap().record(Verdict::Success);
    running.record(FAILURE);
    assert_eq!(removed.status().state, CircuitState::Open);
    let status = circuits.get("a").unwrap().status();
    assert_eq!((status.state, status.window.calls, status.window.failures), (CircuitState::Closed, 1, 0));
}

#[test]
fn remove_of_each_position_keeps_other_circuits() {
    for removed in 0..5 {
        let (circuits, _time) = circuits::<u64>(5, Overflow::Unguarded);
        (0..5).for_each(|key| drop(circuits.circuit(&key)));
        circuits.remove(&removed).unwrap();
        let mut kept: Vec<_> = circuits.circuits().iter().map(|circuit| *circuit.key()).collect();
        kept.sort_unstable();
        assert_eq!(kept, (0..5).filter(|key| *key != removed).collect::<Vec<_>>());
        // The place is free: a new key evicts no circuit.
        drop(circuits.circuit(&9));
        assert_eq!((circuits.len(), circuits.evicted()), (5, 0));
        // All are idle: the clock hand still finds a circuit to evict.
        drop(circuits.circuit(&10));
        assert_eq!((circuits.len(), circuits.evicted()), (5, 1));
    }
}

#[test]
fn remove_from_full_map_makes_space_immediately() {
    let (circuits, _time) = circuits::<String>(2, Overflow::Unguarded);
    for key in ["a", "b", "c"] {
        fail(&circuits, key, 1);
    }
    assert_eq!((circuits.len(), circuits.overflowed()), (2, 1));
    drop(circuits.remove("a"));
    fail(&circuits, "c", 5);
    assert_eq!((circuits.len(), circuits.overflowed()), (2, 1), "the new key has the free place");
    assert!(circuits.try_acquire("c").is_err());
}

#[test]
fn clear_removes_all_circuits_and_makes_space() {
    let (circuits, _time) = circuits::<String>(2, Overflow::Unguarded);
    for key in ["a", "b", "c"] {
        fail(&circuits, key, 1);
    }
    assert_eq!((circuits.len(), circuits.overflowed()), (2, 1));
    circuits.clear();
    assert!(circuits.is_empty() && circuits.get("a").is_none());
    fail(&circuits, "c", 5);
    fail(&circuits, "d", 4);
    assert_eq!((circuits.len(), circuits.overflowed()), (2, 1), "the map has space again");
    assert!(circuits.try_acquire("c").is_err());
}

#[test]
fn clear_restarts_scan_for_circuit_to_evict() {
    let (circuits, _time) = circuits::<u64>(20, Overflow::Unguarded);
    let call = |key: u64, verdict| circuits.try_acquire(&key).unwrap().record(verdict);
    // The call with the 21st key scans 16 circuits, none of which can be evicted.
    (0..21).for_each(|key| call(key, FAILURE));
    assert_eq!((circuits.len(), circuits.overflowed()), (20, 1));
    circuits.clear();
    // The next scan begins at the 17th circuit. Its 16 steps do not reach the idle circuits.
    for place in 0..20 {
        call(place, if (12..16).contains(&place) { Verdict::Success } else { FAILURE });
    }
    call(20, Verdict::Success);
    assert_eq!((circuits.evicted(), circuits.overflowed()), (0, 2));
    call(20, Verdict::Success);
    assert_eq!((circuits.evicted(), circuits.overflowed()), (1, 2), "the scan went on");
}

#[test]
fn key_dropped_by_remove_and_clear_may_use_circuits() {
    #[derive(Clone, Debug)]
    struct Key(u64, KeyedCircuits<Self>, Arc<AtomicUsize>);

    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Key {}
    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
            self.0.hash(hasher);
        }
    }
    impl Drop for Key {
        fn drop(&mut self) {
            self.2.fetch_add(self.1.len() + 1, Ordering::Relaxed);
        }
    }

    let (circuits, _time) = circuits::<Key>(10, Overflow::Unguarded);
    let drops = Arc::new(AtomicUsize::new(0));
    let key = |number| Key(number, circuits.clone(), Arc::clone(&drops));
    (0..3).for_each(|number| drop(circuits.get_or_insert(key(number))));
    drops.store(0, Ordering::Relaxed);
    let removed = circuits.remove(&key(0)).unwrap();
    assert_eq!(drops.swap(0, Ordering::Relaxed), 3, "only the key of the argument is dropped");
    drop(removed);
    assert_eq!(drops.swap(0, Ordering::Relaxed), 3, "the map has two circuits");
    circuits.clear();
    assert_eq!(drops.swap(0, Ordering::Relaxed), 2, "the map was empty when both keys were dropped");
}

#[test]
fn concurrent_calls_removals_and_clears_lose_no_call() {
    let (circuits, _time) = circuits::<u64>(8, Overflow::Unguarded);
    thread::scope(|scope| {
        for thread in 0..3 {
            let circuits = &circuits;
            scope.spawn(move || {
                for step in 0_u64..3_000 {
                    let key = (step * 7 + thread) % 12;
                    circuits.try_acquire(&key).unwrap().record(Verdict::Success);
                    match step % 50 {
                        0 => circuits.clear(),
                        1..10 => drop(circuits.remove(&key)),
                        _ => {}
                    }
                    assert!(circuits.len() <= 8);
                }
            });
        }
    });
    circuits.clear();
    assert!(circuits.is_empty());
    for key in 0..12 {
        assert!(circuits.get(&key).is_none(), "the table and the list have the same circuits");
    }
}
