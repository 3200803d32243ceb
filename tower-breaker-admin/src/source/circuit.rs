//! A circuit without a key, and what circuits with and without a key have in common.

use std::time::Duration;

use tower_breaker::handle::CircuitRef;
use tower_breaker::{BreakerConfig, Circuit, ControlError, Status};

use super::{FleetSource, Handle, LocalAction};

impl Handle for Circuit {
    fn status(&self) -> Status {
        Self::status(self)
    }

    fn config(&self) -> BreakerConfig {
        Self::config(self)
    }

    fn apply(&self, action: LocalAction, time: Option<Duration>) -> Result<(), ControlError> {
        apply(self, action, time)
    }

    fn fleet_name(&self, fleet: &FleetSource) -> Option<String> {
        fleet.is_shared(self.name()).then(|| self.name().to_owned())
    }
}

pub(super) fn apply<R: CircuitRef>(
    circuit: &Circuit<R>,
    action: LocalAction,
    time: Option<Duration>,
) -> Result<(), ControlError> {
    match (action, time) {
        (LocalAction::Trip, None) => circuit.trip(),
        (LocalAction::Trip, Some(time)) => circuit.trip_for(time),
        (LocalAction::Reset, _) => circuit.reset(),
        (LocalAction::ForceOpen, None) => circuit.force_open(),
        (LocalAction::ForceOpen, Some(time)) => circuit.force_open_for(time),
        (LocalAction::ForceClosed, None) => circuit.force_closed(),
        (LocalAction::ForceClosed, Some(time)) => circuit.force_closed_for(time),
        (LocalAction::Release, _) => {
            circuit.release();
            Ok(())
        }
    }
}
