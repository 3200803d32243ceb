//! Counts over a sliding span of time, in one cell for each bucket.
//!
//! A cell is one word, `tag:32 | count:32`. A tag numbers a bucket of time, moved on by
//! [`TAGS_PER_EPOCH`] for every epoch. The tag alone tells whether the cell's count is still in the
//! span, and no span ever holds two epochs. So adding and summing take the same time after any
//! pause.
//!
//! A tag has 64 bits, and a cell has room for 32 of them: a cell that is not used for 2³² buckets
//! seems new again. An owner that may be idle for that long [sweeps](BucketRing::clear_expired) its cells.

use std::ops::Deref;

use super::sync::{AtomicU64, Ordering};

/// How far an epoch moves the tags on. In a tag's lower bits it is more than a ring holds, so that
/// nothing of an earlier epoch is in the span. In its upper bits it is more than the time can move
/// them, so that epochs have an order; they start over after 2²⁴.
pub const TAGS_PER_EPOCH: u64 = (1 << 40) + 256;

/// How much newer a cell may be than the time that was read for it, to be taken for the same epoch: the thread that
/// read the clock first may arrive last.
const MAX_AHEAD: i32 = 128;

/// How much newer a cell may be to be taken for a later epoch. Beyond, it is a leftover from before the tags wrapped.
const LATER_EPOCH: i32 = 1 << 20;

/// Sixteen cells, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PaddedRing(BucketRing<16>);

impl Deref for PaddedRing {
    type Target = BucketRing<16>;

    #[inline]
    fn deref(&self) -> &BucketRing<16> {
        &self.0
    }
}

/// A ring of cells, whose sum spans as many buckets.
#[derive(Debug)]
pub struct BucketRing<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for BucketRing<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> BucketRing<N> {
    /// Adds `count` to the bucket `tag`, from any thread.
    ///
    /// A sum that sees the addition also shows what the caller did before it.
    pub fn add(&self, tag: u64, count: u32) {
        let cell = self.cell(tag);
        // Release: with what was added to other rings before. A failed exchange is repeated with
        // what it found, so it needs no order.
        let _ =
            cell.fetch_update(Ordering::Release, Ordering::Relaxed, |word| added(word, tag as u32, count));
    }

    /// Adds `count` to the bucket `tag`, from the one thread that owns the ring: a load and a store.
    #[inline]
    pub(super) fn add_exclusive(&self, tag: u64, count: u32) {
        let cell = self.cell(tag);
        // No other thread adds. A clearing between the load and the store clears only what the store
        // replaces.
        if let Some(word) = added(cell.load(Ordering::Relaxed), tag as u32, count) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// The sum over the span that ends with the bucket `tag`, cells that are a little newer included.
    pub fn sum(&self, tag: u64) -> u64 {
        self.sum_last(tag, N as u32)
    }

    /// The sum over the last `span` buckets that end with the bucket `tag`, cells that are a little
    /// newer included.
    pub fn sum_last(&self, tag: u64, span: u32) -> u64 {
        // Acquire: a ring that is read afterwards holds what was added to it before what is seen
        // here.
        self.0.iter().map(|cell| u64::from(counted(cell.load(Ordering::Acquire), tag as u32, span))).sum()
    }

    /// Clears the cells that are not in the span that ends with the bucket `keep`; `None`: all
    /// cells. Counts that other threads add meanwhile are kept.
    pub fn clear_expired(&self, keep: Option<u64>) {
        for cell in &self.0 {
            // Relaxed: the caller publishes the cleared cells.
            let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let kept = word == 0 || keep.is_some_and(|tag| counted(word, tag as u32, N as u32) > 0);
                (!kept).then_some(0)
            });
        }
    }

    #[inline]
    fn cell(&self, tag: u64) -> &AtomicU64 {
        &self.0[(tag % N as u64) as usize]
    }
}

const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

const fn pack(tag: u32, count: u32) -> u64 {
    ((tag as u64) << 32) | count as u64
}

/// By how many buckets `tag` is younger than `now`.
const fn age(tag: u32, now: u32) -> i32 {
    now.wrapping_sub(tag).cast_signed()
}

/// What becomes of a cell to which something is added whose bucket is so many buckets younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellUpdate {
    /// It counts in the cell.
    Add,
    /// The cell belongs to a later epoch and stays as it is.
    Discard,
    /// The cell has had its time.
    Reset,
}

impl CellUpdate {
    /// `empty`: the cell has never been used, so that its tag says nothing.
    #[inline]
    pub const fn decide(age: i32, empty: bool) -> Self {
        if age == 0 || (age < 0 && age > -MAX_AHEAD && !empty) {
            Self::Add
        } else if age < 0 && age > -LATER_EPOCH && !empty {
            Self::Discard
        } else {
            Self::Reset
        }
    }
}

