//! Loom models of cancelled calls: two of them that span a second open the circuit.

use loom::sync::atomic::AtomicBool;

use super::*;

fn cancel(core: &StaticCore) {
    core.record_cancelled(core.admit().unwrap());
}

/// Asserts that the circuit counts no call that was cancelled earlier.
fn assert_count_begins_now(core: &StaticCore, time: &ManualClock) {
    cancel(core);
    assert_eq!(consistent_state(core), CircuitState::Closed);
    time.advance(Duration::from_nanos(SECOND - 1));
    cancel(core);
    assert_eq!(consistent_state(core), CircuitState::Closed);
    time.advance(Duration::from_nanos(1));
    cancel(core);
    assert_eq!(consistent_state(core), CircuitState::Open);
    assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::NoneCompletes);
}

#[test]
fn loom_concurrent_cancelled_calls_are_all_counted() {
    let trip = TripLimits { minimum_calls: 3, ..CONFIG.trip };
    // The two concurrent calls are the first ones, or they follow another one.
    for earlier in [false, true] {
        model(move || {
            let (core, time) = core_with(&BreakerConfig { trip, ..CONFIG });
            if earlier {
                cancel(&core);
                time.advance(Duration::from_nanos(SECOND));
            }
            let admissions = [core.admit().unwrap(), core.admit().unwrap()];
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.record_cancelled(admissions[1]));
            core.record_cancelled(admissions[0]);
            thread.join().unwrap();
            if !earlier {
                assert_eq!(core.snapshot().counts.cancelled, 2);
                time.advance(Duration::from_nanos(SECOND));
                cancel(&core);
            }
            assert_eq!(consistent_state(&core), CircuitState::Open, "the third call sees the other two");
            assert_eq!(core.snapshot().last_transition.unwrap().epoch, 1);
        });
    }
}

#[test]
fn loom_completed_call_concurrent_with_cancelled_one_restarts_count() {
    let neutral = FAILURE.fault().unwrap().with_health(Health::Neutral).into();
    for verdict in [Verdict::Success, FAILURE, neutral] {
        model(move || {
            let (core, time) = core(0, None);
            cancel(&core);
            time.advance(Duration::from_nanos(SECOND));
            let admissions = [core.admit().unwrap(), core.admit().unwrap()];
            let completed = Arc::new(AtomicBool::new(false));
            let (other, other_completed) = (Arc::clone(&core), Arc::clone(&completed));
            let thread = thread::spawn(move || {
                other.record(admissions[1], &verdict);
                other_completed.store(true, Ordering::Release);
            });
            let is_after = completed.load(Ordering::Acquire);
            core.record_cancelled(admissions[0]);
            thread.join().unwrap();
            if consistent_state(&core) == CircuitState::Closed {
                assert_count_begins_now(&core, &time);
            } else {
                assert!(!is_after, "{verdict:?} came before the second cancelled call");
            }
        });
    }
}

#[test]
fn loom_cancelled_call_concurrent_with_reset_counts_in_no_later_epoch() {
    model(|| {
        let (core, time) = core(0, None);
        cancel(&core);
        time.advance(Duration::from_nanos(SECOND));
        let other = Arc::clone(&core);
        let admission = core.admit().unwrap();
        let thread = thread::spawn(move || other.record_cancelled(admission));
        core.reset().unwrap();
        thread.join().unwrap();
        assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::Reset);
        assert_count_begins_now(&core, &time);
    });
}

#[test]
fn loom_cancelled_call_concurrent_with_failure_keeps_failures() {
    model(|| {
        let (core, _time) = core(2, None);
        let admissions = [0; 3].map(|_| core.admit().unwrap());
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admissions[1], &FAILURE));
        core.record_cancelled(admissions[0]);
        thread.join().unwrap();
        let snapshot = core.snapshot();
        assert_eq!((snapshot.state, snapshot.consecutive_failures), (CircuitState::Closed, 1));
        core.record(admissions[2], &FAILURE);
        assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::ConsecutiveFailures);
    });
}
