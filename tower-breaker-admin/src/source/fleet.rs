//! The fleet that the circuits are shared with.

use tower_breaker_fleet::{Fleet, FleetCircuitStatus};

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
}
