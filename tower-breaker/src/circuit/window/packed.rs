//! Calls and failures over a sliding span of time, in eleven cells: little memory, for a circuit
//! that is one of many.
//!
//! A cell is one word, `tag:24 | calls:20 | failures:20`, with the lower bits of a tag as in a
//! [`PaddedRing`](tower_fault_classify::__internals::PaddedRing). A cell is full after 1,048,575 calls in a
//! bucket. Its counts are then [moved](PackedCells::take) to cells with more room.

use tower_fault_classify::__internals::sync::{AtomicU64, Ordering};
use tower_fault_classify::__internals::{CellUpdate, is_in_window};

const CELLS: usize = 11;
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
    /// How many buckets make up a span, besides the one that is being filled.
    pub(crate) const PARTS: u64 = CELLS as u64 - 1;

    /// Adds a call to a bucket, from any thread. False: the bucket's cell is full.
    ///
    /// A sum that sees the addition also shows what the caller did before it.
    #[inline]
    pub(crate) fn add(&self, tag: u64, failed: bool) -> bool {
        let cell = self.cell(tag);
        // The usual case: the cell belongs to the bucket and is not full. An overflow changes the
        // tag, because a cell never holds more failures than calls.
        let word = cell.load(Ordering::Relaxed);
        let sum = word.wrapping_add(pack(0, 1, failed.into()));
        if (sum >> (2 * COUNT_BITS)) as u32 == tag as u32 & TAG {
            // Release: with what was added to other rings before.
            let exchanged = cell.compare_exchange_weak(word, sum, Ordering::Release, Ordering::Relaxed);
            if exchanged.is_ok() {
                return true;
            }
        }
        add_slowly(cell, tag as u32, failed)
    }

    /// Empties the cell of a bucket if it is full. Returns the bucket, the calls and the failures
    /// that the cell held.
    pub(crate) fn take(&self, tag: u64) -> Option<(u64, [u32; 2])> {
        let cell = self.cell(tag);
        let mut taken = None;
        // Relaxed: the caller keeps readers out.
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (cells_tag, calls, failures) = unpack(word);
            let bucket = tag.wrapping_sub(i64::from(age(cells_tag, tag as u32)).cast_unsigned());
            taken = (calls == FULL).then_some((bucket, [calls, failures]));
            taken.map(|_| pack(cells_tag, 0, 0))
        });
        taken
    }

    /// The calls and failures in the last `span` buckets that end with the bucket `tag`, cells that
    /// are a little newer included.
    pub(crate) fn sum_last(&self, tag: u64, span: u32) -> [u64; 2] {
        let mut sums = [0, 0];
        for cell in &self.0 {
            // Acquire: a ring that is read afterwards holds what was added to it before what is
            // seen here.
            let (cells_tag, calls, failures) = unpack(cell.load(Ordering::Acquire));
            if is_in_window(age(cells_tag, tag as u32), span) {
                sums[0] += u64::from(calls);
                sums[1] += u64::from(failures);
            }
        }
        sums
    }

    /// Clears cells: see [`BucketRing::clear_expired`](tower_fault_classify::__internals::BucketRing::clear_expired).
    pub(crate) fn clear_expired(&self, keep: Option<u64>) {
        for cell in &self.0 {
            // Relaxed: the caller publishes the cleared cells.
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let in_span = |tag: u64| is_in_window(age(unpack(word).0, tag as u32), CELLS as u32);
                (word != 0 && !keep.is_some_and(in_span)).then_some(0)
            });
        }
    }

    /// Fills the cell of a bucket, a third of it with failures.
    #[cfg(all(test, loom_models))]
    pub(crate) fn fill(&self, tag: u64) {
        self.cell(tag).store(pack(tag as u32, FULL, FULL / 3), Ordering::Relaxed);
    }

    #[inline]
    fn cell(&self, tag: u64) -> &AtomicU64 {
        &self.0[(tag % CELLS as u64) as usize]
    }
}

