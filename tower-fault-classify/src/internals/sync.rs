//! The switch between std's synchronisation and loom's. Whatever is proven by a model takes its atomics from here.

#[cfg(loom_models)]
pub use loom::sync::{
    Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom_models))]
pub use std::sync::{
    Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
};

/// Locks, also when another thread panicked while it held the lock: what these locks guard is valid between any two
/// statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks for reading, also when another thread panicked while it held the lock: see [`lock`].
pub fn read<T>(rw_lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    rw_lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Locks for writing, also when another thread panicked while it held the lock: see [`lock`].
pub fn write<T>(rw_lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    rw_lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}
