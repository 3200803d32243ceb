//! Gives each thread a number of its own, so that it can own a stripe of a counter.
//!
//! There are twice as many numbers as cores, and four more: enough for the workers of an async runtime and some threads
//! beside it. A thread takes one the first time it asks and gives it back when it ends; the list's lock orders what its
//! former owner wrote before what the next one does. A thread that finds none is told so, and shares.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::{Mutex, OnceLock, PoisonError};

const UNASSIGNED: usize = usize::MAX;
const NONE: usize = usize::MAX - 1;

thread_local! {
    /// Without a destructor, so that it can be read at any time in a thread's life, for the price of a load.
    static SLOT: Cell<usize> = const { Cell::new(UNASSIGNED) };
    /// Gives the number back at the thread's end. Touched once, when the number is taken.
    static LEASE: Lease = const { Lease };
}

struct Lease;

impl Drop for Lease {
    fn drop(&mut self) {
        // What runs on this thread after its end shares.
        let slot = SLOT.replace(NONE);
        free().lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }
}

/// How many numbers there are: a slot is less than this.
pub(crate) fn slot_count() -> usize {
    static SLOTS: OnceLock<usize> = OnceLock::new();

    // Loom's threads are all one thread of the system, so that none has a number and all share.
    if cfg!(loom_models) {
        return 0;
    }
    *SLOTS.get_or_init(|| 2 * std::thread::available_parallelism().map_or(4, NonZero::get) + 4)
}

fn free() -> &'static Mutex<Vec<usize>> {
    static FREE: OnceLock<Mutex<Vec<usize>>> = OnceLock::new();
    FREE.get_or_init(|| Mutex::new((0..slot_count()).rev().collect()))
}

/// The calling thread's number, which no other living thread has; `None` if they are all taken.
#[inline]
pub fn thread_slot() -> Option<usize> {
    if cfg!(loom_models) {
        return None;
    }
    match SLOT.get() {
        UNASSIGNED => take(),
        NONE => None,
        slot => Some(slot),
    }
}

#[cold]
fn take() -> Option<usize> {
    let slot = free().lock().unwrap_or_else(PoisonError::into_inner).pop();
    match slot {
        None => SLOT.set(NONE),
        Some(slot) => {
            SLOT.set(slot);
            if LEASE.try_with(|_| ()).is_err() {
                // The thread is ending and would not give the number back.
                SLOT.set(NONE);
                free().lock().unwrap_or_else(PoisonError::into_inner).push(slot);
                return None;
            }
        }
    }
    slot
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn thread_slot_is_unique_and_returned_at_thread_exit() {
        for _ in 0..20 {
            let threads = slot_count() + 5;
            let barrier = Barrier::new(threads);
            let taken: Vec<Option<usize>> = thread::scope(|scope| {
                let handles: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(|| {
                            let slot = thread_slot();
                            barrier.wait();
                            assert_eq!(slot, thread_slot(), "a thread keeps its number");
                            slot
                        })
                    })
                    .collect();
                handles.into_iter().map(|handle| handle.join().unwrap()).collect()
            });
            let owned: Vec<usize> = taken.into_iter().flatten().collect();
            assert_eq!(owned.len(), owned.iter().collect::<HashSet<_>>().len());
            assert!(owned.iter().all(|slot| *slot < slot_count()));
            // The test's own thread and its neighbours may hold some; without giving back, none would be left by now.
            assert!(!owned.is_empty());
        }
    }
}
