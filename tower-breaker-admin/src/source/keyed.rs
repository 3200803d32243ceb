//! Circuits by key.

use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tower_breaker::handle::WeakCircuit;
use tower_breaker::keyed::{KeyedCircuit, KeyedCircuits, Shared};
use tower_breaker::{BreakerConfig, Circuit, CircuitState, ControlError, Status};

use super::{
    FleetSource, Found, Handle, Keyed, LocalAction, Remover, TransitionObserver, WeakHandle, circuit,
};
use crate::view::KeyCounts;

/// The label of the overflow circuit.
const OVERFLOW: &str = "(overflow)";

/// The circuit of one key.
struct KeyHandle<K> {
    circuit: KeyedCircuit<K>,
    is_overflow: bool,
}

impl<K: Send + Sync + 'static> Handle for KeyHandle<K> {
    fn status(&self) -> Status {
        self.circuit.status()
    }

    fn config(&self) -> BreakerConfig {
        self.circuit.config()
    }

    fn apply(&self, action: LocalAction, time: Option<Duration>) -> Result<(), ControlError> {
        circuit::apply(&self.circuit, action, time)
    }

    fn fleet_name(&self, fleet: &FleetSource) -> Option<String> {
        // The overflow circuit does not take part in the fleet.
        (!self.is_overflow).then(|| fleet.key_name(self.circuit.name(), self.circuit.key()))?
    }
}

impl<K> Keyed for KeyedCircuits<K>
where
    K: Eq + Hash + fmt::Debug + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn config(&self) -> BreakerConfig {
        Self::config(self).each().clone()
    }

    fn counts(&self) -> KeyCounts {
        let overflow = self.overflow();
        let is_unclosed = |circuit: &KeyedCircuit<K>| circuit.status().state != CircuitState::Closed;
        KeyCounts {
            count: self.len(),
            not_closed: self.not_closed() + usize::from(overflow.as_ref().is_some_and(is_unclosed)),
            evicted: self.evicted(),
            overflowed: self.overflowed(),
        }
    }

    fn keys(&self) -> Vec<(String, WeakHandle)> {
        let labelled = weak(self).filter_map(|weak| {
            let label = label(weak.upgrade()?.key())?;
            let circuit: WeakHandle = Box::new(move || Some(handle(weak.upgrade()?, false)));
            Some((label, circuit))
        });
        let overflow = self.overflow().map(|circuit| {
            let circuit = handle(circuit, true);
            let circuit: WeakHandle = Box::new(move || Some(Arc::clone(&circuit)));
            (OVERFLOW.to_owned(), circuit)
        });
        let mut keys: Vec<_> = labelled.chain(overflow).collect();
        // The order of equal labels stays, so that the first of them is kept.
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        keys.dedup_by(|(later, _), (earlier, _)| later == earlier);
        keys
    }

    fn key(&self, text: &str) -> Option<Found> {
        let labelled = weak(self).filter_map(|weak| {
            let circuit = weak.upgrade()?;
            (label(circuit.key())? == text).then(|| handle(circuit, false))
        });
        let overflow = (text == OVERFLOW).then(|| self.overflow()).flatten();
        let mut found = labelled.chain(overflow.map(|circuit| handle(circuit, true)));
        let circuit = found.next()?;
        Some(Found { circuit, is_only: found.next().is_none() })
    }

    fn on_transition(&self, observer: TransitionObserver) -> Remover {
        let id = Self::on_transition(self, move |transition| observer(transition));
        let circuits = self.clone();
        Box::new(move || {
            let _ = circuits.remove_observer(id);
        })
    }
}

/// Returns all circuits, without handles that prevent their eviction. Otherwise calls with new keys
/// would find no space in a full map while the labels of all keys are made.
fn weak<K>(circuits: &KeyedCircuits<K>) -> impl Iterator<Item = WeakCircuit<Shared<K>>> + use<K> {
    let circuits: Vec<_> = circuits.circuits().iter().map(Circuit::downgrade).collect();
    circuits.into_iter()
}

fn handle<K: Send + Sync + 'static>(circuit: KeyedCircuit<K>, is_overflow: bool) -> Arc<dyn Handle> {
    Arc::new(KeyHandle { circuit, is_overflow })
}

/// Returns the label of a key: its `Debug` text, without the surrounding quotes of a string, as in
/// [`Status::key`]. `None`: its `Debug` panicked.
fn label<K: fmt::Debug>(key: &K) -> Option<String> {
    let text = catch_unwind(AssertUnwindSafe(|| format!("{key:?}"))).ok()?;
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => Some(inner.to_owned()),
        None => Some(text),
    }
}
