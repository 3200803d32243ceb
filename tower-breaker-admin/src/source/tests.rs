use std::sync::Mutex;

use tower_breaker::CircuitState;

use super::*;

fn config(name: &'static str) -> BreakerConfig {
    BreakerConfig::builder().name(name).build().unwrap()
}

fn registry(names: &[&'static str]) -> CircuitRegistry {
    let registry = CircuitRegistry::new(BreakerConfig::default());
    for name in names {
        registry.circuit(*name);
    }
    registry
}

fn names(sources: &Sources) -> Vec<&'static str> {
    sources.views().iter().map(|view| view.circuit).collect()
}

#[test]
fn views_are_sorted_and_include_later_circuits() {
    let registry = registry(&["search"]);
    let circuits = vec![Circuit::new(config("billing"))];
    let sources = Sources { registries: vec![registry.clone()], circuits, ..Sources::default() };
    assert_eq!(names(&sources), ["billing", "search"]);
    registry.circuit("audit");
    assert_eq!(names(&sources), ["audit", "billing", "search"]);
    assert!(sources.view("biling").is_none());
    assert!(registry.get("biling").is_none(), "a look-up creates no circuit");
}

#[test]
fn two_circuits_with_one_name_are_an_error() {
    let circuits = vec![Circuit::new(config("search"))];
    let sources = Sources { registries: vec![registry(&["a", "search"])], circuits, ..Sources::default() };
    let error = sources.check_names().unwrap_err();
    assert_eq!(error.to_string(), "`circuit` is \"search\"; allowed is a name that no other circuit has");
}

#[test]
fn later_circuit_of_the_same_name_is_shown_once() {
    let (first, second) = (registry(&[]), registry(&["search"]));
    let registries = vec![first.clone(), second.clone()];
    let sources = Sources { registries, circuits: vec![Circuit::new(config("x"))], ..Sources::default() };
    sources.check_names().unwrap();
    let circuits = [first.circuit("search"), first.circuit("x"), second.circuit("search")];
    circuits[0].trip().unwrap();
    assert_eq!(names(&sources), ["search", "x"]);
    for view in [sources.views().remove(0), sources.view("search").unwrap()] {
        assert_eq!(view.local.unwrap().state, CircuitState::Open, "the first registry takes precedence");
    }
    circuits[1].trip().unwrap();
    assert_eq!(sources.view("x").unwrap().epoch, 1);
}

#[test]
fn view_has_limits_and_epoch() {
    let config = BreakerConfig::builder().name("search").failure_rate(None).minimum_calls(7);
    let circuit = Circuit::new(config.consecutive_failures(3).build().unwrap());
    let sources = Sources { circuits: vec![circuit.clone()], ..Sources::default() };
    circuit.trip().unwrap();
    circuit.reset().unwrap();
    circuit.force_open().unwrap();
    let view = sources.view("search").unwrap();
    assert_eq!((view.epoch, view.rejects_calls, view.mode), (3, true, "enforce"));
    let limits = (view.failure_rate_limit, view.minimum_calls, view.consecutive_failures_limit);
    assert_eq!(limits, (None, 7, 3));
    assert!(view.key.is_none() && view.keys.is_none() && view.fleet.is_none() && view.history.is_none());
}

#[test]
fn observers_are_removed_with_the_subscription() {
    let registry = registry(&["search"]);
    let alone = Circuit::new(config("alone"));
    let sources =
        Sources { registries: vec![registry.clone()], circuits: vec![alone.clone()], ..Sources::default() };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_observer = Arc::clone(&seen);
    let observer: TransitionObserver = Arc::new(move |transition| {
        seen_by_observer.lock().unwrap().push(transition.circuit);
    });
    let subscription = sources.on_transition(&observer);
    registry.circuit("later").trip().unwrap();
    alone.trip().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["later", "alone"]);
    drop(subscription);
    registry.circuit("search").trip().unwrap();
    alone.reset().unwrap();
    assert_eq!(seen.lock().unwrap().len(), 2);
    drop(observer);
    assert_eq!(Arc::strong_count(&seen), 1, "nothing keeps the observer");
}

#[cfg(feature = "keyed")]
mod keyed {
    use std::cell::RefCell;
    use std::fmt;

    use tower_breaker::keyed::{KeyedCircuits, KeyedConfig, Overflow};

    use super::*;

    fn circuits<K: Eq + fmt::Debug + std::hash::Hash>(max_keys: usize) -> KeyedCircuits<K> {
        let builder = KeyedConfig::builder(config("tenants")).max_keys(max_keys).overflow(Overflow::Shared);
        KeyedCircuits::new(builder.build().unwrap())
    }

