//! Commands of a coordinator, and signals to it, on the handle.

use std::time::Duration;

use super::hot_config::Events;
use super::{Circuit, CircuitRef};
use crate::control::{Command, Effect, Signal};
use crate::telemetry::ObserverId;

/// Commands of a coordinator, and signals to it: see [`control`](crate::control).
impl<R: CircuitRef> Circuit<R> {
    /// Applies a command of a coordinator.
    ///
    /// The command applies unless a manual override or the configuration takes precedence.
    /// Observers of transitions are notified as usual; the reason of the transition names the
    /// command.
    pub fn apply(&self, command: Command) -> Effect {
        self.owner.command(command)
    }

    /// Returns the open time that the next trip would have, with its growth and its jitter.
    ///
    /// A trip now has exactly this open time, unless the server asks for a longer one. `None`: the
    /// circuit would stay [open until it is reset](crate::BreakerConfigBuilder::open_until_reset).
    pub fn next_open_time(&self) -> Option<Duration> {
        self.owner.next_open_period().map(Duration::from_nanos)
    }

    /// Returns how many manual overrides were set, also those that changed nothing. The number
    /// wraps.
    ///
    /// A circuit has one override at a time. A coordinator that forces circuits itself keeps this
    /// number: if it has grown by more than one, other code has set the override that is in force.
    /// The state and the last transition do not show it: forcing a circuit again into the same
    /// state is no transition.
    ///
    /// Read the number before the override is set, so that a concurrent override is not missed.
    pub fn override_count(&self) -> u32 {
        self.owner.overrides()
    }

    /// Arms a signal that is sent once: [`Signal::Failure`] or [`Signal::Demand`].
    ///
    /// The next such event sends the signal. Other signals are always sent: arming them changes
    /// nothing.
    ///
    /// A task that waits with [`ready`](Self::ready) or [`acquire`](Self::acquire) sends
    /// [`Signal::Demand`] when it is polled: when it begins to wait, after a change of the circuit,
    /// and when the time that [`Rejection::retry_after`](crate::Rejection::retry_after) shows is
    /// over. So it is enough to arm the signal before the command that opens the circuit.
    pub fn rearm(&self, signal: Signal) {
        match signal {
            Signal::Failure => self.owner.arm(Events::FAILURE_SIGNAL),
            Signal::Demand => self.owner.arm(Events::DEMAND_SIGNAL),
            Signal::ProbeStarted | Signal::ProbeCompleted(_) => {}
        }
    }
}

/// Signals to a coordinator: see [`control`](crate::control).
impl Circuit {
    /// Adds a listener, which is called for the events that a coordinator may react to.
    ///
    /// [`Signal::Failure`] and [`Signal::Demand`] are sent once, and then need
    /// [`rearm`](Self::rearm). A new listener arms both, for all listeners.
    ///
    /// The listener is called on the thread of the call, outside of every lock. It should be quick:
    /// for example, it wakes a task. A panic of the listener is caught.
    ///
    /// Without a listener, a success costs no instruction more, and a failure or a rejection at
    /// most one load. Sending a signal allocates nothing.
    ///
    /// As for [`on_transition`](Self::on_transition), a listener that needs its own circuit should
    /// hold a [`WeakCircuit`](crate::handle::WeakCircuit), and
    /// [`remove_observer`](Self::remove_observer) removes the listener.
    pub fn on_signal(&self, listener: impl Fn(Signal) + Send + Sync + 'static) -> ObserverId {
        let arm = || self.owner.arm(Events::SIGNALS);
        self.owner.observers().on_signal(move |signal| listener(*signal), arm)
    }
}
