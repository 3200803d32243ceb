//! The circuits that the API shows, whatever their kind.

mod circuit;
#[cfg_attr(not(feature = "fleet"), path = "source/fleet_noop.rs")]
mod fleet;
#[cfg(feature = "keyed")]
mod keyed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tower_breaker::telemetry::Transition;
use tower_breaker::{BreakerConfig, Circuit, CircuitRegistry, ConfigError, ControlError, Status};

use crate::view::{KeyCounts, View};

pub(crate) use fleet::{FleetSource, FleetView, with_record};

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
///
/// While the handle is held, the circuit of a key is not evicted. So it must not be held for long.
pub(crate) trait Handle: Send + Sync {
    fn status(&self) -> Status;
    fn config(&self) -> BreakerConfig;
    fn apply(&self, action: LocalAction, time: Option<Duration>) -> Result<(), ControlError>;
    /// Returns the name of the circuit in the fleet. `None`: this process does not share it.
    fn fleet_name(&self, fleet: &FleetSource) -> Option<String>;
}

/// Returns a handle to the circuit of a key. `None`: the circuit has ended.
pub(crate) type WeakHandle = Box<dyn Fn() -> Option<Arc<dyn Handle>>>;

/// The circuit of a key that was found by its label.
pub(crate) struct Found {
    pub(crate) circuit: Arc<dyn Handle>,
    /// No other key has the label.
    pub(crate) is_only: bool,
}

/// Circuits by key.
pub(crate) trait Keyed: Send + Sync {
    fn name(&self) -> &'static str;
    /// Returns the configuration of a key without a configuration of its own.
    fn config(&self) -> BreakerConfig;
    fn counts(&self) -> KeyCounts;
    /// Returns the circuits with the labels of their keys, sorted by label.
    ///
    /// The overflow circuit is in the list if it is used. Of several keys with one label, only the
    /// first is.
    fn keys(&self) -> Vec<(String, WeakHandle)>;
    /// Returns the circuit of the first key with this label.
    fn key(&self, label: &str) -> Option<Found>;
    /// Adds an observer, and returns what removes it.
    fn on_transition(&self, observer: TransitionObserver) -> Remover;
}

pub(crate) type TransitionObserver = Arc<dyn Fn(&Transition) + Send + Sync>;

type Remover = Box<dyn FnOnce() + Send + Sync>;

/// A circuit by its name.
pub(crate) enum Named<'a> {
    Single(Arc<dyn Handle>),
    Keyed(&'a dyn Keyed),
}

/// All circuits of an [`Admin`](crate::Admin), by name.
///
/// The names are unique when the sources are created. If a registry later creates a circuit whose
/// name another source has, the API shows one of the two, and always the same one.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) registries: Vec<CircuitRegistry>,
    pub(crate) circuits: Vec<Circuit>,
    pub(crate) keyed: Vec<Box<dyn Keyed>>,
    pub(crate) fleet: FleetSource,
}

impl Sources {
    /// Returns an error if two circuits have the same name.
    pub(crate) fn check_names(&self) -> Result<(), ConfigError> {
        let registered = self.registries.iter().flat_map(CircuitRegistry::circuits);
        let single = registered.chain(self.circuits.iter().cloned()).map(|circuit| circuit.name());
        let mut names: Vec<_> = single.chain(self.keyed.iter().map(|keyed| keyed.name())).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ConfigError::new("circuit", pair[0], "a name that no other circuit has")),
            None => Ok(()),
        }
    }

    /// Returns the view of every circuit, without the single keys, sorted by name. `history` is
    /// `None`.
    pub(crate) fn views(&self) -> Vec<View> {
        self.all().values().map(|named| self.view_of(named)).collect()
    }

    /// Returns the view of one circuit. `None`: no circuit has this name.
    pub(crate) fn view(&self, circuit: &str) -> Option<View> {
        self.find(circuit).map(|named| self.view_of(&named))
    }

    /// Returns the circuit, or circuits by key, with this name.
    pub(crate) fn find(&self, circuit: &str) -> Option<Named<'_>> {
        let registered = || self.registries.iter().find_map(|registry| registry.get(circuit));
        let given = || self.circuits.iter().find(|other| other.name() == circuit).cloned();
        if let Some(circuit) = registered().or_else(given) {
            return Some(Named::Single(Arc::new(circuit)));
        }
        self.keyed.iter().find(|keyed| keyed.name() == circuit).map(|keyed| Named::Keyed(&**keyed))
    }

    /// Calls `observer` after every transition, also of keyed circuits and of circuits that a
    /// registry creates later, until the subscription is dropped.
    pub(crate) fn on_transition(&self, observer: &TransitionObserver) -> Subscription {
        let mut removers: Vec<Remover> = Vec::new();
        for registry in &self.registries {
            let (registry, observer) = (registry.clone(), Arc::clone(observer));
            let id = registry.on_transition(move |transition| observer(transition));
            removers.push(Box::new(move || {
                let _ = registry.remove_observer(id);
            }));
        }
        for circuit in &self.circuits {
            let (circuit, observer) = (circuit.clone(), Arc::clone(observer));
            let id = circuit.on_transition(move |transition| observer(transition));
            removers.push(Box::new(move || {
                let _ = circuit.remove_observer(id);
            }));
        }
        removers.extend(self.keyed.iter().map(|keyed| keyed.on_transition(Arc::clone(observer))));
        Subscription(removers)
    }

    /// Returns the connection to the fleet as JSON. `None`: there is no fleet.
    pub(crate) fn fleet_status(&self) -> Option<serde_json::Value> {
        self.fleet.status()
    }

    /// Returns all circuits by name. As in [`find`](Self::find), a registry takes precedence.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, Named<'_>> {
        let keyed = self.keyed.iter().map(|keyed| (keyed.name(), Named::Keyed(&**keyed)));
        let given = self.circuits.iter().rev().cloned();
        let registered = self.registries.iter().rev().flat_map(CircuitRegistry::circuits);
        let single = given.chain(registered).map(|circuit| {
            let name = circuit.name();
            (name, Named::Single(Arc::new(circuit) as Arc<dyn Handle>))
        });
        // A later circuit replaces an earlier one.
        keyed.rev().chain(single).collect()
    }

    pub(crate) fn view_of(&self, named: &Named<'_>) -> View {
        match named {
            Named::Single(handle) => View::of(&**handle, &self.fleet),
            Named::Keyed(keyed) => View::of_keyed(*keyed),
        }
    }
}

/// Observers of transitions, which are removed when it is dropped.
#[must_use = "dropping it removes the observers"]
pub(crate) struct Subscription(Vec<Remover>);

impl Drop for Subscription {
    fn drop(&mut self) {
        for remove in self.0.drain(..) {
            remove();
        }
    }
}

#[cfg(test)]
mod tests;
