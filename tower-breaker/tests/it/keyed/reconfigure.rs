//! New configurations of all circuits, or of one key, while the circuits run.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig, KeyedConfigBuilder, Overflow};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, Circuit, CircuitState, Clock, Mode, Status, Verdict,
};

use super::circuits::circuits;
use crate::support::{FAILURE, OPEN_FOR, SECOND, config, timed};

/// Returns the configuration of [`circuits`], with other values for each circuit.
fn keyed(each: BreakerConfigBuilder) -> KeyedConfigBuilder {
    KeyedConfig::builder(each.name("tenants").build().unwrap()).max_keys(10)
}

fn reconfigure<K>(circuits: &KeyedCircuits<K>, each: BreakerConfigBuilder) {
    circuits.reconfigure(keyed(each).build().unwrap()).unwrap();
}

fn fail<K: Clone + Eq + Hash + fmt::Debug>(circuits: &KeyedCircuits<K>, key: &K, times: usize) {
    for _ in 0..times {
        circuits.try_acquire(key).unwrap().record(FAILURE);
    }
}

fn state<K: Clone + Eq + Hash>(circuits: &KeyedCircuits<K>, key: &K) -> CircuitState {
    circuits.get(key).unwrap().status().state
}

#[test]
fn reconfigure_changes_limits_of_existing_and_new_circuits() {
    let (circuits, time) = circuits::<u64>(10, Overflow::Unguarded);
    fail(&circuits, &1, 2);
    fail(&circuits, &2, 5);
    let before = circuits.get(&2).unwrap().status();
    let permit = circuits.try_acquire(&3).unwrap();
    time.advance(SECOND);
    reconfigure(&circuits, config().consecutive_failures(3).open_for(7 * SECOND));
    let after = circuits.get(&2).unwrap().status();
    assert_eq!(after.state, CircuitState::Open);
    assert_eq!(after.retry_after, before.retry_after.unwrap().checked_sub(SECOND), "the deadline stays");
    let epoch = |status: &Status| status.last_transition.as_ref().unwrap().epoch;
    assert_eq!(epoch(&after), epoch(&before), "there was no transition");
    fail(&circuits, &1, 1);
    let status = circuits.get(&1).unwrap().status();
    assert_eq!((status.state, status.window.failures), (CircuitState::Open, 0));
    assert_eq!(status.last_trip.unwrap().counts.unwrap().failures, 3, "the window stays");
    assert_eq!(status.retry_after, Some(7 * SECOND), "the open time applies to the next opening");
    permit.record(FAILURE);
    fail(&circuits, &3, 2);
    assert_eq!(state(&circuits, &3), CircuitState::Open, "the permit stayed valid");
    fail(&circuits, &4, 3);
    assert_eq!(state(&circuits, &4), CircuitState::Open);
    assert_eq!(circuits.config().each().consecutive_failures(), 3);
    assert!(circuits.config().each().clock().is_some(), "the clock stays");
}

#[test]
fn reconfigure_with_other_window_empties_windows() {
    let (circuits, _time) = circuits::<u64>(10, Overflow::Unguarded);
    let window = |key: u64| circuits.get(&key).unwrap().status().window;
    fail(&circuits, &1, 2);
    circuits.get_or_insert(2).unwrap().try_acquire().unwrap().record(Verdict::Success);
    reconfigure(&circuits, config().failure_rate(0.9));
    assert_eq!((window(1).failures, window(2).calls), (2, 1), "the window has the same size");
    for seconds in [30, 90, 60] {
        reconfigure(&circuits, config().time_window(seconds * SECOND));
        assert_eq!((window(1).calls, window(2).calls), (0, 0));
        circuits.try_acquire(&1).unwrap().record(Verdict::Success);
        circuits.try_acquire(&3).unwrap().record(Verdict::Success);
        assert_eq!((window(1).calls, window(3).calls), (1, 1));
    }
}

