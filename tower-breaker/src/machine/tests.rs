use std::time::Duration;

use proptest::prelude::*;
use tower_fault_classify::{Origin, Retryable};

use super::trip::reaches;
use super::*;

const SECOND: u64 = 1_000_000_000;

const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);

const TRIP: TripLimits = TripLimits {
    consecutive_failures: 5,
    failure_rate: Some(0.5),
    slow: None,
    minimum_calls: 10,
    cancelled: Cancelled::IfNoneCompletes,
};

const LIMITS: RecoveryLimits = RecoveryLimits {
    open: OpenDuration::constant(30 * SECOND),
    probes: 3,
    successes_to_close: 2,
    probe_lease: 30 * SECOND,
    slow_start: 0,
};

fn at(now: u64) -> Moment {
    Moment { now, draw: 0.0 }
}

fn rate(limits: &TripLimits, failures: u64, calls: u64) -> Option<Reason> {
    trip_reason(
        limits,
        &Sample { consecutive_failures: 1, window: Some(Counts { calls, failures, ..Counts::default() }) },
    )
}

fn open(now: u64) -> Machine {
    let mut state = Machine::new();
    state.trip(Reason::FailureRate, Some(&FAULT), at(now), &LIMITS).unwrap();
    state
}

fn half_open(now: u64) -> Machine {
    let mut state = open(now - LIMITS.open.initial);
    let (Decision::Probe(ticket), Some(_)) = state.admit(now, &LIMITS) else { panic!("it half-opens") };
    state.record_probe(ticket, Outcome::Neutral, at(now), &LIMITS);
    state
}

fn probe(state: &mut Machine, now: u64) -> Ticket {
    match state.admit(now, &LIMITS) {
        (Decision::Probe(ticket), None) => ticket,
        other => panic!("a free place was expected, not {other:?}"),
    }
}

#[test]
fn the_run_trips_at_the_limit_and_not_one_before_or_after() {
    let reason = |consecutive_failures| trip_reason(&TRIP, &Sample { consecutive_failures, window: None });
    assert_eq!(reason(4), None);
    assert_eq!(reason(5), Some(Reason::ConsecutiveFailures));
    assert_eq!(reason(6), Some(Reason::ConsecutiveFailures));
    let off = TripLimits { consecutive_failures: 0, ..TRIP };
    assert_eq!(trip_reason(&off, &Sample { consecutive_failures: u64::MAX, window: None }), None);
}

#[test]
fn the_rate_trips_at_the_limit_from_the_minimum_on() {
    assert_eq!(rate(&TRIP, 5, 10), Some(Reason::FailureRate));
    assert_eq!(rate(&TRIP, 4, 10), None);
    assert_eq!(rate(&TRIP, 9, 9), None, "below the minimum");
    assert_eq!(rate(&TripLimits { failure_rate: None, ..TRIP }, 10, 10), None);
}

#[test]
fn decimal_rates_are_met_exactly() {
    for percent in 1..=100_u64 {
        let decimal = format!("{}.{:02}", percent / 100, percent % 100);
        let limits = TripLimits { failure_rate: decimal.parse().ok(), ..TRIP };
        assert_eq!(rate(&limits, percent, 100), Some(Reason::FailureRate), "{percent} of 100");
        assert_eq!(rate(&limits, percent - 1, 100), None, "{percent} of 100, less one");
    }
}

#[test]
fn a_rate_of_zero_trips_on_the_first_failure_and_never_without_one() {
    let limits = TripLimits { failure_rate: Some(0.0), ..TRIP };
    assert_eq!(rate(&limits, 1, 1_000_000), Some(Reason::FailureRate));
    assert_eq!(rate(&limits, 0, 1_000_000), None);
}

