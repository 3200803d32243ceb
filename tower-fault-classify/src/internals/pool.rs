//! Shared values that are never freed, only used again.
//!
//! A call's future must reach the state that it settles, and the state must be there for as long as the future is. With
//! an `Arc` that costs two contended read-modify-writes a call, more than all the rest. Here the state is leaked, so that a
//! plain `&'static` reaches it, and the *handles* are counted instead: they change when a service is made, not when it is
//! called.
//!
//! The invariants, in the order in which they matter:
//!
//! 1. A value is in its pool, or has at least one handle; never both. Only [`PoolHandle::acquire`] takes
//!    it out, with one handle, only the drop of the last handle puts it in.
//! 2. Any value fits any owner: a value has nothing of an owner that the next one cannot replace.
//!    So a value is found in constant time, and memory is bounded by the largest number of values
//!    that were alive at once.
//! 3. A `&'static` without a handle may still be used after another owner has taken the value. So a value tells its owners apart by an epoch, and a call with an earlier epoch
//!    changes nothing. The epoch starts when the value is [retired](PoolItem::retire), or when the
//!    next owner adopts it, before the value has anything of the next owner.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use super::sync::{AtomicUsize, Ordering, fence};

/// A value that can be used again by another owner.
pub trait PoolItem: Sized + Sync + 'static {
    /// Where unused values wait.
    fn pool() -> &'static Pool<Self>;

    /// Ends what belongs to the last owner, whose last handle is gone. **Default**: does nothing.
    fn retire(&self) {}
}

/// Values that nobody owns at present.
#[derive(Debug)]
pub struct Pool<T: 'static>(Mutex<VecDeque<&'static Node<T>>>);

impl<T> Pool<T> {
    /// An empty pool.
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, VecDeque<&'static Node<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The count stands on cache lines of its own: it changes with every clone of a service, the value with every call.
#[derive(Debug)]
struct Node<T> {
    handles: CachePadded<AtomicUsize>,
    value: T,
}

#[derive(Debug)]
#[repr(align(128))]
struct CachePadded<T>(T);

/// A counted handle to a value.
#[derive(Debug)]
pub struct PoolHandle<T: PoolItem>(&'static Node<T>);

impl<T: PoolItem> PoolHandle<T> {
    /// Takes the value that has been in the pool for the longest time, so that the last owner's
    /// calls have had time to end. If there is none, makes one. The caller makes the value its own
    /// before it shares the handle.
    pub fn acquire(make: impl FnOnce() -> T) -> Self {
        let waiting = T::pool().nodes().pop_front();
        waiting.map_or_else(|| Self::new(make()), Self::of)
    }

    /// The first handle to a value that has never been in the pool.
    fn new(value: T) -> Self {
        Self::of(Box::leak(Box::new(Node { handles: CachePadded(AtomicUsize::new(0)), value })))
    }

    /// The first handle to a value without handles.
    fn of(node: &'static Node<T>) -> Self {
        // Relaxed: the pool's lock made the drop of the last handle visible.
        node.handles.0.store(1, Ordering::Relaxed);
        Self(node)
    }

    /// The value, for as long as anybody likes. After the last handle's drop it may belong to another owner.
    #[inline]
    pub fn as_static(&self) -> &'static T {
        &self.0.value
    }

    /// Whether both are handles to the same value.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl<T: PoolItem> Deref for PoolHandle<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: PoolItem> Clone for PoolHandle<T> {
    #[inline]
    fn clone(&self) -> Self {
        // A handle exists already, so that the count cannot be seen at 0: no order is needed, as in `Arc`.
        self.0.handles.0.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T: PoolItem> Drop for PoolHandle<T> {
    #[inline]
    fn drop(&mut self) {
        // Each owner's use happens before the last one's retirement, as in `Arc`.
        if self.0.handles.0.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            self.0.value.retire();
            T::pool().nodes().push_back(self.0);
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::__internals::sync::AtomicU64;

    #[derive(Debug, Default)]
    struct Value {
        retired: AtomicU64,
    }

    static POOL: Pool<Value> = Pool::new();

    impl PoolItem for Value {
        fn pool() -> &'static Pool<Self> {
            &POOL
        }

        fn retire(&self) {
            self.retired.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One test, because all of them share the pool.
    #[test]
    fn value_is_retired_by_last_drop_and_taken_by_next_owner() {
        let take = || PoolHandle::<Value>::acquire(Value::default);
        let first = take();
        let second = first.clone();
        let value = first.as_static();
        let retired = || value.retired.load(Ordering::Relaxed);
        drop(first);
        assert_eq!(retired(), 0, "a handle is left");
        let other = take();
        assert!(!other.ptr_eq(&second), "a value in use is not taken");
        drop(second);
        assert_eq!(retired(), 1);
        let again = take();
        assert!(std::ptr::eq(again.as_static(), value));
        assert!(!again.ptr_eq(&take()));
        let again = again.as_static();
        let (first, second) = (take(), take());
        let longest = first.as_static();
        drop(first);
        drop(second);
        assert!(std::ptr::eq(take().as_static(), longest));
        assert!(!std::ptr::eq(again, longest));
        drop(other);

        let many = || (0..100).map(|_| take()).collect::<Vec<_>>();
        drop(many());
        let made = std::cell::Cell::new(0);
        let taken: Vec<_> = (0..101)
            .map(|_| {
                PoolHandle::acquire(|| {
                    made.set(made.get() + 1);
                    Value::default()
                })
            })
            .collect();
        assert_eq!((taken.len(), made.get()), (101, 1), "a hundred values were in the pool");
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use super::*;
    use crate::__internals::sync::AtomicU64;

    #[derive(Debug)]
    struct Value(AtomicU64);

    static POOL: Pool<Value> = Pool::new();

    impl PoolItem for Value {
        fn pool() -> &'static Pool<Self> {
            &POOL
        }

        fn retire(&self) {
            // Both owners' writes must be visible here.
            assert_eq!(self.0.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn loom_pool_last_drop_sees_all_writes() {
        loom::model(|| {
            // Loom's atomics belong to one run of the model, so that each run makes its own.
            let handle = PoolHandle::new(Value(AtomicU64::new(0)));
            let other = handle.clone();
            let thread = loom::thread::spawn(move || {
                other.0.value.0.fetch_add(1, Ordering::Relaxed);
            });
            handle.0.value.0.fetch_add(1, Ordering::Relaxed);
            drop(handle);
            thread.join().unwrap();
        });
    }
}
