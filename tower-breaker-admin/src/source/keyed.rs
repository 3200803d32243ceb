//! Circuits by key.

use std::fmt;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tower_breaker::keyed::{KeyedCircuit, KeyedCircuits};
use tower_breaker::{BreakerConfig, CircuitState, ControlError, Status};

use super::{FleetSource, Handle, Keyed, LocalAction, Remover, TransitionObserver, circuit};
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

    fn keys(&self) -> Vec<(String, Arc<dyn Handle>)> {
        let labelled = self.circuits().into_iter().filter_map(|circuit| {
            let label = label(circuit.key())?;
            Some((label, handle(circuit, false)))
        });
        let overflow = self.overflow().map(|circuit| (OVERFLOW.to_owned(), handle(circuit, true)));
        let mut keys: Vec<_> = labelled.chain(overflow).collect();
        // The order of equal labels stays, so that the first of them is kept.
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        keys.dedup_by(|(later, _), (earlier, _)| later == earlier);
        keys
    }

    fn key(&self, text: &str) -> Option<Arc<dyn Handle>> {
        let circuits = self.circuits();
        let found = circuits.into_iter().find(|circuit| label(circuit.key()).is_some_and(|it| it == text));
        match found {
            Some(circuit) => Some(handle(circuit, false)),
            None if text == OVERFLOW => self.overflow().map(|circuit| handle(circuit, true)),
            None => None,
        }
    }

    fn on_transition(&self, observer: TransitionObserver) -> Remover {
        let id = Self::on_transition(self, move |transition| observer(transition));
        let circuits = self.clone();
        Box::new(move || {
            let _ = circuits.remove_observer(id);
        })
    }
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
