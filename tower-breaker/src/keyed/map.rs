//! The map of keyed circuits, with a bounded size.
//!
//! # Eviction
//!
//! Every call reads the table; only new keys write to it. A list holds the same circuits, and a
//! clock hand moves around in it. If the map is full, a call with a new key scans the next few
//! circuits from the clock hand. It evicts the circuit with the lowest cost. The time of a call is
//! therefore bounded. Once a whole round has found no circuit to evict, calls with new keys do not
//! scan for a hundredth of the window. [`KeyedCircuits::get_or_insert`] scans a whole round.
//!
//! # Why no call loses its circuit
//!
//! A call that finds its circuit takes a handle to it, under the lock of the table's shard. It
//! keeps the handle until its outcome is recorded. A circuit is evicted under the same lock, and
//! only if the table and the list are its only owners. There are two cases: the call has not found
//! the circuit yet, and creates a new one; or its outcome is already in the window that the
//! eviction has read. `lease.rs` explains why the same is true of a call through a lease.
//!
//! # Why no user code runs under a lock
//!
//! Keys are hashed before a lock is taken and compared after it is released. A key that is inserted
//! is compared with all keys that have its hash; if another key was inserted meanwhile, they are
//! compared again. Recorders run, and keys are dropped, at the end.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use foldhash::fast::RandomState;

use super::core::{Common, Configs, EvictionCost, KeyedStore, Shared, SharedCore, eviction_cost};
use super::creation::Creation;
use super::lease::Recent;
use super::table::Table;
use crate::circuit::{Circuit, CircuitState, Core, Permit, Status, StatusValues};
use crate::config::{KeyedConfig, Overflow};
use crate::error::Rejection;
use crate::machine::Reason;
use crate::telemetry::{Failure, ObserverId, Transition};

/// How many circuits a call with a new key scans at most.
const SCANNED_PER_CALL: usize = 16;

/// The number of owners of an unused circuit: the table and the list.
const MAP_HANDLES: usize = 2;

/// A handle to circuits by key: those of a [`KeyedBreakerLayer`](crate::keyed::KeyedBreakerLayer),
/// or circuits that are used without a layer.
///
/// It looks up circuits by key, lists them, resets them, removes them and observes their
/// transitions. A clone is another handle to the same circuits.
///
/// # Without a layer
///
/// A worker, a database pool or any other code without a tower service uses the circuits directly.
/// [`circuit`](Self::circuit) returns the circuit of a key:
///
/// ```
/// use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
/// use tower_breaker::{BreakerConfig, Verdict};
///
/// let each = BreakerConfig::builder().name("tenants").build()?;
/// let circuits: KeyedCircuits<String> = KeyedCircuits::new(KeyedConfig::builder(each).build()?);
///
/// let permit = circuits.try_acquire("acme")?;
/// // ... the call ...
/// permit.record(Verdict::Success);
///
/// for status in circuits.statuses() {
///     println!("{:?} is {}", status.key, status.state);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`KeyedBreakerLayer::with_circuits`](crate::keyed::KeyedBreakerLayer::with_circuits) makes a
/// layer with the same circuits.
pub struct KeyedCircuits<K> {
    pub(super) inner: Arc<Inner<K>>,
}

pub(super) struct Inner<K> {
    pub(super) table: Table<K>,
    hasher: RandomState,
    pub(super) common: Arc<Common<K>>,
    /// The circuits of keys for which the map has no space: shared, and disabled.
    pub(super) overflow: OverflowCircuits<K>,
    clock_hand: Mutex<ClockHand<K>>,
    /// Notified when the listeners have been called for a new circuit.
    pub(super) settled: Condvar,
    /// Until this time, no call scans for a circuit to evict.
    pub(super) full_until: AtomicU64,
    evicted: AtomicU64,
    overflowed: AtomicU64,
}

/// The circuit of each kind of [`Overflow`], and which of them is used.
pub(super) struct OverflowCircuits<K> {
    pub(super) shared: OverflowCircuit<K>,
    pub(super) unguarded: OverflowCircuit<K>,
    pub(super) is_shared: AtomicBool,
}

