//! A property of every sequence of events.

use proptest::prelude::*;

use super::*;

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
