use std::time::Duration;

use proptest::prelude::*;
use tower_fault_classify::{Origin, Retryable};

use super::trip::reaches;
use super::*;

const SECOND: u64 = 1_000_000_000;

const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);

const TRIP: TripLimits = TripLimits {
    consecutive_failures: 5,
    consecutive_failures_span: 0,
    failure_rate: Some(0.5),
    slow: None,
    minimum_calls: 10,
    cancelled: CancelledPolicy::IfNoneCompletes,
};

const LIMITS: RecoveryLimits = RecoveryLimits {
    open: OpenDuration::constant(30 * SECOND),
    probes: 3,
    successes_to_close: 2,
    probe_lease: 30 * SECOND,
    slow_start: SlowStartKind::Off,
};

fn at(now: u64) -> Moment {
    Moment { now, draw: 0.0 }
}

fn rate(limits: &TripLimits, failures: u64, calls: u64) -> Option<Reason> {
    trip_reason(
        limits,
        &Sample {
            consecutive_failures: 1,
            failing_for: 0,
            window: Some(Counts { calls, failures, ..Counts::default() }),
        },
    )
}

fn open(now: u64) -> Machine {
    let mut state = Machine::new();
    state.trip(Reason::FailureRate, Some(&FAULT), at(now), &LIMITS).unwrap();
    state
}

fn half_open(now: u64) -> Machine {
    let mut state = open(now - LIMITS.open.initial);
    let (Decision::Probe(ticket), Some(_)) = state.admit(now, &LIMITS) else { panic!("it must half-open") };
    state.record_probe(ticket, Outcome::Neutral, at(now), &LIMITS);
    state
}

fn probe(state: &mut Machine, now: u64) -> Ticket {
    match state.admit(now, &LIMITS) {
        (Decision::Probe(ticket), None) => ticket,
        other => panic!("expected a free probe slot, not {other:?}"),
    }
}

const SLOW_START: RecoveryLimits =
    RecoveryLimits { slow_start: SlowStartKind::Time(10 * SECOND), successes_to_close: 1, ..LIMITS };

/// Returns a circuit that closed at `now` and begins a slow start of ten seconds.
fn slow_start(now: u64) -> Machine {
    let mut state = half_open(now);
    let ticket = probe(&mut state, now);
    state.record_probe(ticket, Outcome::Success, at(now), &SLOW_START).unwrap();
    state
}

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

/// Returns a forced circuit.
fn forced(force: Force) -> Machine {
    let mut state = Machine::new();
    state.force(force, None).unwrap();
    state
}

/// Returns a circuit that is forced until a time.
fn forced_until(force: Force, until: u64) -> Machine {
    let mut state = Machine::new();
    state.force(force, Some(until)).unwrap();
    state
}

fn opened_until(state: &Machine) -> u64 {
    match state.published_state() {
        State::OpenUntil(until) => until,
        other => panic!("expected an open circuit, not {other:?}"),
    }
}

#[test]
fn consecutive_failures_at_limit_trip() {
    let reason = |limits, consecutive_failures, failing_for| {
        trip_reason(limits, &Sample { consecutive_failures, failing_for, window: None })
    };
    let reached = Some(Reason::ConsecutiveFailures);
    assert_eq!([4, 5, 6].map(|failures| reason(&TRIP, failures, 0)), [None, reached, reached]);
    let spanned = TripLimits { consecutive_failures_span: SECOND, ..TRIP };
    for (failures, failing_for, expected) in [
        (4, SECOND, None),
        (5, SECOND - 1, None),
        (5, SECOND, reached),
        (9, SECOND - 1, None),
        (9, SECOND + 1, reached),
    ] {
        assert_eq!(reason(&spanned, failures, failing_for), expected, "{failures} in {failing_for} ns");
    }
    let off = TripLimits { consecutive_failures: 0, ..spanned };
    assert_eq!(reason(&off, u64::MAX, u64::MAX), None);
}

#[test]
fn failure_rate_at_limit_trips_from_minimum_calls() {
    assert_eq!(rate(&TRIP, 5, 10), Some(Reason::FailureRate));
    assert_eq!(rate(&TRIP, 4, 10), None);
    assert_eq!(rate(&TRIP, 9, 9), None, "below the minimum");
    assert_eq!(rate(&TripLimits { failure_rate: None, ..TRIP }, 10, 10), None);
}

