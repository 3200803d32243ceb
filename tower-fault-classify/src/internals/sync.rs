//! The switch between the synchronisation types of std and of loom.
//!
//! Code that a loom model verifies imports its atomics from here.

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
