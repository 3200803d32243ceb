//! A naive model of a circuit with a coordinator, in whole seconds.

use super::{End, LIMITS, MOST_CANCELLED, SECOND};
use crate::control::{Command, ProbeOutcome, Signal};
use crate::machine::{CircuitState, Force};

const LEASE: u64 = LIMITS.probe_lease / SECOND;
const OPEN_FOR: u64 = LIMITS.open.initial / SECOND;

/// The number of a call.
pub(super) type Running = u32;

#[derive(Default)]
pub(super) struct Naive {
    state: Phase,
    calls: Running,
    signal: Option<Signal>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Closed,
    /// Opened by a command or by the circuit. `None`: without an end.
    Open(Option<Times>),
    /// A round of the circuit.
    Own(Round),
    /// A round of a coordinator, with one slot.
    Led {
        start_before: u64,
        until: u64,
        is_completed: bool,
        round: Round,
    },
    Forced(Force),
}

struct Times {
    retry_at: u64,
    until: u64,
}

struct Round {
    /// Who holds each slot, and until when.
    slots: Vec<Option<(Running, u64)>>,
    successes: u32,
    cancelled: u32,
}

/// The decision on a call.
#[derive(Debug)]
pub(super) enum Admitted {
    /// The call is admitted, and is no probe.
    NoProbe,
    Probe(Running),
    /// The call is rejected. The number is the seconds until a retry.
    Denied(Option<u64>),
}

impl Round {
    fn new(slots: u32) -> Self {
        Self { slots: vec![None; slots as usize], successes: 0, cancelled: 0 }
    }

    fn is_free(slot: Option<(Running, u64)>, now: u64) -> bool {
        slot.is_none_or(|(_, until)| until <= now)
    }

    fn lease(&mut self, call: Running, now: u64) -> Result<Running, u64> {
        match self.slots.iter_mut().find(|slot| Self::is_free(**slot, now)) {
            Some(slot) => {
                *slot = Some((call, now + LEASE));
                Ok(call)
            }
            None => Err(self.slots.iter().flatten().map(|(_, until)| until - now).min().unwrap()),
        }
    }

    /// Frees the slot of a call. Returns whether the call held it.
    fn free(&mut self, call: Running) -> bool {
        let held = self.slots.iter_mut().find(|slot| slot.is_some_and(|(holder, _)| holder == call));
        held.map(|slot| *slot = None).is_some()
    }
}

impl Naive {
    pub(super) fn state(&self) -> CircuitState {
        match self.state {
            Phase::Closed => CircuitState::Closed,
            Phase::Open(_) => CircuitState::Open,
            Phase::Own(_) | Phase::Led { .. } => CircuitState::HalfOpen,
            Phase::Forced(Force::Open) => CircuitState::ForcedOpen,
            Phase::Forced(_) => CircuitState::ForcedClosed,
        }
    }

    pub(super) fn take_signal(&mut self) -> Option<Signal> {
        self.signal.take()
    }

    pub(super) fn is_led(&self, now: u64) -> bool {
        matches!(self.state, Phase::Led { until, .. } if now < until)
    }

    pub(super) fn open_remaining(&self, now: u64) -> Option<u64> {
        match &self.state {
            Phase::Open(times) => Some(times.as_ref()?.retry_at.saturating_sub(now)),
            _ => None,
        }
    }

    pub(super) fn running_probes(&self, now: u64) -> Option<u32> {
        let (Phase::Own(round) | Phase::Led { round, .. }) = &self.state else { return None };
        Some(round.slots.iter().filter(|slot| !Round::is_free(**slot, now)).count() as u32)
    }

