//! The circuits that the API shows, whatever their kind.

use std::sync::Arc;
use std::time::Duration;

use tower_breaker::handle::CircuitRef;
use tower_breaker::telemetry::Transition;
use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry, ControlError, Status};

use crate::view::View;

/// An action of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalAction {
    Trip,
    Reset,
    ForceOpen,
    ForceClosed,
    Release,
}

/// A circuit, with or without a key.
pub(crate) trait Handle: Send + Sync {
    fn status(&self) -> Status;
    fn config(&self) -> BreakerConfig;
    fn apply(&self, action: LocalAction, time: Option<Duration>) -> Result<(), ControlError>;
}

impl<R: CircuitRef> Handle for Circuit<R>
where
    Self: Send + Sync,
{
    fn status(&self) -> Status {
        Self::status(self)
    }

    fn config(&self) -> BreakerConfig {
        Self::config(self)
    }

    fn apply(&self, action: LocalAction, time: Option<Duration>) -> Result<(), ControlError> {
        match (action, time) {
            (LocalAction::Trip, None) => self.trip(),
            (LocalAction::Trip, Some(time)) => self.trip_for(time),
            (LocalAction::Reset, _) => self.reset(),
            (LocalAction::ForceOpen, None) => self.force_open(),
            (LocalAction::ForceOpen, Some(time)) => self.force_open_for(time),
            (LocalAction::ForceClosed, None) => self.force_closed(),
            (LocalAction::ForceClosed, Some(time)) => self.force_closed_for(time),
            (LocalAction::Release, _) => {
                self.release();
                Ok(())
            }
        }
    }
}

/// All circuits of an [`Admin`](crate::Admin), by name. The names are unique.
#[derive(Default)]
pub(crate) struct Sources {
    registries: Vec<CircuitRegistry>,
    circuits: Vec<Circuit>,
}

impl Sources {
    /// Returns the view of every circuit, without the single keys, sorted by name. `history` is
    /// `None`.
    pub(crate) fn views(&self) -> Vec<View> {
        todo!()
    }

    /// Returns the view of one circuit. `None`: no circuit has this name.
    pub(crate) fn view(&self, _circuit: &str) -> Option<View> {
        todo!()
    }

    /// Returns the handle to a circuit without a key.
    pub(crate) fn handle(&self, _circuit: &str) -> Option<Arc<dyn Handle>> {
        todo!()
    }

    /// Calls `observer` after every transition, also of keyed circuits and of circuits that a
    /// registry creates later.
    pub(crate) fn on_transition(&self, _observer: Arc<dyn Fn(&Transition) + Send + Sync>) {
        todo!()
    }

    /// Returns the connection to the fleet as JSON. `None`: there is no fleet.
    pub(crate) fn fleet_status(&self) -> Option<serde_json::Value> {
        todo!()
    }
}
