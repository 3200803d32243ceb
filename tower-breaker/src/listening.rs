//! Whether a listener for new circuits runs on the current thread.
//!
//! Callers wait for a circuit until its listeners have been called. A listener never waits, because
//! two listeners could wait for each other.

use std::cell::Cell;

thread_local! {
    /// How many listeners run on this thread, each within the one before.
    static LISTENING: Cell<u32> = const { Cell::new(0) };
}

/// Exists while listeners run on this thread.
pub(crate) struct Listening;

impl Listening {
    pub(crate) fn begin() -> Self {
        // If the thread's variables have been dropped already, no other code of the thread waits.
        let _ = LISTENING.try_with(|depth| depth.set(depth.get() + 1));
        Self
    }

    pub(crate) fn is_active() -> bool {
        LISTENING.try_with(Cell::get).is_ok_and(|depth| depth > 0)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = LISTENING.try_with(|depth| depth.set(depth.get() - 1));
    }
}
