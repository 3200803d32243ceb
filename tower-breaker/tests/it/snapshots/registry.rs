//! Snapshots of a registry.

use tower_breaker::CircuitRegistry;
use tower_breaker::snapshot::CircuitSnapshot;

use super::*;
use crate::support::timed;

fn registry() -> CircuitRegistry {
    CircuitRegistry::new(timed(config()).0)
}

fn names(snapshots: &[CircuitSnapshot]) -> Vec<&str> {
    snapshots.iter().map(|snapshot| &*snapshot.circuit).collect()
}

/// Returns the snapshots of an earlier process: `b` is open, `a` is closed, `c` is forced open.
fn snapshots() -> Vec<CircuitSnapshot> {
    let registry = registry();
    for name in ["b", "a", "c"] {
        registry.circuit(name);
    }
    registry.trip("b").unwrap();
    registry.force_open("c").unwrap();
    registry.snapshots()
}

#[test]
fn registry_restores_circuits_that_exist_and_later_ones() {
    let snapshots = snapshots();
    assert_eq!(names(&snapshots), ["a", "b", "c"]);
    let registry = registry();
    let existing = registry.circuit("b");
    let report = registry.restore(snapshots);
    assert_eq!((report.applied, report.kept, report.stale, report.superseded), (1, 1, 1, 0));
    assert_eq!(state(&existing), CircuitState::Open);
    assert_eq!(registry.circuits().len(), 1, "no circuit is created");

    let notified = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&notified);
    registry.on_transition(move |transition| {
        seen.lock().unwrap().push((transition.circuit, transition.to, transition.reason));
    });
    assert!(registry.circuit("c").try_acquire().is_err(), "it is forced open before its first call");
    assert_eq!(*notified.lock().unwrap(), [("c", CircuitState::ForcedOpen, Reason::Restored)]);
    registry.remove("c");
    assert_eq!(state(&registry.circuit("c")), CircuitState::Closed, "a snapshot is restored once");
}

#[test]
fn listener_for_new_circuits_gets_restored_circuit() {
    let registry = registry();
    registry.restore(snapshots());
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&states);
    registry.on_create(move |circuit| seen.lock().unwrap().push(state(circuit)));
    registry.circuit("b");
    assert_eq!(*states.lock().unwrap(), [CircuitState::Open]);
}

#[test]
fn snapshots_of_circuits_not_created_yet_are_not_lost() {
    let registry = registry();
    registry.restore(snapshots());
    registry.circuit("d");
    let again = registry.snapshots();
    assert_eq!(names(&again), ["b", "c", "d"]);
    let copy = self::registry();
    assert_eq!(copy.restore(again).kept, 2);
    copy.remove("b");
    assert_eq!(names(&copy.snapshots()), ["c"], "`remove` removes the snapshot");
}

#[test]
fn restored_limits_are_those_of_configured_circuit() {
    let registry = registry();
    let mut snapshots = snapshots();
    snapshots[1].open_remaining = Some(Duration::MAX);
    assert_eq!(registry.restore(snapshots).kept, 2);
    let short = config().name("b").open_for(SECOND).max_retry_after(Duration::ZERO).build().unwrap();
    registry.configure(short).unwrap();
    assert_eq!(registry.circuit("b").status().retry_after, Some(SECOND));
}

#[test]
fn snapshot_whose_time_is_over_for_a_day_is_stale() {
    let day = Duration::from_secs(24 * 60 * 60);
    let [_, mut open, mut forced] = <[CircuitSnapshot; 3]>::try_from(snapshots()).unwrap();
    for snapshot in [&mut open, &mut forced] {
        snapshot.taken_at -= day + OPEN_FOR;
        snapshot.taken_at += TOLERANCE;
    }
    let registry = registry();
    assert_eq!(registry.restore([open.clone(), forced.clone()]).kept, 2);
    for snapshot in [&mut open, &mut forced] {
        snapshot.taken_at -= TOLERANCE;
    }
    let report = registry.restore([open, forced.clone()]);
    assert_eq!((report.kept, report.stale), (1, 1), "the override has no end");
    forced.override_remaining = Some(SECOND);
    assert_eq!(registry.restore([forced]).stale, 1);
}

#[test]
fn registry_keeps_bounded_number_of_snapshots() {
    let open = snapshots().swap_remove(1);
    let named = |number: u32| {
        let mut snapshot = open.clone();
        snapshot.circuit = number.to_string().into();
        snapshot
    };
    let registry = registry();
    let report = registry.restore((0..10_001).map(named));
    assert_eq!((report.kept, report.dropped), (10_000, 1));
    assert_eq!(registry.restore([named(7)]).kept, 1, "it replaces the snapshot of the same name");
}

#[test]
fn invalid_snapshot_does_not_prevent_restore_of_others() {
    let registry = registry();
    let mut snapshots = snapshots();
    snapshots[1].version = 0;
    let report = registry.restore(snapshots);
    assert_eq!((report.kept, report.errors.len()), (1, 1));
    assert!(matches!(&report.errors[0], RestoreError::Version { version: 0, .. }), "{report:?}");
    assert_eq!(state(&registry.circuit("b")), CircuitState::Closed);
}
