//! Half-open circuits: probes, their slots, leases and outcomes.

use super::*;

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
    state.release_probe(tickets[1], now);
    state.release_probe(tickets[1], now);
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
