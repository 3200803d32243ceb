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
use super::lease::{Lease, Strong, Weak};

/// The circuits in shards. Each shard has its own lock.
pub(super) struct Table<K>(Box<[Shard<K>]>);

/// How many leases the circuits of one hash have at most. Other services search the table. A search
/// for the leases of a circuit takes time for each of them.
const MAX_LEASES: usize = 64;

/// A shard has its own cache lines, so that threads that use different shards do not contend.
#[repr(align(128))]
struct Shard<K>(RwLock<Circuits<K>>);

struct Circuits<K> {
    slots: HashTable<Slot<K>>,
    /// The leases of services, by the hashes of their circuits' keys.
    leases: HashTable<(u64, Strong<Lease<K>>)>,
}

struct Slot<K> {
    hash: u64,
    core: SharedCore<K>,
}

impl<K> Circuits<K> {
    /// Drops leases of a circuit. The caller holds the circuit, so that only reference counts are
    /// dropped here.
    fn drop_leases(&mut self, core: &SharedCore<K>, is_dropped: impl Fn(&Strong<Lease<K>>) -> bool) {
        let is_of_core = |lease: &Strong<Lease<K>>| SharedCore::ptr_eq(&lease.0, core);
        let hash = core.store().hash();
        while let Ok(lease) =
            self.leases.find_entry(hash, |(_, lease)| is_of_core(lease) && is_dropped(lease))
        {
            lease.remove();
        }
    }

    /// Drops all leases of a circuit: see `lease.rs`.
    fn drop_all_leases(&mut self, core: &SharedCore<K>) {
        if core.store().is_leased() {
            self.drop_leases(core, |_| true);
            core.store().set_leased(false);
        }
    }
}

impl<K> Table<K> {
    /// Creates an empty table with about four shards for each processor.
    pub(super) fn new() -> Self {
        Self::with_shards(4 * available_parallelism().map_or(1, usize::from))
    }

    fn with_shards(shards: usize) -> Self {
        let shards = shards.next_power_of_two();
        let circuits = || Circuits { slots: HashTable::new(), leases: HashTable::new() };
        Self((0..shards).map(|_| Shard(RwLock::new(circuits()))).collect())
    }

