//! The cells of a keyed circuit: calls and failures over a sliding span of time, in eleven words.
//!
//! A cell is one word, `tag:24 | calls:20 | failures:20`. It holds the lower bits of a tag, like a
//! cell of a [`PaddedRing`](tower_fault_classify::__internals::PaddedRing). A cell is full after
//! 1,048,575 calls in a bucket. Its counts are then [moved](PackedCells::take) to cells with more
//! room.

use tower_fault_classify::__internals::sync::{AtomicU64, Ordering};
use tower_fault_classify::__internals::{CellUpdate, is_in_window};

/// Loom explores each access of a cell, so a ring is smaller in models.
const CELLS: usize = if cfg!(loom_models) { 4 } else { 11 };
const COUNT_BITS: u32 = 20;
const FULL: u32 = (1 << COUNT_BITS) - 1;
const TAG_BITS: u32 = 64 - 2 * COUNT_BITS;
const TAG: u32 = (1 << TAG_BITS) - 1;

/// A ring of cells.
#[derive(Debug)]
pub(crate) struct PackedCells([AtomicU64; CELLS]);

impl Default for PackedCells {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl PackedCells {
    /// The number of buckets that a span is divided into, without the bucket that is being filled.
    pub(crate) const PARTS: u64 = CELLS as u64 - 1;

    /// Adds a call to a bucket, from any thread. Returns `false` if the bucket's cell is full.
    ///
    /// A thread whose sum contains the call also sees what the caller did before.
    #[inline]
    pub(crate) fn add(&self, tag: u64, failed: bool) -> bool {
        self.try_add(tag, failed) || add_slowly(self.cell(tag), tag as u32, failed)
    }

    /// Adds a call as [`add`](Self::add) does, in the usual case: the cell belongs to the bucket
    /// and is not full, and no other thread adds. Otherwise, returns `false`.
    #[inline]
    pub(crate) fn try_add(&self, tag: u64, failed: bool) -> bool {
        let cell = self.cell(tag);
        // If the cell is full, its calls overflow into the tag, and the comparison below fails. The
        // failures never overflow alone, because a cell never holds more failures than calls.
        let word = cell.load(Ordering::Relaxed);
        let sum = word.wrapping_add(pack(0, 1, failed.into()));
        // Release: a thread that sees this call also sees what was added to other rings before.
        (sum >> (2 * COUNT_BITS)) as u32 == tag as u32 & TAG
            && cell.compare_exchange_weak(word, sum, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Empties the cell of the bucket `tag` if the cell is full. Returns the bucket to which the
    /// cell belonged, and its calls and failures.
    pub(crate) fn take(&self, tag: u64) -> Option<(u64, [u32; 2])> {
        let cell = self.cell(tag);
        let mut taken = None;
        // Relaxed: the caller changes the sequence number, so a concurrent reader reads again.
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (cells_tag, calls, failures) = unpack(word);
            let bucket = tag.wrapping_sub(i64::from(age(cells_tag, tag as u32)).cast_unsigned());
            taken = (calls == FULL).then_some((bucket, [calls, failures]));
            taken.map(|_| pack(cells_tag, 0, 0))
        });
        taken
    }

    /// Returns the calls and failures in the last `span` buckets up to the bucket `tag`. Cells that
    /// are a little newer are included.
    pub(crate) fn sum_last(&self, tag: u64, span: u32) -> [u64; 2] {
        let mut sums = [0, 0];
        for cell in &self.0 {
            // Acquire: if another ring is read afterwards, it contains what was added to it before
            // the additions that are seen here.
            let (cells_tag, calls, failures) = unpack(cell.load(Ordering::Acquire));
            if is_in_window(age(cells_tag, tag as u32), span) {
                sums[0] += u64::from(calls);
                sums[1] += u64::from(failures);
            }
        }
        sums
    }

    /// Clears cells; see
    /// [`BucketRing::clear_expired`](tower_fault_classify::__internals::BucketRing::clear_expired).
    pub(crate) fn clear_expired(&self, keep: Option<u64>) {
        for cell in &self.0 {
            // Relaxed: the caller publishes the cleared cells.
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let in_span = |tag: u64| is_in_window(age(unpack(word).0, tag as u32), CELLS as u32);
                (word != 0 && !keep.is_some_and(in_span)).then_some(0)
            });
        }
    }

    /// Fills the cell of a bucket. A third of its calls are failures.
    #[cfg(all(test, loom_models))]
    pub(crate) fn fill(&self, tag: u64) {
        self.cell(tag).store(pack(tag as u32, FULL, FULL / 3), Ordering::Relaxed);
    }

    #[inline]
    fn cell(&self, tag: u64) -> &AtomicU64 {
        &self.0[(tag % CELLS as u64) as usize]
    }
}

/// Adds a call in the cases that `try_add` leaves out: the first call of a bucket, a concurrent
/// addition, and a full cell. Returns `false` if the cell is full.
#[cold]
#[inline(never)]
fn add_slowly(cell: &AtomicU64, tag: u32, failed: bool) -> bool {
    let mut is_full = false;
    // Release: as in `add`. Relaxed on failure: the update is repeated with the value that was
    // found.
    let _ = cell.fetch_update(Ordering::Release, Ordering::Relaxed, |word| {
        let (cells_tag, calls, failures) = unpack(word);
        let addition = CellUpdate::decide(age(cells_tag, tag), calls == 0);
        is_full = addition == CellUpdate::Add && calls == FULL;
        match addition {
            CellUpdate::Add => (!is_full).then(|| pack(cells_tag, calls + 1, failures + u32::from(failed))),
            CellUpdate::Discard => None,
            CellUpdate::Reset => Some(pack(tag, 1, failed.into())),
        }
    });
    !is_full
}

