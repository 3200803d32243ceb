//! A count of handles that many threads change without writing to the same cache line.
//!
//! # Tallies
//!
//! Each thread with a number has its own tally. The *root* handles, and the handles of the threads
//! without a number, have a shared tally.
//!
//! A tally has two counters, which only increase: the handles that it added, and those of them that
//! were removed. A handle keeps a reference to its tally, and is removed from that tally on any
//! thread.
//!
//! - Only its own thread adds to a thread's tally, with a load and a store.
//! - Any thread removes, with a read-modify-write. It is uncontended if the thread that added the
//!   handle also removes it, as for a service that is cloned for one call.
//!
//! # The last handle
//!
//! "After" means after in the happens-before order. A new handle is always added while another
//! handle exists, so it is added before that other handle is removed. The first handle and a handle
//! from a weak reference are the exceptions: they are added under a lock of the owner, which also
//! protects [`HandleCount::is_zero`].
//!
//! 1. **`is_zero` returns `true` only if there is no handle.** It first reads how many handles
//!    were removed from each tally, and then how many were added.
//!    - The second step sees the addition of each handle whose removal the first step has seen. If
//!      both sums are equal, these are all the additions that it sees.
//!    - Suppose that another handle exists. It was added while an earlier handle existed, and that
//!      one while an even earlier handle existed, back to a handle whose addition was seen. So
//!      there is a handle whose addition was not seen, added while one existed whose addition was
//!      seen.
//!    - The removal of the latter was seen, and the former was added before that removal. So its
//!      addition was seen as well: a contradiction.
//! 2. **The last removal always finds that no handle is left.** Removals, and the loads that
//!    search for other handles after them, are `SeqCst`, so they have a total order. The last
//!    removal in that order sees every other removal, and the addition of each removed handle. So
//!    it finds each tally empty.
//!
//! From 2, a removal that finds a handle in any tally is not the last one, so the search ends with
//! the first handle that it finds. Usually that is another handle in the same tally, or a root
//! handle. A removal that finds no handle need not be the last one either: two removals at once may
//! both find none. So the owner then calls `is_zero` under its lock.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::striped::{assigned_slot, slot_count, thread_slot};
use super::sync::{AtomicU64, AtomicUsize, Ordering, fence_in_models};

/// A count of handles, which is never freed. A thread with a number only reads its fields.
pub(super) struct HandleCount {
    /// The tally of the root handles, and of the threads without a number.
    shared: Tally,
    /// For each number of a thread, the line that contains its tally.
    lines: &'static [Line],
    /// The position of this count in each line.
    column: usize,
    /// The number of a thread whose tally had a handle, to begin the next search there.
    found: AtomicUsize,
}

/// The handles that one thread has added, or the shared tally.
#[derive(Debug, Default)]
pub(super) struct Tally {
    added: AtomicU64,
    removed: AtomicU64,
}

/// The tallies of one thread in several counts. Threads do not share lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([Tally; COLUMNS]);

/// How many counts share the lines of a thread.
const COLUMNS: usize = 8;

impl Tally {
    /// Adds a handle with a load and a store. Only the thread that owns the tally may call it.
    #[inline]
    fn add_exclusive(&self) -> &Self {
        // Relaxed: the handle, or the one that it was cloned from, is removed later, and that
        // removal is a Release. The lock of the list of numbers orders the stores of successive
        // owners.
        self.added.store(self.added.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self
    }

    /// Adds a handle. Any thread may call it.
    fn add(&self) -> &Self {
        // Relaxed: as in `add_exclusive`.
        self.added.fetch_add(1, Ordering::Relaxed);
        self
    }

    /// Removes a handle. Returns whether the tally has another handle.
    #[inline]
    fn remove(&self) -> bool {
        // SeqCst: rule 2 of the module. It is also a Release, so that the last removal sees the use
        // by each handle.
        self.removed.fetch_add(1, Ordering::SeqCst);
        fence_in_models();
        self.has_handle()
    }

    /// Returns whether the tally has a handle.
    #[inline]
    fn has_handle(&self) -> bool {
        // SeqCst: rule 2 of the module. It is also an Acquire, so that the second load sees each
        // removed handle's addition.
        let removed = self.removed.load(Ordering::SeqCst);
        self.added.load(Ordering::Relaxed) != removed
    }
}

impl HandleCount {
    /// Creates a count of 0. Its position in the lines is never reused.
    pub(super) fn new() -> Self {
        static NEXT: Mutex<(&[Line], usize)> = Mutex::new((&[], COLUMNS));

        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        if next.1 == COLUMNS {
            *next = (new_lines(slot_count()), 0);
        }
        let (lines, column) = *next;
        next.1 += 1;
        Self::in_lines(lines, column)
    }