    /// Returns the circuit with this hash whose key satisfies `is`.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<SharedCore<K>> {
        let first = {
            let circuits = read(&self.shard(hash).0);
            SharedCore::clone(&circuits.slots.find(hash, |slot| slot.hash == hash)?.core)
        };
        if is(first.store().key_ref()) { Some(first) } else { self.find_among_equal_hashes(hash, is) }
    }

    #[cold]
    fn find_among_equal_hashes(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<SharedCore<K>> {
        self.with_hash(hash).into_iter().find(|core| is(core.store().key_ref()))
    }

    /// Returns all circuits with this hash. Different keys rarely have the same hash.
    pub(super) fn with_hash(&self, hash: u64) -> Vec<SharedCore<K>> {
        let circuits = read(&self.shard(hash).0);
        let equal = circuits.slots.iter_hash(hash).filter(|slot| slot.hash == hash);
        equal.map(|slot| SharedCore::clone(&slot.core)).collect()
    }

    /// Returns the circuit with this storage; `None` if it is not in the table.
    pub(super) fn find_store(&self, store: &KeyedStore<K>) -> Option<SharedCore<K>> {
        let hash = store.hash();
        let circuits = read(&self.shard(hash).0);
        let slot = circuits.slots.find(hash, |slot| ptr::eq(slot.core.store(), store))?;
        Some(SharedCore::clone(&slot.core))
    }

    /// Adds a circuit. No other circuit in the table has its key.
    pub(super) fn insert(&self, core: SharedCore<K>) {
        let hash = core.store().hash();
        let mut circuits = write(&self.shard(hash).0);
        circuits.slots.insert_unique(hash, Slot { hash, core }, |slot| slot.hash);
    }

    /// Removes a circuit if it `is_evictable`. No call can find the circuit during this check. The
    /// caller holds another handle to it, so that only a reference count is dropped here.
    pub(super) fn remove_if(
        &self,
        core: &SharedCore<K>,
        is_evictable: impl FnOnce(&SharedCore<K>) -> bool,
    ) -> bool {
        let hash = core.store().hash();
        let mut circuits = write(&self.shard(hash).0);
        circuits.drop_all_leases(core);
        match circuits.slots.find_entry(hash, |slot| SharedCore::ptr_eq(&slot.core, core)) {
            Ok(entry) if is_evictable(&entry.get().core) => {
                core.store().set_removed();
                entry.remove();
                true
            }
            _ => false,
        }
    }

    /// Creates a lease of a circuit. `None`: the circuit is not in the table, or has
    /// [`MAX_LEASES`] leases.
    ///
    /// It drops the leases whose services do not need them any more.
    pub(super) fn lease(&self, core: &SharedCore<K>) -> Option<Weak<Lease<K>>> {
        let hash = core.store().hash();
        let lease = Strong::new(Lease(SharedCore::clone(core)));
        let weak = Strong::downgrade(&lease);
        let mut circuits = write(&self.shard(hash).0);
        circuits.slots.find(hash, |slot| SharedCore::ptr_eq(&slot.core, core))?;
        circuits.drop_leases(core, |lease| Strong::weak_count(lease) == 0);
        let equal = circuits.leases.iter_hash(hash).filter(|(other, _)| *other == hash);
        if equal.count() >= MAX_LEASES {
            return None;
        }
        circuits.leases.insert_unique(hash, (hash, lease), |(hash, _)| *hash);
        core.store().set_leased(true);
        Some(weak)
    }

    /// Drops the leases of a circuit, so that its number of owners shows whether a call uses it.
    #[cold]
    pub(super) fn drop_leases(&self, core: &SharedCore<K>) {
        write(&self.shard(core.store().hash()).0).drop_all_leases(core);
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
            self.table.drop_leases(&self.listed);
            eviction_cost(&self.listed, 2).is_some_and(|cost| cost <= max_cost)
                && self.table.remove_if(&self.listed, |core| {
                    eviction_cost(core, 2).is_some_and(|cost| cost <= max_cost)
                })
        }
    }

    /// A service that has a lease of the circuit.
    struct Leased {
        map: Arc<Map>,
        lease: Weak<Lease<u32>>,
    }

    impl Leased {
        fn of(map: &Arc<Map>) -> Self {
            Self { map: Arc::clone(map), lease: map.table.lease(&map.listed).unwrap() }
        }

        /// Performs a call. Returns whether the circuit was found and admitted the call.
        fn call(&self, verdict: Verdict) -> bool {
            let Some(lease) = self.lease.upgrade() else { return self.map.call(verdict) };
            let Ok(permit) = Permit::acquire(Shared::leased(lease)) else { return false };
            permit.record(verdict);
            true
        }
    }

    #[test]
    fn loom_circuit_is_not_evicted_during_or_after_leased_call() {
        // The circuit opens, or it counts a recent failure, or a success.
        for (consecutive_failures, verdict) in [(1, FAILURE), (5, FAILURE), (5, Verdict::Success)] {
            let max_cost = match verdict {
                Verdict::Success => EvictionCost::Idle,
                Verdict::Fault(_) => EvictionCost::Failures(u64::MAX),
            };
            model(move || {
                let (core, _manual_clock) = circuit(consecutive_failures, None);
                let map = Map::of(core);
                let service = Leased::of(&map);
                let caller = thread::spawn(move || service.call(verdict));
                let evicted = map.evict(max_cost);
                let called = caller.join().unwrap();
                assert!(!(evicted && called), "the circuit was evicted during a call");
                assert!(!called || !map.evict(max_cost), "the circuit was evicted after a call");
            });
        }
    }

    #[test]
    fn loom_idle_circuit_is_evicted_although_service_has_lease() {
        model(|| {
            let (core, _manual_clock) = circuit(5, None);
            let map = Map::of(core);
            let service = Leased::of(&map);
            let other = Leased::of(&map);
            let caller = thread::spawn(move || drop(other.lease.upgrade()));
            let _ = map.evict(EvictionCost::Idle);
            caller.join().unwrap();
            assert!(map.evict(EvictionCost::Idle) || map.table.find(7, |_| true).is_none());
            assert!(service.lease.upgrade().is_none());
        });
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
