//! Whether the body of the request that is under way waits for its source.
//!
//! A classifier gets the outcome of a call, and nothing of its request. An outer layer that tracks
//! the request's body therefore sets a thread-local flag while it polls the call, and while it drops
//! it. Every classifier that judges the outcome runs within that poll.

use std::cell::Cell;

use crate::fault::{Fault, Kind, Origin, Retryable};
use crate::table;

thread_local! {
    static WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Sets the flag of this thread until it is dropped, and then restores the value before.
#[derive(Debug)]
#[must_use]
pub struct Waiting {
    before: bool,
}

impl Waiting {
    /// Sets whether the body of the request that is about to be polled waits.
    #[inline]
    pub fn enter(waits: bool) -> Self {
        Self { before: WAITS.replace(waits) }
    }

    /// Whether the body of the request waits whose call is polled, or dropped, on this thread.
    #[inline]
    pub fn is_noted() -> bool {
        WAITS.get()
    }
}

impl Drop for Waiting {
    #[inline]
    fn drop(&mut self) {
        WAITS.set(self.before);
    }
}

/// The same fault; a timeout of a request that may have been processed becomes one of the caller
/// while the request's body waits.
pub(crate) fn excused(fault: Fault) -> Fault {
    let processed = !matches!(fault.retryable(), Retryable::Unsent | Retryable::Refused);
    if fault.kind() == Kind::Timeout && processed && WAITS.get() { table::UPLOAD_STALLED } else { fault }
}

/// The same fault; a connection that is lost before the response is not charged to the server while
/// the request's body waits. Many servers end a request so that takes too long to come.
pub(crate) fn broken_off(fault: Fault) -> Fault {
    let lost = fault.kind() == Kind::Transient && fault.origin() == Origin::Transport;
    if lost && WAITS.get() { table::UPLOAD_BROKEN_OFF } else { fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_note_hides_outer_note_until_it_is_dropped() {
        let timeout = table::io::TIMED_OUT;
        assert_eq!(excused(timeout), timeout);
        let outer = Waiting::enter(true);
        assert_eq!(excused(timeout), table::UPLOAD_STALLED);
        let inner = Waiting::enter(false);
        assert_eq!(excused(timeout), timeout);
        drop(inner);
        assert_eq!(excused(timeout), table::UPLOAD_STALLED);
        assert_eq!(excused(table::io::BROKEN), table::io::BROKEN, "only timeouts are excused");
        assert_eq!(broken_off(table::io::BROKEN), table::UPLOAD_BROKEN_OFF);
        for other in [table::io::REFUSED, table::CONNECTION_TASK_GONE, table::UNKNOWN] {
            assert_eq!(broken_off(other), other);
        }
        for unprocessed in [Retryable::Unsent, Retryable::Refused] {
            let fault = timeout.with_retryable(unprocessed);
            assert_eq!(excused(fault), fault, "the body was not asked for");
        }
        drop(outer);
        assert_eq!(excused(timeout), timeout);
        assert_eq!(broken_off(table::io::BROKEN), table::io::BROKEN);
    }

    #[test]
    fn note_ends_when_the_poll_panics() {
        let panicked = std::panic::catch_unwind(|| {
            let _note = Waiting::enter(true);
            panic!("as it is meant to");
        });
        assert!(panicked.is_err() && !WAITS.get());
    }
}
