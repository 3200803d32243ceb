//! The switch between the synchronisation types of std and of loom.
//!
//! Code that a loom model verifies imports its atomics from here.

#[cfg(loom_models)]
pub use loom::sync::{
    Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom_models))]
pub use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence},
};

/// Replaces the cell that is written once in models, because loom has none.
#[cfg(loom_models)]
#[derive(Debug)]
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    /// Shows loom which reads and writes of the value are concurrent.
    is_set: AtomicBool,
    writing: Mutex<()>,
}

#[cfg(loom_models)]
impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self { value: std::sync::OnceLock::new(), is_set: AtomicBool::new(false), writing: Mutex::new(()) }
    }
}

#[cfg(loom_models)]
impl<T> OnceLock<T> {
    /// Returns the value, if it is set.
    pub fn get(&self) -> Option<&T> {
        if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    /// Returns the value, which `init` creates if it is not set.
    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        let _lock = lock(&self.writing);
        if self.value.get().is_none() {
            let _ = self.value.set(init());
            self.is_set.store(true, Ordering::Release);
        }
        self.value.get().expect("the value was set above")
    }
}

/// Replaces the weak handle in models, because loom has none. It keeps the value alive.
#[cfg(loom_models)]
#[derive(Debug)]
pub struct Weak<T>(Arc<T>);

#[cfg(loom_models)]
impl<T> Weak<T> {
    /// Returns a counted handle.
    pub fn upgrade(&self) -> Option<Arc<T>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(loom_models)]
impl<T> Clone for Weak<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Orders a `SeqCst` read-modify-write before the `SeqCst` loads that follow it, in models.
///
/// Outside of models they are ordered already. Loom treats every access that is `SeqCst` as an
/// Acquire and a Release only, but not a fence.
#[inline]
pub fn fence_in_models() {
    #[cfg(loom_models)]
    fence(Ordering::SeqCst);
}

/// Returns a handle that does not keep the value alive.
pub fn downgrade<T>(value: &Arc<T>) -> Weak<T> {
    #[cfg(loom_models)]
    return Weak(Arc::clone(value));
    #[cfg(not(loom_models))]
    Arc::downgrade(value)
}

/// Locks a mutex, and ignores poisoning.
///
/// The data behind these locks is valid between any two statements, so a panic of another thread
/// does not invalidate it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks for reading, and ignores poisoning: see [`lock`].
pub fn read<T>(rw_lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    rw_lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks for writing, and ignores poisoning: see [`lock`].
pub fn write<T>(rw_lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    rw_lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
