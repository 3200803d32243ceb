//! A handle that does not keep circuits by key alive.

use std::fmt;
use std::sync::{Arc, Weak};

use super::map::{Inner, KeyedCircuits};

/// A handle that does not keep the circuits of a map alive.
///
/// [`KeyedCircuits::downgrade`] returns it. Use it in an observer or in a task that needs the
/// circuits, but must not extend their life.
pub struct WeakKeyedCircuits<K> {
    inner: Weak<Inner<K>>,
}

impl<K> WeakKeyedCircuits<K> {
    /// Returns a handle to the circuits; `None` if the last handle and the last layer were dropped.
    pub fn upgrade(&self) -> Option<KeyedCircuits<K>> {
        Some(KeyedCircuits { inner: self.inner.upgrade()? })
    }
}

impl<K> KeyedCircuits<K> {
    /// Returns a handle that does not keep the circuits alive.
    pub fn downgrade(&self) -> WeakKeyedCircuits<K> {
        WeakKeyedCircuits { inner: Arc::downgrade(&self.inner) }
    }
}

impl<K> Clone for WeakKeyedCircuits<K> {
    fn clone(&self) -> Self {
        Self { inner: Weak::clone(&self.inner) }
    }
}

impl<K> fmt::Debug for WeakKeyedCircuits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakKeyedCircuits")
    }
}
