//! Loom models: every interleaving of concurrent calls with one key.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc as StdArc;
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tower_fault_classify::__internals::ManualClock;
use tower_fault_classify::Verdict;

use super::*;
use crate::circuit::{CONFIG, FAILURE, Permit, model};
use crate::config::Mode;
use crate::machine::{CircuitState, Counts, SlowCallLimits, TripLimits};

/// Returns a circuit of the key 7, whose hash is also 7.
pub(crate) fn circuit(
    consecutive_failures: u32,
    failure_rate: Option<f64>,
) -> (SharedCore<u32>, ManualClock) {
    circuit_with(TripLimits { consecutive_failures, failure_rate, ..CONFIG.trip })
}

fn circuit_with(trip: TripLimits) -> (SharedCore<u32>, ManualClock) {
    let (core, manual_clock) = unused_circuit_with(trip);
    // The allocation has a model of its own.
    core.store().lazy();
    (core, manual_clock)
}

/// Returns a circuit whose lazy state has not been allocated.
fn unused_circuit() -> (SharedCore<u32>, ManualClock) {
    unused_circuit_with(CONFIG.trip)
}

fn unused_circuit_with(trip: TripLimits) -> (SharedCore<u32>, ManualClock) {
    let (clock, manual_clock) = Clock::manual();
    manual_clock.set(Duration::from_secs(1_000));
    let config = BreakerConfig { trip, clock: Some(clock), ..CONFIG };
    let configs = Configs { each: config, keys: BTreeMap::new() };
    let common = StdArc::new(Common::new(configs, |key: &u32| key.to_string(), None));
    let store = KeyedStore::new(7, 7, StdArc::clone(&common), &common.configs(), None);
    (SharedCore::new(Core::new(store)), manual_clock)
}

#[test]
fn loom_keyed_concurrent_failures_reach_both_limits() {
    for (consecutive_failures, failure_rate) in [(2, None), (0, Some(1.0))] {
        model(move || {
            let (core, _manual_clock) = circuit(consecutive_failures, failure_rate);
            let permits = [0, 1].map(|_| Permit::acquire(Shared::new(SharedCore::clone(&core))).unwrap());
            let [first, second] = permits;
            let thread = thread::spawn(move || second.record(FAILURE));
            first.record(FAILURE);
            thread.join().unwrap();
            assert_eq!(core.snapshot().state, CircuitState::Open);
            assert_eq!(core.snapshot().last_transition.unwrap().epoch, 1, "the circuit opened once");
        });
    }
}

#[test]
fn loom_keyed_concurrent_first_failures_start_one_span() {
    model(|| {
        let (core, manual_clock) = circuit_with(TripLimits {
            consecutive_failures: 2,
            consecutive_failures_span: 1_000_000_000,
            ..CONFIG.trip
        });
        let acquire = || Permit::acquire(Shared::new(SharedCore::clone(&core))).unwrap();
        let [first, second] = [acquire(), acquire()];
        let thread = thread::spawn(move || second.record(FAILURE));
        first.record(FAILURE);
        thread.join().unwrap();
        assert_eq!(core.snapshot().state, CircuitState::Closed, "two failures at the same time");
        manual_clock.advance(Duration::from_secs(1));
        acquire().record(FAILURE);
        assert_eq!(core.snapshot().state, CircuitState::Open);
    });
}

#[test]
fn loom_packed_concurrent_adds_are_counted() {
    model(|| {
        let cells = Arc::new(PackedCells::default());
        let other = Arc::clone(&cells);
        let thread = thread::spawn(move || {
            other.add(7, true);
            other.add(18, false);
        });
        cells.add(7, false);
        thread.join().unwrap();
        let sums = cells.sum_last(7, 11);
        // The cell belongs to the newer bucket, with or without the call of the older bucket.
        assert!([[1, 0], [2, 0]].contains(&cells.sum_last(18, 11)), "{:?}", cells.sum_last(18, 11));
        assert!(sums[0] >= 1, "{sums:?}");
    });
}

#[test]
fn loom_keyed_slow_calls_never_exceed_calls() {
    let slow = Some(SlowCallLimits { threshold: 1_000_000_000, rate: 1.0 });
    for verdict in [Verdict::Success, FAILURE] {
        model(move || {
            let (core, manual_clock) = circuit_with(TripLimits { slow, minimum_calls: 9, ..CONFIG.trip });
            let permit = Permit::acquire(Shared::new(SharedCore::clone(&core))).unwrap();
            manual_clock.advance(Duration::from_secs(2));
            // The reader is the spawned thread: loom then lets it read a mix of old and new
            // values.
            let other = SharedCore::clone(&core);
            let reader = thread::spawn(move || other.snapshot().counts);
            permit.record(verdict);
            let Counts { calls, failures, slow, .. } = reader.join().unwrap();
            assert!(slow <= calls && failures <= calls, "{slow} slow and {failures} failed of {calls}");
        });
    }
}

