//! Circuits by a key, of which only so many are kept.
//!
//! # How one is forgotten for another
//!
//! The map is read by every call and written by new keys alone. What is kept stands in a second list, in which a hand goes round as that of a
//! clock: a call by a new key that finds no room lets it pass a few circuits, and takes the place of the first that nobody would miss. So a call takes
//! a bounded time, and memory is that of the most keys that were kept. Once a whole round was in vain, calls do not ask again for a while. Who asks for
//! a circuit by hand lets it go a whole round.
//!
//! # Why no call loses its circuit
//!
//! A call that finds its circuit takes a handle to it under the map's lock, and keeps it until it is settled. A circuit is forgotten under the
//! same lock, and only if the map and the list are all who hold it: a call has then either not found it yet, and makes a new one, or it is
//! settled, and what it came to is in the window that was looked at.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::circuit::{CircuitState, Common, Core, Keyed, OneOf, Permit, Refusal, SharedCore, Status, may_go};
use crate::config::{KeyedConfig, Overflow};
use crate::error::{Forced, Rejection};
use crate::machine::{Force, HealthReport};
use crate::observe::Transition;

/// How many circuits the hand passes for one call by a new key.
const STEPS: usize = 16;

/// Who holds a circuit that no call runs through: the map and the list.
const HOLDERS: usize = 2;

/// The circuits of a [`KeyedBreakerLayer`](crate::KeyedBreakerLayer), by their keys.
///
/// A clone is another handle to the same circuits.
pub struct KeyedCircuits<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    map: DashMap<K, SharedCore<K>, RandomState>,
    common: Arc<Common<K>>,
    /// What keys share that find no room: a circuit, or one that is disabled.
    overflow: Shared<K>,
    guards_overflow: bool,
    max_keys: usize,
    hand: Mutex<Hand<K>>,
    /// Nobody looks for room before.
    full_until: AtomicU64,
    evicted: AtomicU64,
    overflowed: AtomicU64,
}

/// A circuit that is made when it is needed first. It has the first such key, which nobody reads.
struct Shared<K> {
    common: Arc<Common<K>>,
    circuit: OnceLock<SharedCore<K>>,
}

/// What is kept, and where the hand stands.
struct Hand<K> {
    circuits: Vec<SharedCore<K>>,
    at: usize,
    /// How many it has passed in vain.
    passed: usize,
}

/// What the map held of a circuit; nothing, if it got no further than the list.
type Entry<K> = Option<(K, SharedCore<K>)>;

/// The circuit that a call by a key goes through.
pub struct Found<K>(pub(crate) SharedCore<K>);

impl<K: fmt::Debug> KeyedCircuits<K> {
    pub(crate) fn new(config: KeyedConfig) -> Self
    where
        K: Eq + Hash,
    {
        let KeyedConfig { each, max_keys, overflow } = config;
        let common = Common::new(each.setup, each.clock, label);
        let guards_overflow = overflow == Overflow::Shared;
        let overflow = common.for_overflow(guards_overflow);
        let inner = Inner {
            map: DashMap::with_hasher(RandomState::default()),
            common: Arc::new(common),
            overflow: Shared { common: Arc::new(overflow), circuit: OnceLock::new() },
            guards_overflow,
            max_keys,
            hand: Mutex::new(Hand { circuits: Vec::new(), at: 0, passed: 0 }),
            full_until: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl<K: Eq + Hash> KeyedCircuits<K> {
    /// The circuit of a key, if there is one. Holding it keeps it from being forgotten.
    pub fn get<Q>(&self, key: &Q) -> Option<KeyedCircuit<K>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.find(key).map(|core| self.handle(core))
    }

    /// The circuit of a key, made if there is none yet: to force one open before its first call. `None`: there is no room.
    pub fn get_or_insert(&self, key: K) -> Option<KeyedCircuit<K>>
    where
        K: Clone,
    {
        self.find(&key).or_else(|| self.insert(key, usize::MAX).ok()).map(|core| self.handle(core))
    }

    #[inline]
    fn find<Q>(&self, key: &Q) -> Option<SharedCore<K>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.inner.map.view(key, |_, core| SharedCore::clone(core))
    }

    /// What a call by a key goes through.
    #[inline]
    pub(crate) fn seek(&self, key: K) -> Found<K>
    where
        K: Clone,
    {
        match self.find(&key) {
            Some(core) => Found(core),
            None => self.take_in(key),
        }
    }

    /// The same for a key that is made an owned one only if it is new.
    #[inline]
    pub(crate) fn seek_by<Q>(&self, key: &Q) -> Found<K>
    where
        K: Borrow<Q> + Clone,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        match self.find(key) {
            Some(core) => Found(core),
            None => self.take_in(key.to_owned()),
        }
    }

