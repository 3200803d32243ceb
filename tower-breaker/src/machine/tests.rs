//! Tests of the decisions, by subject.

mod commands;
mod control;
mod half_open;
mod names;
mod open;
mod recovery;
mod slow_start;
mod snapshot;
mod trip;

use super::*;

const SECOND: u64 = 1_000_000_000;

const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);

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
        State::OpenUntil { until, .. } => until,
        other => panic!("expected an open circuit, not {other:?}"),
    }
}
