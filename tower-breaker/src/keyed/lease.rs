//! Leases: how a service reaches the circuit of its last key without the table.
//!
//! Without a lease, each call by a key locks a shard of the table, and counts a handle to the
//! circuit. Both are writes to words that all threads share. A service that calls one key
//! [several times in a row](CALLS_IN_A_ROW) gets a lease of its circuit. A call through the lease
//! counts a handle to the lease instead, which only this service uses.
//!
//! # Why a lease does not prevent the eviction of its circuit
//!
//! The table holds the lease, and the service holds only a weak handle to it. The lease holds the
//! circuit. An eviction drops the table's handle first, under the lock of the shard. Then there are
//! two cases:
//!
//! - A call uses the lease. So the lease still exists and holds the circuit: the circuit has one
//!   more owner than its map, and is not evicted.
//! - No call uses the lease. So the lease was dropped, and no weak handle can be upgraded to it any
//!   more. The next call of the service searches the table, and waits for the lock.
//!
//! An upgrade of the weak handle and the drop of the last handle change the same word, the count of
//! the lease, so that one of them comes first. A call has recorded its outcome before it drops the
//! lease. The drop of the lease releases the circuit after that, and the eviction counts the owners
//! of the circuit before it reads the window.

use std::fmt;

#[cfg(not(loom_models))]
pub(super) use std::sync::{Arc as Strong, Weak};

#[cfg(loom_models)]
pub(super) use self::mock::{Strong, Weak};
use super::core::SharedCore;
use super::table::Table;

/// How many calls in a row must find the circuit of one key before the service gets a lease.
const CALLS_IN_A_ROW: u32 = 16;

/// Holds a circuit for the calls of one service.
pub(super) struct Lease<K>(pub(super) SharedCore<K>);

/// The lease of a service, and the calls that decide which circuit is leased next.
pub struct Recent<K> {
    lease: Weak<Lease<K>>,
    /// The hash of the lease's key.
    leased: u64,
    /// The hash of the last key whose circuit was found in the table.
    last: u64,
    /// How many calls in a row have found the circuit of that key in the table.
    in_a_row: u32,
}

impl<K> Recent<K> {
    pub(super) const fn new() -> Self {
        Self { lease: Weak::new(), leased: 0, last: 0, in_a_row: 0 }
    }

    /// Returns the lease if it is that of a key with this hash, and its circuit is in the table.
    #[inline]
    pub(super) fn get(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<Strong<Lease<K>>> {
        if self.leased != hash {
            return None;
        }
        let lease = self.lease.upgrade()?;
        let store = lease.0.store();
        if store.is_removed() || !is(store.key_ref()) {
            return None;
        }
        self.in_a_row = 0;
        Some(lease)
    }

    /// Notes that a call has found a circuit in the table. Leases the circuit if it was the same
    /// one several times in a row. If it cannot be leased, the service tries it again only after a
    /// call with another key.
    #[inline]
    pub(super) fn found(&mut self, core: &SharedCore<K>, table: &Table<K>) {
        let hash = core.store().hash();
        self.in_a_row = if hash == self.last { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = hash;
        if self.in_a_row == CALLS_IN_A_ROW {
            self.acquire(core, table);
        }
    }

    #[cold]
    #[inline(never)]
    fn acquire(&mut self, core: &SharedCore<K>, table: &Table<K>) {
        // Dropped first, so that the table drops an earlier lease of this service.
        self.lease = Weak::new();
        if let Some(lease) = table.lease(core) {
            self.lease = lease;
            self.leased = core.store().hash();
            self.in_a_row = 0;
        }
    }
}

/// A clone of a service has no lease.
impl<K> Clone for Recent<K> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<K> fmt::Debug for Recent<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

/// Replaces std's handles in models, because loom has no weak handle. The count has the orderings
/// of std's count.
#[cfg(loom_models)]
mod mock {
    use std::ops::Deref;
    use std::sync;

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering, fence};

    /// Replaces `Arc`.
    pub(in crate::keyed) struct Strong<T> {
        count: Arc<AtomicUsize>,
        value: sync::Arc<T>,
    }

    /// Replaces `Weak`. `None`: it was created without a value.
    pub(in crate::keyed) struct Weak<T>(Option<(Arc<AtomicUsize>, sync::Weak<T>)>);

    impl<T> Strong<T> {
        pub(in crate::keyed) fn new(value: T) -> Self {
            Self { count: Arc::new(AtomicUsize::new(1)), value: sync::Arc::new(value) }
        }

        pub(in crate::keyed) fn downgrade(this: &Self) -> Weak<T> {
            Weak(Some((Arc::clone(&this.count), sync::Arc::downgrade(&this.value))))
        }

        pub(in crate::keyed) fn weak_count(this: &Self) -> usize {
            sync::Arc::weak_count(&this.value)
        }
    }

    impl<T> Deref for Strong<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.value
        }
    }

    impl<T> Drop for Strong<T> {
        fn drop(&mut self) {
            // Loom switches threads only before an operation of its own. So the value's count in
            // std always agrees with this count.
            if self.count.fetch_sub(1, Ordering::Release) == 1 {
                fence(Ordering::Acquire);
            }
        }
    }

    impl<T> Weak<T> {
        pub(in crate::keyed) const fn new() -> Self {
            Self(None)
        }

        pub(in crate::keyed) fn upgrade(&self) -> Option<Strong<T>> {
            let (count, value) = self.0.as_ref()?;
            let increment = |count: usize| (count > 0).then_some(count + 1);
            count.fetch_update(Ordering::Acquire, Ordering::Relaxed, increment).ok()?;
            let value = value.upgrade().expect("a handle with a count has the value");
            Some(Strong { count: Arc::clone(count), value })
        }
    }
}
