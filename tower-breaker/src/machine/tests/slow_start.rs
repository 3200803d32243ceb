//! Slow starts by time and by successes.

use super::*;

/// A slow start that four successes end.
const SLOW_START_SUCCESSES: RecoveryLimits =
    RecoveryLimits { slow_start: SlowStartKind::Successes(4), successes_to_close: 1, ..LIMITS };

/// Returns a circuit that closed at `now` and begins a slow start by four successes.
fn slow_start_by_successes(now: u64) -> Machine {
    let mut state = half_open(now);
    let ticket = probe(&mut state, now);
    state.record_probe(ticket, Outcome::Success, at(now), &SLOW_START_SUCCESSES).unwrap();
    state
}

#[test]
fn slow_start_counts_each_arrival_once() {
    let mut state = slow_start(100 * SECOND);
    // At this time half of the calls are admitted, and the initial credit is one call.
    let now = 105 * SECOND;
    let mut reserve = |arrival| state.reserve(now, arrival, &SLOW_START);
    for _ in 0..10 {
        assert_eq!(reserve(Arrival::AtCall), (Decision::Uncounted, None));
    }
    assert_eq!(reserve(Arrival::Now), (Decision::Admitted, None));
    assert_eq!(reserve(Arrival::Now), (Decision::Admitted, None));
    assert_eq!(reserve(Arrival::Now), (Decision::Denied(Some(5 * SECOND)), None));
    for _ in 0..10 {
        assert_eq!(
            reserve(Arrival::Again),
            (Decision::Denied(Some(5 * SECOND)), None),
            "it was counted before"
        );
    }
    assert_eq!(reserve(Arrival::Now), (Decision::Admitted, None));
}

#[test]
fn closed_circuit_without_slow_start_admits_all() {
    let mut state = Machine::new();
    let decisions =
        [Arrival::AtCall, Arrival::Now, Arrival::Again].map(|arrival| state.reserve(0, arrival, &LIMITS));
    let [at_call, now, again] = decisions.map(|(decision, change)| {
        assert_eq!(change, None);
        decision
    });
    assert_eq!((at_call, now, again), (Decision::Uncounted, Decision::Admitted, Decision::Admitted));
}

#[test]
fn slow_start_credit_of_call_that_does_not_begin_is_refunded() {
    let mut state = slow_start(100 * SECOND);
    let now = 105 * SECOND;
    let mut admit = || state.admit(now, &SLOW_START).0;
    assert_eq!([admit(), admit()], [Decision::Admitted, Decision::Admitted]);
    state.refund_slow_start(now);
    assert_eq!(state.admit(now, &SLOW_START).0, Decision::Admitted, "the refunded call");
    assert!(matches!(state.admit(now, &SLOW_START).0, Decision::Denied(_)));
}

#[test]
fn slow_start_share_is_returned_until_slow_start_ends() {
    let mut state = slow_start(100 * SECOND);
    assert_eq!(state.slow_start_share(100 * SECOND), Some(0.0));
    assert_eq!(state.slow_start_share(105 * SECOND), Some(0.5));
    assert_eq!(state.published_state(), State::Closed { slow_start: true });
    assert_eq!(state.admit(110 * SECOND, &SLOW_START).0, Decision::Admitted);
    assert_eq!(state.slow_start_share(110 * SECOND), None);
    assert_eq!(state.published_state(), State::Closed { slow_start: false });
    assert_eq!(open(0).slow_start_share(0), None);
}

#[test]
fn slow_start_by_successes_admits_within_its_limit_and_ends() {
    let now = 100 * SECOND;
    let mut state = slow_start_by_successes(now);
    let arrivals = [Arrival::Now, Arrival::Now, Arrival::Again, Arrival::Now];
    for (share, arrival) in [0.0, 0.25, 0.5, 0.75].into_iter().zip(arrivals) {
        assert_eq!(state.slow_start_share(now), Some(share));
        assert_eq!(state.published_state(), State::Closed { slow_start: true });
        let slot = (Decision::AdmittedWithSlot(now), None);
        assert_eq!(state.reserve(now, Arrival::AtCall, &LIMITS), (Decision::Uncounted, None));
        assert_eq!(state.reserve(now, arrival, &LIMITS), slot);
        assert!(state.holds_slow_start_slot(now));
        state.release_slow_start_slot(now, false);
        assert!(!state.holds_slow_start_slot(now));
        assert_eq!(state.admit(now, &LIMITS), slot);
        state.release_slow_start_slot(now, true);
    }
    assert_eq!(state.slow_start_share(now), None);
    assert_eq!(state.published_state(), State::Closed { slow_start: false });
    assert!(state.holds_slow_start_slot(now), "every call may begin after the slow start");
    assert_eq!(state.admit(now, &LIMITS), (Decision::Admitted, None));
    state.release_slow_start_slot(now, true);
    assert_eq!(state.admit(now, &LIMITS), (Decision::Admitted, None));
}

#[test]
fn slow_start_by_successes_denies_until_first_lease_ends() {
    let mut state = slow_start_by_successes(100 * SECOND);
    let slot = |now| (Decision::AdmittedWithSlot(now), None);
    assert_eq!(state.admit(110 * SECOND, &LIMITS), slot(110 * SECOND));
    for arrival in [Arrival::Now, Arrival::Again] {
        let decision = state.reserve(125 * SECOND, arrival, &LIMITS);
        assert_eq!(decision, (Decision::Denied(Some(15 * SECOND)), None));
    }
    assert_eq!(state.admit(140 * SECOND, &LIMITS), slot(140 * SECOND), "the lease has ended");
    assert!(!state.holds_slow_start_slot(110 * SECOND));
}

#[test]
fn transition_ends_slow_start_by_successes() {
    type Operation = fn(&mut Machine, Moment) -> bool;
    let now = 100 * SECOND;
    let operations: [Operation; 6] = [
        |state, at| state.trip(Reason::FailureRate, Some(&FAULT), at, &LIMITS).is_some(),
        |state, at| state.trip_manually(at, &LIMITS).is_ok(),
        |state, at| state.report(HealthReport::Critical, at, &LIMITS).is_some(),
        |state, _| state.reset().is_ok(),
        |state, _| state.force(Force::Closed, None).is_ok(),
        |state, _| state.set_disabled(true).is_some(),
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        let mut state = slow_start_by_successes(now);
        assert_eq!(state.admit(now, &LIMITS).0, Decision::AdmittedWithSlot(now));
        assert!(operation(&mut state, at(now)), "operation {number}");
        assert_eq!(state.slow_start_share(now), None, "operation {number}");
        // The call of the earlier epoch ends. Its epoch is checked before, but it does no harm.
        state.release_slow_start_slot(now, true);
        assert_eq!(state.slow_start_share(now), None, "operation {number}");
    }
}