    #[cold]
    fn take_in(&self, key: K) -> Found<K>
    where
        K: Clone,
    {
        let Inner { overflow, overflowed, .. } = &*self.inner;
        // Relaxed: who reads an older value looks for room once more than he had to.
        let is_full = self.inner.common.clock().now() < self.inner.full_until.load(Ordering::Relaxed);
        match if is_full { Err(key) } else { self.insert(key, STEPS) } {
            Ok(core) => Found(core),
            Err(key) => {
                overflowed.fetch_add(1, Ordering::Relaxed);
                if let Some(meters) = overflow.common.meters() {
                    meters.overflowed();
                }
                Found(overflow.get(key))
            }
        }
    }

    /// Makes a circuit, in the place of one that nobody would miss if there is no other: it is looked for among so many. The key comes back if
    /// there is none.
    fn insert(&self, key: K, steps: usize) -> Result<SharedCore<K>, K>
    where
        K: Clone,
    {
        let Inner { map, common, max_keys, hand, full_until, evicted, .. } = &*self.inner;
        let mut hand = hand.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(core) = self.find(&key) {
            // Another call by the same key was here first.
            return Ok(core);
        }
        let found = if hand.circuits.len() < *max_keys {
            None
        } else {
            let Some(found) = hand.pass(steps, |core| self.forget(core)) else {
                if hand.passed >= hand.circuits.len() {
                    hand.passed = 0;
                    let until = common.clock().now().saturating_add(common.bucket());
                    full_until.store(until, Ordering::Relaxed);
                }
                return Err(key);
            };
            Some(found)
        };
        let core = SharedCore::new(Core::of(Keyed::new(key.clone(), Arc::clone(common))));
        let forgotten = found
            .map(|(place, entry)| (mem::replace(&mut hand.circuits[place], SharedCore::clone(&core)), entry));
        if forgotten.is_none() {
            hand.circuits.push(SharedCore::clone(&core));
        }
        map.insert(key, SharedCore::clone(&core));
        drop(hand);
        // After the lock: a recorder, and the drop of a key, may run anything.
        core.store().begin();
        if forgotten.is_some() {
            evicted.fetch_add(1, Ordering::Relaxed);
            if let Some(meters) = common.meters() {
                meters.evicted();
            }
        }
        drop(forgotten);
        Ok(core)
    }

    /// Takes a circuit out of the map, if nobody would miss it. What the map held of it is to be dropped outside of the lock.
    fn forget(&self, core: &SharedCore<K>) -> Option<Entry<K>> {
        // It takes no lock, and mostly it says no.
        if !core.is_forgotten() {
            return None;
        }
        let map = &self.inner.map;
        let gone =
            map.remove_if(core.store().by(), |_, own| SharedCore::ptr_eq(own, core) && may_go(own, HOLDERS));
        // A key whose hash panicked may have got no further than the list.
        if gone.is_some() || may_go(core, 1) { Some(gone) } else { None }
    }
}

impl<K> fmt::Debug for Found<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Found")
    }
}

impl<K> Hand<K> {
    /// Passes so many circuits, each once at most, and says where it found one to forget.
    fn pass<T>(&mut self, steps: usize, forget: impl Fn(&SharedCore<K>) -> Option<T>) -> Option<(usize, T)> {
        for _ in 0..steps.min(self.circuits.len()) {
            let at = self.at;
            self.at = (at + 1) % self.circuits.len();
            if let Some(gone) = forget(&self.circuits[at]) {
                self.passed = 0;
                return Some((at, gone));
            }
            self.passed += 1;
        }
        None
    }
}

