//! The creation of circuits. The listeners are called for each new circuit before a call uses it.
//!
//! Without a listener, a new circuit is added to the list and to the table at once. With listeners,
//! it is added to the list first, which limits the number of circuits, and to the table when the
//! listeners have returned. Until then, other calls with the key wait for it. No lock is held while
//! the listeners run.
//!
//! A listener never waits for a circuit, because two listeners could wait for each other. It gets
//! the circuit immediately.

use std::hash::Hash;
use std::sync::{Arc, PoisonError};

use super::core::{KeyedStore, SharedCore};
use super::map::{ClockHand, Inner, KeyedCircuit, KeyedCircuits};
use crate::circuit::{Core, Events};
use crate::listening::Listening;
use crate::telemetry::{Observer, ObserverId};

/// How often a new key is compared with the keys of the same hash, while other keys are inserted.
const ATTEMPTS: u32 = 16;

/// The circuits that are being created, and the listeners for new circuits.
pub(super) struct Creation<K> {
    /// The circuits for which the listeners are being called. They are in the list, and not in the
    /// table.
    unsettled: Vec<SharedCore<K>>,
    listeners: Vec<Observer<KeyedCircuit<K>>>,
}

impl<K> Creation<K> {
    /// Returns the number of circuits for which the listeners are being called.
    pub(super) const fn len(&self) -> usize {
        self.unsettled.len()
    }

    /// Removes the circuits for which the listeners are being called.
    pub(super) fn take_all(&mut self) -> Vec<SharedCore<K>> {
        std::mem::take(&mut self.unsettled)
    }

    fn with_hash(&self, hash: u64) -> impl Iterator<Item = SharedCore<K>> {
        self.unsettled.iter().filter(move |core| core.store().hash() == hash).cloned()
    }

    fn contains(&self, core: &SharedCore<K>) -> bool {
        self.unsettled.iter().any(|other| SharedCore::ptr_eq(other, core))
    }

    fn take(&mut self, core: &SharedCore<K>) -> Option<SharedCore<K>> {
        let place = self.unsettled.iter().position(|other| SharedCore::ptr_eq(other, core))?;
        Some(self.unsettled.swap_remove(place))
    }
}

impl<K> Default for Creation<K> {
    fn default() -> Self {
        Self { unsettled: Vec::new(), listeners: Vec::new() }
    }
}

impl<K> ClockHand<K> {
    /// Returns the circuits in the list, without those for which the listeners are being called.
    pub(super) fn created(&self) -> impl Iterator<Item = &SharedCore<K>> {
        self.circuits.iter().filter(|core| !self.creation.contains(core))
    }
}

impl<K: Eq + Hash> KeyedCircuits<K> {
    /// Creates a circuit. If the map is full, one of the next `steps` circuits is evicted for it.
    /// If none of them can be evicted, the key is returned.
    pub(super) fn insert(&self, key: K, hash: u64, steps: usize) -> Result<SharedCore<K>, K> {
        let Inner { table, common, full_until, .. } = &*self.inner;
        let mut label = None;
        let mut compared_at = None;
        let mut attempts = ATTEMPTS;
        let mut clock_hand = loop {
            let clock_hand = self.clock_hand();
            if label.is_none() && !common.configs().keys.is_empty() {
                // The key may have a configuration of its own. Its label is formatted outside of
                // the lock.
                drop(clock_hand);
                label = Some(common.make_label(&key));
                continue;
            }
            if compared_at == Some(clock_hand.insertions) {
                break clock_hand;
            }
            let mut equals = table.with_hash(hash);
            equals.extend(clock_hand.creation.with_hash(hash));
            if equals.is_empty() {
                break clock_hand;
            }
            // Another call with the same key was first, or another key has the same hash.
            compared_at = Some(clock_hand.insertions);
            drop(clock_hand);
            if let Some(core) = equals.into_iter().find(|core| *core.store().key_ref() == key) {
                self.wait_until_settled(&core);
                return Ok(core);
            }
            attempts -= 1;
            if attempts == 0 {
                return Err(key);
            }
        };
        // After a reconfiguration with fewer keys, one circuit more is evicted.
        let surplus = clock_hand.evict_surplus(steps, table);
        let place = if clock_hand.circuits.len() < clock_hand.max_keys {
            None
        } else {
            let Some(place) = clock_hand.evict(steps, table) else {
                if clock_hand.scanned >= clock_hand.circuits.len() {
                    clock_hand.scanned = 0;
                    let until = common.clock().now().saturating_add(common.bucket() / 10);
                    full_until.store(until, std::sync::atomic::Ordering::Relaxed);
                }
                // The lock is released before the key is dropped.
                drop(clock_hand);
                if let Some(core) = surplus {
                    self.drop_evicted(core);
                }
                return Err(key);
            };
            Some(place)
        };
        // If a key has got its first configuration meanwhile, `label` is missing. The configuration
        // is then applied to all circuits in the list, and so to this one.
        let label = label.flatten();
        let store = KeyedStore::new(key, hash, Arc::clone(common), &common.configs(), label.as_deref());
        let initial = store.initial_state();
        let core = SharedCore::new(Core::new(store));
        let former = clock_hand.put(place, SharedCore::clone(&core));
        let listens = !clock_hand.creation.listeners.is_empty();
        if listens {
            clock_hand.creation.unsettled.push(SharedCore::clone(&core));
        } else {
            table.insert(SharedCore::clone(&core));
        }
        drop(clock_hand);
        let unsettled = listens.then(|| Unsettled { circuits: self, core: SharedCore::clone(&core) });
        core.store().count(initial);
        surplus.into_iter().chain(former).for_each(|core| self.drop_evicted(core));
        if let Some(unsettled) = unsettled {
            unsettled.announce();
        }
        Ok(core)
    }
}

