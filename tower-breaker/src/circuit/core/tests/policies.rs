//! Slow calls and cancelled calls.

use super::*;
use crate::machine::SlowCallLimits;

pub(super) const SLOW: TripLimits = TripLimits {
    consecutive_failures: 0,
    failure_rate: None,
    slow: Some(SlowCallLimits { threshold: SECOND, rate: 0.5 }),
    ..TRIP
};

/// Runs a call that takes this number of milliseconds.
pub(super) fn call(core: &StaticCore, time: &ManualClock, millis: u64, verdict: Verdict) {
    let admission = core.admit().unwrap();
    time.advance(Duration::from_millis(millis));
    core.record(admission, &verdict);
}

#[test]
fn slow_call_rate_of_50_percent_opens_regardless_of_outcome() {
    for window in [WindowShape::Time(60 * SECOND), WindowShape::Count(10)] {
        for verdict in [Verdict::Success, FAILURE] {
            let (core, time) = core_with(&BreakerConfig { trip: SLOW, window, ..CONFIG });
            for _ in 0..5 {
                call(&core, &time, 999, Verdict::Success);
            }
            for slow in 0..5 {
                assert_eq!(state(&core), CircuitState::Closed, "{slow} slow calls, {window:?}");
                call(&core, &time, 1_000, verdict);
            }
            assert_eq!(state(&core), CircuitState::Open, "{window:?}");
            let last = core.snapshot().last_transition.unwrap();
            assert_eq!((last.reason, last.counts.unwrap().slow), (Reason::SlowRate, 5));
        }
    }
}

#[test]
fn slow_success_resets_failures() {
    let (core, time) = core(TripLimits { consecutive_failures: 5, ..SLOW });
    for _ in 0..4 {
        call(&core, &time, 1, FAILURE);
    }
    call(&core, &time, 2_000, Verdict::Success);
    assert_eq!((core.snapshot().consecutive_failures, core.snapshot().counts.slow), (0, 1));
}

#[test]
fn slow_probe_opens_again() {
    let (core, time) = core(TripLimits { consecutive_failures: 1, ..SLOW });
    call(&core, &time, 1, FAILURE);
    time.advance(Duration::from_secs(30));
    call(&core, &time, 1_500, Verdict::Success);
    assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::ProbeSlow);
    time.advance(Duration::from_secs(30));
    call(&core, &time, 10, Verdict::Success);
    call(&core, &time, 10, Verdict::Success);
    assert_eq!(state(&core), CircuitState::Closed);
}

#[test]
fn calls_are_not_slow_without_slow_call_limit() {
    let (core, time) = core(TRIP);
    for _ in 0..50 {
        call(&core, &time, 100, Verdict::Success);
    }
    assert_eq!(core.snapshot().counts.slow, 0);
}

fn with_policy(cancelled: CancelledPolicy) -> (StaticCore, ManualClock) {
    core(TripLimits { cancelled, ..TRIP })
}

fn record_cancelled(core: &StaticCore, time: &ManualClock, millis: u64) {
    if let Ok(admission) = core.admit() {
        time.advance(Duration::from_millis(millis));
        core.record_cancelled(admission);
    }
}

#[test]
fn ten_cancelled_calls_open_if_none_completed() {
    for window in [WindowShape::Time(60 * SECOND), WindowShape::Count(20)] {
        for minimum_calls in [10, 100] {
            let (core, time) =
                core_with(&BreakerConfig { trip: TripLimits { minimum_calls, ..TRIP }, window, ..CONFIG });
            run(&core, Verdict::Success);
            for cancelled in 0..10 {
                assert_eq!(state(&core), CircuitState::Closed, "{cancelled} cancelled calls, {window:?}");
                record_cancelled(&core, &time, 200);
            }
            let last = core.snapshot().last_transition.unwrap();
            assert_eq!((last.to, last.reason), (CircuitState::Open, Reason::NoneCompletes), "{window:?}");
            let counts = last.counts.unwrap();
            assert_eq!((counts.calls, counts.cancelled, last.fault.is_some()), (1, 10, true));
        }
    }
}