/// The circuit of keys without a circuit, created when it is first needed. Its key is the first
/// such key, and is not used.
pub(super) struct OverflowCircuit<K> {
    pub(super) common: Arc<Common<K>>,
    pub(super) circuit: OnceLock<SharedCore<K>>,
}

/// The circuits that are kept, and the position of the clock hand.
pub(super) struct ClockHand<K> {
    pub(super) circuits: Vec<SharedCore<K>>,
    position: usize,
    /// How many circuits were scanned without an eviction.
    pub(super) scanned: usize,
    /// How many circuits have been inserted.
    pub(super) insertions: u64,
    pub(super) creation: Creation<K>,
    /// How many circuits are kept at most.
    pub(super) max_keys: usize,
}

/// The circuit that a call uses.
pub struct PickedCircuit<K>(Shared<K>);

impl<K: Eq + fmt::Debug + Hash> KeyedCircuits<K> {
    /// Creates an empty map of circuits.
    ///
    /// The label of a key is its `Debug` text, without the surrounding quotes of a string.
    pub fn new(config: KeyedConfig) -> Self {
        let KeyedConfig { each, max_keys, overflow, key_label, keys } = config;
        let common = Common::new(Configs { each, keys }, label, key_label);
        if let Some(instruments) = common.instruments() {
            instruments.map_created();
        }
        let of_overflow = |guards| OverflowCircuit {
            common: Arc::new(common.for_overflow(guards)),
            circuit: OnceLock::new(),
        };
        let overflow = OverflowCircuits {
            shared: of_overflow(true),
            unguarded: of_overflow(false),
            is_shared: AtomicBool::new(overflow == Overflow::Shared),
        };
        let inner = Inner {
            table: Table::new(),
            hasher: RandomState::default(),
            common: Arc::new(common),
            overflow,
            clock_hand: Mutex::new(ClockHand {
                circuits: Vec::new(),
                position: 0,
                scanned: 0,
                insertions: 0,
                creation: Creation::default(),
                max_keys,
            }),
            settled: Condvar::new(),
            full_until: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
        };
        let inner = Arc::new(inner);
        inner.common.listeners().set_map(&inner);
        Self { inner }
    }
}

