//! Loom models of a slow start by successes.

use super::*;

/// Returns a core in a slow start that `successes` successes end.
fn in_slow_start_by_successes(successes: u32) -> (Arc<StaticCore>, ManualClock) {
    let recovery = RecoveryLimits { slow_start: SlowStartKind::Successes(successes), ..CONFIG.recovery };
    let trip = TripLimits { consecutive_failures: 1, ..CONFIG.trip };
    let (core, time) = core_with(&BreakerConfig { trip, recovery, ..CONFIG });
    close_by_probe(&core, &time);
    (core, time)
}

/// Opens the core, and closes it with a probe.
fn close_by_probe(core: &StaticCore, time: &ManualClock) {
    core.trip_manually().unwrap();
    time.advance(Duration::from_secs(30));
    core.record(core.admit().unwrap(), &Verdict::Success);
    assert_eq!(core.snapshot().slow_start, Some(0.0));
}

/// Admits calls until one is rejected. At most four.
fn admit_all(core: &StaticCore) -> Vec<Admission> {
    (0..4).map_while(|_| core.admit().ok()).collect()
}

#[test]
fn loom_slow_start_admits_one_call_per_slot() {
    model(|| {
        let (core, _time) = in_slow_start_by_successes(3);
        core.record(core.admit().unwrap(), &Verdict::Success);
        let admit = |core: Arc<StaticCore>| move || usize::from(core.admit().is_ok());
        let threads = [0, 1].map(|_| thread::spawn(admit(Arc::clone(&core))));
        let own = admit(Arc::clone(&core))();
        let others = threads.map(|thread| thread.join().unwrap());
        assert_eq!(own + others.iter().sum::<usize>(), 2);
    });
}

#[test]
fn loom_concurrent_ends_free_each_slow_start_slot_once() {
    let ends: [fn(&StaticCore, Admission); 2] = [StaticCore::record_cancelled, StaticCore::cancel_admission];
    for end in ends {
        model(move || {
            let (core, _time) = in_slow_start_by_successes(4);
            core.record(core.admit().unwrap(), &Verdict::Success);
            let admissions = admit_all(&core);
            let (other, admission) = (Arc::clone(&core), admissions[1]);
            let thread = thread::spawn(move || other.record(admission, &Verdict::Success));
            end(&core, admissions[0]);
            // A slot is free after this thread's own call has ended.
            core.cancel_admission(core.admit().unwrap());
            thread.join().unwrap();
            assert_eq!(core.snapshot().slow_start, Some(0.5));
            assert_eq!(admit_all(&core).len(), 3);
        });
    }
}

#[test]
fn loom_concurrent_successes_end_slow_start() {
    model(|| {
        let (core, _time) = in_slow_start_by_successes(3);
        core.record(core.admit().unwrap(), &Verdict::Success);
        let admissions = admit_all(&core);
        let (other, admission) = (Arc::clone(&core), admissions[1]);
        let thread = thread::spawn(move || other.record(admission, &Verdict::Success));
        core.record(admissions[0], &Verdict::Success);
        // One call is admitted at least, with or without a slot.
        core.record(core.admit().unwrap(), &Verdict::Success);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Closed);
        assert!(core.is_closed(), "all calls are admitted");
        assert_eq!(core.snapshot().counts.calls, 4);
    });
}

#[test]
fn loom_slow_start_slot_released_during_trip_frees_none_of_the_next() {
    for verdict in [
        Verdict::Success,
        Verdict::Fault(Fault::new(Kind::Throttled, Retryable::Never, Health::Neutral, Origin::Remote)),
    ] {
        model(move || {
            let (core, time) = in_slow_start_by_successes(3);
            let early = core.admit().unwrap();
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || other.record(early, &verdict));
            close_by_probe(&core, &time);
            let next = core.admit().expect("the new slow start has one slot");
            thread.join().unwrap();
            assert!(core.admit().is_err(), "the slot is in use");
            assert_eq!(core.snapshot().slow_start, Some(0.0));
            core.record(next, &Verdict::Success);
            assert_eq!(consistent_state(&core), CircuitState::Closed);
            assert_eq!(admit_all(&core).len(), 2);
        });
    }
}

#[test]
fn loom_failure_concurrent_with_success_trips_slow_start() {
    model(|| {
        let (core, _time) = in_slow_start_by_successes(2);
        core.record(core.admit().unwrap(), &Verdict::Success);
        let admissions = admit_all(&core);
        let (other, admission) = (Arc::clone(&core), admissions[1]);
        // The success ends the slow start, if it comes first.
        let thread = thread::spawn(move || other.record(admission, &Verdict::Success));
        core.record(admissions[0], &FAILURE);
        thread.join().unwrap();
        assert_eq!(consistent_state(&core), CircuitState::Open);
        assert!(core.admit().is_err());
    });
}

#[test]
fn loom_slow_start_lease_end_frees_slot_once() {
    model(|| {
        let (core, time) = in_slow_start_by_successes(3);
        let hung = core.admit().unwrap();
        time.advance(Duration::from_secs(30));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record_cancelled(hung));
        let successors = admit_all(&core).len();
        thread.join().unwrap();
        assert_eq!(successors, 1);
        assert!(core.admit().is_err(), "the successor holds the slot");
    });
}

#[test]
fn loom_waiting_task_misses_no_free_slow_start_slot() {
    model(|| {
        let (core, _time) = in_slow_start_by_successes(2);
        let running = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(running, &Verdict::Success));
        let woken = StdArc::new(CountWakes(0.into()));
        let mut waker_key = None;
        core.register_waker(&mut waker_key, &Waker::from(StdArc::clone(&woken)), WakeOn::FreeSlot);
        let admitted = core.reserve(Arrival::Again).is_ok();
        thread.join().unwrap();
        let woken = woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0;
        assert!(admitted || woken);
    });
}