    /// Creates a count of 0 for threads with smaller numbers than this.
    #[cfg(test)]
    pub(super) fn with_threads(threads: usize) -> Self {
        Self::in_lines(new_lines(threads), 0)
    }

    /// Leaks the count.
    #[cfg(test)]
    fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    fn in_lines(lines: &'static [Line], column: usize) -> Self {
        Self { shared: Tally::default(), lines, column, found: AtomicUsize::new(0) }
    }

    /// Adds a handle that the calling thread clones. Returns the tally from which to remove it.
    #[inline]
    pub(super) fn add(&'static self) -> &'static Tally {
        match self.lines.get(assigned_slot()) {
            Some(line) => self.tally_in(line).add_exclusive(),
            None => self.add_slowly(),
        }
    }

    /// Adds a handle in the cases that `add` leaves out: the thread's first addition, and a thread
    /// without a number.
    #[cold]
    #[inline(never)]
    fn add_slowly(&'static self) -> &'static Tally {
        thread_slot().map_or_else(|| self.add_root(), |slot| self.add_as(slot))
    }

    /// Adds a handle that the thread with this number clones.
    pub(super) fn add_as(&self, slot: usize) -> &'static Tally {
        self.tally_in(&self.lines[slot]).add_exclusive()
    }

    /// Adds a root handle.
    pub(super) fn add_root(&'static self) -> &'static Tally {
        self.shared.add()
    }

    /// Removes a handle that this tally added.
    ///
    /// Returns `false` if another handle was found. For the last handle, it always returns `true`.
    #[inline]
    #[must_use]
    pub(super) fn remove(&self, tally: &Tally) -> bool {
        !tally.remove() && !self.shared.has_handle() && !self.has_owned_handle()
    }

    /// Returns whether the tally of any thread has a handle.
    #[cold]
    #[inline(never)]
    fn has_owned_handle(&self) -> bool {
        // Relaxed: any order of the search is correct.
        let first = self.found.load(Ordering::Relaxed);
        let mut slots = (first..self.lines.len()).chain(0..first);
        let found = slots.find(|slot| self.tally_in(&self.lines[*slot]).has_handle());
        if let Some(found) = found
            && found != first
        {
            self.found.store(found, Ordering::Relaxed);
        }
        found.is_some()
    }

    /// Returns whether there is no handle. It may return `false` while handles are removed.
    ///
    /// No first handle, and no handle from a weak reference, may be added at the same time.
    pub(super) fn is_zero(&self) -> bool {
        self.at_most() == 0
    }

    /// Returns the number of handles. It may be larger than the number at any moment if handles
    /// are added and removed at the same time.
    pub(super) fn at_most(&self) -> u64 {
        // Acquire: the additions of the handles that were removed are seen below.
        let removed: u64 = self.tallies().map(|tally| tally.removed.load(Ordering::Acquire)).sum();
        let added: u64 = self.tallies().map(|tally| tally.added.load(Ordering::Relaxed)).sum();
        added - removed
    }

    fn tallies(&self) -> impl Iterator<Item = &Tally> {
        self.lines.iter().map(|line| self.tally_in(line)).chain([&self.shared])
    }

    #[inline]
    fn tally_in<'a>(&self, line: &'a Line) -> &'a Tally {
        // The remainder is the position itself. The compiler omits the check of the bounds.
        &line.0[self.column % COLUMNS]
    }
}

impl fmt::Debug for HandleCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandleCount").field(&self.at_most()).finish()
    }
}

