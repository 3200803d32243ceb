//! Loom models of the commands of a coordinator, and of the signals to it.

use std::sync::atomic::AtomicUsize as Count;

use super::*;
use crate::circuit::hot_config::Events;
use crate::control::{Command, Effect, ProbeOutcome, Signal};

const OPEN: Command =
    Command::Open { remaining: Some(Duration::from_secs(10)), takeover: Duration::from_secs(2) };
const PROBE: Command =
    Command::Probe { start_within: Duration::from_secs(5), remaining: Duration::from_secs(9) };

/// Counts the signals that `is_counted` selects.
fn listen(core: &StaticCore, is_counted: fn(Signal) -> bool) -> StdArc<Count> {
    let count = StdArc::new(Count::new(0));
    let counted = StdArc::clone(&count);
    let listener = move |signal: &Signal| {
        counted.fetch_add(usize::from(is_counted(*signal)), std::sync::atomic::Ordering::SeqCst);
    };
    core.observers().on_signal(listener, || core.arm(Events::SIGNALS));
    count
}

fn signals(count: &Count) -> usize {
    count.load(std::sync::atomic::Ordering::SeqCst)
}

fn commanded(command: Command) -> (Arc<StaticCore>, ManualClock) {
    let (core, time) = tripped();
    assert_ne!(core.command(command), Effect::Unchanged);
    (core, time)
}

fn epoch(core: &StaticCore) -> u32 {
    core.snapshot().last_transition.unwrap().epoch
}

#[test]
fn loom_open_command_concurrent_with_trip_sets_its_deadline() {
    model(|| {
        let (core, _time) = core(1, None);
        let admission = core.admit().unwrap();
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.record(admission, &FAILURE));
        let effect = core.command(OPEN);
        thread.join().unwrap();
        let reason = core.snapshot().last_transition.unwrap().reason;
        assert_eq!(effect == Effect::Changed, reason == Reason::CommandedOpen, "{effect:?}");
        assert_eq!((consistent_state(&core), epoch(&core)), (CircuitState::Open, 1), "it opened once");
        assert_eq!(core.admit().unwrap_err().left, Some(10 * SECOND));
    });
}

#[test]
fn loom_commands_concurrent_with_outcome_of_led_probe() {
    for (command, to) in [(OPEN, CircuitState::Open), (Command::Close, CircuitState::Closed)] {
        for verdict in [FAILURE, Verdict::Success] {
            model(move || {
                let (core, _time) = commanded(PROBE);
                let completed = listen(&core, |signal| matches!(signal, Signal::ProbeCompleted(_)));
                let (admission, other) = (core.admit().unwrap(), Arc::clone(&core));
                let thread = thread::spawn(move || other.record(admission, &verdict));
                assert_eq!(core.command(command), Effect::Changed);
                thread.join().unwrap();
                assert_eq!((consistent_state(&core), epoch(&core)), (to, 3), "the command decided");
                assert!(signals(&completed) <= 1);
            });
        }
    }
}

#[test]
fn loom_repeated_probe_command_loses_no_outcome() {
    model(|| {
        let (core, _time) = commanded(PROBE);
        let succeeded = listen(&core, |signal| signal == Signal::ProbeCompleted(ProbeOutcome::Success));
        let (admission, other) = (core.admit().unwrap(), Arc::clone(&core));
        let thread = thread::spawn(move || other.record(admission, &Verdict::Success));
        let effect = core.command(PROBE);
        thread.join().unwrap();
        assert_eq!(signals(&succeeded), 1);
        // The command came before the outcome, or began a new round after it.
        assert_eq!(core.admit().is_ok(), effect == Effect::Changed, "{effect:?}");
    });
}

#[test]
fn loom_probe_command_admits_one_of_concurrent_calls() {
    model(|| {
        let (core, _time) = commanded(OPEN);
        let started = listen(&core, |signal| signal == Signal::ProbeStarted);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.admit().ok());
        assert_eq!(core.command(PROBE), Effect::Changed);
        let admissions = [core.admit().ok(), thread.join().unwrap()];
        let mut probes = admissions.into_iter().flatten();
        let probe = probes.next().expect("the command admits a call");
        assert!(probes.next().is_none(), "there is only one slot");
        assert_eq!(signals(&started), 1);
        core.record(probe, &FAILURE);
        assert_eq!(consistent_state(&core), CircuitState::HalfOpen, "the coordinator decides");
    });
}

#[test]
fn loom_open_command_concurrent_with_call_after_open_time() {
    model(|| {
        let (core, time) = tripped();
        time.advance(Duration::from_secs(30));
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.admit().is_ok());
        let effect = core.command(OPEN);
        let admitted = thread.join().unwrap();
        // The call half-opened the circuit before the command, or it was too late.
        assert_eq!(effect, if admitted { Effect::Changed } else { Effect::Retimed });
        assert_eq!(consistent_state(&core), CircuitState::Open);
        assert_eq!(core.admit().unwrap_err().left, Some(10 * SECOND));
    });
}

#[test]
fn loom_override_concurrent_with_command_takes_precedence() {
    for force in [Force::Open, Force::Closed] {
        for command in [OPEN, PROBE, Command::Close] {
            model(move || {
                let (core, _time) = tripped();
                let other = Arc::clone(&core);
                let thread = thread::spawn(move || other.force(force, None).unwrap());
                let effect = core.command(command);
                thread.join().unwrap();
                let state = consistent_state(&core);
                let forced = [CircuitState::ForcedOpen, CircuitState::ForcedClosed];
                assert!(forced.contains(&state), "{state}");
                assert!(
                    effect != Effect::Unchanged && (effect == Effect::Overridden(state) || epoch(&core) > 1)
                );
            });
        }
    }
}

#[test]
fn loom_task_misses_no_retimed_command() {
    // Too late for the first probe, so that the task waits.
    let late = |time: &ManualClock| time.advance(Duration::from_secs(6));
    for (first, second) in
        [(OPEN, Command::Open { remaining: None, takeover: Duration::ZERO }), (PROBE, PROBE)]
    {
        model(move || {
            let (core, time) = commanded(first);
            late(&time);
            let other = Arc::clone(&core);
            let thread = thread::spawn(move || assert_eq!(other.command(second), Effect::Retimed));
            let woken = StdArc::new(CountWakes(0.into()));
            let mut waker_key = None;
            core.register_waker(&mut waker_key, &Waker::from(StdArc::clone(&woken)), WakeOn::FreeSlot);
            let before = core.reserve(Arrival::Now);
            thread.join().unwrap();
            let is_woken = woken.0.load(std::sync::atomic::Ordering::SeqCst) > 0;
            let after = core.reserve(Arrival::Again);
            // A task that was not woken has decided as it would now, or has taken the slot.
            let has_seen = match (before, after) {
                (Ok(reserved), _) => reserved.is_some(),
                (Err(before), after) => after.err() == Some(before),
            };
            assert!(is_woken || has_seen, "the task waits for a former deadline");
        });
    }
}

#[test]
fn loom_demand_is_signalled_once() {
    model(|| {
        let (core, _time) = commanded(OPEN);
        let demands = listen(&core, |signal| signal == Signal::Demand);
        let other = Arc::clone(&core);
        let thread = thread::spawn(move || other.signal_demand());
        core.signal_demand();
        thread.join().unwrap();
        assert_eq!(signals(&demands), 1);
        core.arm(Events::DEMAND_SIGNAL);
        core.signal_demand();
        assert_eq!(signals(&demands), 2);
    });
}
