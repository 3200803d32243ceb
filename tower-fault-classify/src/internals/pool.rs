//! A pool of shared values that are reused and never freed.
//!
//! A call's future must reach the state that it settles, and the state must exist for as long as
//! the future does. An `Arc` costs two contended read-modify-writes for each call, more than
//! everything else in the call together.
//!
//! So the state is leaked, and a plain `&'static` reaches it. The *handles* are counted instead.
//! Their number changes when a service is created or cloned, not when it is called.
//!
//! The invariants, the most important first:
//!
//! 1. A value is either in its pool, or has at least one handle. Only [`PoolHandle::acquire`]
//!    removes it from the pool, with one handle. Only the drop of the last handle returns it.
//! 2. Any value fits any owner: the next owner can replace everything that the last owner stored in
//!    it. So a value is found in constant time, and memory is bounded by the largest number of
//!    values that were in use at the same time.
//! 3. A `&'static` without a handle may still be used after another owner has acquired the value.
//!    So a value distinguishes its owners by an epoch, and a call with an earlier epoch changes
//!    nothing. A new epoch starts when the value is [retired](PoolItem::retire), or when the next
//!    owner adopts it, before the value contains anything of the next owner.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use super::sync::{AtomicU64, Ordering, fence};

/// A value that another owner can reuse.
pub trait PoolItem: Sized + Sync + 'static {
    /// Returns the pool of the unused values.
    fn pool() -> &'static Pool<Self>;

    /// Ends the use by the last owner, whose last handle was dropped.
    ///
    /// **Default**: does nothing.
    fn retire(&self) {}
}

/// The values that have no owner at present.
#[derive(Debug)]
pub struct Pool<T: 'static>(Mutex<VecDeque<&'static Node<T>>>);

impl<T> Pool<T> {
    /// Creates an empty pool.
    #[expect(clippy::new_without_default, reason = "it is used in statics only")]
    pub const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, VecDeque<&'static Node<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value and the number of its handles.
///
/// The number has its own cache lines: it changes with every clone of a service, whereas the value
/// changes with every call.
#[derive(Debug)]
struct Node<T> {
    /// `owner:32 | handles:32`. The owner's number distinguishes the owners of a value. It wraps.
    handles: CachePadded<AtomicU64>,
    value: T,
}

/// Adds one to the number of the owner.
const NEXT_OWNER: u64 = 1 << 32;

/// Returns the number of handles in a word.
const fn handles(word: u64) -> u32 {
    word as u32
}

/// Returns the number of the owner in a word.
const fn owner(word: u64) -> u32 {
    (word >> 32) as u32
}

#[derive(Debug)]
#[repr(align(128))]
struct CachePadded<T>(T);

/// A counted handle to a value.
#[derive(Debug)]
pub struct PoolHandle<T: PoolItem>(&'static Node<T>);

impl<T: PoolItem> PoolHandle<T> {
    /// Acquires a value from the pool, or creates one with `make` if the pool is empty.
    ///
    /// It acquires the value that has been in the pool for the longest time, so that the calls of
    /// the last owner have had time to end. The caller adopts the value before it shares the
    /// handle.
    pub fn acquire(make: impl FnOnce() -> T) -> Self {
        let unused = T::pool().nodes().pop_front();
        unused.map_or_else(|| Self::new(make()), Self::of)
    }

    /// Creates the first handle to a value that has never been in the pool.
    fn new(value: T) -> Self {
        Self::of(Box::leak(Box::new(Node { handles: CachePadded(AtomicU64::new(0)), value })))
    }

    /// Creates the first handle to a value without handles.
    fn of(node: &'static Node<T>) -> Self {
        // Relaxed: the pool's lock made the drop of the last handle visible. While there is no
        // handle, no other thread changes the word.
        let word = node.handles.0.load(Ordering::Relaxed);
        debug_assert!(handles(word) == 0, "a value in the pool must not have handles");
        node.handles.0.store(word.wrapping_add(NEXT_OWNER) + 1, Ordering::Relaxed);
        Self(node)
    }

    /// Returns a handle that is not counted.
    pub fn downgrade(&self) -> WeakHandle<T> {
        // Relaxed: the owner does not change while this handle exists.
        WeakHandle { node: self.0, owner: owner(self.0.handles.0.load(Ordering::Relaxed)) }
    }

    /// Returns a reference to the value that is valid forever.
    ///
    /// After the last handle's drop, the value may belong to another owner.
    #[inline]
    pub fn as_static(&self) -> &'static T {
        &self.0.value
    }

    /// Returns whether there are other counted handles to the value.
    pub fn is_shared(&self) -> bool {
        // Relaxed: other threads may clone and drop handles at any time, before and after the load.
        handles(self.0.handles.0.load(Ordering::Relaxed)) > 1
    }

    /// Returns whether both are handles to the same value.
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
        // Relaxed: a handle exists already, so the count cannot be observed at 0, as in `Arc`.
        self.0.handles.0.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T: PoolItem> Drop for PoolHandle<T> {
    #[inline]
    fn drop(&mut self) {
        // Release and Acquire: the use by each handle happens before `retire`, as in `Arc`.
        if handles(self.0.handles.0.fetch_sub(1, Ordering::Release)) == 1 {
            fence(Ordering::Acquire);
            self.0.value.retire();
            T::pool().nodes().push_back(self.0);
        }
    }
}

/// A handle that is not counted: it does not keep the value in use.
///
/// Once the last counted handle was dropped, the handle refers to nothing, even if the value has
/// another owner.
#[derive(Debug)]
pub struct WeakHandle<T: PoolItem> {
    node: &'static Node<T>,
    owner: u32,
}

impl<T: PoolItem> WeakHandle<T> {
    /// Returns a counted handle. `None`: the last counted handle was dropped.
    ///
    /// If exactly a multiple of 2³² owners have used the value since then, the owner is mistaken.
    pub fn upgrade(&self) -> Option<PoolHandle<T>> {
        // Relaxed: the thread that passed on this weak handle has seen the value that its owner has
        // adopted. The exchange continues the release sequence of the drops before it, and the drop
        // of the new handle is a Release.
        let counted = self.node.handles.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            (owner(word) == self.owner && handles(word) > 0).then(|| word + 1)
        });
        counted.is_ok().then(|| PoolHandle(self.node))
    }
}

