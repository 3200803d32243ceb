//! Snapshots of keyed circuits.

use tower_breaker::keyed::{KeyedCircuits, KeyedConfig, KeyedSnapshot};

use super::*;
use crate::support::timed;

fn circuits(max_keys: usize) -> KeyedCircuits<u32> {
    KeyedCircuits::new(KeyedConfig::builder(timed(config()).0).max_keys(max_keys).build().unwrap())
}

/// Returns the snapshots of an earlier process with these open circuits.
fn open(keys: impl IntoIterator<Item = u32>) -> Vec<KeyedSnapshot<u32>> {
    let circuits = circuits(100);
    for key in keys {
        circuits.circuit(&key).trip().unwrap();
    }
    circuits.snapshots()
}

fn sorted_keys(snapshots: &[KeyedSnapshot<u32>]) -> Vec<u32> {
    let mut keys: Vec<_> = snapshots.iter().map(|snapshot| snapshot.key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn snapshots_contain_circuits_with_something_to_restore() {
    let circuits = circuits(100);
    for key in 0..5 {
        circuits.try_acquire(&key).unwrap().record(FAILURE);
    }
    circuits.circuit(&1).trip().unwrap();
    circuits.circuit(&2).force_closed().unwrap();
    circuits.circuit(&3).trip().unwrap();
    circuits.circuit(&3).reset().unwrap();
    let snapshots = circuits.snapshots();
    assert_eq!(sorted_keys(&snapshots), [1, 2]);
    assert!(snapshots.iter().all(|snapshot| snapshot.snapshot.circuit == circuits.name()));
}

#[test]
fn keyed_circuits_are_open_before_first_call_after_restart() {
    let circuits = circuits(100);
    let existing = circuits.circuit(&3);
    let report = circuits.restore(open([1, 2, 3]));
    assert_eq!((report.applied, report.errors.len(), circuits.len()), (3, 0, 3));
    assert_eq!(existing.status().state, CircuitState::Open);
    assert!(circuits.try_acquire(&1).is_err());
    assert!(circuits.try_acquire(&4).is_ok());
    assert_eq!(circuits.restore(open([1])).superseded, 1);
}

#[test]
fn restore_creates_circuits_within_bounds_of_map() {
    let circuits = circuits(3);
    for key in 10..13 {
        circuits.circuit(&key);
    }
    let report = circuits.restore(open(0..5));
    assert_eq!((report.applied, report.dropped, circuits.len()), (3, 2, 3), "idle circuits are evicted");
    let mut other = open([20]);
    other[0].snapshot.circuit = "other".into();
    let mut stale = open([21]);
    stale[0].snapshot.taken_at -= Duration::from_secs(100_000);
    let circuits = self::circuits(3);
    let report = circuits.restore(other.into_iter().chain(stale));
    assert_eq!((report.stale, report.errors.len(), circuits.len()), (1, 1, 0));
}

#[test]
fn reset_all_ends_restored_streak_of_open_periods() {
    let mut snapshots = open([1]);
    snapshots[0].snapshot.state = CircuitState::Closed;
    let circuits = circuits(3);
    assert_eq!(circuits.restore(snapshots).applied, 1);
    assert_eq!(circuits.snapshots()[0].snapshot.open_periods, 1);
    circuits.reset_all();
    assert!(circuits.snapshots().is_empty());
}
