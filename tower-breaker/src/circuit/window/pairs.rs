//! Two counts over a sliding span of time, in eleven cells: little memory, for a circuit that is one of many.
//!
//! A cell is one word, `tag:28 | first:18 | second:18`, with tags as in a [`Ring`](tower_fault_classify::__shared::Ring). Its tags wrap after
//! 2²⁸ buckets: with the shortest window, 1 ms, after seven hours; a cell of that very time, to the millisecond, would count again. A count that
//! is full is halved, and with it the other: that keeps their ratio. It takes 262,143 calls in a tenth of the window.

use tower_fault_classify::__shared::sync::{AtomicU64, Ordering};
use tower_fault_classify::__shared::{Addition, counts};

const CELLS: usize = 11;
const SPAN: i32 = 11;
const COUNT_BITS: u32 = 18;
const FULL: u32 = (1 << COUNT_BITS) - 1;
const TAG_BITS: u32 = 64 - 2 * COUNT_BITS;
const TAG: u32 = (1 << TAG_BITS) - 1;
/// The bits into which a full count runs over.
const CARRIES: u64 = (1 << COUNT_BITS) | (1 << (2 * COUNT_BITS));

/// A ring of cells.
#[derive(Debug)]
pub(crate) struct Pairs([AtomicU64; CELLS]);

impl Default for Pairs {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Pairs {
    /// So many buckets make up a span, beside the one that is being filled.
    pub(crate) const PARTS: u64 = CELLS as u64 - 1;

    /// Adds to the two counts of a bucket, at most one to each, from any thread.
    ///
    /// A sum that sees the addition also shows what the caller did before it.
    #[inline]
    pub(crate) fn add(&self, tag: u32, first: u32, second: u32) {
        let cell = &self.0[tag as usize % CELLS];
        // The usual case: a cell of that bucket, with no count that is full.
        let (word, more) = (cell.load(Ordering::Relaxed), pack(0, first, second));
        let sum = word.wrapping_add(more);
        if (word >> (2 * COUNT_BITS)) as u32 == tag & TAG && (word ^ more ^ sum) & CARRIES == 0 {
            // Release: with what was added to other rings before.
            let exchanged = cell.compare_exchange_weak(word, sum, Ordering::Release, Ordering::Relaxed);
            if exchanged.is_ok() {
                return;
            }
        }
        // Release: as above. A failed exchange is repeated with what it found, so it needs no order.
        let _ =
            cell.fetch_update(Ordering::Release, Ordering::Relaxed, |word| added(word, tag, first, second));
    }

    /// The sums over the span that ends with the bucket `tag`, cells that are a little newer included.
    pub(crate) fn sum(&self, tag: u32) -> [u64; 2] {
        self.sum_of(tag, SPAN)
    }

    /// The sums over the bucket `tag` and the one before it, cells that are a little newer included.
    pub(crate) fn newest(&self, tag: u32) -> [u64; 2] {
        self.sum_of(tag, 2)
    }