#[test]
fn nobody_looks_at_the_window_while_its_failures_cannot_reach_the_rate() {
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
fn an_open_circuit_refuses_until_its_time_is_over() {
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
fn the_servers_delay_lengthens_the_open_time_up_to_its_cap_and_never_shortens_it() {
    let opened_for = |fault: Fault| {
        let mut state = Machine::new();
        state.trip(Reason::FailureRate, Some(&fault), at(0), &LIMITS).unwrap();
        match state.published_state() {
            State::OpenUntil(until) => until / SECOND,
            other => panic!("it is open, not {other:?}"),
        }
    };
    assert_eq!(opened_for(FAULT.with_retry_after(Duration::from_secs(1))), 30);
    assert_eq!(opened_for(FAULT.with_retry_after(Duration::from_secs(90))), 90);
    assert_eq!(opened_for(FAULT.with_retry_after(Duration::MAX)), 300);
    let ours = FAULT.with_kind(Kind::Rejected).with_retry_after(Duration::from_secs(90));
    assert_eq!(opened_for(ours), 30);
}

#[test]
fn only_so_many_probes_run_at_once_and_each_gives_its_place_back() {
    let mut state = half_open(100 * SECOND);
    let tickets: Vec<_> = (0..3).map(|_| probe(&mut state, 100 * SECOND)).collect();
    assert_eq!(state.admit(101 * SECOND, &LIMITS).0, Decision::Denied(Some(29 * SECOND)));
    state.record_probe(tickets[1], Outcome::Neutral, at(101 * SECOND), &LIMITS);
    probe(&mut state, 101 * SECOND);
    assert!(matches!(state.admit(101 * SECOND, &LIMITS).0, Decision::Denied(_)));
}

#[test]
fn a_place_is_free_again_when_its_lease_ends_and_only_once() {
    let mut state = half_open(100 * SECOND);
    let hung: Vec<_> = (0..3).map(|_| probe(&mut state, 100 * SECOND)).collect();
    let end = 130 * SECOND;
    let successors: Vec<_> = (0..3).map(|_| probe(&mut state, end)).collect();
    for ticket in hung {
        state.record_probe(ticket, Outcome::Neutral, at(end), &LIMITS);
    }
    assert!(matches!(state.admit(end, &LIMITS).0, Decision::Denied(_)), "the slots are the successors'");
    state.record_probe(successors[0], Outcome::Neutral, at(end), &LIMITS);
    probe(&mut state, end);
}

#[test]
fn a_late_probe_of_the_same_round_still_counts() {
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
fn any_failed_probe_opens_again_for_the_whole_time() {
    let mut state = half_open(100 * SECOND);
    let first = probe(&mut state, 100 * SECOND);
    let second = probe(&mut state, 100 * SECOND);
    assert_eq!(state.record_probe(first, Outcome::Success, at(110 * SECOND), &LIMITS), None);
    let change = state.record_probe(second, Outcome::Failure(&FAULT), at(110 * SECOND), &LIMITS).unwrap();
    assert_eq!((change.to, change.reason), (CircuitState::Open, Reason::ProbeFailed));
    assert_eq!(state.admit(110 * SECOND, &LIMITS), (Decision::Denied(Some(30 * SECOND)), None));
}

#[test]
fn a_lease_is_renewed_while_it_runs() {
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

/// What can happen to a half-open circuit.
#[derive(Clone, Debug)]
enum Step {
    Admit,
    RecordOutcome(usize, Option<bool>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Admit),
        3 => (any::<usize>(), prop_oneof![Just(None), Just(Some(true)), Just(Some(true)), Just(Some(false))])
            .prop_map(|(which, outcome)| Step::RecordOutcome(which, outcome)),
        2 => (0..40_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happened, given time and successes the circuit closes; and never are more leases alive than slots.
    #[test]
    fn it_never_wedges_and_never_admits_more_than_its_places(
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
                    prop_assert!(leased <= probes as usize, "{leased} leases for {probes} places");
                }
                Step::RecordOutcome(which, outcome) => if !running.is_empty() {
                    let (of, ticket, _) = running.swap_remove(which % running.len());
                    let outcome = match outcome {
                        None => Outcome::Neutral,
                        Some(true) => Outcome::Success,
                        Some(false) => Outcome::Failure(&FAULT),
                    };
                    // The circuit hears of probes of the round that runs; older ones it knows by their epoch.
                    if of == round && state.record_probe(ticket, outcome, at(now), &limits).is_some() {
                        running.clear();
                        round += 1;
                    }
                },
            }
            if state.state() == CircuitState::Closed {
                state.trip(Reason::FailureRate, Some(&FAULT), at(now), &limits).unwrap();
            }
        }
        for _ in 0..=successes_to_close {
            now += limits.open.initial.max(limits.probe_lease);
            if let (Decision::Probe(ticket), _) = state.admit(now, &limits) {
                state.record_probe(ticket, Outcome::Success, at(now), &limits);
            }
        }
        prop_assert!(state.state() == CircuitState::Closed, "{state:?}");
    }
}