const fn unpack(word: u64) -> (u32, u32, u32) {
    ((word >> (2 * COUNT_BITS)) as u32, (word >> COUNT_BITS) as u32 & FULL, word as u32 & FULL)
}

const fn pack(tag: u32, calls: u32, failures: u32) -> u64 {
    ((tag as u64) << (2 * COUNT_BITS)) | ((calls as u64) << COUNT_BITS) | failures as u64
}

/// Returns by how many buckets a cell's tag is older than the tag `now`, which may have more bits.
/// The result is negative if the cell is newer.
const fn age(tag: u32, now: u32) -> i32 {
    // The difference of the tags' lower bits, sign-extended.
    (now.wrapping_sub(tag) << (32 - TAG_BITS)).cast_signed() >> (32 - TAG_BITS)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tower_fault_classify::__internals::TimeBuckets;

    use super::*;

    fn sum(cells: &PackedCells, tag: u64) -> [u64; 2] {
        cells.sum_last(tag, 11)
    }

    #[test]
    fn packed_sum_covers_last_eleven_buckets() {
        let cells = PackedCells::default();
        for tag in 100..120 {
            assert!(cells.add(tag, tag % 2 == 1));
        }
        assert_eq!(sum(&cells, 119), [11, 6]);
        assert_eq!(sum(&cells, 120), [10, 5]);
        assert_eq!(sum(&cells, 130), [0, 0]);
        assert_eq!(cells.sum_last(119, 2), [2, 1]);
    }

    #[test]
    fn packed_epoch_starts_empty_and_ignores_earlier_epoch() {
        let cells = PackedCells::default();
        let buckets = TimeBuckets::with_count(60_000_000_000, PackedCells::PARTS);
        let [first, second] = [3, 4].map(|epoch| buckets.tag(1_000_000_000_000, epoch));
        cells.add(first, true);
        assert_eq!(sum(&cells, second), [0, 0]);
        cells.add(second, false);
        cells.add(first, true);
        assert_eq!(sum(&cells, second), [1, 0]);
    }

    #[test]
    fn full_cell_is_emptied_with_all_its_counts() {
        for failed in [false, true] {
            let cells = PackedCells::default();
            assert_eq!(cells.take(107), None);
            assert!((0..FULL).all(|_| cells.add(107, failed)));
            assert!(!cells.add(107, failed) && !cells.add(107, !failed));
            let whole = [FULL, if failed { FULL } else { 0 }];
            assert_eq!(sum(&cells, 107), whole.map(u64::from));
            // A thread that read the clock earlier finds the cell of a newer bucket.
            let late = if failed { 107 - 11 } else { 107 };
            assert!(!cells.add(late, failed));
            assert_eq!((cells.take(late), cells.take(107)), (Some((107, whole)), None));
            assert!(cells.add(107, failed));
            assert_eq!(sum(&cells, 107), [1, failed.into()]);
        }
    }

    #[test]
    fn packed_clear_expired_keeps_cells_in_span() {
        let cells = PackedCells::default();
        (100..111).for_each(|tag| assert!(cells.add(tag, true)));
        cells.clear_expired(Some(113));
        assert_eq!((sum(&cells, 110), sum(&cells, 113)), ([8, 8], [8, 8]));
        // Tags repeat after `wrap` buckets: without clearing, the cells are counted again.
        let wrap = 1 << TAG_BITS;
        assert_eq!(sum(&cells, wrap + 113), [8, 8]);
        cells.clear_expired(None);
        assert_eq!(sum(&cells, wrap + 113), [0, 0]);
    }

    #[test]
    fn packed_tags_keep_order_when_they_wrap() {
        let cells = PackedCells::default();
        let edge = 1 << TAG_BITS;
        for tag in edge - 5..edge + 5 {
            cells.add(tag, false);
        }
        assert_eq!(sum(&cells, edge + 4), [10, 0]);
        assert_eq!(sum(&cells, edge + 9), [6, 0]);
    }

    proptest! {
        /// Compares the cells with a map of all additions. Some calls arrive late.
        #[test]
        fn packed_cells_match_naive_model(steps in proptest::collection::vec((0_u64..4, 0_u64..3, any::<bool>()), 1..300)) {
            let cells = PackedCells::default();
            let mut naive: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
            let mut now = 1_000;
            for (later, late, failed) in steps {
                now += later;
                let tag = now - late;
                cells.add(tag, failed);
                // A late call is counted in the newest bucket of its cell.
                let newest = naive.range(tag..).map(|(tag, _)| *tag).find(|newer| (newer - tag) % 11 == 0);
                let sums = naive.entry(newest.unwrap_or(tag)).or_default();
                sums[0] += 1;
                sums[1] += u64::from(failed);
                let inside = naive.range(now - 10..=now);
                let expected = inside.fold([0, 0], |sum, (_, more)| [sum[0] + more[0], sum[1] + more[1]]);
                prop_assert_eq!(sum(&cells, now), expected);
            }
        }
    }
}