#[test]
fn reconfigure_with_other_mode_applies_to_all_circuits() {
    let (circuits, _time) = circuits::<u64>(10, Overflow::Unguarded);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    circuits.on_transition(move |transition| {
        sink.lock().unwrap().push((transition.key.as_deref().unwrap().to_owned(), transition.to));
    });
    circuits.try_acquire(&1).unwrap().record(Verdict::Success);
    fail(&circuits, &2, 5);
    circuits.circuit(&3).force_open().unwrap();
    seen.lock().unwrap().clear();
    let transitions = || {
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort_by(|one, other| one.0.cmp(&other.0));
        seen.into_iter().map(|(_, to)| to).collect::<Vec<_>>()
    };
    reconfigure(&circuits, config().mode(Mode::Disabled));
    assert_eq!(transitions(), [CircuitState::Disabled; 2], "an override takes precedence");
    for key in [1, 2, 4] {
        circuits.try_acquire(&key).unwrap().record(FAILURE);
        assert_eq!(state(&circuits, &key), CircuitState::Disabled);
    }
    circuits.get(&3).unwrap().release();
    assert_eq!((state(&circuits, &3), transitions()), (CircuitState::Disabled, vec![CircuitState::Disabled]));
    reconfigure(&circuits, config());
    assert_eq!(transitions(), [CircuitState::Closed; 4]);
    fail(&circuits, &4, 5);
    assert!(circuits.try_acquire(&4).is_err());
    reconfigure(&circuits, config().mode(Mode::ObserveOnly));
    circuits.try_acquire(&4).unwrap().record(FAILURE);
    assert_eq!(state(&circuits, &4), CircuitState::Open);
    reconfigure(&circuits, config().mode(Mode::ObserveOnly));
    assert_eq!(transitions(), [CircuitState::Open], "no circuit changed its state");
}

#[test]
fn reconfigure_with_failures_span_starts_time_of_current_failures() {
    let (circuits, time) = circuits::<u64>(10, Overflow::Unguarded);
    let span = |seconds: u64| {
        let span = Duration::from_secs(seconds);
        reconfigure(&circuits, config().consecutive_failures_span(span).failure_rate(None));
    };
    span(0);
    for key in [1, 2, 4] {
        fail(&circuits, &key, 2);
    }
    time.advance(50 * SECOND);
    let own = config().consecutive_failures_span(10 * SECOND).failure_rate(None).build().unwrap();
    circuits.configure(&4, own).unwrap();
    fail(&circuits, &4, 20);
    assert_eq!(state(&circuits, &4), CircuitState::Closed, "the failures of the key have no time yet");
    span(10);
    fail(&circuits, &1, 20);
    assert_eq!(state(&circuits, &1), CircuitState::Closed, "the failures have no time yet");
    time.advance(9 * SECOND);
    span(10);
    circuits.configure(&2, circuits.config().each().clone()).unwrap();
    fail(&circuits, &1, 1);
    fail(&circuits, &2, 20);
    fail(&circuits, &3, 20);
    time.advance(SECOND);
    for (key, expected) in [(1, CircuitState::Open), (2, CircuitState::Open), (3, CircuitState::Closed)] {
        fail(&circuits, &key, 1);
        assert_eq!(state(&circuits, &key), expected, "{key}");
    }
}

#[test]
fn reconfigure_error_names_value_and_changes_nothing() {
    let (circuits, _time) = circuits::<u64>(10, Overflow::Unguarded);
    let before = circuits.config();
    let error = |config: KeyedConfigBuilder| {
        circuits.reconfigure(config.max_keys(3).build().unwrap()).unwrap_err().to_string()
    };
    let other = config().name("other").build().unwrap();
    let text = error(KeyedConfig::builder(other));
    assert_eq!(text, "`name` is \"other\"; allowed is \"tenants\", the circuits' own");
    assert!(error(keyed(config().clock(Clock::precise()))).starts_with("`clock` is "));
    let text = error(keyed(config()).key_label(5));
    assert_eq!(text, "`key_label` is 5; allowed is none, the circuits' own");
    assert_eq!(circuits.config(), before);
    for wrong in [config().count_window(5), config().name("other"), config().clock(Clock::precise())] {
        circuits.configure(&1, wrong.build().unwrap()).unwrap_err();
    }
    assert_eq!(circuits.config(), before);
    reconfigure(&circuits, config().clock(before.each().clock().unwrap()));
    assert_eq!(circuits.config(), before);
}

