//! Circuits by key: which of them take part in the fleet.
//!
//! Only keys with trouble take part: those with a recent failure, with an open or half-open
//! circuit, or with a record in the store that is not closed. A key without trouble sends no
//! message, so the number of keys does not matter.
//!
//! A key joins by a signal of its circuit, or by a record of the store. It leaves when it has had
//! no trouble for a lifetime. The record of a key that has no circuit in this process is kept, and
//! applied when the circuit is created.
//!
//! | file | content |
//! |---|---|
//! | this file | a map of circuits by key, and what its circuits do on the thread of a call |
//! | `names.rs` | the names of keys in the fleet |
//! | `records.rs` | the records of keys that do not take part |
//! | `tracking.rs` | what the agent does: keys join and leave |

mod names;
mod records;
mod tracking;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tower_breaker::CircuitState;
use tower_breaker::control::Signal;
use tower_breaker::keyed::{KeyedCircuit, KeyedCircuits, WeakKeyedCircuits};
use tower_breaker::telemetry::ObserverId;

use super::circuit::{Follower, Members, Moved};
use super::mailbox::Event;
use super::shared::{Request, Shared, View};
use super::slot::{Slot, Source};
use super::target::{SharedTarget, Target};
use super::{Time, check_name, telemetry};
use crate::error::FleetError;
use crate::quorum::Quorum;
use crate::record::{CircuitRecord, FleetState};

pub(crate) use names::{key_name, prefix};
use records::Records;
pub(crate) use tracking::Keys;

/// The number of keys that wait for the agent to join, if not more can take part.
const MAX_JOINING: usize = 1024;

/// Returns the stable text of a key.
pub(crate) type KeyText<K> = Arc<dyn Fn(&K) -> String + Send + Sync>;

/// A shared map of circuits by key.
pub(crate) struct Layer {
    /// The name of the circuits.
    label: &'static str,
    prefix: String,
    quorum: Quorum,
    /// How many keys take part at most.
    max_keys: usize,
    map: Box<dyn Map>,
    /// The listeners of the agent, to remove them.
    observers: OnceLock<[ObserverId; 3]>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: Records,
    /// How many keys take part.
    keys: usize,
    /// How many keys wait for the agent to join.
    joining: usize,
    /// Whether a key could not take part since the circuits were visited last.
    has_refused: bool,
    has_warned: bool,
    /// Whether the records of the store were read once.
    is_loaded: bool,
}

/// The circuits of a layer, whatever the type of their keys.
trait Map: Send + Sync {
    /// Calls `visit` with the text of each key and its circuit. `None`: the text panicked.
    fn visit(&self, visit: &mut dyn FnMut(Option<String>, &dyn KeyTarget));
    /// Returns the text of a key. `None`: the key has another type, or the text panicked.
    fn text(&self, key: &dyn Any) -> Option<String>;
    fn remove_observers(&self, ids: &[ObserverId]);
    fn has_ended(&self) -> bool;
}

struct TypedMap<K> {
    circuits: WeakKeyedCircuits<K>,
    text: KeyText<K>,
}

/// The circuit of a key.
trait KeyTarget: Target {
    fn weak(&self) -> SharedTarget;
}

impl<K: Send + Sync + 'static> KeyTarget for KeyedCircuit<K> {
    fn weak(&self) -> SharedTarget {
        Arc::new(self.downgrade())
    }
}

impl<K: Send + Sync + 'static> Map for TypedMap<K> {
    fn visit(&self, visit: &mut dyn FnMut(Option<String>, &dyn KeyTarget)) {
        let Some(circuits) = self.circuits.upgrade() else { return };
        for circuit in circuits.circuits() {
            visit(text_of(&self.text, circuit.key()), &circuit);
        }
    }

    fn text(&self, key: &dyn Any) -> Option<String> {
        text_of(&self.text, key.downcast_ref()?)
    }

    fn remove_observers(&self, ids: &[ObserverId]) {
        let Some(circuits) = self.circuits.upgrade() else { return };
        for id in ids {
            circuits.remove_observer(*id);
        }
    }

    fn has_ended(&self) -> bool {
        self.circuits.upgrade().is_none()
    }
}

/// A panic of the user's code must end neither a call nor the agent.
fn text_of<K>(text: &KeyText<K>, key: &K) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| text(key))).ok()
}

/// A request about keys.
pub(crate) enum KeyRequest {
    /// Read the records of a new layer.
    Load(Arc<Layer>),
    /// A key has trouble.
    Join(Arc<Layer>, Arc<str>, SharedTarget),
    /// A key that takes part has a new circuit.
    Replace(Arc<Layer>, Arc<str>, SharedTarget),
    /// A new circuit has a record, which was applied.
    Add(Box<Slot>),
}