#[test]
fn loom_moving_counts_are_read_exactly_once() {
    const FULL: u64 = (1 << 20) - 1;
    model(|| {
        let (core, _manual_clock) = circuit_with(TripLimits { minimum_calls: 9, ..CONFIG.trip });
        let permit = Permit::acquire(Shared::new(SharedCore::clone(&core))).unwrap();
        core.store().calls.fill(core.span().buckets.tag(core.hot_config().now(), 0));
        let other = SharedCore::clone(&core);
        let reader = thread::spawn(move || other.snapshot().counts);
        permit.record(FAILURE);
        let seen = reader.join().unwrap();
        let before = Counts { calls: FULL, failures: FULL / 3, ..Counts::default() };
        let after = Counts { calls: FULL + 1, failures: FULL / 3 + 1, ..Counts::default() };
        assert!([before, after].contains(&seen), "{seen:?}");
        assert_eq!(core.snapshot().counts, after);
    });
}

#[test]
fn loom_concurrent_calls_on_full_cell_are_counted() {
    const FULL: u64 = (1 << 20) - 1;
    model(|| {
        let (core, _manual_clock) = circuit_with(TripLimits { minimum_calls: 9, ..CONFIG.trip });
        let [first, second] = [0, 1].map(|_| Permit::acquire(Shared::new(SharedCore::clone(&core))).unwrap());
        core.store().calls.fill(core.span().buckets.tag(core.hot_config().now(), 0));
        let thread = thread::spawn(move || second.record(Verdict::Success));
        first.record(Verdict::Success);
        thread.join().unwrap();
        assert_eq!(core.snapshot().counts.calls, FULL + 2);
    });
}

/// Returns another configuration than [`circuit`], of all keys or of the key `7`.
fn other_configs(core: &SharedCore<u32>, is_of_key: bool, mode: Mode) -> Configs {
    let mut configs = core.store().common.configs().clone();
    let mut other = BreakerConfig { mode, ..configs.each.clone() };
    other.recovery.probe_lease = 7;
    if is_of_key {
        configs.keys.insert("7".into(), other)
    } else {
        Some(mem::replace(&mut configs.each, other))
    };
    configs
}

/// Returns whether the circuit has the configuration of [`other_configs`] everywhere.
fn has_other_config(core: &SharedCore<u32>, mode: Mode) -> bool {
    let locked = lock(core.store().locked());
    let is_disabled = locked.state() == CircuitState::Disabled;
    locked.limits.probe_lease == 7 && is_disabled == (mode == Mode::Disabled)
}

#[test]
fn loom_state_that_is_allocated_gets_new_configuration() {
    // With an unchanged mode, `update_config` leaves the new configuration to the allocation.
    for (is_of_key, mode) in [(false, Mode::Enforce), (false, Mode::Disabled), (true, Mode::Enforce)] {
        model(move || {
            let (core, _manual_clock) = unused_circuit();
            let other = SharedCore::clone(&core);
            let thread = thread::spawn(move || {
                other.store().lazy();
            });
            core.store().common.reconfigure(other_configs(&core, is_of_key, mode));
            core.update_config();
            thread.join().unwrap();
            assert!(has_other_config(&core, mode));
        });
    }
}

#[test]
fn loom_created_circuit_gets_new_configuration() {
    for is_of_key in [false, true] {
        model(move || {
            let (core, _manual_clock) = unused_circuit();
            let common = StdArc::clone(&core.store().common);
            // The list of circuits, and its lock.
            let list = Arc::new(Mutex::new(Vec::new()));
            let (other, of_other) = (Arc::clone(&list), StdArc::clone(&common));
            let thread = thread::spawn(move || {
                let mut list = lock(&other);
                let store = KeyedStore::new(7, 7, StdArc::clone(&of_other), &of_other.configs(), Some("7"));
                list.push(SharedCore::new(Core::new(store)));
            });
            common.reconfigure(other_configs(&core, is_of_key, Mode::Disabled));
            let listed = lock(&list).clone();
            listed.iter().for_each(|core| core.update_config());
            thread.join().unwrap();
            let listed = lock(&list).clone();
            assert!(has_other_config(&listed[0], Mode::Disabled));
        });
    }
}

#[test]
fn loom_concurrent_configurations_leave_last_one() {
    model(|| {
        let (core, _manual_clock) = circuit(5, None);
        let common = StdArc::clone(&core.store().common);
        let former = common.configs().clone();
        let (other, of_other) = (SharedCore::clone(&core), StdArc::clone(&common));
        let thread = thread::spawn(move || {
            of_other.reconfigure(former);
            other.update_config();
        });
        common.reconfigure(other_configs(&core, false, Mode::Disabled));
        core.update_config();
        thread.join().unwrap();
        assert_eq!(has_other_config(&core, Mode::Disabled), common.configs().each.is_disabled());
    });
}

#[test]
fn loom_keyed_signal_is_sent_once_until_it_is_armed() {
    model(|| {
        let (core, _manual_clock) = unused_circuit();
        core.store().common.set_signals(true);
        let sends = |core: &SharedCore<u32>| {
            let store = core.store();
            store.events().has(Events::FAILURE_SIGNAL) && store.disarm(Events::FAILURE_SIGNAL)
        };
        let other = SharedCore::clone(&core);
        let thread = thread::spawn(move || sends(&other));
        let sent = [sends(&core), thread.join().unwrap()];
        assert_eq!(sent.iter().filter(|sent| **sent).count(), 1, "{sent:?}");
        assert!(!sends(&core));
        assert!(core.store().events().has(Events::DEMAND_SIGNAL), "the other signal is still armed");
        core.arm(Events::FAILURE_SIGNAL);
        assert!(sends(&core));
    });
}
