//! Commands of a coordinator: `Circuit::apply`.

mod creation;
mod probes;
mod signals;

use std::time::Duration;

use tower_breaker::control::{Command, Effect};
use tower_breaker::{
    BreakerConfigBuilder, Circuit, CircuitState, HealthReport, ManualClock, Mode, Reason, Verdict,
};

use crate::support::{FAILURE, OPEN_FOR, SECOND, circuit, config, send, state};

const TAKEOVER: Duration = Duration::from_secs(2);
const NOW: Duration = Duration::ZERO;

fn open(seconds: u32) -> Command {
    Command::Open { remaining: Some(seconds * SECOND), takeover: TAKEOVER }
}

/// A probe that must start within a second, for ten seconds.
const PROBE: Command = Command::Probe { start_within: SECOND, remaining: Duration::from_secs(10) };

/// Returns a circuit that a coordinator has opened for ten seconds.
fn opened(config: BreakerConfigBuilder) -> (Circuit, ManualClock) {
    let (circuit, time) = circuit(config);
    assert_eq!(circuit.apply(open(10)), Effect::Changed);
    (circuit, time)
}

fn reason(circuit: &Circuit) -> Option<Reason> {
    circuit.status().last_transition.map(|transition| transition.reason)
}

fn epoch(circuit: &Circuit) -> u32 {
    circuit.status().last_transition.map_or(0, |transition| transition.epoch)
}

fn retry_after(circuit: &Circuit) -> Option<Duration> {
    circuit.try_acquire().unwrap_err().retry_after()
}

#[test]
fn override_count_grows_with_each_override() {
    let (circuit, time) = circuit(config());
    assert_eq!(circuit.override_count(), 0);
    circuit.force_open().unwrap();
    let forced = epoch(&circuit);
    circuit.force_open().unwrap();
    circuit.force_open_for(SECOND).unwrap();
    assert_eq!((circuit.override_count(), epoch(&circuit)), (3, forced));
    time.advance(SECOND);
    assert!(send(&circuit, Verdict::Success));
    circuit.force_closed().unwrap();
    circuit.release();
    circuit.trip().unwrap();
    assert_eq!(circuit.override_count(), 4);
    let disabled = circuit.config().to_builder().mode(Mode::Disabled).build().unwrap();
    circuit.reconfigure(disabled).unwrap();
    assert!(circuit.force_open().is_err());
    assert_eq!(circuit.override_count(), 4);
}

#[test]
fn open_rejects_calls_until_takeover_is_over() {
    let (circuit, time) = opened(config());
    assert_eq!((state(&circuit), reason(&circuit)), (CircuitState::Open, Some(Reason::CommandedOpen)));
    time.advance(Duration::from_nanos(11_999_999_999));
    assert!(!send(&circuit, Verdict::Success));
    time.advance(Duration::from_nanos(1));
    assert!(send(&circuit, Verdict::Success));
    assert_eq!((state(&circuit), reason(&circuit)), (CircuitState::HalfOpen, Some(Reason::OpenTimeOver)));
    assert_eq!(circuit.status().half_open.unwrap().probes, 3, "the round is the circuit's own");
}

#[test]
fn retry_after_shows_remaining_without_takeover() {
    let (circuit, time) = opened(config());
    for (passed, status, rejection) in [(0, 10, 10), (9, 1, 1), (1, 0, 1), (1, 0, 1)] {
        time.advance(passed * SECOND);
        assert_eq!(circuit.status().retry_after, Some(status * SECOND));
        assert_eq!(retry_after(&circuit), Some(rejection * SECOND));
        assert_eq!(circuit.status().rejects_calls(), status > 0);
    }
    time.advance(SECOND / 4);
    assert_eq!(retry_after(&circuit), Some(SECOND * 3 / 4), "the takeover ends earlier");
}