/// Creates the lines of this number of threads. They are never freed.
fn new_lines(threads: usize) -> &'static [Line] {
    Box::leak((0..threads).map(|_| Line::default()).collect())
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn handle_count_search_begins_where_a_handle_was_found() {
        let count = HandleCount::with_threads(3).leak();
        let kept = count.add_as(2);
        assert!(!count.remove(count.add_as(0)));
        assert_eq!(count.found.load(Ordering::Relaxed), 2);
        assert!(!count.remove(count.add_as(1)));
        assert!(count.remove(kept) && count.is_zero());
        // The search also covers the numbers before the first one.
        let kept = count.add_as(0);
        assert!(!count.remove(count.add_as(1)));
        assert_eq!(count.found.load(Ordering::Relaxed), 0);
        assert!(count.remove(kept) && count.is_zero());
    }

    #[test]
    fn handle_counts_in_the_same_lines_are_separate() {
        let counts: Vec<_> = (0..3 * COLUMNS).map(|_| HandleCount::new().leak()).collect();
        let tallies: Vec<_> = counts.iter().map(|count| count.add()).collect();
        for (count, tally) in counts.iter().zip(tallies) {
            assert_eq!(count.at_most(), 1);
            assert!(count.remove(tally) && count.is_zero());
        }
    }

    #[test]
    fn handle_count_is_exact_beyond_32_bits() {
        let count = HandleCount::with_threads(1).leak();
        let tally = &count.lines[0].0[0];
        for counter in [&tally.added, &tally.removed] {
            counter.store(u32::MAX.into(), Ordering::Relaxed);
        }
        let (first, second) = (count.add_as(0), count.add_as(0));
        assert!(!count.remove(first) && count.remove(second) && count.is_zero());
        // As many handles were forgotten.
        tally.added.fetch_add(1 << 32, Ordering::Relaxed);
        assert!(!count.remove(count.add_root()) && !count.is_zero());
        assert_eq!(count.at_most(), 1 << 32);
    }

    proptest! {
        /// Compares the count with the number of handles in a list, for random threads and random
        /// orders of removal.
        #[test]
        fn handle_count_matches_naive_model(
            steps in proptest::collection::vec((any::<bool>(), 0_usize..5, any::<prop::sample::Index>()), 0..200),
        ) {
            let count = HandleCount::with_threads(4).leak();
            let mut handles = vec![count.add_root()];
            for (adds, slot, index) in steps {
                if adds {
                    handles.push(if slot < 4 { count.add_as(slot) } else { count.add_root() });
                } else if !handles.is_empty() {
                    let found_none = count.remove(handles.swap_remove(index.index(handles.len())));
                    prop_assert_eq!(found_none, handles.is_empty());
                }
                prop_assert_eq!(count.at_most(), handles.len() as u64);
                prop_assert_eq!(count.is_zero(), handles.is_empty());
            }
        }
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::*;
    use crate::__internals::sync::lock;

    /// The handle of each thread was added to the tally of the other thread.
    #[test]
    fn loom_handle_count_last_removal_finds_no_handle() {
        for shared in [false, true] {
            loom::model(move || {
                let count = HandleCount::with_threads(2).leak();
                let first = if shared { count.add_root() } else { count.add_as(0) };
                let second = count.add_as(1);
                let thread = thread::spawn(move || count.remove(first));
                let found_none = count.remove(second);
                assert!(thread.join().unwrap() | found_none, "the last removal found a handle");
                assert!(count.is_zero());
            });
        }
    }

    /// Two threads have the same number, one after the other.
    #[test]
    fn loom_handle_count_number_passed_on_keeps_additions() {
        loom::model(|| {
            let count = HandleCount::with_threads(1).leak();
            let root = count.add_root();
            // In place of the lock of the list of numbers.
            let numbers = Arc::new(Mutex::new(()));
            let add = move || {
                let _number = lock(&numbers);
                count.add_as(0)
            };
            let thread = thread::spawn(add.clone());
            let own = add();
            let other = thread.join().unwrap();
            assert_eq!(count.at_most(), 3);
            assert!(!count.remove(root) && !count.remove(own) && count.remove(other));
        });
    }

    /// A handle of one thread replaces that of another while a third thread counts.
    #[test]
    fn loom_handle_count_is_not_zero_while_handle_moves() {
        for [from, to] in [[0, 1], [1, 0]] {
            loom::model(move || {
                let count = HandleCount::with_threads(2).leak();
                let handle = count.add_as(from);
                let thread = thread::spawn(move || {
                    let next = count.add_as(to);
                    assert!(!count.remove(handle));
                    next
                });
                assert!(!count.is_zero(), "there is a handle at every moment");
                let next = thread.join().unwrap();
                assert!(count.remove(next) && count.is_zero());
            });
        }
    }
}