impl<K> Shared<K> {
    fn get(&self, key: K) -> SharedCore<K> {
        let mut made = false;
        let core = self.circuit.get_or_init(|| {
            made = true;
            SharedCore::new(Core::of(Keyed::new(key, Arc::clone(&self.common))))
        });
        // Not while others wait for the circuit: a recorder may run anything.
        if made {
            core.store().begin();
        }
        SharedCore::clone(core)
    }
}

impl<K> KeyedCircuits<K> {
    /// All circuits, in no order. Holding them keeps them from being forgotten.
    pub fn all(&self) -> Vec<KeyedCircuit<K>> {
        let circuits = self.hand().circuits.clone();
        circuits.into_iter().map(|core| self.handle(core)).collect()
    }

    /// How many circuits there are.
    pub fn len(&self) -> usize {
        self.hand().circuits.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many circuits were forgotten for new keys.
    pub fn evicted(&self) -> u64 {
        self.inner.evicted.load(Ordering::Relaxed)
    }

    /// How many calls found no room for their key.
    pub fn overflowed(&self) -> u64 {
        self.inner.overflowed.load(Ordering::Relaxed)
    }

    /// The circuit that keys share which find no room, once there was one: see [`Overflow::Shared`]. Its label is `(overflow)`, its key the first that
    /// found none; [`all`](Self::all) leaves it out.
    pub fn overflow(&self) -> Option<KeyedCircuit<K>> {
        let Inner { overflow, guards_overflow, .. } = &*self.inner;
        let core = overflow.circuit.get().filter(|_| *guards_overflow)?;
        Some(self.handle(SharedCore::clone(core)))
    }

    /// Closes every circuit that no hand has forced; see [`KeyedCircuit::reset`].
    pub fn reset_all(&self) {
        for circuit in self.all().into_iter().chain(self.overflow()) {
            // A closed one without a history is as it would be.
            if circuit.is_touched() {
                let _ = circuit.reset();
            }
        }
    }

    /// Tells `observer` of every change of a circuit's state; see [`Circuit::on_transition`](crate::Circuit::on_transition).
    pub fn on_transition(&self, observer: impl Fn(&Transition) + Send + Sync + 'static) {
        self.inner.common.watchers().add(Arc::new(observer));
    }

    /// The changes of every circuit's state from now on, as a stream that never holds a circuit up.
    #[cfg(feature = "stream")]
    pub fn transitions(&self) -> crate::observe::Transitions {
        self.inner.common.watchers().stream()
    }

    /// The name from the configuration.
    pub fn name(&self) -> &'static str {
        self.inner.common.setup().name
    }

    pub(crate) fn common(&self) -> &Common<K> {
        &self.inner.common
    }

    pub(crate) fn handle(&self, core: SharedCore<K>) -> KeyedCircuit<K> {
        KeyedCircuit { name: self.name(), core }
    }

    fn hand(&self) -> std::sync::MutexGuard<'_, Hand<K>> {
        self.inner.hand.lock().unwrap_or_else(PoisonError::into_inner)
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
            .field("max_keys", &self.inner.max_keys)
            .field("evicted", &self.evicted())
            .field("overflowed", &self.overflowed())
            .finish()
    }
}

/// How a key is told to people: as it is debugged, a text without its quotes.
fn label<K: fmt::Debug>(key: &K) -> String {
    let text = format!("{key:?}");
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inner) => inner.to_owned(),
        None => text,
    }
}

/// The handle to the circuit of one key.
///
/// While it is held the circuit is not forgotten for another key.
pub struct KeyedCircuit<K> {
    name: &'static str,
    core: SharedCore<K>,
}

impl<K> KeyedCircuit<K> {
    /// The key.
    pub fn key(&self) -> &K {
        self.core.store().by()
    }

    /// The name that it shares with the layer's other circuits.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether anything can be reset.
    fn is_touched(&self) -> bool {
        self.core.view().state != CircuitState::Closed || !self.core.is_forgotten()
    }

    fn hold(&self) -> OneOf<K> {
        OneOf::new(SharedCore::clone(&self.core))
    }
}

controls!(KeyedCircuit<K>, Permit<OneOf<K>>);

impl<K> Clone for KeyedCircuit<K> {
    fn clone(&self) -> Self {
        Self { name: self.name, core: SharedCore::clone(&self.core) }
    }
}

impl<K> fmt::Debug for KeyedCircuit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedCircuit").field("status", &self.status()).finish()
    }
}
