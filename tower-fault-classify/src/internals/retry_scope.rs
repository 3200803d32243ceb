//! Shows inner layers that the current attempt is a retry.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static IS_RETRY: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calls that begin on this thread as retries, until it is dropped.
///
/// A retry layer holds it while it calls and polls the inner service for any attempt but the first.
/// The drop restores the previous mark, so scopes can be nested. A call that another task makes is
/// not marked.
#[derive(Debug)]
#[must_use]
pub struct RetryScope {
    before: bool,
    // The scope belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl RetryScope {
    /// Enters a scope.
    #[inline]
    pub fn enter() -> Self {
        Self { before: IS_RETRY.replace(true), _not_send: PhantomData }
    }

    /// Returns whether a call that begins now on this thread is a retry.
    #[inline]
    pub fn is_active() -> bool {
        IS_RETRY.get()
    }
}

impl Drop for RetryScope {
    #[inline]
    fn drop(&mut self) {
        IS_RETRY.set(self.before);
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn retry_scope_ends_with_its_guard_also_nested() {
        assert!(!RetryScope::is_active());
        let outer = RetryScope::enter();
        drop(RetryScope::enter());
        assert!(RetryScope::is_active(), "the inner scope restores the outer one");
        assert!(!thread::spawn(RetryScope::is_active).join().unwrap(), "another thread");
        drop(outer);
        assert!(!RetryScope::is_active());
    }
}
