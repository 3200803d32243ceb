//! The listeners of a map: signals to a coordinator, and transitions with a handle.
//!
//! A circuit does not store a handle to itself. To call a listener with a handle, the circuit is
//! looked up in the table of its map. So a circuit that was evicted or removed calls no listener,
//! and neither does the overflow circuit.

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::core::KeyedStore;
use super::map::{Inner, KeyedCircuit, KeyedCircuits};
use crate::circuit::Events;
use crate::control::Signal;
use crate::telemetry::{Observer, ObserverId, Transition};

/// Listeners of events, with the circuit of the event. Shared, so that an event copies no list.
type EventListeners<K, E> = Arc<[Observer<(KeyedCircuit<K>, E)>]>;

/// The listeners of the circuits of a map.
pub(super) struct Listeners<K> {
    /// The map of the circuits. Not set for overflow circuits.
    map: OnceLock<Weak<Inner<K>>>,
    lists: Mutex<Lists<K>>,
}

struct Lists<K> {
    signals: EventListeners<K, Signal>,
    transitions: EventListeners<K, Transition>,
}

impl<K> Listeners<K> {
    /// Sets the map whose circuits have these listeners.
    pub(super) fn set_map(&self, map: &Arc<Inner<K>>) {
        let _ = self.map.set(Arc::downgrade(map));
    }

    /// Sends a signal of a circuit to the listeners. The caller holds no lock.
    pub(super) fn signal(&self, store: &KeyedStore<K>, signal: Signal) {
        let listeners = Arc::clone(&self.lists().signals);
        self.call(&listeners, store, || signal);
    }

    /// Notifies the listeners of a transition of a circuit. The caller holds no lock.
    pub(super) fn notify(&self, store: &KeyedStore<K>, transition: &Transition) {
        let listeners = Arc::clone(&self.lists().transitions);
        self.call(&listeners, store, || transition.clone());
    }

    fn call<E>(
        &self,
        listeners: &[Observer<(KeyedCircuit<K>, E)>],
        store: &KeyedStore<K>,
        event: impl FnOnce() -> E,
    ) {
        if listeners.is_empty() {
            return;
        }
        let Some(inner) = self.map.get().and_then(Weak::upgrade) else { return };
        let circuits = KeyedCircuits { inner };
        let Some(core) = circuits.inner.table.find_store(store) else { return };
        let event = (circuits.handle(core), event());
        for listener in listeners {
            listener.call(&event);
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists<K>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds an observer to a list. Returns the former list, which is dropped outside of the lock.
fn add<E>(list: &mut Arc<[Observer<E>]>, observer: Observer<E>) -> Arc<[Observer<E>]> {
    let longer = list.iter().cloned().chain([observer]).collect();
    mem::replace(list, longer)
}

/// Removes an observer from a list, and returns the former list. `None`: it is not in the list.
fn remove<E>(list: &mut Arc<[Observer<E>]>, id: ObserverId) -> Option<Arc<[Observer<E>]>> {
    list.iter().any(|observer| observer.id() == id).then(|| {
        let shorter = list.iter().filter(|observer| observer.id() != id).cloned().collect();
        mem::replace(list, shorter)
    })
}

/// Signals to a coordinator: see [`control`](crate::control).
impl<K> KeyedCircuits<K> {
    /// Adds a listener, which is called for the events that a coordinator may react to.
    ///
    /// It is [`Circuit::on_signal`](crate::Circuit::on_signal) for all circuits of the map, with
    /// the circuit of the event. [`Signal::Failure`] and [`Signal::Demand`] are sent once for each
    /// circuit, until [`Circuit::rearm`](crate::Circuit::rearm) of that circuit. They are armed in
    /// each new circuit. A new listener arms them in all circuits, for all listeners, in a time
    /// that grows with the number of circuits.
    ///
    /// These circuits send no signal:
    ///
    /// - A circuit that was evicted or removed, even if handles and running calls still use it.
    /// - A new circuit until the listeners of [`on_create`](Self::on_create) have returned. Then
    ///   its signals are armed.
    /// - The [overflow](Self::overflow) circuit.
    ///
    /// The listener is called on the thread of the call, outside of every lock. It should be quick:
    /// for example, it wakes a task. A panic of the listener is caught.
    ///
    /// Without a listener, a success costs no instruction more, and a failure or a rejection at
    /// most one load. Sending a signal allocates nothing.
    ///
    /// A listener must not keep the circuit, because a circuit with a handle is not evicted. It can
    /// keep the `WeakCircuit` of [`Circuit::downgrade`](crate::Circuit::downgrade).
    pub fn on_signal(
        &self,
        listener: impl Fn(&KeyedCircuit<K>, Signal) + Send + Sync + 'static,
    ) -> ObserverId {
        let listener = Observer::new(move |(circuit, signal): &(_, Signal)| listener(circuit, *signal));
        let id = listener.id();
        let common = self.common();
        let mut lists = common.listeners().lists();
        let former = add(&mut lists.signals, listener);
        // Under the lock, so that of two concurrent changes the later one applies last.
        common.set_signals(true);
        drop(lists);
        drop(former);
        for circuit in self.circuits() {
            circuit.owner().arm(Events::SIGNALS);
        }
        id
    }

    /// Adds a listener, which is called after every transition, with the circuit.
    ///
    /// It differs from [`on_transition`](Self::on_transition) as follows. The circuit identifies
    /// the key, while two keys may have the same label. A circuit that was evicted or removed, a
    /// new circuit until the listeners of [`on_create`](Self::on_create) have returned, and the
    /// [overflow](Self::overflow) circuit call no such listener.
    ///
    /// The listener is called on the thread that caused the transition, outside of every lock. A
    /// panic of the listener is caught. As for [`on_signal`](Self::on_signal), it must not keep the
    /// circuit.
    pub fn on_key_transition(
        &self,
        listener: impl Fn(&KeyedCircuit<K>, &Transition) + Send + Sync + 'static,
    ) -> ObserverId {
        let listener =
            Observer::new(move |(circuit, transition): &(_, Transition)| listener(circuit, transition));
        let id = listener.id();
        let former = add(&mut self.common().listeners().lists().transitions, listener);
        drop(former);
        id
    }

    /// Removes a listener of signals or transitions. Returns `false` if there is no such listener.
    pub(super) fn remove_listener(&self, id: ObserverId) -> bool {
        let common = self.common();
        let mut lists = common.listeners().lists();
        let signals = remove(&mut lists.signals, id);
        let transitions = remove(&mut lists.transitions, id);
        if lists.signals.is_empty() {
            common.set_signals(false);
        }
        drop(lists);
        // The listener is dropped after the lock was released: its `Drop` may run any code.
        signals.is_some() || transitions.is_some()
    }
}

impl<K> Default for Listeners<K> {
    fn default() -> Self {
        let lists = Lists { signals: Arc::default(), transitions: Arc::default() };
        Self { map: OnceLock::new(), lists: Mutex::new(lists) }
    }
}

impl<K> fmt::Debug for Listeners<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listeners")
    }
}