#[test]
fn decimal_rate_is_reached_exactly() {
    for percent in 1..=100_u64 {
        let decimal = format!("{}.{:02}", percent / 100, percent % 100);
        let limits = TripLimits { failure_rate: decimal.parse().ok(), ..TRIP };
        assert_eq!(rate(&limits, percent, 100), Some(Reason::FailureRate), "{percent} of 100");
        assert_eq!(rate(&limits, percent - 1, 100), None, "one fewer than {percent} of 100");
    }
}

#[test]
fn rate_of_zero_trips_on_first_failure() {
    let limits = TripLimits { failure_rate: Some(0.0), ..TRIP };
    assert_eq!(rate(&limits, 1, 1_000_000), Some(Reason::FailureRate));
    assert_eq!(rate(&limits, 0, 1_000_000), None);
}

#[test]
fn min_failures_for_rate_is_fewest_that_reach_the_rate() {
    let fewest = |rate, minimum_calls| {
        min_failures_for_rate(&TripLimits { failure_rate: Some(rate), minimum_calls, ..TRIP })
    };
    assert_eq!(
        (fewest(0.5, 10), fewest(0.07, 100), fewest(0.0, 1), fewest(1.0, u32::MAX)),
        (5, 7, 1, u32::MAX.into())
    );
    assert_eq!(min_failures_for_rate(&TripLimits { failure_rate: None, ..TRIP }), u64::MAX);
    for minimum in 1..200 {
        for percent in 0..=100 {
            let rate = f64::from(percent) / 100.0;
            let (fewest, calls) = (fewest(rate, minimum), minimum.into());
            assert!(reaches(fewest, calls, rate), "{percent} % of {minimum}");
            assert!(fewest == 1 || !reaches(fewest - 1, calls, rate), "{percent} % of {minimum}");
        }
    }
}

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
            State::OpenUntil(until) => until / SECOND,
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
fn probes_are_bounded_and_free_their_slots() {
    let mut state = half_open(100 * SECOND);
    let tickets: Vec<_> = (0..3).map(|_| probe(&mut state, 100 * SECOND)).collect();
    assert_eq!(state.admit(101 * SECOND, &LIMITS).0, Decision::Denied(Some(29 * SECOND)));
    state.record_probe(tickets[1], Outcome::Neutral, at(101 * SECOND), &LIMITS);
    probe(&mut state, 101 * SECOND);
    assert!(matches!(state.admit(101 * SECOND, &LIMITS).0, Decision::Denied(_)));
}

#[test]
fn probe_slot_is_freed_once_when_lease_ends() {
    let mut state = half_open(100 * SECOND);
    let hung: Vec<_> = (0..3).map(|_| probe(&mut state, 100 * SECOND)).collect();
    let end = 130 * SECOND;
    let successors: Vec<_> = (0..3).map(|_| probe(&mut state, end)).collect();
    for ticket in hung {
        state.record_probe(ticket, Outcome::Neutral, at(end), &LIMITS);
    }
    assert!(matches!(state.admit(end, &LIMITS).0, Decision::Denied(_)), "the successors hold the slots");
    state.record_probe(successors[0], Outcome::Neutral, at(end), &LIMITS);
    probe(&mut state, end);
}

#[test]
fn probe_outcome_after_lease_end_is_counted() {
    let mut state = half_open(100 * SECOND);
    let hung = probe(&mut state, 100 * SECOND);
    let late = 200 * SECOND;
    assert!(!state.renew(hung, late, &LIMITS));
    assert_eq!(state.record_probe(hung, Outcome::Success, at(late), &LIMITS), None);
    let second = probe(&mut state, late);
    let change = state.record_probe(second, Outcome::Success, at(late), &LIMITS).unwrap();
    assert_eq!((change.to, change.reason), (CircuitState::Closed, Reason::ProbesSucceeded));
}

