//! Snapshots, and their restore in another process.

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::control::Command;

const GROWING: RecoveryLimits = RecoveryLimits {
    open: OpenDuration { multiplier: 2.0, max: 240 * SECOND, ..OpenDuration::constant(30 * SECOND) },
    successes_to_close: 1,
    ..LIMITS
};

const UNTIL_RESET: RecoveryLimits =
    RecoveryLimits { open: OpenDuration { until_reset: true, ..LIMITS.open }, ..LIMITS };

/// The time of the new process. Its clock has another origin.
const RESTARTED: u64 = 5 * SECOND;

/// The longest open time of [`LIMITS`]: the longest delay of a server.
const LONGEST: u64 = 300 * SECOND;

fn restored(saved: &Saved, limits: &RecoveryLimits) -> (Machine, Option<Change>) {
    let mut machine = Machine::new();
    let change = machine.restore(saved, RESTARTED, limits);
    (machine, change)
}

fn state_of(state: CircuitState, remaining: Option<u64>) -> Saved {
    Saved { state, remaining, ..Saved::default() }
}

#[test]
fn open_circuit_stays_open_for_its_remaining_time() {
    let saved = open(100 * SECOND).save(110 * SECOND);
    let streak = SavedStreak { count: 1, last_period: 30 * SECOND, ends_in: None };
    assert_eq!(saved, Saved { streak, ..state_of(CircuitState::Open, Some(20 * SECOND)) });
    let (machine, change) = restored(&saved, &LIMITS);
    let expected = Change { from: CircuitState::Closed, to: CircuitState::Open, reason: Reason::Restored };
    assert_eq!((opened_until(&machine), change), (RESTARTED + 20 * SECOND, Some(expected)));
}

#[test]
fn half_open_circuit_is_open_with_its_time_over() {
    let saved = half_open(100 * SECOND).save(100 * SECOND);
    assert_eq!((saved.state, saved.remaining), (CircuitState::HalfOpen, None));
    let (mut machine, change) = restored(&saved, &LIMITS);
    assert_eq!(change.unwrap().to, CircuitState::Open);
    let (decision, change) = machine.admit(RESTARTED, &LIMITS);
    assert!(matches!(decision, Decision::Probe(_)));
    assert_eq!(change.unwrap().reason, Reason::OpenTimeOver);
}

#[test]
fn closed_and_disabled_circuit_do_not_change() {
    for (machine, state) in [
        (Machine::new(), CircuitState::Closed),
        (slow_start(100 * SECOND), CircuitState::Closed),
        (disabled(Machine::new()), CircuitState::Disabled),
    ] {
        let saved = machine.save(101 * SECOND);
        assert_eq!(saved.state, state);
        let (machine, change) = restored(&saved, &LIMITS);
        assert_eq!((machine.published_state(), change), (State::Closed { slow_start: false }, None));
    }
}

fn disabled(mut machine: Machine) -> Machine {
    machine.set_disabled(true);
    machine
}

#[test]
fn manual_override_stays_in_force_for_its_remaining_time() {
    for (force, state) in
        [(Force::Open, CircuitState::ForcedOpen), (Force::Closed, CircuitState::ForcedClosed)]
    {
        assert_eq!(forced(force).save(SECOND), state_of(state, None));
        let saved = forced_until(force, 90 * SECOND).save(60 * SECOND);
        assert_eq!(saved, state_of(state, Some(30 * SECOND)));
        let (mut machine, change) = restored(&saved, &LIMITS);
        assert_eq!(change.unwrap().to, state);
        let end = RESTARTED + 30 * SECOND;
        assert!(machine.end_override(end - 1, &LIMITS).is_none());
        assert_eq!(machine.end_override(end, &LIMITS).unwrap().reason, Reason::OverrideEnded);
    }
}

#[test]
fn manual_override_precedes_configuration_that_disables() {
    let saved = forced(Force::Open).save(SECOND);
    let mut machine = disabled(Machine::new());
    machine.restore(&saved, RESTARTED, &LIMITS).unwrap();
    assert_eq!(machine.state(), CircuitState::ForcedOpen);
    machine.release(&LIMITS).unwrap();
    assert_eq!(machine.state(), CircuitState::Disabled);
    for saved in [open(SECOND).save(SECOND), half_open(100 * SECOND).save(100 * SECOND)] {
        let mut machine = disabled(Machine::new());
        assert_eq!(machine.restore(&saved, RESTARTED, &LIMITS), None);
        assert_eq!(machine.state(), CircuitState::Disabled);
    }
}

#[test]
fn open_time_is_limited_by_configuration() {
    let open_for = |remaining, limits| {
        restored(&state_of(CircuitState::Open, remaining), limits).0.open_remaining(RESTARTED)
    };
    assert_eq!(open_for(Some(LONGEST - 1), &LIMITS), Some(LONGEST - 1));
    assert_eq!(open_for(Some(u64::MAX), &LIMITS), Some(LONGEST));
    assert_eq!(open_for(None, &LIMITS), Some(LONGEST), "the circuit has an open time now");
    assert_eq!(open_for(None, &UNTIL_RESET), None);
    assert_eq!(open_for(Some(SECOND), &UNTIL_RESET), Some(SECOND), "a deadline stays, as at a reconfigure");
    let no_hint = OpenDuration { max_retry_after: 0, jitter: 0.5, ..GROWING.open };
    assert_eq!(open_for(None, &RecoveryLimits { open: no_hint, ..LIMITS }), Some(360 * SECOND));
}

