//! The probe of `Command::Probe`, whose outcome the coordinator decides on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_breaker::control::ProbeOutcome::{Failure, Neutral, Success};
use tower_breaker::control::{Command, Effect, Signal};
use tower_breaker::{CancelledPolicy, Circuit, CircuitState, ManualClock, Permit, Reason, Verdict};

use super::{PROBE, epoch, open, opened, reason};
use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, SECOND, config, send, state};

const STARTED: Signal = Signal::ProbeStarted;

/// The signals of a circuit about probes.
struct Signals(Arc<Mutex<Vec<Signal>>>);

impl Signals {
    fn of(circuit: &Circuit) -> Self {
        let log = Arc::new(Mutex::new(Vec::new()));
        let signals = Arc::clone(&log);
        circuit.on_signal(move |signal| {
            if !matches!(signal, Signal::Failure | Signal::Demand) {
                signals.lock().unwrap().push(signal);
            }
        });
        Self(log)
    }

    fn take(&self) -> Vec<Signal> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Returns a circuit that a coordinator has half-opened.
fn led() -> (Circuit, ManualClock, Signals) {
    let (circuit, time) = opened(config());
    let signals = Signals::of(&circuit);
    assert_eq!(circuit.apply(PROBE), Effect::Changed);
    (circuit, time, signals)
}

#[test]
fn probe_command_admits_exactly_one_call() {
    let (circuit, _time, signals) = led();
    assert_eq!((state(&circuit), reason(&circuit)), (CircuitState::HalfOpen, Some(Reason::CommandedProbe)));
    assert_eq!(circuit.status().half_open.unwrap().probes, 1);
    let permit = circuit.try_acquire().unwrap();
    assert_eq!(signals.take(), [STARTED]);
    assert!(!send(&circuit, Verdict::Success));
    permit.record(Verdict::Success);
    assert_eq!(signals.take(), [Signal::ProbeCompleted(Success)]);
    assert!(!send(&circuit, Verdict::Success), "its probe is completed");
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
}

#[test]
fn probe_outcome_is_signalled_and_changes_no_state() {
    let cancelled: fn(Permit) = drop;
    let outcomes: [(fn(Permit), _); 6] = [
        (|permit| permit.record(Verdict::Success), Success),
        (|permit| permit.record(FAILURE), Failure),
        (|permit| permit.record_with_duration(Verdict::Success, 5 * SECOND), Failure),
        (|permit| permit.record(NEUTRAL), Neutral),
        (Permit::cancel, Neutral),
        (cancelled, Neutral),
    ];
    for (end, outcome) in outcomes {
        let (circuit, _time) = opened(config().slow_call_rate(5 * SECOND, 1.0));
        let signals = Signals::of(&circuit);
        circuit.apply(PROBE);
        end(circuit.try_acquire().unwrap());
        assert_eq!(signals.take(), [STARTED, Signal::ProbeCompleted(outcome)]);
        assert_eq!(reason(&circuit), Some(Reason::CommandedProbe), "{outcome:?}");
        assert_eq!(circuit.try_acquire().is_ok(), outcome == Neutral, "{outcome:?}");
    }
}

#[test]
fn cancelled_probe_is_signalled_as_its_policy_counts_it() {
    let after = CancelledPolicy::FailureAfter(SECOND);
    for (policy, ran, outcome) in [
        (CancelledPolicy::IfNoneCompletes, 9, Neutral),
        (CancelledPolicy::Ignore, 9, Neutral),
        (CancelledPolicy::Failure, 0, Failure),
        (after, 0, Neutral),
        (after, 1, Failure),
    ] {
        let (circuit, time) = opened(config().cancelled(policy));
        let signals = Signals::of(&circuit);
        circuit.apply(PROBE);
        let permit = circuit.try_acquire().unwrap();
        time.advance(ran * SECOND);
        drop(permit);
        assert_eq!(signals.take(), [STARTED, Signal::ProbeCompleted(outcome)], "{policy:?}");
    }
}

#[test]
fn cancelled_probes_of_coordinator_do_not_open_circuit() {
    let (circuit, _time, signals) = led();
    for _ in 0..20 {
        drop(circuit.try_acquire().unwrap());
    }
    assert_eq!((state(&circuit), signals.take().len()), (CircuitState::HalfOpen, 40));
    assert_eq!(circuit.status().half_open.unwrap().cancelled_probes, 0);
}

#[test]
fn probe_is_admitted_only_within_its_start_time() {
    let (circuit, time, signals) = led();
    circuit.try_acquire().unwrap().cancel();
    time.advance(Duration::from_nanos(999_999_999));
    let permit = circuit.try_acquire().unwrap();
    time.advance(Duration::from_nanos(1));
    permit.cancel();
    assert!(!send(&circuit, Verdict::Success), "the slot is free, but it is too late");
    assert_eq!(signals.take().len(), 4);
}

#[test]
fn circuit_continues_by_itself_after_remaining_time() {
    let (circuit, time, signals) = led();
    let before = epoch(&circuit);
    send(&circuit, Verdict::Success);
    signals.take();
    time.advance(10 * SECOND);
    assert_eq!(circuit.status().half_open.unwrap().probes, 3);
    let permits: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
    assert!(circuit.try_acquire().is_err());
    assert_eq!(epoch(&circuit), before, "it stays half-open");
    for permit in permits.into_iter().take(2) {
        permit.record(Verdict::Success);
    }
    assert_eq!(reason(&circuit), Some(Reason::ProbesSucceeded));
    assert_eq!(signals.take(), []);
}

#[test]
fn probe_running_after_remaining_time_counts_in_own_round() {
    let (circuit, time, signals) = led();
    let permit = circuit.try_acquire().unwrap();
    signals.take();
    time.advance(10 * SECOND);
    let others: Vec<_> = (0..2).map(|_| circuit.try_acquire().unwrap()).collect();
    assert!(circuit.try_acquire().is_err(), "the probe keeps its slot");
    permit.record(FAILURE);
    assert_eq!(reason(&circuit), Some(Reason::ProbeFailed));
    assert_eq!((circuit.status().retry_after, signals.take()), (Some(OPEN_FOR), vec![]));
    drop(others);
}

#[test]
fn repeated_probe_command_keeps_running_probe() {
    let (circuit, time, signals) = led();
    let before = epoch(&circuit);
    let permit = circuit.try_acquire().unwrap();
    time.advance(5 * SECOND);
    assert_eq!(circuit.apply(PROBE), Effect::Retimed);
    assert!(!send(&circuit, Verdict::Success), "the probe holds the slot");
    time.advance(9 * SECOND);
    permit.record(Verdict::Success);
    assert_eq!(signals.take(), [STARTED, Signal::ProbeCompleted(Success)]);
    assert_eq!(epoch(&circuit), before);
    assert_eq!(circuit.apply(PROBE), Effect::Changed, "its probe is completed");
    assert!(send(&circuit, Verdict::Success));
    assert_eq!(epoch(&circuit), before + 1);
}

#[test]
fn probe_command_replaces_round_of_circuit() {
    let (circuit, time) = opened(config());
    time.advance(12 * SECOND);
    let own = circuit.try_acquire().unwrap();
    let signals = Signals::of(&circuit);
    assert_eq!(circuit.apply(PROBE), Effect::Changed);
    own.record(FAILURE);
    assert_eq!((signals.take(), state(&circuit)), (vec![], CircuitState::HalfOpen));
}

#[test]
fn probe_of_earlier_epoch_signals_nothing() {
    let commands: [fn(&Circuit); 3] = [
        |circuit| assert_eq!(circuit.apply(open(10)), Effect::Changed),
        |circuit| assert_eq!(circuit.apply(Command::Close), Effect::Changed),
        |circuit| circuit.force_open().unwrap(),
    ];
    for command in commands {
        let ends: [fn(Permit); 3] = [|permit| permit.record(Verdict::Success), Permit::cancel, drop];
        for end in ends {
            let (circuit, _time, signals) = led();
            let permit = circuit.try_acquire().unwrap();
            command(&circuit);
            signals.take();
            let before = epoch(&circuit);
            end(permit);
            assert_eq!((signals.take(), epoch(&circuit)), (vec![], before));
        }
    }
}

#[test]
fn unadmitted_outcome_changes_nothing_in_round_of_coordinator() {
    let (circuit, time, signals) = led();
    let before = circuit.status();
    for _ in 0..10 {
        circuit.record(FAILURE);
        circuit.record(Verdict::Success);
        circuit.record_with_duration(Verdict::Success, Duration::ZERO);
    }
    let after = circuit.status();
    assert_eq!((after.half_open, after.state), (before.half_open, CircuitState::HalfOpen));
    assert_eq!((after.consecutive_failures, after.since_last_failure), (0, None));
    assert_eq!(signals.take(), []);
    time.advance(10 * SECOND);
    circuit.record(FAILURE);
    assert_eq!(reason(&circuit), Some(Reason::ProbeFailed), "the round is the circuit's own");
}

#[test]
fn probe_that_outlives_its_lease_is_signalled_once() {
    let (circuit, time) = opened(config().probe_lease(SECOND / 2));
    let signals = Signals::of(&circuit);
    circuit.apply(PROBE);
    let late = circuit.try_acquire().unwrap();
    assert!(circuit.try_acquire().is_err());
    time.advance(SECOND / 2);
    let second = circuit.try_acquire().unwrap();
    assert_eq!(signals.take(), [STARTED, STARTED]);
    late.record(NEUTRAL);
    assert_eq!(signals.take(), [], "the second probe holds the slot");
    second.record(FAILURE);
    assert_eq!(signals.take(), [Signal::ProbeCompleted(Failure)]);
    assert!(circuit.try_acquire().is_err());
}

#[test]
fn observing_circuit_signals_its_probe() {
    let (circuit, _time) = opened(config().mode(tower_breaker::Mode::ObserveOnly));
    let signals = Signals::of(&circuit);
    circuit.apply(PROBE);
    assert!(send(&circuit, Verdict::Success) && send(&circuit, FAILURE));
    assert_eq!(signals.take(), [STARTED, Signal::ProbeCompleted(Success)]);
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
}