#[test]
fn completed_call_restarts_count_and_span_of_cancelled_calls() {
    let neutral = FAILURE.fault().unwrap().with_health(Health::Neutral).into();
    for verdict in [Verdict::Success, FAILURE, neutral] {
        let limits = TripLimits { consecutive_failures: 0, failure_rate: None, ..TRIP };
        let (core, time) = core(limits);
        for _ in 0..50 {
            (0..9).for_each(|_| record_cancelled(&core, &time, 500));
            run(&core, verdict);
        }
        assert_eq!(state(&core), CircuitState::Closed, "{verdict:?}");
        (0..50).for_each(|_| record_cancelled(&core, &time, 0));
        assert_eq!(state(&core), CircuitState::Closed, "{verdict:?}: they span no time");
        record_cancelled(&core, &time, 1_000);
        assert_eq!(state(&core), CircuitState::Open, "{verdict:?}");
    }
}

#[test]
fn cancelled_calls_do_not_change_consecutive_failures() {
    let (core, time) = core(TRIP);
    (0..4).for_each(|_| assert!(run(&core, FAILURE)));
    record_cancelled(&core, &time, 1);
    assert_eq!(core.snapshot().consecutive_failures, 4);
    run(&core, FAILURE);
    assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::ConsecutiveFailures);
}

#[test]
fn cancelled_calls_of_earlier_windows_count() {
    let (core, time) = with_policy(CancelledPolicy::IfNoneCompletes);
    (0..9).for_each(|_| record_cancelled(&core, &time, 0));
    time.advance(Duration::from_secs(700));
    assert_eq!(core.snapshot().counts, Counts::default());
    record_cancelled(&core, &time, 0);
    assert_eq!(state(&core), CircuitState::Open);
}

#[test]
fn cancelled_calls_of_earlier_epoch_do_not_count() {
    let (core, time) = with_policy(CancelledPolicy::IfNoneCompletes);
    let early = core.admit().unwrap();
    (0..9).for_each(|_| record_cancelled(&core, &time, 0));
    core.reset().unwrap();
    time.advance(Duration::from_secs(1));
    core.record_cancelled(early);
    (0..9).for_each(|_| record_cancelled(&core, &time, 1));
    assert_eq!(state(&core), CircuitState::Closed);
    record_cancelled(&core, &time, 1_000);
    assert_eq!(state(&core), CircuitState::Open);
}

#[test]
fn cancelled_probes_without_completion_open_again() {
    let (core, time) = tripped();
    time.advance(Duration::from_secs(30));
    for _ in 0..9 {
        record_cancelled(&core, &time, 1);
    }
    assert_eq!(state(&core), CircuitState::HalfOpen);
    record_cancelled(&core, &time, 1);
    let last = core.snapshot().last_transition.unwrap();
    assert_eq!((last.to, last.reason), (CircuitState::Open, Reason::NoneCompletes));
}

#[test]
fn cancelled_policy_decides_how_cancelled_calls_count() {
    let (core, time) = with_policy(CancelledPolicy::Ignore);
    (0..1_000).for_each(|_| record_cancelled(&core, &time, 1));
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Closed, Counts::default()));

    let (core, time) = with_policy(CancelledPolicy::Failure);
    (0..5).for_each(|_| record_cancelled(&core, &time, 0));
    assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::ConsecutiveFailures);
    time.advance(Duration::from_secs(30));
    record_cancelled(&core, &time, 0);
    assert_eq!(core.snapshot().last_transition.unwrap().reason, Reason::ProbeFailed);

    let (core, time) = with_policy(CancelledPolicy::FailureAfter(Duration::from_nanos(SECOND)));
    (0..100).for_each(|_| record_cancelled(&core, &time, 999));
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Closed, Counts::default()));
    (0..5).for_each(|_| record_cancelled(&core, &time, 1_000));
    assert_eq!(state(&core), CircuitState::Open);
    time.advance(Duration::from_secs(30));
    record_cancelled(&core, &time, 999);
    assert_eq!(state(&core), CircuitState::HalfOpen);
    record_cancelled(&core, &time, 1_000);
    assert_eq!(state(&core), CircuitState::Open);
}

#[test]
fn cancelled_admission_is_not_counted() {
    let (core, time) = with_policy(CancelledPolicy::Failure);
    for _ in 0..100 {
        core.cancel_admission(core.admit().unwrap());
    }
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Closed, Counts::default()));
    (0..5).for_each(|_| record_cancelled(&core, &time, 0));
    time.advance(Duration::from_secs(30));
    for _ in 0..100 {
        core.cancel_admission(core.admit().unwrap());
    }
    assert_eq!(state(&core), CircuitState::HalfOpen);
}