#[test]
fn fewer_max_keys_evict_circuits_that_need_not_be_kept() {
    let (circuits, time) = circuits::<u64>(8, Overflow::Unguarded);
    for key in 0..8 {
        circuits.try_acquire(&key).unwrap().record(if key < 4 { FAILURE } else { Verdict::Success });
    }
    let max_keys = |max_keys: usize| {
        circuits.reconfigure(keyed(config()).max_keys(max_keys).build().unwrap()).unwrap();
    };
    max_keys(6);
    assert_eq!((circuits.len(), circuits.evicted()), (6, 2));
    max_keys(2);
    assert_eq!((circuits.len(), circuits.evicted()), (4, 4), "circuits with recent failures stay");
    assert!((0..4).all(|key| circuits.get(&key).is_some()));
    circuits.try_acquire(&9).unwrap().record(Verdict::Success);
    assert_eq!((circuits.len(), circuits.overflowed()), (4, 1), "no place for a new key");
    circuits.reset_all();
    time.advance(SECOND);
    drop(circuits.circuit(&10));
    assert_eq!(circuits.len(), 3, "a new key evicts one circuit more");
    drop(circuits.circuit(&11));
    drop(circuits.circuit(&12));
    assert_eq!((circuits.len(), circuits.evicted()), (2, 9));
    max_keys(3);
    drop(circuits.circuit(&13));
    assert_eq!((circuits.len(), circuits.evicted()), (3, 9));
}

#[test]
fn excess_circuit_evicted_for_key_without_space_is_counted() {
    let (circuits, _time) = circuits::<u64>(4, Overflow::Unguarded);
    (0..4).for_each(|key| fail(&circuits, &key, 1));
    circuits.reconfigure(keyed(config()).max_keys(2).build().unwrap()).unwrap();
    assert_eq!((circuits.len(), circuits.evicted()), (4, 0));
    circuits.get(&2).unwrap().reset().unwrap();
    fail(&circuits, &9, 1);
    assert_eq!((circuits.len(), circuits.evicted(), circuits.overflowed()), (3, 1, 1));
}

#[test]
fn config_contains_all_settings_and_can_be_applied_again() {
    let own = || config().consecutive_failures(2).name("tenants").build().unwrap();
    let config = timed(config().name("tenants").consecutive_failures(3)).0;
    let config = KeyedConfig::builder(config).max_keys(7).key_label(5).overflow(Overflow::Shared);
    let circuits = KeyedCircuits::<u64>::new(config.key("1", own()).build().unwrap());
    let config = circuits.config();
    assert_eq!((config.each().consecutive_failures(), config.max_keys()), (3, 7));
    assert_eq!((config.overflow(), config.key_label()), (Overflow::Shared, Some(5)));
    circuits.configure(&2, own()).unwrap();
    assert_ne!(circuits.config(), config);
    circuits.reconfigure(config.clone()).unwrap();
    assert_eq!(circuits.config(), config);
}

#[test]
fn more_max_keys_make_space_at_once() {
    let (circuits, _time) = circuits::<u64>(1, Overflow::Unguarded);
    fail(&circuits, &0, 1);
    (1..5).for_each(|key| fail(&circuits, &key, 1));
    assert_eq!((circuits.len(), circuits.overflowed()), (1, 4));
    reconfigure(&circuits, config());
    fail(&circuits, &5, 1);
    assert_eq!((circuits.len(), circuits.overflowed()), (2, 4));
}