#[test]
fn failed_probe_opens_for_whole_open_time() {
    let mut state = half_open(100 * SECOND);
    let first = probe(&mut state, 100 * SECOND);
    let second = probe(&mut state, 100 * SECOND);
    assert_eq!(state.record_probe(first, Outcome::Success, at(110 * SECOND), &LIMITS), None);
    let change = state.record_probe(second, Outcome::Failure(&FAULT), at(110 * SECOND), &LIMITS).unwrap();
    assert_eq!((change.to, change.reason), (CircuitState::Open, Reason::ProbeFailed));
    assert_eq!(state.admit(110 * SECOND, &LIMITS), (Decision::Denied(Some(30 * SECOND)), None));
}

#[test]
fn lease_renewed_before_end_is_extended() {
    let mut state = half_open(100 * SECOND);
    let ticket = probe(&mut state, 100 * SECOND);
    assert!(state.renew(ticket, 129 * SECOND, &LIMITS));
    assert!(state.renew(ticket, 158 * SECOND, &LIMITS));
    assert!(!state.renew(ticket, 188 * SECOND, &LIMITS));
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
fn reserve_is_rejected_while_open_and_half_opens_after_open_time() {
    for arrival in [Arrival::AtCall, Arrival::Now, Arrival::Again] {
        let mut state = open(0);
        assert_eq!(state.reserve(SECOND, arrival, &LIMITS), (Decision::Denied(Some(29 * SECOND)), None));
        let (decision, change) = state.reserve(30 * SECOND, arrival, &LIMITS);
        assert!(matches!(decision, Decision::Probe(_)), "{decision:?}");
        assert_eq!(change.unwrap().reason, Reason::OpenTimeOver);
    }
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

#[test]
fn outcome_depends_on_health_and_on_origin_of_neutral_faults() {
    assert!(matches!(Outcome::of(&Verdict::Success), Outcome::Success));
    let outcome = |health, origin| {
        let verdict = Verdict::Fault(FAULT.with_health(health).with_origin(origin));
        match Outcome::of(&verdict) {
            Outcome::Success => "success",
            Outcome::Slow => "slow",
            Outcome::Failure(fault) => {
                assert_eq!((fault.health(), fault.origin()), (health, origin));
                "failure"
            }
            Outcome::Answered => "answered",
            Outcome::Neutral => "neutral",
        }
    };
    for origin in [Origin::Remote, Origin::Local, Origin::Caller] {
        assert_eq!(outcome(Health::Healthy, origin), "success");
        assert_eq!(outcome(Health::Unhealthy, origin), "failure");
    }
    assert_eq!(outcome(Health::Neutral, Origin::Remote), "answered");
    for origin in [Origin::Local, Origin::Caller] {
        assert_eq!(outcome(Health::Neutral, origin), "neutral");
    }
}

#[test]
fn completed_probe_resets_count_of_cancelled_probes() {
    let limits = RecoveryLimits { probes: 1, successes_to_close: 9, ..LIMITS };
    for completed in [Outcome::Answered, Outcome::Success] {
        let now = 30 * SECOND;
        let mut state = half_open(now);
        let cancel = |state: &mut Machine| {
            let ticket = probe(state, now);
            state.record_cancelled_probe(ticket, 2, at(now), &limits)
        };
        assert_eq!(cancel(&mut state), None);
        let ticket = probe(&mut state, now);
        assert_eq!(state.record_probe(ticket, completed, at(now), &limits), None);
        assert_eq!(cancel(&mut state), None, "the first cancelled probe after {completed:?}");
        assert_eq!(cancel(&mut state).unwrap().reason, Reason::NoneCompletes);
    }
}

#[test]
fn neutral_probe_does_not_reset_count_of_cancelled_probes() {
    let now = 30 * SECOND;
    let mut state = half_open(now);
    let tickets = [(); 3].map(|()| probe(&mut state, now));
    assert_eq!(state.record_cancelled_probe(tickets[0], 2, at(now), &LIMITS), None);
    assert_eq!(state.record_probe(tickets[1], Outcome::Neutral, at(now), &LIMITS), None);
    let change = state.record_cancelled_probe(tickets[2], 2, at(now), &LIMITS).unwrap();
    assert_eq!((change.to, change.reason), (CircuitState::Open, Reason::NoneCompletes));
}

const SLOW: SlowCallLimits = SlowCallLimits { threshold: SECOND, rate: 0.8 };

#[test]
fn call_duration_is_needed_for_slow_calls_and_timed_cancellations() {
    let needs = |slow, cancelled| TripLimits { slow, cancelled, ..TRIP }.needs_duration();
    for cancelled in [CancelledPolicy::IfNoneCompletes, CancelledPolicy::Ignore, CancelledPolicy::Failure] {
        assert!(!needs(None, cancelled), "{cancelled:?}");
        assert!(needs(Some(SLOW), cancelled), "{cancelled:?}");
    }
    assert!(needs(None, CancelledPolicy::FailureAfter(Duration::from_nanos(SECOND))));
}

#[test]
fn call_that_reaches_threshold_is_slow() {
    let limits = TripLimits { slow: Some(SLOW), ..TRIP };
    let slow = [None, Some(SECOND - 1), Some(SECOND), Some(u64::MAX)].map(|took| limits.is_slow(took));
    assert_eq!(slow, [false, false, true, true]);
    assert!(!TRIP.is_slow(Some(u64::MAX)), "no slow-call rate is set");
}

#[test]
fn few_slow_calls_cannot_reach_slow_rate() {
    let limits = TripLimits { slow: Some(SLOW), ..TRIP };
    assert!(!may_reach_slow_rate(&limits, 7), "7 of the minimum of 10 calls");
    assert!(may_reach_slow_rate(&limits, 8));
    assert!(!may_reach_slow_rate(&TRIP, u64::MAX), "no slow-call rate is set");
}

#[test]
fn slow_success_trips_by_slow_rate_not_by_failure_rate() {
    let limits = TripLimits { slow: Some(SLOW), ..TRIP };
    let reason = |consecutive_failures, failures, slow| {
        let window = Some(Counts { calls: 10, failures, slow, cancelled: 0 });
        trip_reason(&limits, &Sample { consecutive_failures, failing_for: 0, window })
    };
    assert_eq!(reason(0, 10, 7), None);
    assert_eq!(reason(0, 10, 8), Some(Reason::SlowRate));
    assert_eq!(reason(1, 5, 8), Some(Reason::FailureRate));
    assert_eq!(reason(1, 4, 8), Some(Reason::SlowRate));
}

#[test]
fn cancelled_run_trips_at_number_and_span() {
    // The number of calls at one time, how much later the last one is, and the result.
    let trips = |minimum_calls, calls, wait| {
        let limits = TripLimits { minimum_calls, ..TRIP };
        let mut run = CancelledRun::default();
        (0..calls).for_each(|_| assert!(!run.record(&limits, SECOND), "they span no time"));
        run.record(&limits, SECOND + wait)
    };
    for (minimum_calls, number) in [(1, 1), (2, 2), (9, 9), (10, 10), (11, 10), (u32::MAX, 10)] {
        assert!(trips(minimum_calls, number.max(2) - 1, SECOND), "{minimum_calls}");
        assert!(number < 2 || !trips(minimum_calls, number - 2, SECOND), "one fewer than {number}");
        assert!(!trips(minimum_calls, number, SECOND - 1), "{minimum_calls}");
        assert!(!trips(minimum_calls, 0, SECOND), "a single call spans no time");
    }
}

#[test]
fn clock_running_back_restarts_span_of_cancelled_run() {
    let mut run = CancelledRun::default();
    (0..20).for_each(|_| assert!(!run.record(&TRIP, 100 * SECOND)));
    assert!(!run.record(&TRIP, 50 * SECOND));
    assert!(!run.record(&TRIP, 51 * SECOND - 1));
    assert!(run.record(&TRIP, 51 * SECOND));
}

#[test]
#[expect(clippy::float_cmp, reason = "these shares are exact in binary")]
fn counts_return_failure_rate_and_slow_rate() {
    let rates = |counts: Counts| [counts.failure_rate(), counts.slow_rate()];
    assert_eq!(rates(Counts { calls: 8, failures: 2, slow: 6, cancelled: 3 }), [0.25, 0.75]);
    assert_eq!(rates(Counts { calls: 3, failures: 3, slow: 0, cancelled: 0 }), [1.0, 0.0]);
    assert_eq!(rates(Counts { cancelled: 3, ..Counts::default() }), [0.0, 0.0], "no calls");
}

#[test]
fn circuit_states_have_names_and_is_open() {
    for (state, name, open) in [
        (CircuitState::Closed, "closed", false),
        (CircuitState::Open, "open", true),
        (CircuitState::HalfOpen, "half_open", false),
        (CircuitState::ForcedOpen, "forced_open", true),
        (CircuitState::ForcedClosed, "forced_closed", false),
        (CircuitState::Disabled, "disabled", false),
    ] {
        assert_eq!((state.as_str(), state.is_open()), (name, open));
        assert_eq!(state.to_string(), name);
    }
}

#[test]
fn cancelled_policies_have_names_in_snake_case() {
    for (policy, name) in [
        (CancelledPolicy::IfNoneCompletes, "if_none_completes"),
        (CancelledPolicy::Ignore, "ignore"),
        (CancelledPolicy::Failure, "failure"),
        (CancelledPolicy::FailureAfter(Duration::from_secs(1)), "failure_after"),
    ] {
        assert_eq!(policy.as_str(), name);
        assert_eq!(policy.to_string(), name);
    }
}

#[test]
fn health_reports_have_names_in_snake_case() {
    for (report, name) in [(HealthReport::Critical, "critical"), (HealthReport::Recovered, "recovered")] {
        assert_eq!(report.as_str(), name);
        assert_eq!(report.to_string(), name);
    }
}

#[test]
fn transition_reasons_have_names_in_snake_case() {
    for (reason, name) in [
        (Reason::ConsecutiveFailures, "consecutive_failures"),
        (Reason::FailureRate, "failure_rate"),
        (Reason::SlowRate, "slow_rate"),
        (Reason::NoneCompletes, "none_completes"),
        (Reason::OpenTimeOver, "open_time_over"),
        (Reason::ProbeFailed, "probe_failed"),
        (Reason::ProbeSlow, "probe_slow"),
        (Reason::ProbesSucceeded, "probes_succeeded"),
        (Reason::Tripped, "tripped"),
        (Reason::ProbeRequested, "probe_requested"),
        (Reason::Forced, "forced"),
        (Reason::Released, "released"),
        (Reason::OverrideEnded, "override_ended"),
        (Reason::Reset, "reset"),
        (Reason::Reconfigured, "reconfigured"),
        (Reason::ReportedCritical, "reported_critical"),
        (Reason::ReportedRecovered, "reported_recovered"),
    ] {
        assert_eq!(reason.as_str(), name);
        assert_eq!(reason.to_string(), name);
    }
}

#[test]
fn ticket_is_restored_from_its_word() {
    let now = 100 * SECOND;
    let mut state = half_open(now);
    let tickets = [(); 3].map(|()| probe(&mut state, now));
    for ticket in tickets {
        assert_ne!(ticket.word(), 0);
        assert_eq!(Ticket::from_word(ticket.word()), Some(ticket));
    }
    assert_eq!(Ticket::from_word(0), None);
}

#[test]
fn probe_that_does_not_begin_frees_its_slot() {
    let now = 100 * SECOND;
    let mut state = half_open(now);
    let tickets = [(); 3].map(|()| probe(&mut state, now));
    assert!(matches!(state.admit(now, &LIMITS).0, Decision::Denied(_)));
    state.release_probe(tickets[1]);
    state.release_probe(tickets[1]);
    probe(&mut state, now);
    assert!(matches!(state.admit(now, &LIMITS).0, Decision::Denied(_)), "one slot is freed, once");
}

#[test]
fn probe_duration_starts_with_its_lease() {
    let start = 100 * SECOND;
    let mut state = half_open(start);
    let tickets = [(); 3].map(|()| probe(&mut state, start));
    let duration = |state: &Machine, now| state.probe_duration(tickets[0], now, &LIMITS);
    assert_eq!(duration(&state, 107 * SECOND), Some(7 * SECOND));
    assert_eq!(duration(&state, 0), Some(0), "a clock that ran back");
    assert!(state.renew(tickets[0], 110 * SECOND, &LIMITS));
    assert_eq!(duration(&state, 112 * SECOND), Some(2 * SECOND));
    let now = 140 * SECOND;
    for _ in 0..3 {
        probe(&mut state, now);
    }
    assert_eq!(duration(&state, now), Some(30 * SECOND), "another probe holds its slot: the whole lease");
    assert_eq!(duration(&open(0), 0), None);
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

/// An event of the property test.
#[derive(Clone, Debug)]
enum Step {
    Admit,
    RecordOutcome(usize, Option<bool>),
    Wait(u64),
    /// The durations are in seconds.
    TripFor(u64),
    ForceFor(Force, u64),
    ProbeNow,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Admit),
        3 => (any::<usize>(), prop_oneof![Just(None), Just(Some(true)), Just(Some(true)), Just(Some(false))])
            .prop_map(|(which, outcome)| Step::RecordOutcome(which, outcome)),
        2 => (0..40_u64).prop_map(Step::Wait),
        1 => prop_oneof![
            (1..60_u64).prop_map(Step::TripFor),
            (1..60_u64).prop_map(|period| Step::ForceFor(Force::Open, period)),
            (1..60_u64).prop_map(|period| Step::ForceFor(Force::Closed, period)),
            Just(Step::ProbeNow),
            Just(Step::Release),
        ],
    ]
}

proptest! {
    /// Asserts two properties, for any sequence of events:
    ///
    /// - After enough time and successes, the circuit closes.
    /// - There are never more active leases than slots.
    #[test]
    fn machine_recovers_and_never_exceeds_probe_slots(
        steps in proptest::collection::vec(step(), 0..100),
        probes in 1_u32..5,
        successes_to_close in 1_u32..8,
    ) {
        let limits = RecoveryLimits { probes, successes_to_close, ..LIMITS };
        let mut now = 1_000 * SECOND;
        let mut state = Machine::new();
        state.trip(Reason::FailureRate, Some(&FAULT), at(now), &limits).unwrap();
        let mut round = 0;
        let mut running: Vec<(u32, Ticket, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(seconds) => now += seconds * SECOND,
                Step::Admit => {
                    let (admission, change) = state.admit(now, &limits);
                    round += u32::from(change.is_some());
                    if let Decision::Probe(ticket) = admission {
                        running.push((round, ticket, now + limits.probe_lease));
                    }
                    let leased = running.iter().filter(|(of, _, until)| *of == round && *until > now).count();
                    prop_assert!(leased <= probes as usize, "{leased} leases for {probes} slots");
                }
                Step::RecordOutcome(which, outcome) => if !running.is_empty() {
                    let (probe_round, ticket, _) = running.swap_remove(which % running.len());
                    let outcome = match outcome {
                        None => Outcome::Neutral,
                        Some(true) => Outcome::Success,
                        Some(false) => Outcome::Failure(&FAULT),
                    };
                    // `circuit/` passes on only the outcomes of the current round; it recognizes
                    // older ones by their epoch.
                    if probe_round == round && state.record_probe(ticket, outcome, at(now), &limits).is_some() {
                        running.clear();
                        round += 1;
                    }
                },
                step => {
                    let ended = state.end_override(now, &limits);
                    let effect = match step {
                        Step::TripFor(period) => state.trip_for(period * SECOND, now),
                        Step::ForceFor(force, period) => state.force(force, Some(now + period * SECOND)),
                        Step::ProbeNow => state.probe_now(&limits),
                        _ => Ok(state.release(&limits).into()),
                    };
                    round += u32::from(ended.is_some()) + u32::from(matches!(effect, Ok(Effect::Changed(_))));
                }
            }
            if state.state() == CircuitState::Closed {
                state.trip(Reason::FailureRate, Some(&FAULT), at(now), &limits).unwrap();
            }
        }
        for _ in 0..=successes_to_close {
            // Longer than the last period or override.
            now += 60 * SECOND + limits.open.initial.max(limits.probe_lease);
            if let (Decision::Probe(ticket), _) = state.admit(now, &limits) {
                state.record_probe(ticket, Outcome::Success, at(now), &limits);
            }
        }
        prop_assert!(state.state() == CircuitState::Closed, "{state:?}");
    }
}
