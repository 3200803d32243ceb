//! The table of circuits, by the hashes of their keys.
//!
//! No code of a key runs under a lock. A key is hashed before the lock is taken. A circuit with
//! that hash leaves the table as a handle, and its key is compared after the lock is released. The
//! table grows and evicts by the stored hashes.

use std::ptr;
use std::thread::available_parallelism;

use hashbrown::HashTable;
use tower_fault_classify::__internals::sync::{RwLock, read, write};

use super::core::{KeyedStore, SharedCore};

/// The circuits in shards. Each shard has its own lock.
pub(super) struct Table<K>(Box<[Shard<K>]>);

/// A shard has its own cache lines, so that threads that use different shards do not contend.
#[repr(align(128))]
struct Shard<K>(RwLock<HashTable<Slot<K>>>);

struct Slot<K> {
    hash: u64,
    core: SharedCore<K>,
}

impl<K> Table<K> {
    /// Creates an empty table with about four shards for each processor.
    pub(super) fn new() -> Self {
        Self::with_shards(4 * available_parallelism().map_or(1, usize::from))
    }

    fn with_shards(shards: usize) -> Self {
        let shards = shards.next_power_of_two();
        Self((0..shards).map(|_| Shard(RwLock::new(HashTable::new()))).collect())
    }

    /// Returns the circuit with this hash whose key satisfies `is`.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<SharedCore<K>> {
        let first = {
            let slots = read(&self.shard(hash).0);
            SharedCore::clone(&slots.find(hash, |slot| slot.hash == hash)?.core)
        };
        if is(first.store().key_ref()) { Some(first) } else { self.find_among_equal_hashes(hash, is) }
    }

    #[cold]
    fn find_among_equal_hashes(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<SharedCore<K>> {
        self.with_hash(hash).into_iter().find(|core| is(core.store().key_ref()))
    }

    /// Returns all circuits with this hash. Different keys rarely have the same hash.
    pub(super) fn with_hash(&self, hash: u64) -> Vec<SharedCore<K>> {
        let slots = read(&self.shard(hash).0);
        let equal = slots.iter_hash(hash).filter(|slot| slot.hash == hash);
        equal.map(|slot| SharedCore::clone(&slot.core)).collect()
    }

    /// Returns the circuit with this storage; `None` if it is not in the table.
    pub(super) fn find_store(&self, store: &KeyedStore<K>) -> Option<SharedCore<K>> {
        let hash = store.hash();
        let slots = read(&self.shard(hash).0);
        slots.find(hash, |slot| ptr::eq(slot.core.store(), store)).map(|slot| SharedCore::clone(&slot.core))
    }

    /// Adds a circuit. No other circuit in the table has its key.
    pub(super) fn insert(&self, core: SharedCore<K>) {
        let hash = core.store().hash();
        let mut slots = write(&self.shard(hash).0);
        slots.insert_unique(hash, Slot { hash, core }, |slot| slot.hash);
    }

    /// Removes a circuit if it `is_evictable`. No call can find the circuit during this check. The
    /// caller holds another handle to it, so that only a reference count is dropped here.
    pub(super) fn remove_if(
        &self,
        core: &SharedCore<K>,
        is_evictable: impl FnOnce(&SharedCore<K>) -> bool,
    ) -> bool {
        let hash = core.store().hash();
        let mut slots = write(&self.shard(hash).0);
        match slots.find_entry(hash, |slot| SharedCore::ptr_eq(&slot.core, core)) {
            Ok(entry) if is_evictable(&entry.get().core) => {
                entry.remove();
                true
            }
            _ => false,
        }
    }

    fn shard(&self, hash: u64) -> &Shard<K> {
        // The table of a shard uses the lowest bits and the highest seven bits.
        &self.0[(hash >> 32) as usize & (self.0.len() - 1)]
    }
}

/// Loom models: every interleaving of a call and an eviction.
#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::Arc;
    use loom::thread;
    use tower_fault_classify::Verdict;

    use super::*;
    use crate::circuit::{CircuitState, FAILURE, Permit, model};
    use crate::keyed::core::models::circuit;
    use crate::keyed::core::{EvictionCost, Shared, eviction_cost};

    /// The table, and the handle that the list holds.
    struct Map {
        table: Table<u32>,
        listed: SharedCore<u32>,
    }

    impl Map {
        fn of(core: SharedCore<u32>) -> Arc<Self> {
            let table = Table::with_shards(1);
            table.insert(SharedCore::clone(&core));
            Arc::new(Self { table, listed: core })
        }

        /// Performs a call. Returns whether the circuit was found and admitted the call.
        fn call(&self, verdict: Verdict) -> bool {
            let Some(core) = self.table.find(7, |key| *key == 7) else { return false };
            let Ok(permit) = Permit::acquire(Shared::new(core)) else { return false };
            permit.record(verdict);
            true
        }

        /// Evicts the circuit, as the clock hand does, if its eviction cost is at most `max_cost`.
        fn evict(&self, max_cost: EvictionCost) -> bool {
            eviction_cost(&self.listed, 2).is_some_and(|cost| cost <= max_cost)
                && self.table.remove_if(&self.listed, |core| {
                    eviction_cost(core, 2).is_some_and(|cost| cost <= max_cost)
                })
        }
    }

    #[test]
    fn loom_circuit_is_not_evicted_during_or_after_failed_call() {
        model(|| {
            let (core, _manual_clock) = circuit(1, None);
            let map = Map::of(core);
            let other = Arc::clone(&map);
            let caller = thread::spawn(move || other.call(FAILURE));
            let evicted = map.evict(EvictionCost::Failures(u64::MAX));
            let failed = caller.join().unwrap();
            assert!(!(evicted && failed), "the circuit was evicted during a call");
            if failed {
                assert_eq!(map.listed.snapshot().state, CircuitState::Open);
                assert!(
                    !map.evict(EvictionCost::Failures(u64::MAX)),
                    "a circuit that has just opened was evicted"
                );
            }
        });
    }

    #[test]
    fn loom_circuit_with_success_is_not_evicted_as_idle() {
        model(|| {
            let (core, _manual_clock) = circuit(5, None);
            let map = Map::of(core);
            let other = Arc::clone(&map);
            let caller = thread::spawn(move || other.call(Verdict::Success));
            let evicted = map.evict(EvictionCost::Idle);
            let succeeded = caller.join().unwrap();
            assert!(!(evicted && succeeded));
            assert!(
                !succeeded || !map.evict(EvictionCost::Idle),
                "a circuit with a call in its window was evicted as idle"
            );
        });
    }

    #[test]
    fn loom_circuit_with_recent_failure_is_not_evicted() {
        model(|| {
            let (core, _manual_clock) = circuit(5, None);
            let map = Map::of(core);
            let other = Arc::clone(&map);
            let caller = thread::spawn(move || other.call(FAILURE));
            let evicted = map.evict(EvictionCost::Successes(u64::MAX));
            let failed = caller.join().unwrap();
            assert!(!(evicted && failed));
            assert!(
                !failed || !map.evict(EvictionCost::Failures(u64::MAX)),
                "a circuit with a recent failure was evicted"
            );
        });
    }
}