impl<K: Eq + Hash> KeyedCircuits<K> {
    /// Returns the circuit of a key; `None` if there is none.
    ///
    /// While the handle is held, the circuit is not evicted.
    pub fn get<Q>(&self, key: &Q) -> Option<KeyedCircuit<K>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.find(key).map(|core| self.handle(core))
    }

    /// Returns the circuit of a key, and creates it if it does not exist.
    ///
    /// Use it to force a circuit open before its first call. `None`: the map is full, and no
    /// circuit can be evicted. While the handle is held, the circuit is not evicted.
    pub fn get_or_insert(&self, key: K) -> Option<KeyedCircuit<K>> {
        let hash = self.hash(&key);
        let core = match self.find_hashed(hash, &key) {
            Some(core) => core,
            None => self.insert(key, hash, usize::MAX).ok()?,
        };
        Some(self.handle(core))
    }

    /// Returns the circuit that a call with this key uses, and creates it if it does not exist.
    ///
    /// The key is cloned only if it is new. If the map is full and no circuit can be evicted, this
    /// is the circuit of [`Overflow`], whose [`key`](Circuit::key) is not `key`:
    ///
    /// - With [`Overflow::Unguarded`], it is disabled, and admits every call.
    /// - With [`Overflow::Shared`], all keys without a circuit share it.
    ///
    /// Like a call with the key, it scans at most 16 circuits for one to evict, and
    /// [`overflowed`](Self::overflowed) counts it. While the handle is held, the circuit is not
    /// evicted.
    pub fn circuit<Q>(&self, key: &Q) -> KeyedCircuit<K>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        self.handle(self.find_or_insert_ref(key))
    }

    /// Acquires a permit for one call with this key: see [`Circuit::try_acquire`].
    ///
    /// The circuit is created if it does not exist: see [`circuit`](Self::circuit).
    ///
    /// # Errors
    ///
    /// Returns a [`Rejection`] if the key's circuit rejects the call.
    pub fn try_acquire<Q>(&self, key: &Q) -> Result<KeyedPermit<K>, Rejection>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        PickedCircuit(Shared::new(self.find_or_insert_ref(key))).admit()
    }

    /// Removes the circuit of a key, and returns it; `None` if there is none.
    ///
    /// The next call with the key creates a new circuit. Running calls and handles keep the removed
    /// circuit: their outcomes have no effect on the new one. Observers are still notified of the
    /// transitions of the removed circuit, with the same key.
    ///
    /// It searches the list of all circuits, so its time grows with their number.
    pub fn remove<Q>(&self, key: &Q) -> Option<KeyedCircuit<K>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let core = self.find(key)?;
        let mut clock_hand = self.clock_hand();
        // Otherwise, the circuit was evicted or removed meanwhile.
        if !self.inner.table.remove_if(&core, |_| true) {
            // The lock is released before the key is dropped.
            drop(clock_hand);
            return None;
        }
        let listed = clock_hand.take(&core);
        self.look_for_place(&mut clock_hand);
        drop(clock_hand);
        drop(listed);
        Some(self.handle(core))
    }

    fn find<Q>(&self, key: &Q) -> Option<SharedCore<K>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.find_hashed(self.hash(key), key)
    }

    #[inline]
    fn find_hashed<Q>(&self, hash: u64, key: &Q) -> Option<SharedCore<K>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.inner.table.find(hash, |other| other.borrow() == key)
    }

    /// Returns the circuit of a key, if it is in the table.
    #[inline]
    fn find_recent<Q>(&self, hash: u64, key: &Q, recent: &mut Recent<K>) -> Option<Shared<K>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        if let Some(lease) = recent.get(hash, |other| other.borrow() == key) {
            return Some(Shared::leased(lease));
        }
        let core = self.find_hashed(hash, key)?;
        recent.found(&core, &self.inner.table);
        Some(Shared::new(core))
    }

    #[inline]
    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.inner.hasher.hash_one(key)
    }

    /// Returns the circuit of a call with this key by a service.
    #[inline]
    pub(crate) fn pick(&self, key: K, recent: &mut Recent<K>) -> PickedCircuit<K> {
        let hash = self.hash(&key);
        PickedCircuit(match self.find_recent(hash, &key, recent) {
            Some(circuit) => circuit,
            None => Shared::new(self.insert_or_overflow(key, hash)),
        })
    }

    /// Returns the circuit of a call with this key by a service. The key is cloned only if it is
    /// new.
    #[inline]
    pub(crate) fn pick_ref<Q>(&self, key: &Q, recent: &mut Recent<K>) -> PickedCircuit<K>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        PickedCircuit(match self.find_recent(hash, key, recent) {
            Some(circuit) => circuit,
            None => Shared::new(self.insert_or_overflow(key.to_owned(), hash)),
        })
    }

    /// Returns the circuit that a call with this key uses. The key is cloned only if it is new.
    fn find_or_insert_ref<Q>(&self, key: &Q) -> SharedCore<K>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        match self.find_hashed(hash, key) {
            Some(core) => core,
            None => self.insert_or_overflow(key.to_owned(), hash),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert_or_overflow(&self, key: K, hash: u64) -> SharedCore<K> {
        let Inner { overflow, overflowed, .. } = &*self.inner;
        // Relaxed: a thread that reads an older value scans once more than needed.
        let is_full = self.inner.common.clock().now() < self.inner.full_until.load(Ordering::Relaxed);
        match if is_full { Err(key) } else { self.insert(key, hash, SCANNED_PER_CALL) } {
            Ok(core) => core,
            Err(key) => {
                overflowed.fetch_add(1, Ordering::Relaxed);
                if let Some(instruments) = self.inner.common.instruments() {
                    instruments.overflowed();
                }
                overflow.used().get(key)
            }
        }
    }
}

impl<K> PickedCircuit<K> {
    /// Returns the permit of a call, or its rejection.
    #[inline]
    pub(super) fn admit(self) -> Result<KeyedPermit<K>, Rejection> {
        match Permit::acquire_if_closed(self.0) {
            Ok(permit) => Ok(permit),
            Err(circuit) => circuit.admit(),
        }
    }
}

impl<K> fmt::Debug for PickedCircuit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PickedCircuit")
    }
}

