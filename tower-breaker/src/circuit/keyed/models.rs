//! Every interleaving of a call and of who forgets its circuit.

use std::sync::Arc as StdArc;
use std::time::Duration;

use loom::sync::{Arc, RwLock};
use loom::thread;
use tower_fault_classify::__shared::ManualClock;
use tower_fault_classify::Verdict;

use super::*;
use crate::circuit::Permit;
use crate::circuit::core::models::{FAILURE, SETUP, model};
use crate::machine::{CircuitState, SlowLimits, TripLimits};

fn circuit(consecutive_failures: u32, failure_rate: Option<f64>) -> (SharedCore<u32>, ManualClock) {
    circuit_with(TripLimits { consecutive_failures, failure_rate, ..SETUP.trip })
}

fn circuit_with(trip: TripLimits) -> (SharedCore<u32>, ManualClock) {
    let (clock, hand) = Clock::manual();
    hand.set(Duration::from_secs(1_000));
    let setup = Setup { trip, ..SETUP };
    let common = Common::new(setup, clock, |key: &u32| key.to_string());
    let core = SharedCore::new(Core::of(Keyed::new(7, StdArc::new(common))));
    // What std's `OnceLock` orders loom does not see.
    core.store().trouble();
    (core, hand)
}

/// The map's lock around its one entry, and the list's own handle.
struct Map {
    entry: RwLock<Option<SharedCore<u32>>>,
    listed: SharedCore<u32>,
}

impl Map {
    fn of(core: SharedCore<u32>) -> Arc<Self> {
        Arc::new(Self { entry: RwLock::new(Some(SharedCore::clone(&core))), listed: core })
    }

    /// As `find` of the map does: a handle, taken under the lock.
    fn find(&self) -> Option<SharedCore<u32>> {
        self.entry.read().unwrap().as_ref().map(SharedCore::clone)
    }

    /// As `forget` of the map does: under the lock, if only the map and the list hold it.
    fn forget(&self) -> bool {
        let mut entry = self.entry.write().unwrap();
        let gone = entry.as_ref().is_some_and(|core| may_go(core, 2));
        if gone {
            *entry = None;
        }
        gone
    }
}

#[test]
fn loom_a_circuit_is_not_forgotten_under_a_call_nor_what_it_came_to() {
    model(|| {
        let (core, _hand) = circuit(1, None);
        let map = Map::of(core);
        let other = Arc::clone(&map);
        let caller = thread::spawn(move || {
            let Some(core) = other.find() else { return false };
            let Ok(permit) = Permit::ask(OneOf::new(core)) else { return false };
            permit.settle(FAILURE);
            true
        });
        let forgotten = map.forget();
        let failed = caller.join().unwrap();
        assert!(!(forgotten && failed), "it was forgotten with a call in it");
        if failed {
            assert_eq!(map.listed.view().state, CircuitState::Open);
            assert!(!map.forget(), "it has just opened");
        }
    });
}

#[test]
fn loom_a_success_keeps_its_circuit_from_being_forgotten() {
    model(|| {
        let (core, _hand) = circuit(5, None);
        let map = Map::of(core);
        let other = Arc::clone(&map);
        let caller = thread::spawn(move || {
            let Some(core) = other.find() else { return false };
            let Ok(permit) = Permit::ask(OneOf::new(core)) else { return false };
            permit.settle(Verdict::Success);
            true
        });
        let forgotten = map.forget();
        let succeeded = caller.join().unwrap();
        assert!(!(forgotten && succeeded));
        assert!(!succeeded || !map.forget(), "its window is not empty");
    });
}

#[test]
fn loom_two_failures_at_once_reach_a_run_and_a_rate() {
    for (run, rate) in [(2, None), (0, Some(1.0))] {
        model(move || {
            let (core, _hand) = circuit(run, rate);
            let permits = [0, 1].map(|_| Permit::ask(OneOf::new(SharedCore::clone(&core))).unwrap());
            let [first, second] = permits;
            let thread = thread::spawn(move || second.settle(FAILURE));
            first.settle(FAILURE);
            thread.join().unwrap();
            assert_eq!(core.view().state, CircuitState::Open);
            assert_eq!(core.view().last.unwrap().epoch, 1, "it opened once");
        });
    }
}

#[test]
fn loom_additions_to_a_pair_meet_and_none_is_lost() {
    model(|| {
        let pairs = Arc::new(Pairs::default());
        let other = Arc::clone(&pairs);
        let thread = thread::spawn(move || {
            other.add(7, 1, 1);
            other.add(18, 1, 0);
        });
        pairs.add(7, 1, 0);
        thread.join().unwrap();
        let sums = pairs.sum(7);
        // The cell is the younger bucket's, with or without what came for the older one.
        assert!([[1, 0], [2, 0]].contains(&pairs.sum(18)), "{:?}", pairs.sum(18));
        assert!(sums[0] >= 1, "{sums:?}");
    });
}

#[test]
fn loom_keyed_slow_calls_are_never_more_than_calls() {
    let slow = Some(SlowLimits { from: 1_000_000_000, rate: 1.0 });
    for verdict in [Verdict::Success, FAILURE] {
        model(move || {
            let (core, hand) = circuit_with(TripLimits { slow, minimum_calls: 9, ..SETUP.trip });
            let permit = Permit::ask(OneOf::new(SharedCore::clone(&core))).unwrap();
            hand.advance(Duration::from_secs(2));
            // The reader is the thread that is started: loom then lets it read old values beside new ones.
            let other = SharedCore::clone(&core);
            let reader = thread::spawn(move || other.view().counts);
            permit.settle(verdict);
            let Counts { calls, failures, slow, .. } = reader.join().unwrap();
            assert!(slow <= calls && failures <= calls, "{slow} slow and {failures} failed of {calls}");
        });
    }
}
