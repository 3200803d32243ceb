//! Loom models of a restore that is concurrent with calls and operations.

use super::*;
use crate::machine::Saved;

/// Returns the state of an open circuit.
fn open() -> Saved {
    Saved { state: CircuitState::Open, remaining: Some(20 * SECOND), ..Saved::default() }
}

/// Returns the reason and the epoch of the last transition.
fn last_transition(core: &StaticCore) -> (Reason, u32) {
    let last = core.snapshot().last_transition.unwrap();
    (last.reason, last.epoch)
}

#[test]
fn loom_restore_concurrent_with_trip_is_the_only_transition_or_none() {
    model(|| {
        let (core, _time) = core(1, None);
        let failed = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(failed, &FAILURE));
        let applied = core.restore(&open(), None);
        thread.join().unwrap();
        let reason = if applied { Reason::Restored } else { Reason::ConsecutiveFailures };
        assert_eq!(last_transition(&core), (reason, 1));
        let left = if applied { 20 * SECOND } else { 30 * SECOND };
        assert_eq!(core.admit().unwrap_err().left, Some(left), "the deadline is that of the transition");
        assert_eq!(consistent_state(&core), CircuitState::Open);
    });
}

#[test]
fn loom_restore_concurrent_with_call_rejects_it_or_ignores_its_outcome() {
    model(|| {
        let (core, _time) = core(2, None);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || match other.admit() {
            Ok(admission) => other.record(admission, &FAILURE),
            Err(denied) => assert_eq!(denied, Denied { state: CircuitState::Open, left: Some(20 * SECOND) }),
        });
        assert!(core.restore(&open(), None), "one failure opens no circuit");
        thread.join().unwrap();
        assert_eq!(last_transition(&core), (Reason::Restored, 1));
        assert!(core.admit().is_err());
        assert_eq!(consistent_state(&core), CircuitState::Open);
    });
}

#[test]
fn loom_restore_concurrent_with_override_and_another_restore() {
    model(|| {
        let (core, _time) = core(1, None);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.force(Force::Closed, None).unwrap());
        let first = core.restore(&open(), None);
        thread.join().unwrap();
        assert!(!core.restore(&open(), None), "a transition is newer than a snapshot");
        assert_eq!(last_transition(&core), (Reason::Forced, 1 + u32::from(first)));
        assert_eq!(consistent_state(&core), CircuitState::ForcedClosed);
    });
}

#[test]
fn loom_restored_override_is_seen_by_concurrent_call() {
    model(|| {
        let (core, time) = core(1, None);
        let saved =
            Saved { state: CircuitState::ForcedClosed, remaining: Some(10 * SECOND), ..Saved::default() };
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.admit().unwrap().is_uncounted());
        assert!(core.restore(&saved, None));
        // The call came before the restore, or within the time of the override.
        thread.join().unwrap();
        assert!(core.admit().unwrap().is_uncounted());
        time.advance(Duration::from_secs(10));
        assert!(!core.admit().unwrap().is_uncounted());
        assert_eq!(last_transition(&core), (Reason::OverrideEnded, 2));
    });
}