impl<K> ClockHand<K> {
    /// Scans up to `steps` circuits, each at most once, and removes one from the table. Returns its
    /// position in the list.
    pub(super) fn evict(&mut self, steps: usize, table: &Table<K>) -> Option<usize> {
        let mut left = steps.min(self.circuits.len());
        while left > 0 {
            let now = left.min(SCANNED_PER_CALL);
            if let Some((place, cost)) = self.cheapest_of(now, table)
                && table
                    .remove_if(&self.circuits[place], |core| eviction_cost(core, MAP_HANDLES) == Some(cost))
            {
                self.position = (place + 1) % self.circuits.len();
                self.scanned = 0;
                return Some(place);
            }
            self.position = (self.position + now) % self.circuits.len();
            self.scanned += now;
            left -= now;
        }
        None
    }

    /// Evicts a circuit if there are more than `max_keys`.
    pub(super) fn evict_surplus(&mut self, steps: usize, table: &Table<K>) -> Option<SharedCore<K>> {
        if self.circuits.len() <= self.max_keys {
            return None;
        }
        self.evict(steps, table).map(|place| self.circuits.swap_remove(place))
    }

    /// Returns the circuit with the lowest cost among the next `number` circuits. The first one
    /// wins a tie.
    fn cheapest_of(&self, number: usize, table: &Table<K>) -> Option<(usize, EvictionCost)> {
        let mut cheapest: Option<(usize, EvictionCost)> = None;
        for place in (self.position..self.position + number).map(|place| place % self.circuits.len()) {
            let core = &self.circuits[place];
            if core.store().is_leased() {
                // Only then does the number of owners show whether a call uses the circuit.
                table.drop_leases(core);
            }
            let Some(cost) = eviction_cost(core, MAP_HANDLES) else { continue };
            if cheapest.is_none_or(|(_, cheapest)| cost < cheapest) {
                cheapest = Some((place, cost));
            }
            if cost == EvictionCost::Idle {
                break;
            }
        }
        cheapest
    }

    /// Adds a circuit to the list. If `place` is set, it replaces the evicted circuit there, which
    /// is returned.
    pub(super) fn put(&mut self, place: Option<usize>, core: SharedCore<K>) -> Option<SharedCore<K>> {
        self.insertions += 1;
        let Some(place) = place else {
            self.circuits.push(core);
            return None;
        };
        Some(mem::replace(&mut self.circuits[place], core))
    }

    /// Removes a circuit from the list.
    fn take(&mut self, core: &SharedCore<K>) -> Option<SharedCore<K>> {
        let place = self.circuits.iter().position(|listed| SharedCore::ptr_eq(listed, core))?;
        Some(self.circuits.swap_remove(place))
    }
}

impl<K> OverflowCircuits<K> {
    pub(super) fn used(&self) -> &OverflowCircuit<K> {
        // Relaxed: a change of the flag applies to a later call.
        if self.is_shared.load(Ordering::Relaxed) { &self.shared } else { &self.unguarded }
    }
}

impl<K> OverflowCircuit<K> {
    fn get(&self, key: K) -> SharedCore<K> {
        if let Some(core) = self.circuit.get() {
            return SharedCore::clone(core);
        }
        // In a variable, so that a key that is not used is dropped after the lock is released.
        let mut key = Some(key);
        let mut initial = None;
        let configs = self.common.configs();
        let core = self.circuit.get_or_init(|| {
            let key = key.take().expect("the circuit is initialized at most once");
            let store = KeyedStore::new(key, 0, Arc::clone(&self.common), &configs, None);
            initial = Some(store.initial_state());
            SharedCore::new(Core::new(store))
        });
        // The lock is held during the initialization, so that no new configuration is missed.
        drop(configs);
        // The circuit is counted after its initialization. Counting calls the recorder, which may
        // run any code, and other calls wait until the initialization ends.
        if let Some(initial) = initial {
            core.store().count(initial);
        }
        SharedCore::clone(core)
    }
}

impl<K> KeyedCircuits<K> {
    /// Returns all circuits, in no particular order, without the overflow circuit.
    ///
    /// While the handles are held, the circuits are not evicted.
    pub fn circuits(&self) -> Vec<KeyedCircuit<K>> {
        let circuits: Vec<_> = self.clock_hand().created().cloned().collect();
        circuits.into_iter().map(|core| self.handle(core)).collect()
    }