    pub(super) fn command(&mut self, command: Command, now: u64) -> &'static str {
        self.continue_by_itself(now);
        let (next, effect) = match (command, &mut self.state) {
            (_, Phase::Forced(_)) => return "overridden",
            (Command::Probe { .. } | Command::Close, Phase::Closed) => return "unchanged",
            (Command::Close, _) => (Phase::Closed, "changed"),
            (Command::Open { remaining, takeover }, state) => {
                let times = remaining.map(|remaining| {
                    let retry_at = now + remaining.as_secs();
                    Times { retry_at, until: retry_at + takeover.as_secs() }
                });
                let ends = |times: &Times| (times.retry_at, times.until);
                let effect = match state {
                    Phase::Open(former) if former.as_ref().map(ends) == times.as_ref().map(ends) => {
                        "unchanged"
                    }
                    Phase::Open(_) => "retimed",
                    _ => "changed",
                };
                (Phase::Open(times), effect)
            }
            (Command::Probe { start_within, remaining }, state) => {
                let until = now + remaining.as_secs();
                let start_before = until.min(now + start_within.as_secs());
                if let Phase::Led { start_before: start, until: end, is_completed: false, .. } = state {
                    (*start, *end) = (start_before, until);
                    return "retimed";
                }
                (Phase::Led { start_before, until, is_completed: false, round: Round::new(1) }, "changed")
            }
        };
        self.state = next;
        effect
    }

    pub(super) fn trip(&mut self, now: u64) {
        if matches!(self.state, Phase::Closed) {
            self.open(now);
        }
    }

    pub(super) fn force(&mut self, force: Force) {
        self.state = Phase::Forced(force);
    }

    pub(super) fn release(&mut self) {
        match self.state {
            Phase::Forced(Force::Open) => self.state = Phase::Own(Round::new(LIMITS.probes)),
            Phase::Forced(_) => self.state = Phase::Closed,
            _ => {}
        }
    }

    pub(super) fn admit(&mut self, now: u64) -> Admitted {
        self.continue_by_itself(now);
        if matches!(&self.state, Phase::Open(Some(times)) if times.until <= now) {
            self.state = Phase::Own(Round::new(LIMITS.probes));
        }
        self.calls += 1;
        let lease = match &mut self.state {
            Phase::Closed | Phase::Forced(Force::Closed | Force::Disabled) => return Admitted::NoProbe,
            Phase::Forced(Force::Open) | Phase::Open(None) => return Admitted::Denied(None),
            Phase::Open(Some(Times { retry_at, until })) => {
                Err(if now < *retry_at { *retry_at - now } else { 1.min(*until - now) })
            }
            Phase::Own(round) => round.lease(self.calls, now),
            Phase::Led { start_before, until, is_completed, round } => {
                let is_open_at = |at: u64| !*is_completed && at < *start_before;
                let lease = if is_open_at(now) { round.lease(self.calls, now) } else { Err(*until - now) };
                if lease.is_ok() {
                    self.signal = Some(Signal::ProbeStarted);
                }
                lease.map_err(|left| if is_open_at(now + left) { left } else { *until - now })
            }
        };
        match lease {
            Ok(call) => Admitted::Probe(call),
            Err(left) => Admitted::Denied(Some(left)),
        }
    }

    pub(super) fn end(&mut self, call: Running, end: End, now: u64) {
        self.continue_by_itself(now);
        match &mut self.state {
            Phase::Led { is_completed, round, .. } => {
                let held = round.free(call);
                let was_completed = *is_completed;
                *is_completed |= matches!(end, End::Success | End::Failure);
                let (outcome, is_sent) = match end {
                    End::Success => (ProbeOutcome::Success, !was_completed),
                    End::Failure => (ProbeOutcome::Failure, !was_completed),
                    End::Neutral | End::Cancelled | End::Released => (ProbeOutcome::Neutral, held),
                };
                self.signal = is_sent.then_some(Signal::ProbeCompleted(outcome));
            }
            Phase::Own(round) => {
                round.free(call);
                if end == End::Cancelled {
                    round.cancelled += 1;
                    if round.cancelled >= MOST_CANCELLED {
                        self.open(now);
                    }
                } else {
                    self.unadmitted(end, now);
                }
            }
            _ => {}
        }
    }

    /// Counts an outcome in a round of the circuit.
    pub(super) fn unadmitted(&mut self, end: End, now: u64) {
        self.continue_by_itself(now);
        let Phase::Own(round) = &mut self.state else { return };
        match end {
            End::Success => {
                round.successes += 1;
                round.cancelled = 0;
                if round.successes >= LIMITS.successes_to_close {
                    self.state = Phase::Closed;
                }
            }
            End::Failure => self.open(now),
            End::Neutral | End::Cancelled | End::Released => {}
        }
    }

    fn open(&mut self, now: u64) {
        self.state = Phase::Open(Some(Times { retry_at: now + OPEN_FOR, until: now + OPEN_FOR }));
    }

    /// Makes a round of a coordinator whose time is over one of the circuit. Its calls keep their
    /// slots.
    fn continue_by_itself(&mut self, now: u64) {
        if let Phase::Led { until, round, .. } = &mut self.state
            && *until <= now
        {
            let mut own = Round::new(LIMITS.probes);
            own.slots[0] = round.slots[0];
            self.state = Phase::Own(own);
        }
    }
}
