//! The fleet that the circuits are shared with.

use serde::Serialize;
use tower_breaker_fleet::{
    CircuitRecord, Fleet, FleetAction, FleetCircuitStatus, FleetError, FleetOperation, FleetStatus,
};

use super::LocalAction;
use crate::action::FleetOrder;
use crate::problem::Problem;

/// The fleet's view of a circuit.
pub(crate) type FleetView = FleetCircuitStatus;

/// The fleet, if there is one.
#[derive(Clone, Default)]
pub(crate) struct FleetSource(pub(crate) Option<Fleet>);

impl FleetSource {
    /// Returns the connection to the fleet as JSON. `None`: there is no fleet.
    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        // The status has only strings, numbers and booleans, so it is always serialized.
        serde_json::to_value(self.0.as_ref()?.status()).ok()
    }

    /// Returns the fleet's view of a circuit, by its name in the fleet.
    pub(crate) fn circuit(&self, name: &str) -> Option<FleetView> {
        self.0.as_ref()?.circuit_status(name)
    }

    /// Returns whether this process shares a circuit without a key.
    pub(crate) fn is_shared(&self, circuit: &str) -> bool {
        self.0.as_ref().is_some_and(|fleet| fleet.is_shared(circuit))
    }

    /// Returns the name of a key in the fleet. `None`: this process does not share these circuits.
    #[cfg(feature = "keyed")]
    pub(crate) fn key_name<K: 'static>(&self, circuits: &str, key: &K) -> Option<String> {
        self.0.as_ref()?.shared_key_name(circuits, key)
    }

    /// Returns the epoch of the last record of a circuit that this process knows. 0: there is none.
    pub(crate) fn epoch(&self, name: &str) -> u64 {
        self.circuit(name).and_then(|status| status.record).map_or(0, |record| record.epoch)
    }

    /// Returns the error of an action in the fleet for a circuit that is not shared.
    pub(crate) fn not_shared(&self) -> Problem {
        Problem::bad_request(match self.0 {
            Some(_) => "`scope` is `fleet`, and this process does not share the circuit; use `process`",
            None => "`scope` is `fleet`, and there is no fleet; use `process`",
        })
    }

    /// Applies an action to a circuit in all processes.
    pub(crate) async fn operate(&self, name: &str, order: FleetOrder) -> Result<CircuitRecord, Problem> {
        let Some(fleet) = &self.0 else { return Err(self.not_shared()) };
        fleet.operate(name, operation(order)).await.map_err(|error| problem(&error))
    }

    /// Returns records of the store.
    pub(crate) async fn list(&self, after: Option<&str>, limit: usize) -> Result<Part, Problem> {
        let Some(fleet) = &self.0 else { return Err(Problem::not_found("there is no fleet")) };
        let records = fleet.list(after, limit).await.map_err(|error| problem(&error))?;
        let is_full = records.len() >= limit;
        let next = records.last().filter(|_| is_full).map(|last| last.circuit.clone());
        Ok(Part { status: fleet.status(), records, next })
    }
}

/// A part of the records of the store, with the connection to it.
#[derive(Serialize)]
pub(crate) struct Part {
    status: FleetStatus,
    records: Vec<CircuitRecord>,
    /// The name after which further records begin. `None`: there are none.
    next: Option<String>,
}

/// Returns the fleet's view of a circuit after a decision.
pub(crate) fn with_record(mut view: FleetView, record: CircuitRecord) -> FleetView {
    view.record = Some(record);
    view
}

fn operation(order: FleetOrder) -> FleetOperation {
    let FleetOrder { action, by, reason, lasts_for, expected_epoch } = order;
    let action = match action {
        LocalAction::Trip => FleetAction::Trip,
        LocalAction::Reset => FleetAction::Reset,
        LocalAction::ForceOpen => FleetAction::ForceOpen,
        LocalAction::ForceClosed => FleetAction::ForceClosed,
        LocalAction::Release => FleetAction::Release,
    };
    let mut operation = FleetOperation::new(action).by(by).reason(reason);
    if let Some(epoch) = expected_epoch {
        operation = operation.expected_epoch(epoch);
    }
    match (action, lasts_for) {
        (FleetAction::Trip, Some(time)) => operation.open_for(time),
        (_, Some(time)) => operation.keep_for(time),
        (_, None) => operation,
    }
}

fn problem(error: &FleetError) -> Problem {
    match error {
        FleetError::Invalid(_) => Problem::bad_request(error),
        FleetError::Conflict { .. } => Problem::conflict(error),
        FleetError::Unreachable { .. } => Problem::unavailable(format_args!(
            "{error}; if the store has received the action, it may still apply it"
        )),
        _ => Problem::unavailable(error),
    }
}