#[test]
fn reconfigure_with_other_overflow_uses_other_circuit() {
    let (circuits, _time) = circuits::<u64>(1, Overflow::Unguarded);
    let overflow = |each: BreakerConfigBuilder, overflow| {
        let config = keyed(each).max_keys(1).overflow(overflow).build().unwrap();
        circuits.reconfigure(config).unwrap();
        assert_eq!(circuits.config().overflow(), overflow);
    };
    fail(&circuits, &0, 1);
    fail(&circuits, &1, 10);
    overflow(config(), Overflow::Shared);
    fail(&circuits, &1, 5);
    assert!(circuits.try_acquire(&2).is_err());
    assert_eq!(circuits.overflow().unwrap().status().state, CircuitState::Open);
    overflow(config(), Overflow::Unguarded);
    fail(&circuits, &1, 10);
    assert!(circuits.overflow().is_none());
    let (limits, rate) = (config().failure_rate(0.9), Some(0.9));
    overflow(limits, Overflow::Unguarded);
    assert_eq!(circuits.circuit(&1).config().failure_rate(), rate, "the unguarded circuit has it, too");
    overflow(config().mode(Mode::Disabled), Overflow::Shared);
    assert_eq!(circuits.overflow().unwrap().status().state, CircuitState::Disabled);
    overflow(config().consecutive_failures(2), Overflow::Shared);
    fail(&circuits, &0, 1);
    fail(&circuits, &1, 2);
    assert!(circuits.try_acquire(&2).is_err(), "the shared circuit has the new limits");
}

#[test]
fn configured_key_has_own_limits_before_and_after_it_has_circuit() {
    let (circuits, time) = circuits::<String>(10, Overflow::Unguarded);
    let [a, b, c] = ["a", "b", "c"].map(str::to_owned);
    fail(&circuits, &a, 1);
    let two = || config().consecutive_failures(2).build().unwrap();
    circuits.configure("a", two()).unwrap();
    circuits.configure("b", two()).unwrap();
    assert_eq!(circuits.get("a").unwrap().status().window.failures, 1, "the window stays");
    for key in [&a, &b] {
        fail(&circuits, key, if *key == a { 1 } else { 2 });
        assert_eq!(state(&circuits, key), CircuitState::Open, "{key}");
        let own = circuits.get(key).unwrap().config();
        assert_eq!((own.name(), own.consecutive_failures()), ("tenants", 2), "{key}");
    }
    fail(&circuits, &c, 4);
    assert_eq!(state(&circuits, &c), CircuitState::Closed);
    assert_eq!(circuits.get(&c).unwrap().config().consecutive_failures(), 5);
    // The configuration outlives the circuit.
    circuits.remove("a").unwrap();
    fail(&circuits, &a, 2);
    assert_eq!(state(&circuits, &a), CircuitState::Open);
    assert!(circuits.unconfigure("a") && !circuits.unconfigure("a"));
    circuits.reset_all();
    fail(&circuits, &a, 4);
    assert_eq!(state(&circuits, &a), CircuitState::Closed);
    // A configuration of all keys without `b` replaces that of `b`, and one with `c` applies to it.
    let config = keyed(config()).key("c", two()).build().unwrap();
    circuits.reconfigure(config.clone()).unwrap();
    assert_eq!(circuits.config().keys().map(|(label, _)| label.to_owned()).collect::<Vec<_>>(), ["c"]);
    fail(&circuits, &b, 4);
    assert_eq!(state(&circuits, &b), CircuitState::Closed);
    fail(&circuits, &c, 2);
    assert_eq!(state(&circuits, &c), CircuitState::Open);
    let own = KeyedCircuits::<String>::new(config);
    fail(&own, &c, 2);
    fail(&own, &a, 2);
    assert_eq!((state(&own, &c), state(&own, &a)), (CircuitState::Open, CircuitState::Closed));
    time.advance(OPEN_FOR);
}