#[test]
fn open_without_end_waits_for_another_command() {
    let (circuit, time) = circuit(config());
    assert_eq!(circuit.apply(Command::Open { remaining: None, takeover: TAKEOVER }), Effect::Changed);
    time.advance(1_000_000 * SECOND);
    assert_eq!((circuit.status().retry_after, retry_after(&circuit)), (None, None));
    assert_eq!(circuit.apply(Command::Open { remaining: None, takeover: NOW }), Effect::Unchanged);
    assert_eq!(circuit.apply(open(1)), Effect::Retimed);
    assert_eq!(retry_after(&circuit), Some(SECOND));
    assert_eq!(circuit.apply(Command::Open { remaining: None, takeover: NOW }), Effect::Retimed);
    circuit.reset().unwrap();
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn open_of_open_circuit_changes_only_deadline() {
    let (circuit, time) = circuit(config());
    for _ in 0..5 {
        send(&circuit, FAILURE);
    }
    let before = epoch(&circuit);
    assert_eq!(circuit.apply(open(90)), Effect::Retimed);
    assert_eq!((epoch(&circuit), reason(&circuit)), (before, Some(Reason::ConsecutiveFailures)));
    assert_eq!(circuit.status().retry_after, Some(90 * SECOND));
    time.advance(SECOND);
    assert_eq!(circuit.apply(open(5)), Effect::Retimed, "it is shortened");
    assert_eq!(circuit.status().retry_after, Some(5 * SECOND));
}

#[test]
fn opening_by_command_continues_streak() {
    let (circuit, time) = circuit(config().open_backoff(2.0, 1_000 * SECOND));
    assert_eq!(circuit.next_open_time(), Some(OPEN_FOR));
    circuit.apply(open(10));
    assert_eq!(circuit.next_open_time(), Some(2 * OPEN_FOR));
    circuit.apply(open(20));
    assert_eq!(circuit.next_open_time(), Some(2 * OPEN_FOR), "the period is the same");
    circuit.apply(Command::Close);
    circuit.apply(open(20));
    assert_eq!(circuit.next_open_time(), Some(4 * OPEN_FOR));
    circuit.apply(Command::Close);
    time.advance(20 * SECOND);
    assert_eq!(circuit.next_open_time(), Some(OPEN_FOR), "it was closed as long as it was open");
}

#[test]
fn close_closes_open_and_half_open_circuits_with_slow_start() {
    for half_open in [false, true] {
        let (circuit, _time) = opened(config().slow_start(10 * SECOND));
        if half_open {
            assert_eq!(circuit.apply(PROBE), Effect::Changed);
        }
        assert_eq!(circuit.apply(Command::Close), Effect::Changed);
        assert_eq!((state(&circuit), reason(&circuit)), (CircuitState::Closed, Some(Reason::CommandedClose)));
        assert!(circuit.status().slow_start.is_some());
        assert_eq!(circuit.apply(Command::Close), Effect::Unchanged);
        assert_eq!(circuit.apply(PROBE), Effect::Unchanged);
    }
}

#[test]
fn override_and_disabled_take_precedence_over_commands() {
    let overridden = |circuit: &Circuit| {
        for command in [open(10), PROBE, Command::Close] {
            assert_eq!(circuit.apply(command), Effect::Overridden(state(circuit)));
        }
        state(circuit)
    };
    let (disabled, _time) = circuit(config().mode(Mode::Disabled));
    assert_eq!(overridden(&disabled), CircuitState::Disabled);
    let (circuit, time) = circuit(config());
    circuit.force_open().unwrap();
    assert_eq!(overridden(&circuit), CircuitState::ForcedOpen);
    circuit.force_closed_for(SECOND).unwrap();
    assert_eq!(overridden(&circuit), CircuitState::ForcedClosed);
    time.advance(SECOND);
    assert_eq!(circuit.apply(open(10)), Effect::Changed, "the override is over");
    assert_eq!(state(&circuit), CircuitState::Open);
}

#[test]
fn observing_circuit_follows_commands_and_admits_calls() {
    let (circuit, _time) = opened(config().mode(Mode::ObserveOnly));
    assert!(send(&circuit, FAILURE));
    assert_eq!(state(&circuit), CircuitState::Open);
    assert_eq!(circuit.status().retry_after, Some(10 * SECOND));
}

#[test]
fn local_control_and_reports_work_on_commanded_circuit() {
    let (circuit, _time) = opened(config());
    circuit.trip_for(4 * SECOND).unwrap();
    assert_eq!(retry_after(&circuit), Some(4 * SECOND), "it has no takeover");
    circuit.report(HealthReport::Recovered);
    assert_eq!(state(&circuit), CircuitState::HalfOpen);
    circuit.report(HealthReport::Critical);
    assert_eq!(circuit.status().retry_after, Some(OPEN_FOR));
    circuit.apply(open(10));
    circuit.apply(Command::Close);
    for _ in 0..5 {
        send(&circuit, FAILURE);
    }
    assert_eq!(reason(&circuit), Some(Reason::ConsecutiveFailures), "local evidence opens the circuit");
}

#[test]
fn next_open_time_is_that_of_next_trip() {
    for seed in [None, Some(7)] {
        let (circuit, _time) = circuit(config().open_jitter(1.0).seed(seed));
        let mut former = None;
        for _ in 0..10 {
            let next = circuit.next_open_time();
            assert_ne!(next, former, "each period has its own jitter");
            circuit.trip().unwrap();
            assert_eq!(circuit.status().retry_after, next);
            circuit.reset().unwrap();
            former = next;
        }
    }
    let (circuit, _time) = circuit(config().open_until_reset(true));
    assert_eq!(circuit.next_open_time(), None);
}

#[test]
fn longest_durations_of_command_have_no_end() {
    let (circuit, time) = circuit(config());
    circuit.apply(Command::Open { remaining: Some(Duration::MAX), takeover: Duration::MAX });
    time.advance(1_000_000_000 * SECOND);
    assert!(retry_after(&circuit) > Some(1_000_000_000 * SECOND));
    circuit.apply(Command::Probe { start_within: Duration::MAX, remaining: Duration::MAX });
    assert!(send(&circuit, Verdict::Success));
    time.advance(1_000_000_000 * SECOND);
    assert!(!send(&circuit, Verdict::Success));
}
