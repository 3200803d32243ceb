//! The circuits by the hashes of their keys.
//!
//! Nothing of a key runs under a lock. Its hash is computed before; a circuit with that hash is
//! taken out of the table by its handle, and its key is compared after the lock is released. The
//! table grows and evicts by the stored hashes.

use std::thread::available_parallelism;

use hashbrown::HashTable;
use tower_fault_classify::__internals::sync::{RwLock, read, write};

use super::core::SharedCore;

/// Circuits in shards, each with a lock of its own.
pub(super) struct Table<K>(Box<[Shard<K>]>);

/// On cache lines of its own, so that threads that use different shards do not disturb each other.
#[repr(align(128))]
struct Shard<K>(RwLock<HashTable<Slot<K>>>);

struct Slot<K> {
    hash: u64,
    core: SharedCore<K>,
}

impl<K> Table<K> {
    /// An empty table, with about four shards for each processor.
    pub(super) fn new() -> Self {
        Self::with_shards(4 * available_parallelism().map_or(1, usize::from))
    }

    fn with_shards(shards: usize) -> Self {
        let shards = shards.next_power_of_two();
        Self((0..shards).map(|_| Shard(RwLock::new(HashTable::new()))).collect())
    }

    /// The circuit with a hash whose key `is` the one asked for.
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

    /// All circuits with a hash. Keys that differ seldom have the same.
    pub(super) fn with_hash(&self, hash: u64) -> Vec<SharedCore<K>> {
        let slots = read(&self.shard(hash).0);
        let equal = slots.iter_hash(hash).filter(|slot| slot.hash == hash);
        equal.map(|slot| SharedCore::clone(&slot.core)).collect()
    }

    /// Adds a circuit. Its key is in no other.
    pub(super) fn insert(&self, core: SharedCore<K>) {
        let hash = core.store().hash();
        let mut slots = write(&self.shard(hash).0);
        slots.insert_unique(hash, Slot { hash, core }, |slot| slot.hash);
    }

    /// Removes a circuit if it `is_evictable`: no call finds it while that is asked. The caller has
    /// another handle to it, so that nothing is dropped here but a count.
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
        // A shard's table uses the lowest bits and the highest seven.
        &self.0[(hash >> 32) as usize & (self.0.len() - 1)]
    }
}

/// Every interleaving of a call and of an eviction.
#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::Arc;
    use loom::thread;
    use tower_fault_classify::Verdict;

    use super::*;
    use crate::circuit::{CircuitState, FAILURE, Permit, model};
    use crate::keyed::core::models::circuit;
    use crate::keyed::core::{EvictionCost, Shared, eviction_cost};

    /// The table and the list's own handle.
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

        /// Calls once, if the circuit is there and lets the call through.
        fn call(&self, verdict: Verdict) -> bool {
            let Some(core) = self.table.find(7, |key| *key == 7) else { return false };
            let Ok(permit) = Permit::acquire(Shared::new(core)) else { return false };
            permit.record(verdict);
            true
        }

        /// Evicts the circuit if it is worth no more than `worth`, as the hand does.
        fn evict(&self, worth: EvictionCost) -> bool {
            eviction_cost(&self.listed, 2).is_some_and(|lost| lost <= worth)
                && self
                    .table
                    .remove_if(&self.listed, |core| eviction_cost(core, 2).is_some_and(|lost| lost <= worth))
        }
    }

    #[test]
    fn loom_circuit_is_not_evicted_under_call_nor_after_its_failure() {
        model(|| {
            let (core, _hand) = circuit(1, None);
            let map = Map::of(core);
            let other = Arc::clone(&map);
            let caller = thread::spawn(move || other.call(FAILURE));
            let evicted = map.evict(EvictionCost::Failures(u64::MAX));
            let failed = caller.join().unwrap();
            assert!(!(evicted && failed), "it was evicted with a call in it");
            if failed {
                assert_eq!(map.listed.snapshot().state, CircuitState::Open);
                assert!(!map.evict(EvictionCost::Failures(u64::MAX)), "it has just opened");
            }
        });
    }

    #[test]
    fn loom_success_keeps_circuit_from_being_evicted_as_idle() {
        model(|| {
            let (core, _hand) = circuit(5, None);
            let map = Map::of(core);
            let other = Arc::clone(&map);
            let caller = thread::spawn(move || other.call(Verdict::Success));
            let evicted = map.evict(EvictionCost::Idle);
            let succeeded = caller.join().unwrap();
            assert!(!(evicted && succeeded));
            assert!(!succeeded || !map.evict(EvictionCost::Idle), "its window is not empty");
        });
    }

    #[test]
    fn loom_circuit_with_recent_failure_is_not_evicted() {
        model(|| {
            let (core, _hand) = circuit(5, None);
            let map = Map::of(core);
            let other = Arc::clone(&map);
            let caller = thread::spawn(move || other.call(FAILURE));
            let evicted = map.evict(EvictionCost::Successes(u64::MAX));
            let failed = caller.join().unwrap();
            assert!(!(evicted && failed));
            assert!(!failed || !map.evict(EvictionCost::Failures(u64::MAX)), "it has just failed");
        });
    }
}