/// Runs once per bucket, concurrently with another addition, and when the cell is full. False: the cell is
/// full.
#[cold]
#[inline(never)]
fn add_slowly(cell: &AtomicU64, tag: u32, failed: bool) -> bool {
    let mut is_full = false;
    // Release: as in `add`. A failed exchange is repeated with what it found, so it needs no order.
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

/// By how many buckets a cell's tag is younger than `now`, whose tag may have more bits.
const fn age(tag: u32, now: u32) -> i32 {
    // The difference of the tags' lower bits, with its published_state.
    (now.wrapping_sub(tag) << (32 - TAG_BITS)).cast_signed() >> (32 - TAG_BITS)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tower_fault_classify::__internals::TimeBuckets;

    use super::*;

    fn sum(pairs: &PackedCells, tag: u64) -> [u64; 2] {
        pairs.sum_last(tag, 11)
    }

    #[test]
    fn packed_sum_covers_eleven_buckets() {
        let pairs = PackedCells::default();
        for tag in 100..120 {
            assert!(pairs.add(tag, tag % 2 == 1));
        }
        assert_eq!(sum(&pairs, 119), [11, 6]);
        assert_eq!(sum(&pairs, 120), [10, 5]);
        assert_eq!(sum(&pairs, 130), [0, 0]);
        assert_eq!(pairs.sum_last(119, 2), [2, 1]);
    }

    #[test]
    fn packed_epoch_starts_empty_and_ignores_the_last() {
        let pairs = PackedCells::default();
        let buckets = TimeBuckets::with_count(60_000_000_000, PackedCells::PARTS);
        let [first, second] = [3, 4].map(|epoch| buckets.tag(1_000_000_000_000, epoch));
        pairs.add(first, true);
        assert_eq!(sum(&pairs, second), [0, 0]);
        pairs.add(second, false);
        pairs.add(first, true);
        assert_eq!(sum(&pairs, second), [1, 0]);
    }

    #[test]
    fn full_cell_is_taken_whole() {
        for failed in [false, true] {
            let pairs = PackedCells::default();
            assert_eq!(pairs.take(107), None);
            assert!((0..FULL).all(|_| pairs.add(107, failed)));
            assert!(!pairs.add(107, failed) && !pairs.add(107, !failed));
            let whole = [FULL, if failed { FULL } else { 0 }];
            assert_eq!(sum(&pairs, 107), whole.map(u64::from));
            // A thread that read the clock earlier finds the cell of a newer bucket.
            let late = if failed { 107 - 11 } else { 107 };
            assert!(!pairs.add(late, failed));
            assert_eq!((pairs.take(late), pairs.take(107)), (Some((107, whole)), None));
            assert!(pairs.add(107, failed));
            assert_eq!(sum(&pairs, 107), [1, failed.into()]);
        }
    }

    #[test]
    fn packed_clear_expired_keeps_the_span() {
        let pairs = PackedCells::default();
        (100..111).for_each(|tag| assert!(pairs.add(tag, true)));
        pairs.clear_expired(Some(113));
        assert_eq!((sum(&pairs, 110), sum(&pairs, 113)), ([8, 8], [8, 8]));
        // Without it the cells would count again.
        let wrap = 1 << TAG_BITS;
        assert_eq!(sum(&pairs, wrap + 113), [8, 8]);
        pairs.clear_expired(None);
        assert_eq!(sum(&pairs, wrap + 113), [0, 0]);
    }

    #[test]
    fn packed_tags_that_wrap_stay_in_order() {
        let pairs = PackedCells::default();
        let edge = 1 << TAG_BITS;
        for tag in edge - 5..edge + 5 {
            pairs.add(tag, false);
        }
        assert_eq!(sum(&pairs, edge + 4), [10, 0]);
        assert_eq!(sum(&pairs, edge + 9), [6, 0]);
    }

    proptest! {
        /// Against every addition kept in a map: steps of time, late ones among them.
        #[test]
        fn packed_cells_match_naive_model(steps in proptest::collection::vec((0_u64..4, 0_u64..3, any::<bool>()), 1..300)) {
            let pairs = PackedCells::default();
            let mut naive: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
            let mut now = 1_000;
            for (later, late, failed) in steps {
                now += later;
                let tag = now - late;
                pairs.add(tag, failed);
                // A late one lands in the newest bucket of its cell.
                let newest = naive.range(tag..).map(|(tag, _)| *tag).find(|newer| (newer - tag) % 11 == 0);
                let sums = naive.entry(newest.unwrap_or(tag)).or_default();
                sums[0] += 1;
                sums[1] += u64::from(failed);
                let inside = naive.range(now - 10..=now);
                let expected = inside.fold([0, 0], |sum, (_, more)| [sum[0] + more[0], sum[1] + more[1]]);
                prop_assert_eq!(sum(&pairs, now), expected);
            }
        }
    }
}