impl<K> KeyedCircuits<K> {
    /// Adds a listener, which is called once for each new circuit.
    ///
    /// It is called before the circuit's first call: calls with the key, and
    /// [`get_or_insert`](Self::get_or_insert) and [`circuit`](Self::circuit), wait until all
    /// listeners have returned. Until then, the circuit is in no list, and
    /// [`get`](Self::get) and [`remove`](Self::remove) do not find it. A panic of the listener is
    /// caught.
    ///
    /// The listener is not called for the [overflow](Self::overflow) circuit, and not for circuits
    /// that exist already. To treat all circuits, add the listener first, and then visit
    /// [`circuits`](Self::circuits). A circuit that is created between the two is seen twice, and
    /// none is missed. A key whose circuit was evicted or removed gets a new circuit, for which the
    /// listener is called again.
    ///
    /// The listener runs outside of every lock, on the thread of the first call with the key, and
    /// may use the circuits. It should be quick, because calls of other threads with the same key
    /// block until it returns. It must not wait for another thread that uses the key of the new
    /// circuit. A listener that uses a key whose circuit is being created gets the circuit
    /// immediately, even if the listeners have not been called for it yet.
    ///
    /// A listener must not keep the circuit, because a circuit with a handle is not evicted. It can
    /// keep the `WeakCircuit` of [`Circuit::downgrade`](crate::Circuit::downgrade).
    pub fn on_create(&self, listener: impl Fn(&KeyedCircuit<K>) + Send + Sync + 'static) -> ObserverId {
        let listener = Observer::new(listener);
        let id = listener.id();
        self.clock_hand().creation.listeners.push(listener);
        id
    }

    pub(super) fn remove_create_listener(&self, id: ObserverId) -> bool {
        // The listener is dropped after the lock was released: its `Drop` may run any code.
        let listener = Observer::take(&mut self.clock_hand().creation.listeners, id);
        listener.is_some()
    }

    /// Waits until the listeners have been called for a circuit. A listener does not wait.
    fn wait_until_settled(&self, core: &SharedCore<K>) {
        if Listening::is_active() {
            return;
        }
        let clock_hand = self.clock_hand();
        let is_unsettled = |clock_hand: &mut ClockHand<K>| clock_hand.creation.contains(core);
        let waited = self.inner.settled.wait_while(clock_hand, is_unsettled);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes a new circuit visible to all calls, unless it was removed meanwhile.
    fn settle(&self, clock_hand: &mut ClockHand<K>, core: &SharedCore<K>) {
        if let Some(core) = clock_hand.creation.take(core) {
            // Signals that were sent until now had no receiver.
            core.arm(Events::SIGNALS);
            self.inner.table.insert(core);
        }
    }
}

/// A circuit for which the listeners are being called. Its drop makes the circuit visible, also if
/// other code of the user panics.
struct Unsettled<'a, K> {
    circuits: &'a KeyedCircuits<K>,
    core: SharedCore<K>,
}

impl<K> Unsettled<'_, K> {
    /// Calls the listeners, and then makes the circuit visible to all calls.
    fn announce(self) {
        let Self { circuits, core } = &self;
        let circuit = circuits.handle(SharedCore::clone(core));
        let mut called = Vec::new();
        loop {
            let mut clock_hand = circuits.clock_hand();
            let is_new = |listener: &&Observer<_>| !called.contains(&listener.id());
            let listeners: Vec<_> = clock_hand.creation.listeners.iter().filter(is_new).cloned().collect();
            if listeners.is_empty() {
                // Under the lock with which the last listener was looked for. So a listener that is
                // added later finds the circuit in the list of circuits.
                circuits.settle(&mut clock_hand, core);
                return;
            }
            drop(clock_hand);
            let _listening = Listening::begin();
            for listener in listeners {
                listener.call(&circuit);
                called.push(listener.id());
            }
        }
    }
}

impl<K> Drop for Unsettled<'_, K> {
    fn drop(&mut self) {
        self.circuits.settle(&mut self.circuits.clock_hand(), &self.core);
        self.circuits.inner.settled.notify_all();
    }
}
