//! Shared values that are never freed, only used again.
//!
//! A call's future must reach the state that it settles, and the state must be there for as long as the future is. With
//! an `Arc` that costs two contended read-modify-writes a call, more than all the rest. Here the state is leaked, so that a
//! plain `&'static` reaches it, and the *handles* are counted instead: they change when a service is made, not when it is
//! called.
//!
//! The invariants, in the order in which they matter:
//!
//! 1. A value is in its pool, or has at least one handle; never both. Only [`Recycled::take`] takes it out, with one
//!    handle, only the drop of the last handle puts it in.
//! 2. Whoever holds a `&'static` without a handle may still use the value after it was given to another owner. So a value
//!    must tell its owners apart: [`Recycle::retire`] or [`Recycle::renew`] starts a new epoch, and what comes from an old one changes
//!    nothing.
//! 3. Memory is bounded by the largest number of values of each shape that were alive at once.

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use super::sync::{AtomicUsize, Ordering, fence};

/// A value that can be used again by another owner.
pub trait Recycle: Sized + Sync + 'static {
    /// Where unused values wait.
    fn pool() -> &'static Pool<Self>;

    /// The last handle is gone. What the last owner's calls still do must have no effect on anybody else. **Default**: nothing.
    fn retire(&self) {}

    /// Another owner takes the value over. What the last owner's calls still do must have no effect on him. **Default**: nothing, for
    /// those who have started a new epoch when they were retired.
    fn renew(&self) {}
}

/// Values that nobody owns at present.
#[derive(Debug)]
pub struct Pool<T: 'static>(Mutex<Vec<&'static Node<T>>>);

impl<T> Pool<T> {
    /// An empty pool.
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, Vec<&'static Node<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The count stands on cache lines of its own: it changes with every clone of a service, the value with every call.
#[derive(Debug)]
struct Node<T> {
    handles: Apart<AtomicUsize>,
    value: T,
}

#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// A counted handle to a value.
#[derive(Debug)]
pub struct Recycled<T: Recycle>(&'static Node<T>);

impl<T: Recycle> Recycled<T> {
    /// Takes a waiting value that `fits`, or makes one.
    pub fn take(fits: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Self {
        let waiting = {
            let mut nodes = T::pool().nodes();
            let found = nodes.iter().position(|node| fits(&node.value));
            found.map(|index| nodes.swap_remove(index))
        };
        let node = match waiting {
            Some(node) => {
                node.value.renew();
                node
            }
            None => Box::leak(Box::new(Node { handles: Apart(AtomicUsize::new(0)), value: make() })),
        };
        // The pool's lock made the former owner's drop visible; nobody else has the node.
        node.handles.0.store(1, Ordering::Relaxed);
        Self(node)
    }

    /// The value, for as long as anybody likes. After the last handle's drop it may belong to another owner.
    #[inline]
    pub fn forever(&self) -> &'static T {
        &self.0.value
    }

    /// Whether both are handles to the same value.
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl<T: Recycle> Deref for Recycled<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: Recycle> Clone for Recycled<T> {
    #[inline]
    fn clone(&self) -> Self {
        // A handle exists already, so that the count cannot be seen at 0: no order is needed, as in `Arc`.
        self.0.handles.0.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T: Recycle> Drop for Recycled<T> {
    #[inline]
    fn drop(&mut self) {
        // Each owner's use happens before the last one's retirement, as in `Arc`.
        if self.0.handles.0.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            self.0.value.retire();
            T::pool().nodes().push(self.0);
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::__shared::sync::AtomicU64;

    #[derive(Debug, Default)]
    struct Value {
        shape: u64,
        retired: AtomicU64,
        renewed: AtomicU64,
    }

    static POOL: Pool<Value> = Pool::new();

    impl Recycle for Value {
        fn pool() -> &'static Pool<Self> {
            &POOL
        }

        fn retire(&self) {
            self.retired.fetch_add(1, Ordering::Relaxed);
        }

        fn renew(&self) {
            self.renewed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(shape: u64) -> Recycled<Value> {
        Recycled::take(|value: &Value| value.shape == shape, || Value { shape, ..Value::default() })
    }

    #[test]
    fn the_last_drop_retires_and_only_an_equal_shape_takes_over() {
        let first = take(1);
        let second = first.clone();
        let value = first.forever();
        drop(first);
        let told = || (value.retired.load(Ordering::Relaxed), value.renewed.load(Ordering::Relaxed));
        assert_eq!(told(), (0, 0), "a handle is left");
        drop(second);
        assert_eq!(told(), (1, 0));
        let other = take(2);
        assert!(!std::ptr::eq(other.forever(), value));
        let again = take(1);
        assert!(std::ptr::eq(again.forever(), value));
        assert_eq!(told(), (1, 1));
        assert!(!again.is(&take(1)), "a value in use is not given out");
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use super::*;
    use crate::__shared::sync::AtomicU64;

    #[derive(Debug)]
    struct Value(AtomicU64);

    static POOL: Pool<Value> = Pool::new();

    impl Recycle for Value {
        fn pool() -> &'static Pool<Self> {
            &POOL
        }

        fn retire(&self) {
            // Both owners' writes must be visible here.
            assert_eq!(self.0.load(Ordering::Relaxed), 2);
        }
    }

    #[test]
    fn loom_the_last_drop_sees_what_every_owner_did() {
        loom::model(|| {
            // Loom's atomics belong to one run of the model, so that each run makes its own.
            let handle = Recycled::take(|_| false, || Value(AtomicU64::new(0)));
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
