//! A local circuit, whether it has a key or not.

use std::sync::Arc;
use std::time::Duration;

use tower_breaker::control::{Command, Effect, Signal};
use tower_breaker::handle::{CircuitRef, WeakCircuit};
use tower_breaker::{BreakerConfig, Circuit, ControlError, Status};

use crate::record::Override;

/// The operations of an agent on a local circuit.
pub(crate) trait Target {
    fn status(&self) -> Status;
    fn config(&self) -> BreakerConfig;
    fn next_open_time(&self) -> Option<Duration>;
    fn apply(&self, command: Command) -> Effect;
    fn rearm(&self, signal: Signal);
    fn force(&self, manual: Override, keep_for: Option<Duration>) -> Result<(), ControlError>;
    fn override_count(&self) -> u32;
    fn release(&self);
}

impl<R: CircuitRef> Target for Circuit<R> {
    fn status(&self) -> Status {
        self.status()
    }

    fn config(&self) -> BreakerConfig {
        self.config()
    }

    fn next_open_time(&self) -> Option<Duration> {
        self.next_open_time()
    }

    fn apply(&self, command: Command) -> Effect {
        self.apply(command)
    }

    fn rearm(&self, signal: Signal) {
        self.rearm(signal);
    }

    fn force(&self, manual: Override, keep_for: Option<Duration>) -> Result<(), ControlError> {
        match (manual, keep_for) {
            (Override::ForcedOpen, None) => self.force_open(),
            (Override::ForcedOpen, Some(time)) => self.force_open_for(time),
            (Override::ForcedClosed, None) => self.force_closed(),
            (Override::ForcedClosed, Some(time)) => self.force_closed_for(time),
        }
    }

    fn override_count(&self) -> u32 {
        self.override_count()
    }

    fn release(&self) {
        self.release();
    }
}

/// A reference to a local circuit that does not keep it alive.
pub(crate) trait WeakTarget: Send + Sync {
    /// Returns the circuit; `None` if it has ended.
    fn upgrade(&self) -> Option<Box<dyn Target>>;
}

impl<R: CircuitRef + 'static> WeakTarget for WeakCircuit<R>
where
    Self: Send + Sync,
{
    fn upgrade(&self) -> Option<Box<dyn Target>> {
        self.upgrade().map(|circuit| Box::new(circuit) as Box<dyn Target>)
    }
}

pub(crate) type SharedTarget = Arc<dyn WeakTarget>;