    fn sum_of(&self, tag: u32, span: i32) -> [u64; 2] {
        let mut sums = [0, 0];
        for cell in &self.0 {
            // Acquire: a ring that is read afterwards holds what was added to it before what is seen here.
            let (cells_tag, first, second) = unpack(cell.load(Ordering::Acquire));
            if counts(age(cells_tag, tag), span) {
                sums[0] += u64::from(first);
                sums[1] += u64::from(second);
            }
        }
        sums
    }
}

const fn unpack(word: u64) -> (u32, u32, u32) {
    ((word >> (2 * COUNT_BITS)) as u32, (word >> COUNT_BITS) as u32 & FULL, word as u32 & FULL)
}

const fn pack(tag: u32, first: u32, second: u32) -> u64 {
    ((tag as u64) << (2 * COUNT_BITS)) | ((first as u64) << COUNT_BITS) | second as u64
}

/// By how many buckets a cell's tag is younger than `now`, whose tag is whole.
const fn age(tag: u32, now: u32) -> i32 {
    // The difference of the tags' lower bits, with its sign.
    (now.wrapping_sub(tag) << (32 - TAG_BITS)).cast_signed() >> (32 - TAG_BITS)
}

/// The cell after an addition at `now`. `None`: it belongs to a later epoch and stays.
#[inline]
fn added(word: u64, now: u32, first: u32, second: u32) -> Option<u64> {
    let (tag, was_first, was_second) = unpack(word);
    match Addition::after(age(tag, now), was_first == 0 && was_second == 0) {
        Addition::Joins if was_first + first > FULL || was_second + second > FULL => {
            Some(pack(tag, was_first / 2 + first, was_second / 2 + second))
        }
        Addition::Joins => Some(pack(tag, was_first + first, was_second + second)),
        Addition::Void => None,
        Addition::Replaces => Some(pack(now, first, second)),
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tower_fault_classify::__shared::Buckets;

    use super::*;

    #[test]
    fn a_span_holds_eleven_buckets() {
        let pairs = Pairs::default();
        for tag in 100..120 {
            pairs.add(tag, 1, tag % 2);
        }
        assert_eq!(pairs.sum(119), [11, 6]);
        assert_eq!(pairs.sum(120), [10, 5]);
        assert_eq!(pairs.sum(130), [0, 0]);
    }

    #[test]
    fn an_epoch_begins_empty_and_hears_nothing_of_the_last() {
        let pairs = Pairs::default();
        let buckets = Buckets::cut(60_000_000_000, Pairs::PARTS);
        let [first, second] = [3, 4].map(|epoch| buckets.tag(1_000_000_000_000, epoch));
        pairs.add(first, 1, 1);
        assert_eq!(pairs.sum(second), [0, 0]);
        pairs.add(second, 1, 0);
        pairs.add(first, 1, 1);
        assert_eq!(pairs.sum(second), [1, 0]);
    }

    #[test]
    fn a_full_cell_is_halved_with_its_ratio() {
        let pairs = Pairs::default();
        for call in 0..u32::from(u16::MAX) * 9 {
            pairs.add(7, 1, u32::from(call % 4 == 0));
        }
        let [calls, failed] = pairs.sum(7);
        assert!(calls <= u64::from(FULL) && calls > u64::from(FULL / 2), "{calls}");
        assert!((failed * 4).abs_diff(calls) <= 8, "{failed} of {calls}");
    }

    #[test]
    fn tags_that_wrap_stay_in_order() {
        let pairs = Pairs::default();
        let edge = 1 << TAG_BITS;
        for tag in edge - 5..edge + 5 {
            pairs.add(tag, 1, 0);
        }
        assert_eq!(pairs.sum(edge + 4), [10, 0]);
        assert_eq!(pairs.sum(edge + 9), [6, 0]);
    }

    proptest! {
        /// Against every addition kept in a map: steps of time, late ones among them.
        #[test]
        fn it_counts_as_the_naive_one(steps in proptest::collection::vec((0_u32..4, 0_u32..3, any::<bool>()), 1..300)) {
            let pairs = Pairs::default();
            let mut naive: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
            let mut now = 1_000;
            for (later, late, second) in steps {
                now += later;
                let tag = now - late;
                pairs.add(tag, 1, u32::from(second));
                // A late one lands in the newest bucket of its cell.
                let newest = naive.range(tag..).map(|(tag, _)| *tag).find(|newer| (newer - tag) % 11 == 0);
                let sums = naive.entry(newest.unwrap_or(tag)).or_default();
                sums[0] += 1;
                sums[1] += u64::from(second);
                let inside = naive.range(now - 10..=now);
                let expected = inside.fold([0, 0], |sum, (_, more)| [sum[0] + more[0], sum[1] + more[1]]);
                prop_assert_eq!(pairs.sum(now), expected);
            }
        }
    }
}
