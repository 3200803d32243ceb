//! Manual control, health reports, and the configured mode.

use super::*;

#[test]
fn critical_report_opens_closed_and_half_open_circuits() {
    let now = 100 * SECOND;
    for mut state in [Machine::new(), slow_start(now), half_open(now)] {
        let from = state.state();
        let change = state.report(HealthReport::Critical, at(now), &LIMITS);
        let to = CircuitState::Open;
        assert_eq!(change, Some(Change { from, to, reason: Reason::ReportedCritical }));
        assert_eq!(opened_until(&state), 130 * SECOND);
        assert_eq!(state.report(HealthReport::Critical, at(110 * SECOND), &LIMITS), None);
        assert_eq!(opened_until(&state), 130 * SECOND, "a repeated report does not extend it");
    }
}

#[test]
fn recovered_report_half_opens_only_an_open_circuit() {
    let now = 100 * SECOND;
    let mut state = open(now);
    let change = state.report(HealthReport::Recovered, at(now), &LIMITS);
    let (from, to) = (CircuitState::Open, CircuitState::HalfOpen);
    assert_eq!(change, Some(Change { from, to, reason: Reason::ReportedRecovered }));
    probe(&mut state, now);
    assert_eq!(state.report(HealthReport::Recovered, at(now), &LIMITS), None);
    assert_eq!(Machine::new().report(HealthReport::Recovered, at(now), &LIMITS), None);
}

#[test]
fn health_report_does_not_change_a_forced_circuit() {
    for force in [Force::Open, Force::Closed, Force::Disabled] {
        for report in [HealthReport::Critical, HealthReport::Recovered] {
            let mut state = forced(force);
            let before = state.state();
            assert_eq!(state.report(report, at(0), &LIMITS), None, "{force:?} {report:?}");
            assert_eq!(state.state(), before);
        }
    }
}

#[test]
fn manual_trip_opens_closed_and_half_open_circuits() {
    let now = 100 * SECOND;
    for mut state in [Machine::new(), half_open(now)] {
        let from = state.state();
        let change = Change { from, to: CircuitState::Open, reason: Reason::Tripped };
        assert_eq!(state.trip_manually(at(now), &LIMITS), Ok(Effect::Changed(change)));
        assert_eq!(opened_until(&state), 130 * SECOND);
        assert_eq!(state.trip_manually(at(110 * SECOND), &LIMITS), Ok(Effect::Unchanged));
        assert_eq!(opened_until(&state), 130 * SECOND, "an open circuit does not change");
    }
    for force in [Force::Open, Force::Closed, Force::Disabled] {
        assert_eq!(forced(force).trip_manually(at(now), &LIMITS), Err(force));
    }
}

#[test]
fn reset_closes_circuit_and_ends_streak() {
    let open_duration = OpenDuration { multiplier: 2.0, max: 300 * SECOND, ..LIMITS.open };
    let growing = RecoveryLimits { open: open_duration, ..LIMITS };
    let mut state = Machine::new();
    for _ in 0..2 {
        state.trip(Reason::FailureRate, Some(&FAULT), at(0), &growing).unwrap();
        assert_eq!(opened_until(&state), 30 * SECOND);
        let (from, to) = (CircuitState::Open, CircuitState::Closed);
        assert_eq!(state.reset(), Ok(Change { from, to, reason: Reason::Reset }));
        assert_eq!(state.published_state(), State::Closed { slow_start: false });
    }
    assert_eq!(half_open(30 * SECOND).reset().map(|change| change.to), Ok(CircuitState::Closed));
    for force in [Force::Open, Force::Closed, Force::Disabled] {
        assert_eq!(forced(force).reset(), Err(force));
    }
}

#[test]
fn force_changes_every_state_but_disabled() {
    let states = [Machine::new(), open(0), half_open(30 * SECOND)];
    for mut state in states {
        let from = state.state();
        let change = |from, to| Ok(Effect::Changed(Change { from, to, reason: Reason::Forced }));
        assert_eq!(state.force(Force::Open, None), change(from, CircuitState::ForcedOpen));
        assert_eq!(state.force(Force::Open, None), Ok(Effect::Unchanged), "it is forced open already");
        assert_eq!(state.admit(u64::MAX, &LIMITS), (Decision::Denied(None), None));
        assert_eq!(
            state.force(Force::Closed, None),
            change(CircuitState::ForcedOpen, CircuitState::ForcedClosed)
        );
        assert_eq!(state.force(Force::Closed, None), Ok(Effect::Unchanged));
        assert_eq!(state.admit(0, &LIMITS), (Decision::Uncounted, None));
    }
    for force in [Force::Open, Force::Closed, Force::Disabled] {
        assert_eq!(forced(Force::Disabled).force(force, None), Err(Force::Disabled));
    }
}

