//! Manual control and configurations.

use super::*;
use crate::machine::Force;

#[test]
fn manual_trip_recovers_as_usual() {
    let (core, time) = core(TRIP);
    core.trip_manually().unwrap();
    assert_eq!(core.snapshot().last_trip.unwrap().reason, Reason::Tripped);
    time.advance(Duration::from_secs(10));
    core.trip_manually().unwrap();
    assert_eq!(core.admit().unwrap_err().left, Some(20 * SECOND), "the open time is not extended");
    time.advance(Duration::from_secs(20));
    run(&core, Verdict::Success);
    run(&core, Verdict::Success);
    assert_eq!(state(&core), CircuitState::Closed);
}

#[test]
fn manual_trip_opens_half_open_circuit() {
    let (core, time) = tripped();
    time.advance(Duration::from_secs(30));
    let probe = core.admit().unwrap();
    core.trip_manually().unwrap();
    core.record(probe, &Verdict::Success);
    assert_eq!(state(&core), CircuitState::Open);
}

#[test]
fn forced_circuit_keeps_its_state_until_released() {
    let (core, time) = core(TRIP);
    core.force(Force::Open, None).unwrap();
    time.advance(Duration::from_secs(100_000));
    assert_eq!(core.admit().unwrap_err(), Denied { state: CircuitState::ForcedOpen, left: None });
    assert_eq!(core.trip_manually(), Err(CircuitState::ForcedOpen));
    assert_eq!(core.reset(), Err(CircuitState::ForcedOpen));
    core.release();
    assert_eq!(state(&core), CircuitState::HalfOpen, "the next call is a probe");
    run(&core, Verdict::Success);
    run(&core, Verdict::Success);

    core.force(Force::Closed, None).unwrap();
    for _ in 0..100 {
        assert!(run(&core, FAILURE));
    }
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::ForcedClosed, Counts::default()));
    assert_eq!(core.trip_manually(), Err(CircuitState::ForcedClosed));
    core.release();
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Closed, Counts::default()));
    core.release();
    assert_eq!(
        core.snapshot().last_transition.unwrap().reason,
        Reason::Released,
        "a second release changes nothing"
    );
}

#[test]
fn calls_admitted_before_force_change_nothing() {
    let (core, _time) = core(TRIP);
    let admissions: Vec<_> = (0..10).map(|_| core.admit().unwrap()).collect();
    core.force(Force::Closed, None).unwrap();
    let uncounted = core.admit().unwrap();
    core.release();
    for admission in admissions {
        core.record(admission, &FAILURE);
    }
    core.record(uncounted, &FAILURE);
    core.record_cancelled(uncounted);
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Closed, Counts::default()));
}

#[test]
fn force_replaces_another_force() {
    let (core, _time) = core(TRIP);
    core.force(Force::Open, None).unwrap();
    core.force(Force::Closed, None).unwrap();
    assert!(core.admit().is_ok());
    core.force(Force::Open, None).unwrap();
    let epoch = core.snapshot().last_transition.unwrap().epoch;
    core.force(Force::Open, None).unwrap();
    assert_eq!(core.snapshot().last_transition.unwrap().epoch, epoch, "forcing the same state is no change");
}

#[test]
fn reset_empties_window_and_restarts_open_backoff() {
    let growing = OpenDuration { multiplier: 2.0, max: 1_000 * SECOND, ..RECOVERY.open };
    let (core, time) =
        core_with(&BreakerConfig { recovery: RecoveryLimits { open: growing, ..RECOVERY }, ..CONFIG });
    for period in [30, 60, 120] {
        core.trip_manually().unwrap();
        assert_eq!(core.admit().unwrap_err().left, Some(period * SECOND));
        time.advance(Duration::from_secs(period));
        run(&core, Verdict::Success);
        run(&core, Verdict::Success);
    }
    run(&core, FAILURE);
    core.reset().unwrap();
    assert_eq!((core.snapshot().counts, core.snapshot().consecutive_failures), (Counts::default(), 0));
    core.trip_manually().unwrap();
    assert_eq!(core.admit().unwrap_err().left, Some(30 * SECOND));
}

