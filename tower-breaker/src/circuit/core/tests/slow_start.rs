//! Slow starts, by time and by successes.

use super::policies::{SLOW, call};
use super::*;

fn in_slow_start() -> (StaticCore, ManualClock) {
    slow_start_of(SlowStartKind::Time(10 * SECOND))
}

/// Returns a core in a slow start by four successes.
fn in_slow_start_by_successes() -> (StaticCore, ManualClock) {
    slow_start_of(SlowStartKind::Successes(4))
}

/// Returns a core at the beginning of a slow start.
fn slow_start_of(slow_start: SlowStartKind) -> (StaticCore, ManualClock) {
    let recovery = RecoveryLimits { slow_start, ..RECOVERY };
    let (core, time) = core_with(&BreakerConfig { recovery, ..CONFIG });
    (0..5).for_each(|_| assert!(run(&core, FAILURE)));
    time.advance(Duration::from_secs(30));
    (0..2).for_each(|_| assert!(run(&core, Verdict::Success)));
    assert_eq!((state(&core), core.snapshot().slow_start), (CircuitState::Closed, Some(0.0)));
    (core, time)
}

#[test]
fn slow_start_admits_growing_share_and_ends_by_time() {
    let (core, time) = in_slow_start();
    let mut shares = Vec::new();
    for _ in 0..10 {
        let admitted = (0..1_000).filter(|_| {
            time.advance(Duration::from_millis(1));
            run(&core, Verdict::Success)
        });
        shares.push(admitted.count() / 50);
    }
    assert_eq!(shares, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
    assert!(run(&core, Verdict::Success) && run(&core, Verdict::Success));
    assert_eq!(core.snapshot().slow_start, None);
    assert!(core.is_closed());
}

#[test]
fn rare_calls_are_all_admitted_after_slow_start() {
    let (core, time) = in_slow_start();
    for _ in 0..10 {
        time.advance(Duration::from_secs(1));
        run(&core, Verdict::Success);
    }
    assert!(core.admit().is_ok() && core.is_closed());
}

#[test]
fn failures_in_slow_start_count_as_usual() {
    let (core, time) = in_slow_start();
    time.advance(Duration::from_secs(9));
    // Nine of ten calls are admitted. The bound of 100 ends the test if no call is admitted.
    let calls = (0..100).take_while(|_| state(&core) == CircuitState::Closed);
    let failures = calls.filter(|_| run(&core, FAILURE)).count();
    assert_eq!(failures, 5);
    assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::ConsecutiveFailures);
}

#[test]
fn success_in_slow_start_resets_failures_only() {
    let (core, time) = in_slow_start();
    time.advance(Duration::from_secs(5));
    let admissions: Vec<_> = (0..40).filter_map(|_| core.admit().ok()).take(3).collect();
    core.record(admissions[0], &FAILURE);
    core.record(admissions[1], &Verdict::Success);
    assert_eq!(
        (core.snapshot().consecutive_failures, core.snapshot().slow_start.is_some(), core.is_closed()),
        (0, true, false)
    );
    time.advance(Duration::from_secs(5));
    assert!(core.admit().is_ok());
    core.record(admissions[2], &FAILURE);
    assert_eq!(
        core.snapshot().consecutive_failures,
        1,
        "a call admitted in the slow start is counted after its end"
    );
}

/// Admits calls until one is rejected.
fn admit_all(core: &StaticCore) -> Vec<Admission> {
    // The bound ends the test if every call is admitted.
    (0..100).map_while(|_| core.admit().ok()).collect()
}

#[test]
fn slow_start_by_successes_doubles_concurrent_calls_and_ends() {
    let (core, _time) = in_slow_start_by_successes();
    let first = admit_all(&core);
    assert_eq!(first.len(), 1);
    core.record(first[0], &Verdict::Success);
    let second = admit_all(&core);
    assert_eq!(second.len(), 2);
    for admission in second {
        core.record(admission, &Verdict::Success);
    }
    assert_eq!((core.snapshot().slow_start, core.is_closed()), (Some(0.75), false));
    let third = admit_all(&core);
    assert_eq!(third.len(), 4);
    core.record(third[0], &Verdict::Success);
    assert_eq!((core.snapshot().slow_start, core.is_closed()), (None, true), "the fourth success");
    for admission in &third[1..] {
        core.record(*admission, &Verdict::Success);
    }
    assert_eq!((core.snapshot().counts.calls, admit_all(&core).len()), (7, 100));
}

fn neutral(origin: Origin) -> Verdict {
    Fault::new(Kind::Server, Retryable::Never, Health::Neutral, origin).into()
}

