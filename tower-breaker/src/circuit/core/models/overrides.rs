//! Loom models of deadlines that a manual operation sets: the end of an override, and an open
//! period that is retimed.

use super::*;

fn forced_for(force: Force, seconds: u64) -> (Arc<StaticCore>, ManualClock) {
    let (core, time) = core(1, None);
    core.force(force, Some(seconds * SECOND)).unwrap();
    (core, time)
}

fn last_transition(core: &StaticCore) -> (CircuitState, Reason, u32) {
    let last = core.snapshot().last_transition.unwrap();
    (last.to, last.reason, last.epoch)
}

#[test]
fn loom_override_forced_open_ends_once_and_admits_one_probe() {
    model(|| {
        let (core, time) = forced_for(Force::Open, 10);
        time.advance(Duration::from_secs(10));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.admit().ok());
        let admissions = [core.admit().ok(), thread.join().unwrap()];
        assert_eq!(last_transition(&core), (CircuitState::HalfOpen, Reason::OverrideEnded, 2));
        let mut probes = admissions.into_iter().flatten();
        let probe = probes.next().expect("the circuit has a free slot");
        assert!(probes.next().is_none(), "there is only one slot");
        core.record(probe, &Verdict::Success);
        assert_eq!(consistent_state(&core), CircuitState::Closed);
    });
}

#[test]
fn loom_override_forced_closed_ends_once_and_counts_both_calls() {
    model(|| {
        let (core, time) = core(2, None);
        core.force(Force::Closed, Some(10 * SECOND)).unwrap();
        let uncounted = core.admit().unwrap();
        time.advance(Duration::from_secs(10));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(other.admit().unwrap(), &FAILURE));
        core.record(core.admit().unwrap(), &FAILURE);
        core.record(uncounted, &FAILURE);
        thread.join().unwrap();
        assert_eq!(last_transition(&core), (CircuitState::Open, Reason::ConsecutiveFailures, 3));
        assert_eq!(consistent_state(&core), CircuitState::Open);
    });
}

#[test]
fn loom_override_end_concurrent_with_another_override() {
    for force in [Force::Open, Force::Closed] {
        model(move || {
            let (core, time) = forced_for(force, 10);
            time.advance(Duration::from_secs(10));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.admit().is_ok());
            core.force(Force::Open, Some(20 * SECOND)).unwrap();
            let admitted = thread.join().unwrap();
            // The former override ends first: at the call, or at the operation.
            assert_eq!(last_transition(&core), (CircuitState::ForcedOpen, Reason::Forced, 3));
            let left = Some(20 * SECOND);
            assert_eq!(core.admit().unwrap_err(), Denied { state: CircuitState::ForcedOpen, left });
            if admitted {
                time.advance(Duration::from_secs(20));
                assert!(core.admit().is_ok(), "the early call holds no slot of the new round");
            }
        });
    }
}

#[test]
fn loom_override_and_open_period_do_not_share_their_deadline() {
    // The override begins while a call reads the deadline of an open circuit.
    model(|| {
        let (core, _time) = tripped();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.admit());
        core.force(Force::Closed, Some(90 * SECOND)).unwrap();
        match thread.join().unwrap() {
            Ok(admission) => assert!(admission.is_uncounted()),
            Err(denied) => assert_eq!(denied.left, Some(30 * SECOND)),
        }
    });
    // The circuit opens while a call reads the deadline of an override that is over.
    model(|| {
        let (core, time) = forced_for(Force::Closed, 10);
        time.advance(Duration::from_secs(10));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.admit());
        core.trip_manually().unwrap();
        match thread.join().unwrap() {
            Ok(admission) => assert!(!admission.is_uncounted(), "the override is over"),
            Err(denied) => assert_eq!(denied.state, CircuitState::Open),
        }
        assert_eq!(last_transition(&core), (CircuitState::Open, Reason::Tripped, 3));
    });
}

#[test]
fn loom_override_with_another_end_admits_all_calls_until_then() {
    for end in [None, Some(20 * SECOND)] {
        model(move || {
            let (core, time) = forced_for(Force::Closed, 10);
            time.advance(Duration::from_secs(9));
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.admit().unwrap().is_uncounted());
            core.force(Force::Closed, end).unwrap();
            assert!(thread.join().unwrap());
            time.advance(Duration::from_secs(1));
            assert!(core.admit().unwrap().is_uncounted(), "the new end applies");
            assert_eq!(last_transition(&core), (CircuitState::ForcedClosed, Reason::Forced, 1));
        });
    }
}

#[test]
fn loom_override_task_misses_no_new_deadline() {
    model(|| {
        let (core, _time) = tripped();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.trip_for(5 * SECOND).unwrap());
        let woken = StdArc::new(CountWakes(0.into()));
        let mut waker_key = None;
        core.register_waker(&mut waker_key, &Waker::from(StdArc::clone(&woken)), WakeOn::FreeSlot);
        let left = core.reserve(Arrival::Now).unwrap_err().left;
        thread.join().unwrap();
        let woken = woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0;
        assert!(woken || left == Some(5 * SECOND), "{left:?}");
        assert_eq!(core.admit().unwrap_err().left, Some(5 * SECOND));
    });
}