    /// Returns the status of every circuit, sorted by the label of its key, without the overflow
    /// circuit.
    pub fn statuses(&self) -> Vec<Status> {
        let mut statuses: Vec<_> = self.circuits().iter().map(Circuit::status).collect();
        statuses.sort_by(|one, other| one.key.cmp(&other.key));
        statuses
    }

    /// Returns the number of circuits.
    pub fn len(&self) -> usize {
        let clock_hand = self.clock_hand();
        clock_hand.circuits.len() - clock_hand.creation.len()
    }

    /// Returns whether there is no circuit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many circuits are not [closed](CircuitState::Closed), without the overflow
    /// circuit.
    ///
    /// It takes a load for each circuit. So it is much cheaper than the
    /// [`statuses`](Self::statuses).
    pub fn not_closed(&self) -> usize {
        // A clone of a core would prevent its eviction.
        self.clock_hand().created().filter(|core| !core.store().is_closed()).count()
    }

    /// Returns how many circuits have been evicted for new keys.
    pub fn evicted(&self) -> u64 {
        self.inner.evicted.load(Ordering::Relaxed)
    }

    /// Returns how many calls had a key for which the map had no space.
    pub fn overflowed(&self) -> u64 {
        self.inner.overflowed.load(Ordering::Relaxed)
    }

    /// Returns the overflow circuit: all keys for which the map has no space share it.
    ///
    /// See [`Overflow::Shared`]. Its label is `(overflow)`, and its key is the first key that
    /// needed it. [`circuits`](Self::circuits) does not contain it.
    ///
    /// `None`: no key has needed the overflow circuit yet, or the layer uses
    /// [`Overflow::Unguarded`].
    pub fn overflow(&self) -> Option<KeyedCircuit<K>> {
        let OverflowCircuits { shared, is_shared, .. } = &self.inner.overflow;
        let core = shared.circuit.get().filter(|_| is_shared.load(Ordering::Relaxed))?;
        Some(self.handle(SharedCore::clone(core)))
    }

    /// Closes every circuit that is neither forced nor disabled, including the overflow circuit.
    ///
    /// It also clears their windows and consecutive failures: see [`KeyedCircuit::reset`].
    pub fn reset_all(&self) {
        for circuit in self.circuits().into_iter().chain(self.overflow()) {
            // A closed circuit without a history does not change.
            if circuit.is_touched() {
                let _ = circuit.reset();
            }
        }
    }

    /// Removes all circuits, but not the overflow circuit: see [`remove`](Self::remove).
    ///
    /// A circuit whose listeners are still being called is removed, too.
    pub fn clear(&self) {
        let mut clock_hand = self.clock_hand();
        let listed = mem::take(&mut clock_hand.circuits);
        let unsettled = clock_hand.creation.take_all();
        for core in &listed {
            // The list holds a circuit, too, so that no key is dropped under the lock.
            self.inner.table.remove_if(core, |_| true);
        }
        self.look_for_place(&mut clock_hand);
        drop(clock_hand);
        self.inner.settled.notify_all();
        drop((listed, unsettled));
    }

    /// Adds an observer, which is notified of the transitions of all circuits.
    ///
    /// See [`Circuit::on_transition`](crate::Circuit::on_transition). The transitions contain the
    /// label of the key.
    ///
    /// An observer that holds these `KeyedCircuits` keeps all circuits alive until
    /// [`remove_observer`](Self::remove_observer) removes it. An observer that needs the circuit of
    /// one key should hold the `WeakCircuit` of [`Circuit::downgrade`].
    pub fn on_transition(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> ObserverId {
        self.inner.common.observers().on_transition(observer)
    }

    /// Adds an observer, which is notified of the failures of all circuits.
    ///
    /// See [`Circuit::on_failure`](crate::Circuit::on_failure).
    pub fn on_failure(&self, observer: impl Fn(&Failure) + Send + Sync + 'static) -> ObserverId {
        let id = self.inner.common.observers().on_failure(observer);
        self.publish_observes_failures();
        id
    }

    /// Removes an observer or a listener. Returns `false` if these circuits have no such observer.
    pub fn remove_observer(&self, id: ObserverId) -> bool {
        let removed = self.inner.common.observers().remove(id);
        self.publish_observes_failures();
        removed || self.remove_listener(id) || self.remove_create_listener(id)
    }

    fn publish_observes_failures(&self) {
        let Inner { common, overflow, .. } = &*self.inner;
        common.observers().publish_observes_failures(|observes| {
            common.set_observes_failures(observes);
            for overflow in [&overflow.shared, &overflow.unguarded] {
                overflow.common.set_observes_failures(observes);
            }
        });
    }

    /// Returns a stream of the transitions of all circuits from now on. It never blocks a circuit.
    #[cfg(feature = "stream")]
    pub fn transitions(&self) -> crate::telemetry::Transitions {
        self.inner.common.observers().stream()
    }

    /// Returns the name from the configuration, which all circuits share.
    pub fn name(&self) -> &'static str {
        self.inner.common.name()
    }