#[test]
fn streak_ends_in_every_case() {
    let hostile = |state, count, last_period, ends_in| Saved {
        streak: SavedStreak { count, last_period, ends_in },
        ..state_of(state, Some(0))
    };
    let max = Some(u64::MAX);
    for saved in [
        hostile(CircuitState::Closed, u32::MAX, u64::MAX, max),
        hostile(CircuitState::Closed, 1, u64::MAX, None),
        hostile(CircuitState::Open, u32::MAX, u64::MAX, max),
        hostile(CircuitState::ForcedOpen, 7, 0, max),
    ] {
        let (mut machine, _) = restored(&saved, &GROWING);
        if machine.state() != CircuitState::Closed {
            machine.release(&GROWING);
            let (Decision::Probe(ticket), _) = machine.admit(RESTARTED, &GROWING) else {
                panic!("{saved:?}")
            };
            machine.record_probe(ticket, Outcome::Success, at(RESTARTED), &GROWING).unwrap();
        }
        assert_eq!(machine.state(), CircuitState::Closed);
        let later = RESTARTED + LONGEST;
        machine.trip(Reason::FailureRate, None, at(later), &GROWING).unwrap();
        assert_eq!(machine.open_remaining(later), Some(30 * SECOND), "{saved:?}");
    }
}

/// An operation on a machine.
#[derive(Clone, Copy, Debug)]
enum Step {
    Advance(u64),
    Trip,
    TripFor(u64),
    Probe(bool),
    Reset,
    Force(Force, Option<u64>),
    Release,
    Disable(bool),
    Command(Command),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let force = prop_oneof![Just(Force::Open), Just(Force::Closed)];
    let step = prop_oneof![
        4 => (0..200_u64).prop_map(|seconds| Step::Advance(seconds * SECOND)),
        4 => Just(Step::Trip),
        1 => (1..100_u64).prop_map(|seconds| Step::TripFor(seconds * SECOND)),
        4 => any::<bool>().prop_map(Step::Probe),
        1 => Just(Step::Reset),
        1 => (force, prop::option::of(0..100 * SECOND)).prop_map(|(force, period)| Step::Force(force, period)),
        1 => Just(Step::Release),
        1 => any::<bool>().prop_map(Step::Disable),
        2 => commands().prop_map(Step::Command),
    ];
    prop::collection::vec(step, 0..30)
}

/// Commands that a circuit follows on its own after they end: a snapshot contains no takeover.
fn commands() -> impl Strategy<Value = Command> {
    let seconds = || (0..100_u64).prop_map(Duration::from_secs);
    let takeover = Duration::ZERO;
    prop_oneof![
        seconds().prop_map(move |remaining| Command::Open { remaining: Some(remaining), takeover }),
        (seconds(), seconds())
            .prop_map(|(start_within, remaining)| Command::Probe { start_within, remaining }),
        Just(Command::Close),
    ]
}

fn apply(machine: &mut Machine, step: Step, now: &mut u64) {
    let at = at(*now);
    match step {
        Step::Advance(time) => *now += time,
        Step::Trip => drop(machine.trip(Reason::FailureRate, Some(&FAULT), at, &GROWING)),
        Step::TripFor(period) => drop(machine.trip_for(period, *now)),
        Step::Probe(success) => {
            if let (Decision::Probe(ticket), _) = machine.admit(*now, &GROWING) {
                let outcome = if success { Outcome::Success } else { Outcome::Failure(&FAULT) };
                machine.record_probe(ticket, outcome, at, &GROWING);
            }
        }
        Step::Reset => drop(machine.reset()),
        Step::Force(force, period) => drop(machine.force(force, period.map(|period| *now + period))),
        Step::Release => drop(machine.release(&GROWING)),
        Step::Disable(disabled) => drop(machine.set_disabled(disabled)),
        Step::Command(command) => drop(machine.command(command, *now, &GROWING)),
    }
}

proptest! {
    /// A machine that is restored differs from the original only as documented, and its next open
    /// period is as long.
    #[test]
    fn restored_machine_continues_as_original(history in steps(), later in 0..400 * SECOND) {
        let (mut original, mut now) = (Machine::new(), 1_000 * SECOND);
        for step in history {
            apply(&mut original, step, &mut now);
        }
        let saved = original.save(now);
        let mut copy = Machine::new();
        copy.set_disabled(original.disabled);
        let change = copy.restore(&saved, RESTARTED, &GROWING);

        let expected = match original.state() {
            CircuitState::HalfOpen => Saved { state: CircuitState::Open, remaining: Some(0), ..saved },
            _ => saved,
        };
        prop_assert_eq!(copy.save(RESTARTED), expected);
        let unchanged = matches!(original.state(), CircuitState::Closed | CircuitState::Disabled);
        prop_assert_eq!(change.is_none(), unchanged);

        if original.is_led(now) {
            // No coordinator leads the copy.
            return Ok(());
        }
        // Both continue after the same time: they close unless they are disabled, and open again.
        let reopened = |mut machine: Machine, now: u64| {
            machine.release(&GROWING);
            apply(&mut machine, Step::Probe(true), &mut { now });
            machine.trip(Reason::FailureRate, Some(&FAULT), at(now + later), &GROWING);
            machine.open_remaining(now + later)
        };
        let ended = original.half_open_if_due(now, &GROWING);
        prop_assert!(ended.is_none() || original.state() == CircuitState::HalfOpen);
        prop_assert_eq!(reopened(copy, RESTARTED), reopened(original, now));
    }
}
