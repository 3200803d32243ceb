//! Loom models: every interleaving of concurrent calls with one key.

use std::sync::Arc as StdArc;
use std::time::Duration;

use loom::sync::Arc;
use loom::thread;
use tower_fault_classify::__internals::ManualClock;
use tower_fault_classify::Verdict;

use super::*;
use crate::circuit::{CONFIG, FAILURE, Permit, model};
use crate::machine::{CircuitState, SlowCallLimits, TripLimits};

/// Returns a circuit of the key 7, whose hash is also 7.
pub(crate) fn circuit(
    consecutive_failures: u32,
    failure_rate: Option<f64>,
) -> (SharedCore<u32>, ManualClock) {
    circuit_with(TripLimits { consecutive_failures, failure_rate, ..CONFIG.trip })
}

fn circuit_with(trip: TripLimits) -> (SharedCore<u32>, ManualClock) {
    let (clock, manual_clock) = Clock::manual();
    manual_clock.set(Duration::from_secs(1_000));
    let config = BreakerConfig { trip, clock: Some(clock), ..CONFIG };
    let common = Common::new(config, |key: &u32| key.to_string(), None);
    let core = SharedCore::new(Core::new(KeyedStore::new(7, 7, StdArc::new(common))));
    // Loom does not see the synchronization of std's `OnceLock`, so the cell is filled before.
    core.store().lazy();
    (core, manual_clock)
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
        let common = &core.store().common;
        core.store().calls.fill(common.span().buckets.tag(common.hot_config.now(), 0));
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
        let common = &core.store().common;
        core.store().calls.fill(common.span().buckets.tag(common.hot_config.now(), 0));
        let thread = thread::spawn(move || second.record(Verdict::Success));
        first.record(Verdict::Success);
        thread.join().unwrap();
        assert_eq!(core.snapshot().counts.calls, FULL + 2);
    });
}
