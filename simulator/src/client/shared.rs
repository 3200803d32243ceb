//! One circuit for a whole fleet, whose state the processes see later.

use std::collections::VecDeque;

use tower_breaker::{Circuit, CircuitState, Verdict};

use super::{Permit, acquire};
use crate::client::model::rejected;

/// A circuit that all processes share.
///
/// A process decides with the state that the circuit had `delay` ago: in a closed state it sends,
/// in an open state it rejects. Only probes are admitted by the circuit itself, so that their
/// number is exact. Their outcomes, and those of the closed state, are recorded without delay. The
/// outcome of a request that is sent because the process does not see yet that the circuit is open
/// is not recorded.
#[derive(Debug)]
pub(super) struct SharedCircuit {
    circuit: Circuit,
    delay: u64,
    /// The changes that no process has seen yet, with the times from which on they do.
    changes: VecDeque<(u64, CircuitState)>,
    /// The state that the processes see.
    seen: CircuitState,
    latest: CircuitState,
}

impl SharedCircuit {
    pub(super) const fn new(circuit: Circuit, delay: u64) -> Self {
        let closed = CircuitState::Closed;
        Self { circuit, delay, changes: VecDeque::new(), seen: closed, latest: closed }
    }

    pub(super) fn try_acquire(&mut self, now: u64) -> Result<Permit, Verdict> {
        self.note_state(now);
        while let Some(&(at, state)) = self.changes.front()
            && at <= now
        {
            self.seen = state;
            self.changes.pop_front();
        }
        match (self.seen, self.latest) {
            // The process has not seen yet that the circuit is not closed any more.
            (CircuitState::Closed, CircuitState::Open | CircuitState::HalfOpen) => Ok(Permit::Uncounted),
            // The process has not seen yet that the circuit has closed.
            (CircuitState::Open | CircuitState::HalfOpen, CircuitState::Closed) => Err(rejected(false)),
            _ => {
                let permit = acquire(&self.circuit);
                self.note_state(now);
                permit
            }
        }
    }

    /// Notes a change of the circuit's state.
    pub(super) fn note_state(&mut self, now: u64) {
        let state = self.circuit.status().state;
        if state != self.latest {
            self.latest = state;
            self.changes.push_back((now.saturating_add(self.delay), state));
        }
    }
}