#[test]
fn release_half_opens_forced_open_and_closes_forced_closed() {
    let release = |force| forced(force).release(&LIMITS).map(|change| (change.to, change.reason));
    assert_eq!(release(Force::Open), Some((CircuitState::HalfOpen, Reason::Released)));
    assert_eq!(release(Force::Closed), Some((CircuitState::Closed, Reason::Released)));
    assert_eq!(release(Force::Disabled), None);
    for mut state in [Machine::new(), open(0), half_open(30 * SECOND)] {
        assert_eq!(state.release(&LIMITS), None, "it is not forced");
    }
}

#[test]
fn trip_for_opens_for_exactly_its_time_and_replaces_remaining_time() {
    let (now, jittered) =
        (100 * SECOND, RecoveryLimits { open: OpenDuration { jitter: 1.0, ..LIMITS.open }, ..LIMITS });
    for mut state in [Machine::new(), half_open(now)] {
        let from = state.state();
        let change = Change { from, to: CircuitState::Open, reason: Reason::Tripped };
        assert_eq!(state.trip_for(7 * SECOND, now), Ok(Effect::Changed(change)));
        assert_eq!(opened_until(&state), 107 * SECOND);
        for period in [90 * SECOND, 2 * SECOND] {
            assert_eq!(state.trip_for(period, now + SECOND), Ok(Effect::Retimed));
            assert_eq!(opened_until(&state), now + SECOND + period, "it is extended, then shortened");
        }
        assert_eq!(state.admit(now, &jittered).0, Decision::Denied(Some(3 * SECOND)));
        assert_eq!(state.admit(103 * SECOND, &LIMITS).1.unwrap().reason, Reason::OpenTimeOver);
    }
    let mut until_reset = Machine::new();
    let limits = RecoveryLimits { open: OpenDuration { until_reset: true, ..LIMITS.open }, ..LIMITS };
    until_reset.trip(Reason::FailureRate, None, at(now), &limits).unwrap();
    assert_eq!(until_reset.trip_for(SECOND, now), Ok(Effect::Retimed));
    assert_eq!(opened_until(&until_reset), now + SECOND);
    for force in [Force::Open, Force::Closed, Force::Disabled] {
        assert_eq!(forced(force).trip_for(SECOND, now), Err(force));
    }
}

#[test]
fn trip_for_is_no_part_of_open_streak() {
    let open_duration = OpenDuration { multiplier: 2.0, max: 300 * SECOND, ..LIMITS.open };
    let growing = RecoveryLimits { open: open_duration, successes_to_close: 1, ..LIMITS };
    let mut state = Machine::new();
    let mut now = 0;
    // The periods in seconds. `None`: the configured one.
    for (period, expected) in [(None, 30), (Some(500), 500), (None, 60), (Some(1), 1), (None, 120)] {
        match period {
            None => drop(state.trip(Reason::FailureRate, Some(&FAULT), at(now), &growing)),
            Some(period) => assert!(state.trip_for(period * SECOND, now).is_ok()),
        }
        assert_eq!(opened_until(&state), now + expected * SECOND);
        now = opened_until(&state);
        let (Decision::Probe(ticket), Some(_)) = state.admit(now, &growing) else { panic!("no probe") };
        state.record_probe(ticket, Outcome::Success, at(now), &growing).unwrap();
        now += SECOND;
    }
}

#[test]
fn probe_now_half_opens_only_an_open_circuit() {
    let mut until_reset = Machine::new();
    let limits = RecoveryLimits { open: OpenDuration { until_reset: true, ..LIMITS.open }, ..LIMITS };
    until_reset.trip(Reason::FailureRate, None, at(0), &limits).unwrap();
    for mut state in [open(0), until_reset] {
        let (from, to) = (CircuitState::Open, CircuitState::HalfOpen);
        let change = Change { from, to, reason: Reason::ProbeRequested };
        assert_eq!(state.probe_now(&LIMITS), Ok(Effect::Changed(change)));
        probe(&mut state, 0);
    }
    for mut state in [Machine::new(), half_open(30 * SECOND), slow_start(100 * SECOND)] {
        let before = format!("{state:?}");
        assert_eq!(state.probe_now(&LIMITS), Ok(Effect::Unchanged));
        assert_eq!(format!("{state:?}"), before);
    }
    for force in [Force::Open, Force::Closed, Force::Disabled] {
        assert_eq!(forced(force).probe_now(&LIMITS), Err(force));
    }
}

#[test]
fn forced_open_until_a_time_then_half_opens() {
    let until = 10 * SECOND;
    for arrival in [None, Some(Arrival::AtCall), Some(Arrival::Now), Some(Arrival::Again)] {
        let mut state = forced_until(Force::Open, until);
        let mut decide = |now| match arrival {
            None => state.admit(now, &LIMITS),
            Some(arrival) => state.reserve(now, arrival, &LIMITS),
        };
        assert_eq!(decide(until - 1), (Decision::Denied(Some(1)), None));
        let (decision, change) = decide(until);
        assert!(matches!(decision, Decision::Probe(_)), "{decision:?}");
        let (from, to) = (CircuitState::ForcedOpen, CircuitState::HalfOpen);
        assert_eq!(change, Some(Change { from, to, reason: Reason::OverrideEnded }));
    }
}