#[test]
fn configured_key_keeps_own_window_and_mode_when_others_change() {
    let (circuits, _time) = circuits::<u64>(10, Overflow::Unguarded);
    let own = || config().time_window(7 * SECOND).mode(Mode::Disabled).name("tenants").build().unwrap();
    for key in [1, 2] {
        circuits.try_acquire(&key).unwrap().record(Verdict::Success);
    }
    circuits.configure(&1, own()).unwrap();
    assert_eq!((state(&circuits, &1), state(&circuits, &2)), (CircuitState::Disabled, CircuitState::Closed));
    for seconds in [90, 20] {
        let config = keyed(config().time_window(seconds * SECOND)).key("1", own()).build().unwrap();
        circuits.reconfigure(config).unwrap();
        assert_eq!(state(&circuits, &1), CircuitState::Disabled);
    }
    // A new circuit of the key starts disabled.
    circuits.remove(&1).unwrap();
    assert_eq!(circuits.circuit(&1).status().state, CircuitState::Disabled);
    circuits.unconfigure(&1);
    circuits.try_acquire(&1).unwrap().record(Verdict::Success);
    let status = circuits.get(&1).unwrap().status();
    assert_eq!((status.state, status.window.calls), (CircuitState::Closed, 1));
}

#[test]
fn keys_with_same_label_share_configuration() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Secret(u64);
    impl fmt::Debug for Secret {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("***")
        }
    }
    let (circuits, _time) = circuits::<Secret>(10, Overflow::Unguarded);
    fail(&circuits, &Secret(1), 1);
    circuits.configure(&Secret(2), config().consecutive_failures(2).build().unwrap()).unwrap();
    fail(&circuits, &Secret(1), 1);
    fail(&circuits, &Secret(3), 2);
    assert!([1, 3].map(Secret).iter().all(|key| state(&circuits, key) == CircuitState::Open));
}

#[test]
fn key_whose_debug_panics_has_configuration_of_all_keys() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Panics(bool);
    impl fmt::Debug for Panics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            assert!(!self.0, "the key has no text");
            f.write_str("text")
        }
    }
    let (circuits, _time) = circuits::<Panics>(10, Overflow::Unguarded);
    fail(&circuits, &Panics(true), 1);
    circuits.configure(&Panics(false), config().consecutive_failures(2).build().unwrap()).unwrap();
    circuits.remove(&Panics(true)).unwrap();
    fail(&circuits, &Panics(true), 4);
    fail(&circuits, &Panics(false), 2);
    assert_eq!(state(&circuits, &Panics(true)), CircuitState::Closed);
    assert_eq!(state(&circuits, &Panics(false)), CircuitState::Open);
}

#[test]
fn seed_of_new_configuration_makes_open_times_reproducible() {
    // `opened` are the keys in the order in which their circuits open.
    let open_times = |seed: Option<u64>, opened: [u64; 4]| {
        let (circuits, _time) = circuits::<u64>(10, Overflow::Unguarded);
        for key in 0..4 {
            let circuit = circuits.circuit(&key);
            if key < 2 {
                // Allocates the state, with random numbers of the former configuration.
                circuit.trip().unwrap();
                circuit.reset().unwrap();
            }
        }
        let each = config().open_jitter(1.0);
        reconfigure(&circuits, if let Some(seed) = seed { each.seed(seed) } else { each });
        for key in opened {
            circuits.get(&key).unwrap().trip().unwrap();
        }
        [0, 1, 2, 3].map(|key| circuits.get(&key).unwrap().status().retry_after.unwrap())
    };
    let seeded = open_times(Some(7), [0, 1, 2, 3]);
    assert_eq!(open_times(Some(7), [3, 2, 1, 0]), seeded, "the order of openings does not matter");
    let [first, second] = [0, 1].map(|_| open_times(None, [0, 1, 2, 3]));
    for (key, (first, second)) in first.iter().zip(second).enumerate() {
        assert_ne!(*first, second, "{key}");
    }
}

