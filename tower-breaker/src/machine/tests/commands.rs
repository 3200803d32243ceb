//! The commands of a coordinator, compared with a naive model.

mod naive;

use proptest::prelude::*;

use super::*;
use crate::control::Command;
use naive::{Admitted, Naive, Running};

/// The limits of the test. Its times are whole seconds.
const LIMITS: RecoveryLimits = RecoveryLimits {
    open: OpenDuration::constant(30 * SECOND),
    probes: 2,
    successes_to_close: 2,
    probe_lease: 4 * SECOND,
    slow_start: SlowStartKind::Off,
};
/// The cancelled probes that open the circuit.
const MOST_CANCELLED: u32 = 3;

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Success,
    Failure,
    Neutral,
    Cancelled,
    /// It did not begin.
    Released,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Command(Command),
    Trip,
    Force(Force),
    Release,
    Admit,
    End(usize, End),
    Unadmitted(End),
    Wait(u64),
}

fn seconds(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn step() -> impl Strategy<Value = Step> {
    let open = (proptest::option::weighted(0.9, seconds(0..20)), seconds(0..5))
        .prop_map(|(remaining, takeover)| Command::Open { remaining, takeover });
    let probe = (seconds(0..8), seconds(0..12))
        .prop_map(|(start_within, remaining)| Command::Probe { start_within, remaining });
    let end = prop_oneof![
        3 => Just(End::Success),
        2 => Just(End::Failure),
        1 => Just(End::Neutral),
        2 => Just(End::Cancelled),
        1 => Just(End::Released),
    ];
    let outcome = prop_oneof![Just(End::Success), Just(End::Failure), Just(End::Neutral)];
    prop_oneof![
        3 => open.prop_map(Step::Command),
        5 => probe.prop_map(Step::Command),
        1 => Just(Step::Command(Command::Close)),
        1 => Just(Step::Trip),
        1 => prop_oneof![Just(Force::Open), Just(Force::Closed)].prop_map(Step::Force),
        2 => Just(Step::Release),
        8 => Just(Step::Admit),
        8 => (any::<usize>(), end).prop_map(|(which, end)| Step::End(which, end)),
        2 => outcome.prop_map(Step::Unadmitted),
        5 => (0..6_u64).prop_map(Step::Wait),
    ]
}

/// The machine and the naive model, with the calls that run.
struct Both {
    machine: Machine,
    naive: Naive,
    running: Vec<(u32, Ticket, Running)>,
    epoch: u32,
    now: u64,
}

impl Both {
    fn new() -> Self {
        Self { machine: Machine::new(), naive: Naive::default(), running: vec![], epoch: 0, now: 100 }
    }

    fn at(&self) -> Moment {
        at(self.now * SECOND)
    }

    fn began_epoch(&mut self, change: Option<Change>) {
        self.epoch += u32::from(change.is_some());
    }

    fn command(&mut self, command: Command) -> Result<(), TestCaseError> {
        let effect = self.machine.command(command, self.now * SECOND, &LIMITS);
        let expected = self.naive.command(command, self.now);
        if let Ok(Effect::Changed(change)) = effect {
            self.began_epoch(Some(change));
        }
        let effect = effect.map(|effect| match effect {
            Effect::Unchanged => "unchanged",
            Effect::Retimed => "retimed",
            Effect::Changed(_) => "changed",
        });
        prop_assert_eq!(effect.unwrap_or("overridden"), expected);
        Ok(())
    }

    fn admit(&mut self) -> Result<(), TestCaseError> {
        let (decision, change) = self.machine.admit(self.now * SECOND, &LIMITS);
        self.began_epoch(change);
        match (decision, self.naive.admit(self.now)) {
            (Decision::Probe(ticket), Admitted::Probe(running)) => {
                self.running.push((self.epoch, ticket, running));
            }
            (Decision::Denied(left), Admitted::Denied(seconds)) => {
                prop_assert_eq!(left.map(|left| left / SECOND), seconds);
            }
            (Decision::Admitted | Decision::Uncounted, Admitted::NoProbe) => {}
            (decision, expected) => prop_assert!(false, "{decision:?}, not {expected:?}"),
        }
        Ok(())
    }

    fn end(&mut self, which: usize, end: End) {
        if self.running.is_empty() {
            return;
        }
        let (epoch, ticket, running) = self.running.swap_remove(which % self.running.len());
        // `circuit/` discards the outcomes of earlier epochs.
        if epoch != self.epoch {
            return;
        }
        let at = self.at();
        let change = match end {
            End::Success => self.machine.record_probe(ticket, Outcome::Success, at, &LIMITS),
            End::Failure => self.machine.record_probe(ticket, Outcome::Failure(&FAULT), at, &LIMITS),
            End::Neutral => self.machine.record_probe(ticket, Outcome::Neutral, at, &LIMITS),
            End::Cancelled => self.machine.record_cancelled_probe(ticket, MOST_CANCELLED, at, &LIMITS),
            End::Released => {
                self.machine.release_probe(ticket, at.now);
                None
            }
        };
        self.began_epoch(change);
        self.naive.end(running, end, self.now);
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let at = self.at();
        let change = match step {
            Step::Command(command) => return self.command(command),
            Step::Admit => return self.admit(),
            Step::End(which, end) => {
                self.end(which, end);
                None
            }
            Step::Wait(seconds) => {
                self.now += seconds;
                None
            }
            Step::Trip => {
                self.naive.trip(self.now);
                self.machine.trip(Reason::FailureRate, Some(&FAULT), at, &LIMITS)
            }
            Step::Force(force) => {
                self.naive.force(force);
                match self.machine.force(force, None) {
                    Ok(Effect::Changed(change)) => Some(change),
                    _ => None,
                }
            }
            Step::Release => {
                self.naive.release();
                self.machine.release(&LIMITS)
            }
            Step::Unadmitted(end) => {
                self.naive.unadmitted(end, self.now);
                let outcome = match end {
                    End::Success => Outcome::Success,
                    End::Failure => Outcome::Failure(&FAULT),
                    _ => Outcome::Neutral,
                };
                self.machine.record_unadmitted(outcome, at, &LIMITS)
            }
        };
        self.began_epoch(change);
        Ok(())
    }
}

#[test]
fn half_open_circuit_that_waits_again_continues_its_open_period() {
    let open = OpenDuration { multiplier: 2.0, max: 60 * SECOND, ..OpenDuration::constant(SECOND) };
    let limits = RecoveryLimits { open, ..LIMITS };
    let mut machine = Machine::new();
    machine.trip(Reason::FailureRate, Some(&FAULT), at(0), &limits).unwrap();
    let (start_within, remaining) = (Duration::from_secs(1), Duration::from_secs(5));
    for now in 1..6 {
        let now = now * SECOND;
        machine.command(Command::Probe { start_within, remaining }, now, &limits).unwrap();
        let wait = Command::Open { remaining: Some(Duration::ZERO), takeover: remaining };
        machine.command(wait, now, &limits).unwrap();
    }
    assert_eq!(machine.next_open_period(at(6 * SECOND), &limits), Some(2 * SECOND));
    machine.command(Command::Close, 6 * SECOND, &limits).unwrap();
    assert_eq!(machine.next_open_period(at(6 * SECOND), &limits), Some(2 * SECOND));
    assert_eq!(machine.next_open_period(at(7 * SECOND), &limits), Some(SECOND));
}

proptest! {
    #[test]
    fn machine_with_commands_equals_naive_model(steps in proptest::collection::vec(step(), 0..60)) {
        let mut both = Both::new();
        for step in steps {
            both.run(step)?;
            let now = both.now * SECOND;
            prop_assert_eq!(both.machine.state(), both.naive.state());
            prop_assert_eq!(both.machine.take_signal(), both.naive.take_signal());
            prop_assert_eq!(both.machine.is_led(now), both.naive.is_led(both.now));
            let remaining = both.machine.open_remaining(now).map(|left| left / SECOND);
            prop_assert_eq!(remaining, both.naive.open_remaining(both.now));
            let running = both.machine.half_open_progress(now, &LIMITS).map(|progress| progress.running_probes);
            prop_assert_eq!(running, both.naive.running_probes(both.now));
        }
    }

    /// A circuit whose coordinator sends no more commands recovers by its own rules, unless it was
    /// opened without an end.
    #[test]
    fn circuit_recovers_without_coordinator(steps in proptest::collection::vec(step(), 0..60)) {
        let mut both = Both::new();
        for step in steps {
            both.run(step)?;
        }
        both.machine.release(&LIMITS);
        if both.machine.published_state() == State::OpenIndefinitely {
            return Ok(());
        }
        for _ in 0..2 * LIMITS.successes_to_close {
            both.now += 100;
            if let (Decision::Probe(ticket), _) = both.machine.admit(both.now * SECOND, &LIMITS) {
                both.machine.record_probe(ticket, Outcome::Success, both.at(), &LIMITS);
            }
        }
        prop_assert_eq!(both.machine.state(), CircuitState::Closed);
    }
}