#[test]
fn forced_closed_until_a_time_then_closes() {
    let until = 10 * SECOND;
    for (arrival, expected) in [
        (None, Decision::Admitted),
        (Some(Arrival::AtCall), Decision::Uncounted),
        (Some(Arrival::Now), Decision::Admitted),
        (Some(Arrival::Again), Decision::Admitted),
    ] {
        let mut state = forced_until(Force::Closed, until);
        assert_eq!(state.published_state(), State::BypassedUntil(until));
        let mut decide = |now| match arrival {
            None => state.admit(now, &LIMITS),
            Some(arrival) => state.reserve(now, arrival, &LIMITS),
        };
        assert_eq!(decide(until - 1), (Decision::Uncounted, None));
        let (from, to) = (CircuitState::ForcedClosed, CircuitState::Closed);
        let change = Change { from, to, reason: Reason::OverrideEnded };
        assert_eq!(decide(until), (expected, Some(change)));
        assert_eq!(state.published_state(), State::Closed { slow_start: false });
    }
}

#[test]
fn override_is_replaced_by_every_later_one() {
    for force in [Force::Open, Force::Closed] {
        let other = if force == Force::Open { Force::Closed } else { Force::Open };
        let mut state = forced_until(force, 10 * SECOND);
        assert_eq!(state.force(force, Some(10 * SECOND)), Ok(Effect::Unchanged));
        for until in [Some(20 * SECOND), Some(5 * SECOND), None, Some(7 * SECOND)] {
            assert_eq!(state.force(force, until), Ok(Effect::Retimed));
            assert_eq!(state.override_remaining(0), until);
            assert_eq!(state.end_override(until.map_or(u64::MAX, |until| until - 1), &LIMITS), None);
        }
        assert!(matches!(state.force(other, None), Ok(Effect::Changed(_))));
        assert_eq!(state.end_override(u64::MAX, &LIMITS), None, "the last override has no end");
    }
}

#[test]
fn remaining_times_end_at_zero() {
    let remaining = |state: &Machine, now| (state.open_remaining(now), state.override_remaining(now));
    let forced_open = forced_until(Force::Open, 10 * SECOND);
    assert_eq!(remaining(&forced_open, 4 * SECOND), (Some(6 * SECOND), Some(6 * SECOND)));
    assert_eq!(remaining(&forced_open, 11 * SECOND), (Some(0), Some(0)));
    let forced_closed = forced_until(Force::Closed, 10 * SECOND);
    assert_eq!(remaining(&forced_closed, 4 * SECOND), (None, Some(6 * SECOND)));
    assert_eq!(remaining(&open(0), 29 * SECOND), (Some(SECOND), None));
    for state in [Machine::new(), half_open(30 * SECOND), forced(Force::Open), forced(Force::Disabled)] {
        assert_eq!(remaining(&state, 0), (None, None), "{state:?}");
    }
}

#[test]
fn override_of_circuit_disabled_meanwhile_ends_disabled() {
    for force in [Force::Open, Force::Closed] {
        let mut state = forced_until(force, 10 * SECOND);
        let from = state.state();
        state.set_disabled(true);
        let change = Change { from, to: CircuitState::Disabled, reason: Reason::OverrideEnded };
        assert_eq!(state.admit(10 * SECOND, &LIMITS), (Decision::Uncounted, Some(change)));
        assert_eq!(state.end_override(u64::MAX, &LIMITS), None, "the configured mode has no end");
    }
}

#[test]
fn set_disabled_changes_a_circuit_that_is_not_forced() {
    let disabled = CircuitState::Disabled;
    for mut state in [Machine::new(), open(0), half_open(30 * SECOND)] {
        let from = state.state();
        assert_eq!(state.set_disabled(false), None);
        let change = |from, to| Some(Change { from, to, reason: Reason::Reconfigured });
        assert_eq!(state.set_disabled(true), change(from, disabled));
        assert_eq!(state.set_disabled(true), None);
        assert_eq!(state.admit(0, &LIMITS), (Decision::Uncounted, None));
        assert_eq!(state.set_disabled(false), change(disabled, CircuitState::Closed));
    }
}

#[test]
fn release_of_circuit_disabled_while_forced_disables_it() {
    for (force, forced_state) in
        [(Force::Open, CircuitState::ForcedOpen), (Force::Closed, CircuitState::ForcedClosed)]
    {
        let mut state = forced(force);
        assert_eq!(state.set_disabled(true), None);
        assert_eq!(state.state(), forced_state, "the manual override takes precedence");
        let change = Change { from: forced_state, to: CircuitState::Disabled, reason: Reason::Released };
        assert_eq!(state.release(&LIMITS), Some(change));
        let mut state = forced(force);
        state.set_disabled(true);
        assert_eq!(state.set_disabled(false), None);
        assert_ne!(state.release(&LIMITS).unwrap().to, CircuitState::Disabled);
    }
}