/// Circuits are created, and allocate their state, while the configuration changes. In the end each
/// has the last one.
#[test]
fn concurrently_created_circuits_get_last_configuration() {
    for round in 0..40 {
        let (circuits, _time) = circuits::<u64>(1_000, Overflow::Unguarded);
        let next = AtomicUsize::new(0);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for thread in 0..2 {
                let (circuits, next, done) = (&circuits, &next, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let key = next.fetch_add(1, Ordering::Relaxed) as u64 % 900;
                        let circuit = circuits.circuit(&key);
                        if thread == 0 {
                            // Allocates the state. The circuit is disabled at times.
                            let _ = circuit.trip();
                            let _ = circuit.reset();
                        }
                    }
                });
            }
            for step in 1..=20_u32 {
                while next.load(Ordering::Relaxed) < step as usize * 20 {
                    thread::yield_now();
                }
                let mode = if step % 2 == 1 && round % 2 == 0 { Mode::Disabled } else { Mode::Enforce };
                let each = config().open_for(step * SECOND).mode(mode);
                let own = config().name("tenants").open_for(step * 100 * SECOND).build().unwrap();
                let key = (step % 3).to_string();
                circuits.reconfigure(keyed(each).max_keys(1_000).key(key, own).build().unwrap()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(!circuits.is_empty());
        for circuit in circuits.circuits() {
            circuit.trip().unwrap();
            let factor = if *circuit.key() == 2 { 100 } else { 1 };
            assert_eq!(circuit.status().retry_after, Some(20 * factor * SECOND), "{}", circuit.key());
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Call { key: u64, verdict: bool, lasts: u64 },
    Advance(u64),
    Control { key: u64, operation: usize },
    Remove(u64),
    Reconfigure(Settings, Option<(u64, Settings)>),
    Configure(u64, Settings),
    Unconfigure(u64),
}

/// The values of a configuration that differ.
#[derive(Clone, Debug)]
struct Settings {
    failures: u32,
    span: u64,
    rate: Option<f64>,
    slow: bool,
    window: u64,
    open: u64,
    probes: u32,
    slow_start: u64,
    mode: Mode,
}

impl Settings {
    fn build(&self) -> BreakerConfig {
        let builder = BreakerConfig::builder()
            .name("tenants")
            .consecutive_failures(self.failures)
            .consecutive_failures_span(Duration::from_secs(self.span))
            .failure_rate(self.rate)
            .minimum_calls(4)
            .time_window(Duration::from_secs(self.window))
            .open_for(Duration::from_secs(self.open))
            .open_jitter(0.0)
            .probes(self.probes)
            .successes_to_close(self.probes)
            .slow_start(Duration::from_secs(self.slow_start))
            .mode(self.mode);
        let builder = if self.slow { builder.slow_call_rate(SECOND, 0.5) } else { builder };
        builder.build().unwrap()
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let mode = prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::ObserveOnly), 1 => Just(Mode::Disabled)];
    let trip = (2_u32..5, 0_u64..3, proptest::option::of(Just(0.5)), any::<bool>());
    let recovery = (1_u64..20, 1_u32..3, prop_oneof![Just(0_u64), Just(30)]);
    let window = prop_oneof![Just(500_u64), Just(900)];
    (trip, recovery, window, mode).prop_map(
        |((failures, span, rate, slow), (open, probes, slow_start), window, mode)| Settings {
            failures,
            span,
            rate,
            slow,
            window,
            open,
            probes,
            slow_start,
            mode,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0_u64..3;
    prop_oneof![
        12 => (key(), any::<bool>(), 0_u64..3)
            .prop_map(|(key, verdict, lasts)| Step::Call { key, verdict, lasts }),
        3 => (1_u64..4).prop_map(Step::Advance),
        2 => (key(), 0_usize..5).prop_map(|(key, operation)| Step::Control { key, operation }),
        1 => key().prop_map(Step::Remove),
        3 => (settings(), proptest::option::of((key(), settings())))
            .prop_map(|(each, own)| Step::Reconfigure(each, own)),
        2 => (key(), settings()).prop_map(|(key, own)| Step::Configure(key, own)),
        1 => key().prop_map(Step::Unconfigure),
    ]
}

/// The naive model: a plain circuit for each key, which is reconfigured on its own.
struct Model {
    circuits: BTreeMap<u64, Circuit>,
    each: BreakerConfig,
    own: BTreeMap<u64, BreakerConfig>,
    clock: Clock,
}

impl Model {
    fn config(&self, key: u64) -> BreakerConfig {
        self.own.get(&key).unwrap_or(&self.each).to_builder().clock(self.clock).build().unwrap()
    }

    fn circuit(&mut self, key: u64) -> Circuit {
        let config = self.config(key);
        self.circuits.entry(key).or_insert_with(|| Circuit::new(config)).clone()
    }

    fn update(&self) {
        for (key, circuit) in &self.circuits {
            circuit.reconfigure(self.config(*key)).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn reconfigured_keyed_circuits_equal_reconfigured_plain_circuits(
        first in settings(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(10_000));
        let each = first.build();
        let timed = each.to_builder().clock(clock).build().unwrap();
        let circuits = KeyedCircuits::<u64>::new(KeyedConfig::builder(timed).build().unwrap());
        let mut model = Model { circuits: BTreeMap::new(), each, own: BTreeMap::new(), clock };
        for step in steps {
            match step {
                Step::Call { key, verdict, lasts } => {
                    let verdict = if verdict { Verdict::Success } else { FAILURE };
                    let (own, plain) = (circuits.try_acquire(&key), model.circuit(key).try_acquire());
                    prop_assert_eq!(own.is_ok(), plain.is_ok());
                    time.advance(Duration::from_secs(lasts));
                    if let (Ok(own), Ok(plain)) = (own, plain) {
                        own.record(verdict);
                        plain.record(verdict);
                    }
                }
                Step::Advance(seconds) => { time.advance(Duration::from_secs(seconds)); }
                Step::Control { key, operation } => {
                    let (own, plain) = (circuits.circuit(&key), model.circuit(key));
                    let results = match operation {
                        0 => (own.trip().is_ok(), plain.trip().is_ok()),
                        1 => (own.reset().is_ok(), plain.reset().is_ok()),
                        2 => (own.force_open().is_ok(), plain.force_open().is_ok()),
                        3 => (own.force_closed().is_ok(), plain.force_closed().is_ok()),
                        _ => {
                            own.release();
                            plain.release();
                            (true, true)
                        }
                    };
                    prop_assert_eq!(results.0, results.1);
                }
                Step::Remove(key) => {
                    let removed = (circuits.remove(&key).is_some(), model.circuits.remove(&key).is_some());
                    prop_assert_eq!(removed.0, removed.1);
                }
                Step::Reconfigure(each, own) => {
                    model.each = each.build();
                    model.own = own.iter().map(|(key, own)| (*key, own.build())).collect();
                    let config = KeyedConfig::builder(model.each.clone());
                    let config = own.iter().fold(config, |config, (key, own)| {
                        config.key(key.to_string(), own.build())
                    });
                    circuits.reconfigure(config.build().unwrap()).unwrap();
                    model.update();
                }
                Step::Configure(key, own) => {
                    circuits.configure(&key, own.build()).unwrap();
                    model.own.insert(key, own.build());
                    model.update();
                }
                Step::Unconfigure(key) => {
                    prop_assert_eq!(circuits.unconfigure(&key), model.own.remove(&key).is_some());
                    model.update();
                }
            }
            prop_assert_eq!(circuits.len(), model.circuits.len());
            for (key, plain) in &model.circuits {
                let (own, plain) = (circuits.get(key).unwrap().status(), plain.status());
                prop_assert_eq!(own.state, plain.state);
                prop_assert_eq!(own.window, plain.window);
                prop_assert_eq!(own.consecutive_failures, plain.consecutive_failures);
                prop_assert_eq!(own.retry_after, plain.retry_after);
                prop_assert_eq!(own.slow_start, plain.slow_start);
                let change = |last: Option<tower_breaker::telemetry::Transition>| {
                    last.map(|last| (last.from, last.to, last.reason, last.epoch, last.counts))
                };
                prop_assert_eq!(change(own.last_transition), change(plain.last_transition));
            }
        }
    }
}