    #[test]
    fn keys_are_found_by_label() {
        let circuits: KeyedCircuits<String> = circuits(10);
        for key in ["b", "a", "a/b \"quoted\""] {
            circuits.circuit(key);
        }
        let labels: Vec<_> = circuits.keys().into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels, ["a", r#"a/b \"quoted\""#, "b"]);
        for label in labels {
            let status = circuits.key(&label).unwrap().circuit.status();
            assert_eq!(status.key.as_deref(), Some(&*label), "the label is the one in the status");
        }
        assert!(circuits.key("c").is_none() && circuits.len() == 3, "a look-up creates no circuit");
    }

    #[test]
    fn handle_to_key_does_not_outlive_the_look_up() {
        let circuits: KeyedCircuits<u64> = circuits(1);
        circuits.circuit(&1);
        drop((circuits.keys(), circuits.key("1"), circuits.counts()));
        circuits.circuit(&2);
        assert_eq!((circuits.evicted(), circuits.overflow().is_none()), (1, true));
    }

    #[test]
    fn counts_include_keys_that_are_not_closed() {
        let circuits: KeyedCircuits<u64> = circuits(2);
        let held = [circuits.circuit(&1), circuits.circuit(&2)];
        held[0].trip().unwrap();
        circuits.circuit(&3).trip().unwrap();
        let counts = KeyCounts { count: 2, not_closed: 2, evicted: 0, overflowed: 1 };
        assert_eq!(circuits.counts(), counts);
        let labels: Vec<_> = circuits.keys().into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels, ["(overflow)", "1", "2"]);
        assert_eq!(circuits.key("(overflow)").unwrap().circuit.status().state, CircuitState::Open);
        let view = View::of_keyed(&circuits);
        assert!(view.local.is_none() && view.keys == Some(counts) && !view.rejects_calls);
    }

    thread_local! {
        /// The circuits that the next label of a key uses.
        static USED: RefCell<Option<KeyedCircuits<Using>>> = const { RefCell::new(None) };
    }

    /// A key whose label is made while another key is used.
    #[derive(PartialEq, Eq, Hash)]
    struct Using(u8);

    impl fmt::Debug for Using {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if let Some(circuits) = USED.take() {
                circuits.get_or_insert(Self(9));
            }
            write!(f, "{}", self.0)
        }
    }

    #[test]
    fn reading_keys_does_not_prevent_their_eviction() {
        type Read = fn(&KeyedCircuits<Using>);
        let reads: [Read; 2] = [|circuits| drop(circuits.keys()), |circuits| drop(circuits.key("3"))];
        for read in reads {
            let circuits = circuits(2);
            for key in [1, 2] {
                circuits.get_or_insert(Using(key)).unwrap();
            }
            USED.set(Some(circuits.clone()));
            read(&circuits);
            assert!(USED.take().is_none(), "a label was made");
            assert_eq!((circuits.evicted(), circuits.overflowed()), (1, 0));
        }
    }

    #[test]
    fn list_of_keys_leaves_out_those_that_have_ended() {
        let circuits: KeyedCircuits<u64> = circuits(10);
        let listed = circuits.keys();
        assert!(listed.is_empty());
        for key in 1..=3 {
            circuits.circuit(&key);
        }
        let mut listed = circuits.keys();
        circuits.remove(&2);
        listed.retain(|(_, circuit)| circuit().is_some());
        assert_eq!(listed.into_iter().map(|(label, _)| label).collect::<Vec<_>>(), ["1", "3"]);
    }

    /// A key whose label is the same for all keys, except for one without a label.
    #[derive(PartialEq, Eq, Hash)]
    struct SameLabel(u8);

    impl fmt::Debug for SameLabel {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            assert_ne!(self.0, 9, "the key has no text");
            f.write_str("same")
        }
    }

    #[test]
    fn first_of_keys_with_one_label_is_used() {
        let circuits: KeyedCircuits<SameLabel> = circuits(10);
        let held = [1, 2, 9].map(|key| circuits.get_or_insert(SameLabel(key)).unwrap());
        held[0].trip().unwrap();
        let keys = circuits.keys();
        assert_eq!(keys.len(), 1);
        assert_eq!((keys[0].1)().unwrap().status().state, CircuitState::Open);
        let found = circuits.key("same").unwrap();
        assert_eq!((found.circuit.status().state, found.is_only), (CircuitState::Open, false));
    }
}