    pub(crate) fn common(&self) -> &Common<K> {
        &self.inner.common
    }

    pub(crate) fn handle(&self, core: SharedCore<K>) -> KeyedCircuit<K> {
        Circuit::of(core, self.inner.common.record())
    }

    /// Counts and drops a circuit that was evicted. The caller holds no lock.
    pub(super) fn drop_evicted(&self, evicted: SharedCore<K>) {
        self.inner.evicted.fetch_add(1, Ordering::Relaxed);
        if let Some(instruments) = self.inner.common.instruments() {
            instruments.evicted();
        }
        drop(evicted);
    }

    /// Sets how many circuits are kept at most, and evicts circuits until there are no more, or
    /// none can be evicted.
    pub(super) fn set_max_keys(&self, max_keys: usize) {
        self.clock_hand().max_keys = max_keys;
        // The lock is released between two evictions, so that calls with new keys wait for one.
        loop {
            let evicted = self.clock_hand().evict_surplus(usize::MAX, &self.inner.table);
            let Some(evicted) = evicted else { break };
            self.drop_evicted(evicted);
        }
        self.look_for_place(&mut self.clock_hand());
    }

    /// Lets the next call with a new key look for a place, because the map may have space again.
    fn look_for_place(&self, clock_hand: &mut ClockHand<K>) {
        clock_hand.scanned = 0;
        // Relaxed: a call that reads an older value does not look for a place.
        self.inner.full_until.store(0, Ordering::Relaxed);
    }

    pub(super) fn clock_hand(&self) -> std::sync::MutexGuard<'_, ClockHand<K>> {
        self.inner.clock_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Clone for KeyedCircuits<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K> fmt::Debug for KeyedCircuits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuits")
            .field("name", &self.name())
            .field("len", &self.len())
            .field("max_keys", &self.clock_hand().max_keys)
            .field("evicted", &self.evicted())
            .field("overflowed", &self.overflowed())
            .finish()
    }
}

/// Returns the label of a key: its `Debug` output, without the quotes of a string.
pub(super) fn label<K: fmt::Debug + ?Sized>(key: &K) -> String {
    let text = format!("{key:?}");
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => inner.to_owned(),
        None => text,
    }
}

/// A handle to the circuit of one key.
///
/// It has the operations of [`Circuit`] for status, permits and manual control, and
/// [`key`](Circuit::key). While the handle is held, the circuit is not evicted.
pub type KeyedCircuit<K> = Circuit<Shared<K>>;

/// A permit of the circuit of one key.
pub type KeyedPermit<K> = Permit<Shared<K>>;

impl<K> Circuit<Shared<K>> {
    /// Returns the key.
    pub fn key(&self) -> &K {
        self.owner().store().key_ref()
    }

    /// Returns whether a reset would change the circuit.
    fn is_touched(&self) -> bool {
        let StatusValues { state, last_transition, last_failure, .. } = self.owner().snapshot();
        // Only a reset ends a slow start and a streak of open periods, and removes the failure. A
        // restore begins a streak without a transition.
        let was_reset = last_transition.is_none_or(|last| last.reason == Reason::Reset);
        state != CircuitState::Closed
            || !was_reset
            || last_failure.is_some()
            || self.owner().save().0.streak.count > 0
            || !self.owner().is_idle()
    }
}