impl<T: PoolItem> Clone for WeakHandle<T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

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
    fn pool_value_is_retired_by_last_drop_and_reused() {
        let acquire = || PoolHandle::<Value>::acquire(Value::default);
        let first = acquire();
        assert!(!first.is_shared());
        let second = first.clone();
        assert!(first.is_shared() && second.is_shared());
        let value = first.as_static();
        let retired = || value.retired.load(Ordering::Relaxed);
        drop(first);
        assert_eq!(retired(), 0, "a handle is left");
        let other = acquire();
        assert!(!other.ptr_eq(&second), "a value in use is not reused");
        drop(second);
        assert_eq!(retired(), 1);
        let reused = acquire();
        assert!(std::ptr::eq(reused.as_static(), value));
        assert!(!reused.ptr_eq(&acquire()));
        let reused = reused.as_static();
        let (first, second) = (acquire(), acquire());
        let longest = first.as_static();
        drop(first);
        drop(second);
        assert!(std::ptr::eq(acquire().as_static(), longest));
        assert!(!std::ptr::eq(reused, longest));
        drop(other);

        let handle = acquire();
        let (value, weak) = (handle.as_static(), handle.downgrade());
        let upgraded = weak.upgrade().expect("a handle is left");
        assert!(upgraded.ptr_eq(&handle));
        drop(handle);
        drop(weak.clone().upgrade().expect("the upgraded handle is left"));
        drop(upgraded);
        assert!(weak.upgrade().is_none(), "the last handle was dropped");
        let next: Vec<_> = (0..100).map(|_| acquire()).collect();
        assert!(next.iter().any(|handle| std::ptr::eq(handle.as_static(), value)));
        assert!(weak.upgrade().is_none(), "the value has another owner");
        drop(next);

        let many = || (0..100).map(|_| acquire()).collect::<Vec<_>>();
        drop(many());
        let made = std::cell::Cell::new(0);
        let acquired: Vec<_> = (0..101)
            .map(|_| {
                PoolHandle::acquire(|| {
                    made.set(made.get() + 1);
                    Value::default()
                })
            })
            .collect();
        assert_eq!((acquired.len(), made.get()), (101, 1), "a hundred values were in the pool");
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
            // The writes of both handles must be visible here.
            assert_eq!(self.0.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn loom_pool_last_drop_sees_all_writes() {
        loom::model(|| {
            // Loom's atomics belong to one run of the model, so each run creates its own.
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

    /// A value whose word is the number of its owner.
    #[derive(Debug)]
    struct Owned {
        owner: AtomicU64,
        retired: AtomicU64,
    }

    static OWNED: Pool<Owned> = Pool::new();

    impl PoolItem for Owned {
        fn pool() -> &'static Pool<Self> {
            &OWNED
        }

        fn retire(&self) {
            // Release, with the Acquire in the model: they stand for the lock of the pool.
            self.retired.fetch_add(1, Ordering::Release);
        }
    }

    #[test]
    fn loom_weak_handle_is_never_a_handle_of_the_next_owner() {
        loom::model(|| {
            let value = Owned { owner: AtomicU64::new(1), retired: AtomicU64::new(0) };
            let handle = PoolHandle::new(value);
            let (node, weak) = (handle.0, handle.downgrade());
            let thread = loom::thread::spawn(move || {
                if let Some(handle) = weak.upgrade() {
                    assert_eq!(handle.owner.load(Ordering::Relaxed), 1);
                    assert_eq!(handle.retired.load(Ordering::Relaxed), 0, "the value is in use");
                }
            });
            drop(handle);
            if node.value.retired.load(Ordering::Acquire) == 1 {
                let next = PoolHandle::of(node);
                next.owner.store(2, Ordering::Relaxed);
                thread.join().unwrap();
                drop(next);
            } else {
                thread.join().unwrap();
            }
        });
    }
}
