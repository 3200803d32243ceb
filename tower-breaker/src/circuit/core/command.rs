//! The commands of a coordinator, and the signals to it.

use std::sync::Arc;

use super::{Core, Store};
use crate::circuit::hot_config::Events;
use crate::circuit::locked::Locked;
use crate::circuit::state_word::StateWord;
use crate::control::{self, Command, Signal};
use crate::machine::Effect;
use crate::telemetry::Observers;

impl<S: Store> Core<S> {
    /// Applies a command; see [`Machine::command`](crate::machine::Machine::command).
    pub(crate) fn command(&self, command: Command) -> control::Effect {
        match self.control(|machine, at, limits| machine.command(command, at.now, limits)) {
            Ok(Effect::Unchanged) => control::Effect::Unchanged,
            Ok(Effect::Retimed) => control::Effect::Retimed,
            Ok(Effect::Changed(_)) => control::Effect::Changed,
            Err(state) => control::Effect::Overridden(state),
        }
    }

    /// Returns the open time that the next trip would have; see
    /// [`Machine::next_open_period`](crate::machine::Machine::next_open_period).
    pub(crate) fn next_open_period(&self) -> Option<u64> {
        let now = self.hot_config().now();
        let mut locked = self.locked();
        let at = locked.moment(now);
        locked.machine.next_open_period(at, &locked.limits)
    }

    /// Arms the signals that are sent once.
    pub(crate) fn arm(&self, signals: Events) {
        self.store().arm(signals);
    }

    /// Sends [`Signal::Demand`] if it is armed. The caller does not hold the lock.
    #[inline]
    pub(crate) fn signal_demand(&self) {
        if self.store().events().has(Events::DEMAND_SIGNAL) {
            self.send_demand();
        }
    }

    #[cold]
    #[inline(never)]
    fn send_demand(&self) {
        // The caller has a handle, so that the circuit has not ended.
        self.store().signal_once(None, Events::DEMAND_SIGNAL, Signal::Demand);
    }

    /// Sends [`Signal::Failure`] if it is armed, for a failure of a call with this stamp. The
    /// caller does not hold the lock.
    pub(super) fn signal_failure(&self, stamp: StateWord) {
        self.store().signal_once(Some(stamp.epoch()), Events::FAILURE_SIGNAL, Signal::Failure);
    }

    /// Sends the signal of a probe. The caller does not hold the lock.
    pub(super) fn send(&self, pending: Option<PendingSignal>) {
        if let Some(PendingSignal { signal, observers }) = pending {
            self.store().signal(&observers, signal);
        }
    }
}

/// A signal that is sent once the lock is released.
#[must_use]
pub(super) struct PendingSignal {
    signal: Signal,
    observers: Arc<Observers>,
}

impl PendingSignal {
    /// Returns the signal of the last decision on the probe of a coordinator. `None`: no
    /// coordinator leads the round.
    pub(super) fn of_probe(locked: &mut Locked) -> Option<Self> {
        let signal = locked.machine.take_signal()?;
        // Without observers, no coordinator listens.
        Some(Self { signal, observers: locked.observers.clone()? })
    }
}