#[test]
fn open_until_reset_waits_for_a_reset() {
    let until_reset = OpenDuration { until_reset: true, ..RECOVERY.open };
    let (core, time) =
        core_with(&BreakerConfig { recovery: RecoveryLimits { open: until_reset, ..RECOVERY }, ..CONFIG });
    core.trip_manually().unwrap();
    time.advance(Duration::from_secs(1_000_000));
    assert_eq!(core.admit().unwrap_err(), Denied { state: CircuitState::Open, left: None });
    core.reset().unwrap();
    assert!(run(&core, Verdict::Success));
}

#[test]
fn observing_circuit_does_not_count_calls_it_would_reject() {
    let (core, time) = core_with(&BreakerConfig { mode: Mode::ObserveOnly, ..CONFIG });
    for _ in 0..5 {
        run(&core, FAILURE);
    }
    assert_eq!(state(&core), CircuitState::Open);
    for _ in 0..10 {
        assert!(run(&core, FAILURE));
    }
    time.advance(Duration::from_secs(30));
    let probes: Vec<_> = (0..3).map(|_| core.admit().unwrap()).collect();
    let uncounted = core.admit().unwrap();
    core.record(uncounted, &FAILURE);
    assert_eq!(state(&core), CircuitState::HalfOpen, "a call that would be rejected is not counted");
    for probe in probes {
        core.record(probe, &Verdict::Success);
    }
    assert_eq!(state(&core), CircuitState::Closed);
}

#[test]
fn disabled_circuit_admits_all_and_counts_none() {
    let (core, _time) = core_with(&BreakerConfig { mode: Mode::Disabled, ..CONFIG });
    for _ in 0..100 {
        assert!(run(&core, FAILURE));
    }
    assert_eq!((state(&core), core.snapshot().counts), (CircuitState::Disabled, Counts::default()));
    assert_eq!(core.force(Force::Open, None), Err(CircuitState::Disabled));
    core.release();
    assert_eq!(state(&core), CircuitState::Disabled, "release does not enable a disabled circuit");
    core.reconfigure(&CONFIG);
    assert_eq!(
        (state(&core), core.snapshot().last_transition.unwrap().reason),
        (CircuitState::Closed, Reason::Reconfigured)
    );
}

#[test]
fn reconfigure_keeps_state_epoch_deadline_and_failures() {
    let (core, time) = core(TRIP);
    (0..3).for_each(|_| assert!(run(&core, FAILURE)));
    let early = core.admit().unwrap();
    let trip = TripLimits { consecutive_failures: 4, failure_rate: None, ..TRIP };
    core.reconfigure(&BreakerConfig { trip, ..CONFIG });
    let snapshot = core.snapshot();
    assert_eq!(
        (snapshot.consecutive_failures, snapshot.counts, snapshot.last_transition.is_none()),
        (3, counts(3, 3), true)
    );
    core.record(early, &FAILURE);
    assert_eq!(state(&core), CircuitState::Open, "the permit is valid, and the new limit applies");
    time.advance(Duration::from_secs(10));
    let short = RecoveryLimits { open: OpenDuration::constant(SECOND), ..RECOVERY };
    core.reconfigure(&BreakerConfig { recovery: short, ..CONFIG });
    assert_eq!(core.admit().unwrap_err().left, Some(20 * SECOND), "the deadline stays");
}

#[test]
fn reconfigured_window_of_another_shape_starts_empty() {
    let (core, _time) = core(TRIP);
    let shapes = [
        WindowShape::Count(7),
        WindowShape::Count(9),
        WindowShape::Time(SECOND),
        WindowShape::Time(600 * SECOND),
    ];
    for window in shapes {
        run(&core, FAILURE);
        run(&core, Verdict::Success);
        core.reconfigure(&BreakerConfig { window, ..CONFIG });
        assert_eq!(core.snapshot().counts, Counts::default(), "{window:?}");
        run(&core, Verdict::Success);
        core.reconfigure(&BreakerConfig { window, ..CONFIG });
        assert_eq!(core.snapshot().counts, counts(1, 0), "a window of the same shape continues: {window:?}");
    }
}

#[test]
fn manual_override_precedes_configuration() {
    let (core, _time) = core(TRIP);
    core.force(Force::Open, None).unwrap();
    core.reconfigure(&BreakerConfig { mode: Mode::Disabled, ..CONFIG });
    assert_eq!(state(&core), CircuitState::ForcedOpen);
    core.release();
    assert_eq!(state(&core), CircuitState::Disabled, "the configured mode applies after release");
}
