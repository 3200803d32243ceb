//! The counts of the calls in a circuit's window.
//!
//! A cell can hold about a million calls. The counts of a full cell move to the cells in
//! [`LazyState`], which hold 4,096 times as many. While counts move, a reader of both places could
//! miss them or read them twice. Counts therefore move under a lock, with an odd sequence number. A
//! reader loads the sequence number before and after, and takes the lock if it was odd or has
//! changed.

use tower_fault_classify::__internals::BucketRing;
use tower_fault_classify::__internals::sync::{Mutex, Ordering, fence, lock};

use super::{Common, KeyedStore};
use crate::circuit::{Due, NewestBucket, PackedCells, StripedWindow, Window};
use crate::machine::Counts;

/// The counts outside of the circuit's own cells.
#[derive(Default)]
pub(super) struct WideCounts {
    slow: BucketRing<CELLS>,
    cancelled: BucketRing<CELLS>,
    /// The counts of full cells.
    failures: BucketRing<CELLS>,
    calls: BucketRing<CELLS>,
}

/// The number of cells: one more than the window has parts, as in [`PackedCells`].
pub(super) const CELLS: usize = PackedCells::PARTS as usize + 1;

impl WideCounts {
    fn all(&self) -> [&BucketRing<CELLS>; 4] {
        [&self.slow, &self.cancelled, &self.failures, &self.calls]
    }
}

impl<K> Common<K> {
    /// Runs `run`, which moves counts from one place to another.
    fn move_counts(&self, run: impl FnOnce()) {
        let _lock = lock(&self.upkeep);
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // A reader of a moved count sees the odd sequence number, or a later one.
        fence(Ordering::Release);
        run();
        // Release: a reader of this sequence number sees all counts in their new place.
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Reads counts while none of them moves.
    fn read_counts<T>(&self, read: impl Fn() -> T) -> T {
        // Acquire: reads the counts of this sequence number, or of a later one.
        let sequence = self.sequence.load(Ordering::Acquire);
        let value = read();
        // If a count belongs to a later sequence number, the load below sees a changed number.
        fence(Ordering::Acquire);
        if sequence.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == sequence {
            return value;
        }
        let _lock = lock(&self.upkeep);
        read()
    }
}

impl<K> KeyedStore<K> {
    #[inline]
    fn add(&self, tag: u64, failed: bool) {
        while !self.calls.add(tag, failed) {
            self.move_to_wide_cells(tag);
        }
    }

    /// Moves the counts of a full cell to wider cells.
    #[cold]
    #[inline(never)]
    fn move_to_wide_cells(&self, tag: u64) {
        let wide = &self.lazy().counts;
        self.common.move_counts(|| {
            if let Some((tag, [calls, failures])) = self.calls.take(tag) {
                wide.calls.add(tag, calls);
                wide.failures.add(tag, failures);
            }
        });
    }

    fn wide_sum(&self, tag: u64, cells: impl FnOnce(&WideCounts) -> &BucketRing<CELLS>) -> u64 {
        self.lazy.get().map_or(0, |lazy| cells(&lazy.counts).sum(tag))
    }

    /// Returns the counts of the last `span` buckets, of which `tag` is the newest.
    pub(super) fn sums_of(&self, tag: u64, span: u32) -> Counts {
        self.common.read_counts(|| {
            // Each numerator is read before its denominator, as in the other window.
            let wide = self.lazy.get().map(|lazy| lazy.counts.all().map(|cells| cells.sum_last(tag, span)));
            let [slow, cancelled, wide_failures, wide_calls] = wide.unwrap_or_default();
            let [calls, failures] = self.calls.sum_last(tag, span);
            Counts { calls: calls + wide_calls, failures: failures + wide_failures, slow, cancelled }
        })
    }

    /// Returns the age of the newest bucket whose counts satisfy `is_in`. `tag` is the last bucket.
    fn age_of_last(&self, tag: u64, is_in: impl Fn(Counts) -> bool) -> Option<u32> {
        (0..CELLS as u32).find(|age| is_in(self.sums_of(tag, age + 1)))
    }
}

impl<K> Window for KeyedStore<K> {
    const PARTS: u64 = PackedCells::PARTS;

    #[inline]
    fn add_success(&self, tag: u64) {
        self.add(tag, false);
    }

    #[inline]
    fn try_add_success(&self, tag: u64) -> bool {
        self.calls.try_add(tag, false)
    }

    fn add_failure(&self, tag: u64) {
        self.add(tag, true);
    }

    fn add_slow(&self, tag: u64) {
        self.lazy().counts.slow.add(tag, 1);
    }

    fn add_cancelled(&self, tag: u64) {
        self.lazy().counts.cancelled.add(tag, 1);
    }

    fn failures(&self, tag: u64) -> u64 {
        self.common.read_counts(|| {
            self.calls.sum_last(tag, CELLS as u32)[1] + self.wide_sum(tag, |wide| &wide.failures)
        })
    }

    fn slow(&self, tag: u64) -> u64 {
        self.wide_sum(tag, |wide| &wide.slow)
    }

    fn sums(&self, tag: u64) -> Counts {
        self.sums_of(tag, CELLS as u32)
    }

    fn last_success_age(&self, tag: u64) -> Option<u32> {
        self.age_of_last(tag, |counts| counts.calls > counts.failures)
    }

    fn last_failure_age(&self, tag: u64) -> Option<u32> {
        self.age_of_last(tag, |counts| counts.failures > 0)
    }

    #[inline]
    fn newest(&self) -> &NewestBucket {
        &self.newest
    }

    fn clear_expired(&self, keep: Option<u64>) {
        self.calls.clear_expired(keep);
        if let Some(lazy) = self.lazy.get() {
            for cells in lazy.counts.all() {
                cells.clear_expired(keep);
            }
        }
    }

    fn upkeep(&self) -> &Mutex<()> {
        &self.common.upkeep
    }

    #[inline]
    fn due(&self) -> Option<&Due> {
        None
    }

    fn count_window(&self) -> Option<&StripedWindow> {
        None
    }
}
