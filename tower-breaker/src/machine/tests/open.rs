//! Open circuits: the open time, its end, and idleness.

use std::time::Duration;

use super::*;

#[test]
fn open_circuit_rejects_until_open_time_is_over() {
    let mut state = open(SECOND);
    assert_eq!(state.admit(SECOND, &LIMITS), (Decision::Denied(Some(30 * SECOND)), None));
    assert_eq!(state.admit(31 * SECOND - 1, &LIMITS), (Decision::Denied(Some(1)), None));
    let (admission, change) = state.admit(31 * SECOND, &LIMITS);
    assert!(matches!(admission, Decision::Probe(_)));
    let change = change.unwrap();
    assert_eq!((change.from, change.to), (CircuitState::Open, CircuitState::HalfOpen));
    assert_eq!(change.reason, Reason::OpenTimeOver);
}

#[test]
fn server_delay_lengthens_open_time_up_to_maximum() {
    let opened_for = |fault: Fault| {
        let mut state = Machine::new();
        state.trip(Reason::FailureRate, Some(&fault), at(0), &LIMITS).unwrap();
        match state.published_state() {
            State::OpenUntil { until, .. } => until / SECOND,
            other => panic!("expected an open circuit, not {other:?}"),
        }
    };
    assert_eq!(opened_for(FAULT.with_retry_after(Duration::from_secs(1))), 30);
    assert_eq!(opened_for(FAULT.with_retry_after(Duration::from_secs(90))), 90);
    assert_eq!(opened_for(FAULT.with_retry_after(Duration::MAX)), 300);
    let rejection = FAULT.with_kind(Kind::Rejected).with_retry_after(Duration::from_secs(90));
    assert_eq!(opened_for(rejection), 30);
}

#[test]
fn times_saturate() {
    let limits = RecoveryLimits { open: OpenDuration::constant(u64::MAX), probe_lease: u64::MAX, ..LIMITS };
    let mut state = Machine::new();
    state.trip(Reason::FailureRate, Some(&FAULT), at(u64::MAX - 1), &limits).unwrap();
    assert_eq!(state.admit(0, &limits), (Decision::Denied(Some(u64::MAX)), None), "a clock that ran back");
    assert!(matches!(state.admit(u64::MAX, &limits).0, Decision::Probe(_)));
}

#[test]
fn reserve_is_rejected_while_open_and_half_opens_after_open_time() {
    for arrival in [Arrival::AtCall, Arrival::Now, Arrival::Again] {
        let mut state = open(0);
        assert_eq!(state.reserve(SECOND, arrival, &LIMITS), (Decision::Denied(Some(29 * SECOND)), None));
        let (decision, change) = state.reserve(30 * SECOND, arrival, &LIMITS);
        assert!(matches!(decision, Decision::Probe(_)), "{decision:?}");
        assert_eq!(change.unwrap().reason, Reason::OpenTimeOver);
    }
}

#[cfg(feature = "keyed")]
#[test]
fn circuit_is_idle_after_another_open_period_without_calls() {
    let mut state = open(100 * SECOND);
    let idle_at = |state: &Machine, since| state.idle_at(since * SECOND, &LIMITS).map(|at| at / SECOND);
    assert_eq!(idle_at(&state, 100), Some(160), "30 s after the deadline at 130 s");
    state.trip_for(50 * SECOND, 110 * SECOND).unwrap();
    assert_eq!(idle_at(&state, 100), Some(220), "60 s after the deadline at 160 s");
    state.admit(160 * SECOND, &LIMITS);
    assert_eq!(idle_at(&state, 170), Some(200), "30 s after the state began");
    assert_eq!(idle_at(&forced_until(Force::Open, 7 * SECOND), 0), Some(37), "it half-opens at 7 s");
    assert_eq!(idle_at(&forced_until(Force::Closed, 7 * SECOND), 0), Some(7), "it closes at 7 s");
    let mut disabled = forced_until(Force::Closed, 7 * SECOND);
    disabled.set_disabled(true);
    let until_reset = RecoveryLimits { open: OpenDuration { until_reset: true, ..LIMITS.open }, ..LIMITS };
    let mut indefinitely_open = Machine::new();
    indefinitely_open.trip(Reason::FailureRate, Some(&FAULT), at(0), &until_reset).unwrap();
    for state in [
        indefinitely_open,
        Machine::new(),
        forced(Force::Open),
        forced(Force::Closed),
        forced(Force::Disabled),
        disabled,
    ] {
        assert_eq!(idle_at(&state, 0), None, "{state:?}");
    }
}
