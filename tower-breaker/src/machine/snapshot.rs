//! The part of a circuit that outlives its process.

use super::open_duration::OpenStreak;
use super::{Change, CircuitState, Force, Machine, Reason, RecoveryLimits, SavedStreak, StateData};

/// The state of a circuit in a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) state: CircuitState,
    /// For how many nanoseconds an open circuit stays open, or a manual override stays in force.
    /// `None`: until the circuit is reset or released.
    pub(crate) remaining: Option<u64>,
    pub(crate) streak: SavedStreak,
}

impl Machine {
    /// Returns the state for a snapshot.
    pub(crate) fn save(&self, now: u64) -> Saved {
        let remaining = self.open_remaining(now).or_else(|| self.override_remaining(now));
        let streak = match self.state() {
            // The streak of a disabled circuit ends when the circuit is enabled.
            CircuitState::Disabled => SavedStreak::default(),
            state => self.streak.save(state == CircuitState::Closed, now),
        };
        Saved { state: self.state(), remaining, streak }
    }

    /// Restores the state of a snapshot. The machine must not have changed since it was created.
    /// `None`: the state does not change.
    ///
    /// - A half-open circuit was about to be probed. It is open, and its open time is over.
    /// - A manual override takes precedence over a configuration that disables the circuit.
    /// - A circuit that was open until its reset or a command, and now has an open time, stays open
    ///   for the longest one.
    pub(crate) fn restore(&mut self, saved: &Saved, now: u64, limits: &RecoveryLimits) -> Option<Change> {
        let longest = limits.open.longest();
        let is_closed = matches!(saved.state, CircuitState::Closed | CircuitState::Disabled);
        self.streak = OpenStreak::restore(&saved.streak, is_closed, now, longest);
        let deadline = |remaining: u64| now.saturating_add(remaining);
        let to = match saved.state {
            CircuitState::ForcedOpen => forced(Force::Open, saved.remaining.map(deadline)),
            CircuitState::ForcedClosed => forced(Force::Closed, saved.remaining.map(deadline)),
            _ if self.disabled => return None,
            CircuitState::Closed | CircuitState::Disabled => return None,
            CircuitState::HalfOpen => open(Some(now)),
            CircuitState::Open => match saved.remaining {
                None if limits.open.until_reset => open(None),
                remaining => open(Some(deadline(remaining.unwrap_or(longest).min(longest)))),
            },
        };
        Some(self.transition_to(to, Reason::Restored))
    }
}

const fn open(until: Option<u64>) -> StateData {
    StateData::Open { until, takeover: 0 }
}

const fn forced(force: Force, until: Option<u64>) -> StateData {
    StateData::Forced { force, until }
}