/// Whether a cell is in a sum over so many buckets that ends so many buckets after the cell's own, or a little before it.
#[inline]
pub const fn is_in_window(age: i32, span: u32) -> bool {
    // Between `-MAX_AHEAD` and `span`, by one comparison.
    let shifted = age.wrapping_add(MAX_AHEAD - 1).cast_unsigned();
    shifted < span + (MAX_AHEAD - 1).cast_unsigned()
}

/// The cell after `more` was added at `now`. `None`: it belongs to a later epoch and stays.
#[inline]
fn added(word: u64, now: u32, more: u32) -> Option<u64> {
    let (tag, count) = unpack(word);
    if tag == now {
        Some(pack(tag, count.saturating_add(more)))
    } else {
        added_to_other_bucket(word, now, more)
    }
}

/// Once a bucket, and when two threads read the clock at its edge.
#[cold]
fn added_to_other_bucket(word: u64, now: u32, more: u32) -> Option<u64> {
    let (tag, count) = unpack(word);
    match CellUpdate::decide(age(tag, now), count == 0) {
        CellUpdate::Add => Some(pack(tag, count.saturating_add(more))),
        CellUpdate::Discard => None,
        CellUpdate::Reset => Some(pack(now, more)),
    }
}

/// The part of the cell in a sum over `span` buckets that ends at `now`.
const fn counted(word: u64, now: u32, span: u32) -> u32 {
    let (tag, count) = unpack(word);
    if is_in_window(age(tag, now), span) { count } else { 0 }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ring_sum_covers_sixteen_buckets() {
        let ring = PaddedRing::default();
        for tag in 100..120 {
            ring.add(tag, 1);
        }
        assert_eq!(ring.sum(119), 16);
        assert_eq!(ring.sum(120), 15);
        assert_eq!(ring.sum(134), 1);
        assert_eq!(ring.sum(135), 0);
    }

    #[test]
    fn ring_new_epoch_starts_empty_and_ignores_earlier_epoch() {
        let ring = PaddedRing::default();
        ring.add(1_000, 5);
        let next = 1_000 + TAGS_PER_EPOCH;
        assert_eq!(ring.sum(next), 0);
        ring.add(next, 1);
        ring.add(1_000, 7);
        assert_eq!(ring.sum(next), 1, "an outcome of the former epoch changes nothing");
    }

    #[test]
    fn ring_add_with_older_tag_counts_in_newest_bucket() {
        let ring = PaddedRing::default();
        ring.add(116, 1);
        ring.add(100, 1);
        assert_eq!(ring.sum(116), 2);
        assert_eq!(ring.sum(100), 2, "a newer cell counts for who read the clock first");
    }

    #[test]
    fn ring_tags_wrap_at_32_bits() {
        let ring = PaddedRing::default();
        let edge = 1 << 32;
        ring.add(edge - 1, 1);
        ring.add(edge, 1);
        assert_eq!(ring.sum(edge), 2);
        assert_eq!(ring.sum(edge + 15), 1);
        assert_eq!(PaddedRing::default().sum(1 << 31), 0);
        let fresh = PaddedRing::default();
        fresh.add(3 << 30, 1);
        assert_eq!(fresh.sum(3 << 30), 1, "an empty cell takes any tag");
    }

    #[test]
    fn ring_sweep_clears_cells_outside_window() {
        let ring = PaddedRing::default();
        (100..116).for_each(|tag| ring.add(tag, 1));
        ring.clear_expired(Some(119));
        assert_eq!((ring.sum(115), ring.sum(119)), (12, 12));
        // Without it the cells would count again.
        let wrap = 1 << 32;
        assert_eq!(ring.sum(wrap + 119), 12);
        ring.clear_expired(None);
        assert_eq!(ring.sum(wrap + 119), 0);
    }

    #[test]
    fn ring_count_saturates() {
        let ring = PaddedRing::default();
        ring.add(1, u32::MAX);
        ring.add(1, 1);
        ring.add_exclusive(1, 1);
        assert_eq!(ring.sum(1), u64::from(u32::MAX));
    }

    proptest! {
        /// Against every addition kept in a map: time that goes on by any steps, and epochs.
        #[test]
        fn ring_sum_matches_naive_model(steps in proptest::collection::vec((0_u32..40, 0_u32..3, prop::bool::weighted(0.1)), 1..200), start in 0..u64::MAX / 2) {
            let ring = PaddedRing::default();
            let mut naive: BTreeMap<(u64, u64), u64> = BTreeMap::new();
            let (mut epoch, mut bucket) = (0_u64, 0_u64);
            for (forward, count, next_epoch) in steps {
                bucket += u64::from(forward);
                epoch += u64::from(next_epoch);
                let tag = start + bucket + epoch * TAGS_PER_EPOCH;
                if forward % 2 == 0 { ring.add(tag, count) } else { ring.add_exclusive(tag, count) }
                *naive.entry((epoch, bucket)).or_default() += u64::from(count);
                let expected: u64 = naive
                    .iter()
                    .filter(|((of, at), _)| *of == epoch && bucket - at < 16)
                    .map(|(_, count)| count)
                    .sum();
                prop_assert_eq!(ring.sum(tag), expected);
            }
        }
    }
}
