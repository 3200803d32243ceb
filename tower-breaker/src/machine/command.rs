//! The commands of a coordinator, which decides for several circuits with one backend.

use core::time::Duration;

use super::half_open::ProbeRound;
use super::slow_start::SlowStart;
use super::{Effect, Force, Machine, Reason, RecoveryLimits, StateData};
use crate::control::{Command, Signal};

impl Machine {
    /// Applies a command.
    ///
    /// # Errors
    ///
    /// Returns the forced state if the circuit is forced or disabled.
    pub(crate) fn command(
        &mut self,
        command: Command,
        now: u64,
        limits: &RecoveryLimits,
    ) -> Result<Effect, Force> {
        if let StateData::Forced { force, .. } = self.state {
            return Err(force);
        }
        Ok(match command {
            Command::Open { remaining, takeover } => self.command_open(remaining, takeover, now, limits),
            Command::Probe { start_within, remaining } => self.command_probe(start_within, remaining, now),
            Command::Close => self.command_close(now, limits),
        })
    }

    fn command_open(
        &mut self,
        remaining: Option<Duration>,
        takeover: Duration,
        now: u64,
        limits: &RecoveryLimits,
    ) -> Effect {
        let next = match remaining {
            None => StateData::Open { until: None, takeover: 0 },
            Some(remaining) => {
                let retry_at = after(now, remaining);
                let until = after(retry_at, takeover);
                StateData::Open { until: Some(until), takeover: until - retry_at }
            }
        };
        // A half-open circuit that waits for another probe is still in its last open period.
        let is_same_period =
            matches!(self.state, StateData::HalfOpen(_)) && remaining.is_some_and(|time| time.is_zero());
        match (&mut self.state, next) {
            (
                StateData::Open { until, takeover },
                StateData::Open { until: next_until, takeover: next_takeover },
            ) => {
                let next = (next_until, next_takeover);
                let is_retimed = (*until, *takeover) != next;
                (*until, *takeover) = next;
                if is_retimed { Effect::Retimed } else { Effect::Unchanged }
            }
            (_, next) => {
                if !is_same_period {
                    self.streak.commanded(&limits.open, now, remaining.map(nanos));
                }
                Effect::Changed(self.transition_to(next, Reason::CommandedOpen))
            }
        }
    }

    fn command_probe(&mut self, start_within: Duration, remaining: Duration, now: u64) -> Effect {
        let (start_before, until) = (after(now, start_within), after(now, remaining));
        match &mut self.state {
            StateData::Open { .. } => {}
            StateData::HalfOpen(round) => {
                if round.retime(now, start_before, until) {
                    return Effect::Retimed;
                }
            }
            StateData::Closed { .. } | StateData::Forced { .. } => return Effect::Unchanged,
        }
        let round = ProbeRound::led(start_before, until);
        Effect::Changed(self.transition_to(StateData::HalfOpen(round), Reason::CommandedProbe))
    }

    fn command_close(&mut self, now: u64, limits: &RecoveryLimits) -> Effect {
        match self.state {
            StateData::Open { .. } | StateData::HalfOpen(_) => {
                self.streak.closed(now);
                let slow_start = SlowStart::new(now, limits);
                Effect::Changed(self.transition_to(StateData::Closed { slow_start }, Reason::CommandedClose))
            }
            StateData::Closed { .. } | StateData::Forced { .. } => Effect::Unchanged,
        }
    }

    /// Returns whether a coordinator decides on the outcome of the current probe.
    pub(crate) fn is_led(&self, now: u64) -> bool {
        matches!(&self.state, StateData::HalfOpen(round) if round.is_led(now))
    }

    /// Returns the signal of the last decision on a probe, and removes it.
    pub(crate) const fn take_signal(&mut self) -> Option<Signal> {
        self.signal.take()
    }

    /// Continues a round whose coordinator has sent no other command in time as a round of the
    /// circuit's own.
    pub(super) fn end_lead(&mut self, now: u64, limits: &RecoveryLimits) {
        if let StateData::HalfOpen(round) = &mut self.state {
            round.end_lead(now, limits.probes);
        }
    }

    /// Returns the open time that the next trip would have. `None`: until the circuit is reset.
    pub(crate) fn next_open_period(&self, at: super::Moment, limits: &RecoveryLimits) -> Option<u64> {
        self.streak.peek(&limits.open, at.now, at.draw)
    }
}

/// Returns the time after which a rejected caller should retry, for a circuit that stays open for
/// `left` nanoseconds, the last `takeover` of which belong to its coordinator.
///
/// In these last nanoseconds, the coordinator may admit calls at any time.
#[inline]
pub(crate) const fn retry_in(left: u64, takeover: u64) -> u64 {
    const SOON: u64 = 1_000_000_000;

    if left > takeover {
        left - takeover
    } else if left < SOON {
        left
    } else {
        SOON
    }
}

fn after(now: u64, duration: Duration) -> u64 {
    now.saturating_add(nanos(duration))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