impl Layer {
    /// Returns the name of a key in the fleet. `None`: it cannot take part, because its name would
    /// be too long.
    fn name(&self, text: Option<&str>) -> Option<Arc<str>> {
        let name =
            text.map(|text| names::with_prefix(&self.prefix, text)).filter(|name| check_name(name).is_ok());
        if name.is_none() {
            self.warn_once("the name of a key in the fleet is longer than 256 bytes");
        }
        name.map(Arc::from)
    }

    /// Logs, once for each layer, that keys decide for themselves.
    fn warn_once(&self, problem: &'static str) {
        if !std::mem::replace(&mut self.state().has_warned, true) {
            telemetry::key_is_local(self.label, self.max_keys, problem);
        }
    }

    /// Whether one more key may wait to join. Otherwise a visit of all circuits finds it later.
    fn may_join(&self) -> bool {
        let mut state = self.state();
        if state.joining >= self.max_keys.max(MAX_JOINING) {
            state.has_refused = true;
            return false;
        }
        state.joining += 1;
        true
    }

    pub(super) fn on_added(&self) {
        self.count(|keys| keys + 1);
    }

    pub(super) fn on_removed(&self) {
        self.count(|keys| keys.saturating_sub(1));
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.state();
        state.keys = change(state.keys);
        telemetry::keys(self.label, state.keys);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shared layers, by the prefix of their keys' names.
#[derive(Default)]
pub(crate) struct Layers(Mutex<BTreeMap<String, Arc<Layer>>>);

impl Layers {
    /// Returns the layer of a key's name.
    fn of(&self, name: &str) -> Option<Arc<Layer>> {
        self.map().get(prefix_of(name)?).cloned()
    }

    fn all(&self) -> Vec<Arc<Layer>> {
        self.map().values().cloned().collect()
    }

    /// Adds a layer. Returns `false` if there is one with this name.
    fn add(&self, layer: &Arc<Layer>) -> bool {
        let mut map = self.map();
        let is_free = map.get(&layer.prefix).is_none_or(|other| other.map.has_ended());
        if is_free {
            map.insert(layer.prefix.clone(), Arc::clone(layer));
        }
        is_free
    }

    /// Returns the view of a key that does not take part, from its record.
    pub(super) fn view(&self, name: &str, now: Time) -> Option<View> {
        let record = self.of(name)?.state().records.get(name, now)?;
        Some(View { record: Some(record), at: now, members: Members::default(), vote: false })
    }

    pub(super) fn remove_observers(&self) {
        for layer in self.all() {
            if let Some(observers) = layer.observers.get() {
                layer.map.remove_observers(observers);
            }
        }
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Layer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prefix_of(name: &str) -> Option<&str> {
    name.find(names::SEPARATOR).map(|end| &name[..=end])
}

impl Shared {
    /// Shares the circuits of a map.
    pub(crate) fn share_keyed<K: Send + Sync + 'static>(
        self: &Arc<Self>,
        circuits: &KeyedCircuits<K>,
        text: &KeyText<K>,
        quorum: Quorum,
        max_keys: usize,
    ) -> Result<(), FleetError> {
        let label = circuits.name();
        let prefix = prefix(label);
        check_name(&prefix)?;
        if self.has_stopped() {
            return Err(FleetError::Stopped);
        }
        let map = Box::new(TypedMap { circuits: circuits.downgrade(), text: Arc::clone(text) });
        let (observers, state) = Default::default();
        let layer = Arc::new(Layer { label, prefix, quorum, max_keys, map, observers, state });
        if !self.layers.add(&layer) {
            return Err(FleetError::Shared { circuit: label.to_owned() });
        }
        self.update_readiness(|readiness| readiness.layers += 1);
        self.listen(circuits, &layer, text);
        self.request(Request::Key(KeyRequest::Load(Arc::clone(&layer))))?;
        for circuit in circuits.circuits() {
            // Listeners are called for what happens from now on.
            if is_troubled(&circuit.status(), self.settings.lifetime())
                && let Some(name) = layer.name(text_of(text, circuit.key()).as_deref())
                && layer.may_join()
            {
                let join = KeyRequest::Join(Arc::clone(&layer), name, circuit.weak());
                self.request(Request::Key(join))?;
            }
        }
        Ok(())
    }

    /// Returns the name in the fleet of a key of a layer.
    pub(crate) fn key_name<K: 'static>(&self, circuits: &str, key: &K) -> Option<String> {
        let layer = self.layers.of(&prefix(circuits)).filter(|layer| !layer.map.has_ended())?;
        let name = names::with_prefix(&layer.prefix, &layer.map.text(key)?);
        check_name(&name).is_ok().then_some(name)
    }

    fn listen<K: Send + Sync + 'static>(
        self: &Arc<Self>,
        circuits: &KeyedCircuits<K>,
        layer: &Arc<Layer>,
        text: &KeyText<K>,
    ) {
        let (shared, of, key) = (Arc::clone(self), Arc::clone(layer), Arc::clone(text));
        let on_create = circuits.on_create(move |circuit| {
            shared.on_key_created(&of, || of.name(text_of(&key, circuit.key()).as_deref()), circuit);
        });
        let (shared, of, key) = (Arc::clone(self), Arc::clone(layer), Arc::clone(text));
        let on_signal = circuits.on_signal(move |circuit, signal| {
            let name = of.name(text_of(&key, circuit.key()).as_deref());
            shared.on_key_event(&of, name, circuit, Event::Signal(signal));
        });
        let (shared, of, key) = (Arc::clone(self), Arc::clone(layer), Arc::clone(text));
        let on_transition = circuits.on_key_transition(move |circuit, transition| {
            let moved = Moved { reason: transition.reason, epoch: transition.epoch };
            let name = of.name(text_of(&key, circuit.key()).as_deref());
            shared.on_key_event(&of, name, circuit, Event::Transition(moved));
        });
        let _ = layer.observers.set([on_create, on_signal, on_transition]);
    }

    /// Applies the record of a key to its new circuit, before the first call.
    fn on_key_created(
        &self,
        layer: &Arc<Layer>,
        name: impl FnOnce() -> Option<Arc<str>>,
        circuit: &dyn KeyTarget,
    ) {
        {
            let state = layer.state();
            if state.keys == 0 && state.records.is_empty() {
                return;
            }
        }
        let Some(name) = name().filter(|_| !self.has_stopped()) else { return };
        let now = self.now();
        let takes_part = self.key_id(&name).is_some();
        let kept = layer.state().records.take(&name, now);
        let viewed = if takes_part { self.cached(&name) } else { None };
        let record = [kept, viewed].into_iter().flatten().max_by_key(|record| record.epoch);
        let request = match record.filter(|record| !is_closed(record)) {
            Some(record) => {
                let Some(mut slot) = self.key_slot(layer, name, circuit.weak()) else { return };
                // The messages that it needs follow with the first reply of the store.
                slot.run(&self.settings, |follower, local, actions| {
                    follower.on_record(now, &record, local, actions);
                });
                KeyRequest::Add(Box::new(slot))
            }
            None if takes_part => KeyRequest::Replace(Arc::clone(layer), name, circuit.weak()),
            None => return,
        };
        // An error: the agent has just ended, and the circuit decides for itself.
        let _ = self.request(Request::Key(request));
    }

    /// Passes an event of a key's circuit to the agent.
    fn on_key_event(
        &self,
        layer: &Arc<Layer>,
        name: Option<Arc<str>>,
        circuit: &dyn KeyTarget,
        event: Event,
    ) {
        let Some(name) = name else { return };
        if let Some(id) = self.key_id(&name) {
            return self.mailbox.post(id, event);
        }
        let joins = match event {
            Event::Signal(signal) => signal == Signal::Failure,
            Event::Transition(_) => is_unclosed(circuit.status().state),
        };
        if joins && layer.may_join() {
            // An error: the agent has ended, and the circuit decides for itself.
            let _ = self.request(Request::Key(KeyRequest::Join(Arc::clone(layer), name, circuit.weak())));
        }
    }

    /// Registers the circuit of a key. `None`: a circuit that is no key's has this name.
    fn key_slot(&self, layer: &Arc<Layer>, name: Arc<str>, circuit: SharedTarget) -> Option<Slot> {
        let Some(id) = self.reserve_key(&name, &circuit) else {
            layer.warn_once("a circuit without a key has the name of a key in the fleet");
            return None;
        };
        let tuning = self.settings.tuning(layer.quorum);
        let follower = Follower::new(tuning, fastrand::Rng::new());
        let (label, quorum, source) = (layer.label, layer.quorum, Source::Key(Arc::clone(layer)));
        Some(Slot { id, name, label, circuit, follower, quorum, source })
    }
}

/// Whether the circuit of a key is a reason to take part: it is open or half-open, or has failed
/// within this time.
fn is_troubled(status: &tower_breaker::Status, within: Time) -> bool {
    is_unclosed(status.state) || status.since_last_failure.is_some_and(|since| since < within)
}

const fn is_unclosed(state: CircuitState) -> bool {
    matches!(state, CircuitState::Open | CircuitState::HalfOpen)
}

fn is_closed(record: &CircuitRecord) -> bool {
    record.state == FleetState::Closed && record.manual.is_none()
}
