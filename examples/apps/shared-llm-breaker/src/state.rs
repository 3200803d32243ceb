//! The state of a breaker, as its callers and its log see it.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_breaker::telemetry::Transition;
use tower_breaker::{CircuitState as LocalState, Reason, Status};

use crate::events;

/// The state of a breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CircuitState {
    /// Calls are admitted.
    #[default]
    Closed,
    /// Calls are rejected.
    Open,
    /// A few calls are admitted as probes.
    HalfOpen,
}

impl CircuitState {
    /// Returns the text of the state: `closed`, `open` or `half-open`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }

    fn of(local: LocalState) -> Self {
        match local {
            LocalState::Open | LocalState::ForcedOpen => Self::Open,
            LocalState::HalfOpen => Self::HalfOpen,
            // Calls are admitted: closed, forced closed, or disabled.
            _ => Self::Closed,
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Follows the transitions of a circuit, and logs the changes of the state.
///
/// Between two probes of a fleet, the circuit of a worker is open until the store grants the next
/// lease. Callers see one half-open state from the first probe to the last.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    current: Mutex<Current>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Current {
    state: CircuitState,
    /// The number of the last transition.
    epoch: u32,
    /// How often the circuit has half-opened.
    round: u32,
    /// The probes of this worker that have succeeded since the circuit half-opened.
    successes: u32,
}

impl Progress {
    pub(crate) fn state(&self) -> CircuitState {
        self.current().state
    }

    /// Returns how often the circuit has half-opened.
    pub(crate) fn round(&self) -> u32 {
        self.current().round
    }

    /// Counts a successful probe of this worker. Returns `None` if the half-open state in which the
    /// probe began is over: the circuit then does not count its outcome.
    pub(crate) fn count_success(&self, round: u32) -> Option<u32> {
        let mut current = self.current();
        if current.state != CircuitState::HalfOpen || current.round != round {
            return None;
        }
        current.successes += 1;
        Some(current.successes)
    }

    /// Forgets the successful probes of this worker.
    pub(crate) fn forget_successes(&self) {
        self.current().successes = 0;
    }

    /// Follows a transition. `status` is that of the circuit after it.
    pub(crate) fn on_transition(&self, transition: &Transition, status: &Status) {
        let (old, new, successes) = {
            let mut current = self.current();
            if !is_after(transition.epoch, current.epoch) {
                return;
            }
            current.epoch = transition.epoch;
            let (old, successes) = (current.state, current.successes);
            current.state = state_after(transition, status.retry_after);
            if current.state != CircuitState::HalfOpen {
                current.successes = 0;
            } else if old != CircuitState::HalfOpen {
                current.round = current.round.wrapping_add(1);
            }
            (old, current.state, successes)
        };
        if old == new {
            return;
        }
        // Other workers, or a reset, have closed the circuit of a worker without such a probe.
        if new == CircuitState::Closed && successes > 0 {
            events::closing(transition.circuit);
        }
        events::state_change(transition.circuit, old, new);
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // No code panics between two changes, so the value is valid even if the lock is poisoned.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state_after(transition: &Transition, retry_after: Option<Duration>) -> CircuitState {
    let waits_for_lease = transition.from == LocalState::HalfOpen
        && transition.to == LocalState::Open
        && transition.reason == Reason::CommandedOpen
        && retry_after == Some(Duration::ZERO);
    if waits_for_lease { CircuitState::HalfOpen } else { CircuitState::of(transition.to) }
}

/// Whether a transition came after another one. Epochs have 24 bits, and wrap.
fn is_after(epoch: u32, other: u32) -> bool {
    const BITS: u32 = 24;
    let distance = epoch.wrapping_sub(other) % (1 << BITS);
    (1..1 << (BITS - 1)).contains(&distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_wrap() {
        assert!(is_after(1, 0) && is_after(0, (1 << 24) - 1));
        assert!(!is_after(0, 1) && !is_after(7, 7));
    }

    #[test]
    fn state_texts_are_those_of_serde() {
        for state in [CircuitState::Closed, CircuitState::Open, CircuitState::HalfOpen] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