#[test]
fn every_end_of_a_call_frees_its_slow_start_slot_once() {
    type End = fn(&StaticCore, Admission);
    let ends: [End; 7] = [
        |core, admission| core.record(admission, &FAILURE),
        |core, admission| core.record_with_duration(admission, &FAILURE, CallDuration::Measured(None)),
        |core, admission| core.record(admission, &neutral(Origin::Remote)),
        |core, admission| core.record(admission, &neutral(Origin::Local)),
        StaticCore::record_cancelled,
        StaticCore::record_cancelled_after_answer,
        StaticCore::cancel_admission,
    ];
    for cancelled in [
        CancelledPolicy::IfNoneCompletes,
        CancelledPolicy::Ignore,
        CancelledPolicy::Failure,
        CancelledPolicy::FailureAfter(Duration::from_secs(1)),
    ] {
        for (number, end) in ends.into_iter().enumerate() {
            let (core, _time) = in_slow_start_by_successes();
            core.reconfigure(&BreakerConfig { trip: TripLimits { cancelled, ..TRIP }, ..CONFIG });
            core.record(admit_all(&core)[0], &Verdict::Success);
            let running = admit_all(&core);
            end(&core, running[0]);
            assert_eq!(admit_all(&core).len(), 1, "end {number}, {cancelled:?}: one slot is free");
            assert_eq!(core.snapshot().slow_start, Some(0.25), "end {number}, {cancelled:?}");
        }
    }
}

#[test]
fn slow_success_does_not_raise_slow_start_limit() {
    let (core, time) = in_slow_start_by_successes();
    core.reconfigure(&BreakerConfig { trip: SLOW, ..CONFIG });
    call(&core, &time, 1_000, Verdict::Success);
    assert_eq!((core.snapshot().slow_start, core.snapshot().counts.slow), (Some(0.0), 1));
    call(&core, &time, 999, Verdict::Success);
    assert_eq!((core.snapshot().slow_start, core.snapshot().counts.slow), (Some(0.25), 1));
    let admission = core.admit().unwrap();
    time.advance(Duration::from_secs(1));
    let duration = core.duration(admission);
    core.record_with_duration(admission, &Verdict::Success, duration);
    assert_eq!((core.snapshot().slow_start, core.snapshot().counts.slow), (Some(0.25), 2));
}

#[test]
fn failures_in_slow_start_by_successes_open_as_usual() {
    let (core, _time) = in_slow_start_by_successes();
    let calls = (0..100).take_while(|_| state(&core) == CircuitState::Closed);
    assert_eq!(calls.filter(|_| run(&core, FAILURE)).count(), 5);
    assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::ConsecutiveFailures);
}

#[test]
fn call_of_earlier_slow_start_frees_no_slot_of_the_next() {
    let (core, time) = in_slow_start_by_successes();
    let early = core.admit().unwrap();
    core.trip_manually().unwrap();
    time.advance(Duration::from_secs(30));
    (0..2).for_each(|_| assert!(run(&core, Verdict::Success)));
    let late = admit_all(&core);
    assert_eq!(late.len(), 1);
    core.record(early, &Verdict::Success);
    assert!(core.admit().is_err(), "the slot is in use");
    assert_eq!(core.snapshot().slow_start, Some(0.0));
    core.cancel_admission(late[0]);
    assert_eq!(admit_all(&core).len(), 1);
}

#[test]
fn call_whose_slow_start_lease_ended_loses_its_slot() {
    let (core, time) = in_slow_start_by_successes();
    let hung = core.admit().unwrap();
    time.advance(Duration::from_secs(29));
    let denied = core.admit().unwrap_err();
    assert_eq!((denied.state, denied.left), (CircuitState::Closed, Some(SECOND)));
    assert!(core.renew(hung), "it may still begin");
    time.advance(Duration::from_secs(1));
    assert!(core.renew(hung), "no other call has taken the slot");
    let next = core.admit().unwrap();
    assert!(!core.renew(hung) && core.renew(next));
    core.record_cancelled(hung);
    assert!(core.admit().is_err(), "the next call holds the slot");
    core.record(next, &Verdict::Success);
    assert_eq!(admit_all(&core).len(), 2);
}

#[test]
fn readiness_error_in_slow_start_frees_no_slot() {
    let (core, time) = in_slow_start_by_successes();
    core.reconfigure(&BreakerConfig { trip: SLOW, ..CONFIG });
    let running = core.admit().unwrap();
    let unadmitted = core.admit_if_closed().unwrap();
    core.record(unadmitted, &FAILURE);
    core.record_cancelled_wait(core.hot_config().now());
    assert!(core.admit().is_err(), "the slot is in use");
    time.advance(Duration::from_millis(1));
    core.record(running, &Verdict::Success);
    assert_eq!(core.snapshot().slow_start, Some(0.25));
}
