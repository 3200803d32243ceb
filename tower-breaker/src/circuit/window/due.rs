//! The number of the next failure that may open the circuit.
//!
//! To decide whether a failure opens the circuit, all cells of the window are summed. The sum also
//! shows how many more failures the failure rate allows. So the failures until then need no sum.
//!
//! Each failure has a number, which the state word counts in every epoch. A word holds a promise:
//! *as long as the newest bucket has this tag, no failure with a number before this one reaches the
//! failure rate*. A failure in this bucket with an earlier number is done. Another failure sums the
//! window, and opens the circuit or replaces the promise.
//!
//! ```text
//!  63             32 31         16   15    14         0
//! ┌─────────────────┬─────────────┬───────┬────────────┐
//! │ tag of a bucket │ version     │ valid │ number     │
//! └─────────────────┴─────────────┴───────┴────────────┘
//! ```
//!
//! # Why each promise is true
//!
//! A failure with the number n sums F failures among N calls, after it was counted as number n.
//!
//! - Every failure with a number up to n was recorded before it was counted, and the exchanges of
//!   the state word have one order. So F contains all of them.
//! - After d more failures were counted, at most F + d failures were recorded *and* counted. It
//!   does not matter in which bucket of the window they are, or in which order they were recorded.
//! - No call leaves the window while the newest bucket stays. So there are at least N + d calls.
//! - Successes that the sum missed, or that come later, only lower the rate.
//!
//! So the failure n + d can open the circuit only if F + d failures reach the rate among N + d
//! calls, or among the minimum number of calls if that is larger. The promise is n + k, for the
//! least such k. It holds for itself, so that the order in which promises are stored does not
//! matter.
//!
//! # What ends a promise
//!
//! | event | why no later failure relies on the promise |
//! |---|---|
//! | a new bucket | its tag differs; a sum during which the bucket ended makes no promise |
//! | a new epoch, or an idle time after which tags repeat | both begin an era, which discards the promise before the first call of the era is counted |
//! | other limits, another window, a new owner of the storage | the promise is discarded after the limits were written; a failure loads it before it reads the limits |
//! | a sum that began before one of these events | the exchange that stores its promise fails, because the version has changed |
//! | the numbers wrap | a promise covers fewer than 2¹⁴ of 2¹⁵ numbers; see below |
//! | limits for slow calls | no promise is made, because a slow call can reach another rate |
//!
//! A number is mistaken for an earlier one only if 2¹⁴ failures are counted while a promise that
//! they have passed stays. Each of these failures replaces the promise, or fails to because another
//! thread did. So 2¹⁴ threads would have to be between their exchange of the state word and that of
//! the promise. The version repeats after 2¹⁶ promises that are stored during one sum.
//!
//! The number of consecutive failures is compared at every failure, and needs no promise.

use tower_fault_classify::__internals::sync::{AtomicU64, Ordering};

use crate::circuit::state_word::NUMBER_BITS;

const VALID: u64 = 1 << NUMBER_BITS;
const NEXT_VERSION: u64 = VALID << 1;
const TAG_SHIFT: u32 = 32;

/// The number of the next failure that may open the circuit.
#[derive(Debug, Default)]
pub struct Due(AtomicU64);

/// A promise that was loaded, or its absence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise(u64);

impl Due {
    /// The largest number of failures that a promise covers.
    pub(crate) const MOST: u64 = (1 << (NUMBER_BITS - 1)) - 1;

    /// Loads the promise. The caller then reads the limits.
    #[inline]
    pub(crate) fn load(&self) -> Promise {
        // Acquire, with the Release of `discard`: limits that are read afterwards are not older
        // than those that ended the last promise before this one. The exchanges of `replace`
        // continue the release sequence.
        Promise(self.0.load(Ordering::Acquire))
    }

    /// Replaces the promise that was loaded before the sum: no failure whose number is less than
    /// `failures` after `number` reaches the rate while the newest bucket has this tag.
    ///
    /// Does nothing if the promise has changed since. At least `failures` must be 1, and at most
    /// [`MOST`](Self::MOST).
    pub(crate) fn replace(&self, Promise(loaded): Promise, tag: u64, number: u64, failures: u64) {
        let version = loaded.wrapping_add(NEXT_VERSION) & VERSION;
        let due = number.wrapping_add(failures) & (VALID - 1);
        let new = (tag << TAG_SHIFT) | version | VALID | due;
        // Relaxed: the promise is true by itself, whatever its reader sees.
        let _ = self.0.compare_exchange(loaded, new, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Discards the promise. Promises from sums that are in progress are not stored.
    pub(crate) fn discard(&self) {
        // Release: see `load`. Relaxed: a failed exchange is repeated with the value that it found.
        let _ = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, |word| {
            Some(word.wrapping_add(NEXT_VERSION) & VERSION)
        });
    }
}

const VERSION: u64 = (1 << TAG_SHIFT) - NEXT_VERSION;

impl Promise {
    /// Returns whether the failure with this number, in the bucket `tag`, does not reach the rate.
    #[inline]
    pub(crate) const fn covers(self, tag: u64, number: u64) -> bool {
        // How many numbers the promise is ahead, with the sign in the highest bit.
        let ahead = (self.0.wrapping_sub(number) << (64 - NUMBER_BITS)).cast_signed();
        (self.0 >> TAG_SHIFT) as u32 == tag as u32 && self.0 & VALID != 0 && ahead > 0
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    const LAST: u64 = VALID - 1;

    fn due(tag: u64, number: u64, failures: u64) -> Due {
        let due = Due::default();
        due.replace(due.load(), tag, number, failures);
        due
    }

    #[test]
    fn promise_covers_earlier_numbers_in_its_bucket() {
        for number in [0, 7, LAST - 3, LAST] {
            let promise = due(1 << 35 | 9, number, 5).load();
            for ahead in 0..5 {
                assert!(promise.covers(9, (number + ahead) & LAST), "{number} {ahead}");
                assert!(!promise.covers(10, (number + ahead) & LAST), "another bucket");
            }
            for later in [5, 6, 1_000, Due::MOST] {
                assert!(!promise.covers(9, (number + later) & LAST), "{number} {later}");
            }
        }
    }

    #[test]
    fn longest_promise_covers_all_its_numbers() {
        let promise = due(9, LAST, Due::MOST).load();
        let covered = (0..=LAST).filter(|number| promise.covers(9, *number)).count() as u64;
        assert!(promise.covers(9, LAST) && covered == Due::MOST, "{covered}");
    }

    #[test]
    fn discarded_promise_covers_nothing_and_stops_replacement() {
        let due = due(9, 0, 5);
        let before = due.load();
        due.discard();
        assert!((0..=LAST).all(|number| !due.load().covers(9, number)));
        due.replace(before, 9, 0, 5);
        assert!(!due.load().covers(9, 0), "the sum began before");
        due.replace(due.load(), 9, 0, 5);
        assert!(due.load().covers(9, 0));
        // The first bucket of a clock that starts at 0 has the tag 0.
        due.discard();
        for due in [due, Due::default()] {
            assert!((0..=LAST).all(|number| !due.load().covers(0, number)));
        }
    }
}
