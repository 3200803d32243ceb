//! The window: the counts of the recent calls of a closed circuit.
//!
//! A time window is a ring of buckets. Each bucket has a tag, which grows with time, and a cell,
//! which holds the counts. A cell stores only the lower 24 or 32 bits of its bucket's tag, and
//! these bits repeat. Without more care, two kinds of cells would be counted wrongly:
//!
//! - A cell written 2²⁴ buckets ago would be counted again.
//! - A cell written a little later than that would seem newer than the calls that follow.
//!
//! So the tags are divided into eras of 2²² buckets. The first call of an era clears the cells
//! that have left the window. A cell in use is then at most two eras old, and the lower bits of its
//! tag show its age after any idle time.
//!
//! [`NewestBucket`] begins the eras. It also ensures that no call is counted in an old bucket when
//! a clock runs back.

mod count;
mod due;
#[cfg(feature = "keyed")]
mod packed;
mod striped;

pub(crate) use due::Due;
#[cfg(feature = "keyed")]
pub(crate) use packed::PackedCells;
pub(crate) use striped::StripedWindow;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, lock};
use tower_fault_classify::__internals::{TAGS_PER_EPOCH, TimeBuckets};

use crate::machine::{Counts, WindowShape};
use crate::telemetry::recheck_recorder;

const ERA_BITS: u32 = 22;

/// The span of a window, in the form that is needed to record a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpan {
    pub(crate) buckets: TimeBuckets,
    /// The size of a count window; 0: a time window.
    pub(crate) calls: u32,
}

impl WindowSpan {
    /// Returns the span of an unused window, divided into `parts` parts.
    pub(crate) const fn of(shape: WindowShape, parts: u64) -> Self {
        match shape {
            WindowShape::Time(nanos) => Self { buckets: TimeBuckets::with_count(nanos, parts), calls: 0 },
            // A count window has buckets, too, so that a later time window can continue after them.
            WindowShape::Count(calls) => Self { buckets: TimeBuckets::with_count(u64::MAX, parts), calls },
        }
    }

    /// Returns the span of a window that was used with the span `other` until now. The window
    /// starts empty.
    ///
    /// `other_now` is the current time of the clock that was read with `other`.
    pub(crate) fn after(shape: WindowShape, other: Self, parts: u64, other_now: u64, now: u64) -> Self {
        let new = Self::of(shape, parts);
        Self { buckets: new.buckets.continue_after(other.buckets, other_now, now), ..new }
    }
}

/// Counts calls over a span of time or a number of calls.
///
/// It has separate counts of failures, slow calls and cancelled calls.
///
/// The window starts empty in every epoch, and after a change of its span.
///
/// The required methods access the cells. The provided methods are the window. There are two
/// implementations: [`StripedWindow`], in which threads do not write to the same cache line, and
/// the compact cells of a keyed circuit.
pub trait Window: Sized {
    /// The number of buckets that a span of time is divided into, without the bucket that is being
    /// filled.
    const PARTS: u64;

    /// Counts a success in the bucket `tag`.
    fn add_success(&self, tag: u64);
    /// Counts a success in the bucket `tag` if that is possible without a call of another function.
    /// Otherwise, returns `false`.
    fn try_add_success(&self, tag: u64) -> bool;
    /// Counts a failure in the bucket `tag`.
    fn add_failure(&self, tag: u64);
    /// Counts a call as slow. The call was counted as a success or failure before: a reader that
    /// sees the slow call also sees that count.
    fn add_slow(&self, tag: u64);
    /// Counts a cancelled call in the bucket `tag`.
    fn add_cancelled(&self, tag: u64);

    /// Returns the failures in the span that ends with the bucket `tag`.
    fn failures(&self, tag: u64) -> u64;
    /// Returns the slow calls in the span that ends with the bucket `tag`.
    fn slow(&self, tag: u64) -> u64;
    /// Returns all counts of the span that ends with the bucket `tag`. A call that is counted as
    /// slow is also in `calls`.
    fn sums(&self, tag: u64) -> Counts;

    /// Returns by how many buckets the last bucket with a success is older than the bucket `tag`.
    /// `None`: the span that ends with the bucket `tag` has no success.
    fn last_success_age(&self, tag: u64) -> Option<u32>;
    /// Returns by how many buckets the last bucket with a failure is older than the bucket `tag`.
    fn last_failure_age(&self, tag: u64) -> Option<u32>;

    /// Returns the newest bucket.
    fn newest(&self) -> &NewestBucket;
    /// Clears the cells that are not in the window that ends with the bucket `keep`. `None`: clears
    /// all cells. Discards the promise of [`due`](Self::due).
    fn clear_expired(&self, keep: Option<u64>);
    /// Returns the number of the next failure that may open the circuit. `None`: the window is
    /// summed at every failure.
    fn due(&self) -> Option<&Due>;
    /// Returns the lock that is held while cells are cleared.
    fn upkeep(&self) -> &Mutex<()>;

    /// Returns the window that may be a count window: see `count.rs`. `None`: this window is always
    /// a time window.
    fn count_window(&self) -> Option<&StripedWindow>;

    /// Returns the count window with this span. `None`: it is the span of a time window.
    #[inline]
    fn count_window_of(&self, span: &WindowSpan) -> Option<&StripedWindow> {
        if span.calls == 0 { None } else { self.count_window() }
    }

    /// Returns whether `span` is the span of a time window.
    #[inline]
    fn is_time_window(&self, span: &WindowSpan) -> bool {
        self.count_window_of(span).is_none()
    }

    /// Returns the bucket of a call that ends now. `None`: the call's epoch is over.
    #[inline]
    fn enter(&self, span: &WindowSpan, now: u64, epoch: u32) -> Option<u64> {
        self.newest().enter(span.buckets.tag(now, epoch), self)
    }

    /// Records a success in the usual case: in a time window, the call ends in the newest bucket,
    /// and the thread has counted a success in it. Otherwise, returns `false`.
    ///
    /// All other functions are called last, so that no register has to be saved for them.
    #[inline]
    fn record_usual_success(&self, span: &WindowSpan, now: u64, epoch: u32) -> bool {
        if let Some(window) = self.count_window_of(span) {
            window.count_success(span.calls, now, epoch);
            return true;
        }
        let tag = span.buckets.tag(now, epoch);
        self.newest().other_than(tag).is_none() && self.try_add_success(tag)
    }

    /// Records a success.
    #[inline]
    fn record_success(&self, span: &WindowSpan, now: u64, epoch: u32) {
        if let Some(window) = self.count_window_of(span) {
            window.count_success(span.calls, now, epoch);
        } else if let Some(tag) = self.enter(span, now, epoch) {
            self.add_success(tag);
        }
    }

    /// Records a slow success.
    fn record_slow_success(&self, span: &WindowSpan, now: u64, epoch: u32) -> Recorded {
        if let Some(window) = self.count_window_of(span) {
            return window.count_slow_success(span.calls, now, epoch);
        }
        let Some(tag) = self.enter(span, now, epoch) else { return Recorded::NOTHING };
        self.add_success(tag);
        self.add_slow(tag);
        Recorded::Bucket(tag)
    }

    /// Records a failure in the bucket of a time window. `None`: the call's epoch is over.
    #[inline]
    fn record_failure_in_bucket(&self, span: &WindowSpan, now: u64, epoch: u32) -> Option<u64> {
        let tag = self.enter(span, now, epoch)?;
        self.add_failure(tag);
        Some(tag)
    }

    /// Records a failure.
    fn record_failure(&self, span: &WindowSpan, now: u64, epoch: u32, slow: bool) -> Recorded {
        if let Some(window) = self.count_window_of(span) {
            return window.count_failure(span.calls, epoch, slow);
        }
        let Some(tag) = self.record_failure_in_bucket(span, now, epoch) else { return Recorded::NOTHING };
        if slow {
            self.add_slow(tag);
        }
        Recorded::Bucket(tag)
    }

    /// Records a cancelled call.
    fn record_cancelled(&self, span: &WindowSpan, now: u64, epoch: u32) {
        if let Some(window) = self.count_window_of(span) {
            window.count_cancelled(span.calls, epoch);
        } else if let Some(tag) = self.enter(span, now, epoch) {
            self.add_cancelled(tag);
        }
    }

    /// Returns the failures in the window.
    fn failures_in(&self, seen: Recorded) -> u64 {
        match seen {
            Recorded::Bucket(tag) => self.failures(tag),
            Recorded::Last(counts) => counts.failures,
        }
    }

    /// Returns the slow calls in the window.
    fn slow_in(&self, seen: Recorded) -> u64 {
        match seen {
            Recorded::Bucket(tag) => self.slow(tag),
            Recorded::Last(counts) => counts.slow,
        }
    }

    /// Returns all counts of the window.
    fn counts(&self, seen: Recorded) -> Counts {
        match seen {
            Recorded::Bucket(tag) => self.sums(tag),
            Recorded::Last(counts) => counts,
        }
    }

    /// Returns all counts of the window of an epoch at the time `now`.
    fn counts_at(&self, span: &WindowSpan, now: u64, epoch: u32) -> Counts {
        if let Some(window) = self.count_window_of(span) {
            return window.last_counts(span.calls, epoch);
        }
        let bucket = self.newest().current(span.buckets.tag(now, epoch));
        bucket.map_or_else(Counts::default, |tag| self.sums(tag))
    }

    /// Returns the time of the last success of an epoch: in a count window, the time itself; in a
    /// time window, the start of its bucket. `None`: the window holds no success.
    fn last_success_at(&self, span: &WindowSpan, now: u64, epoch: u32) -> Option<u64> {
        if let Some(window) = self.count_window_of(span) {
            return window.last_counted_success(span.calls, epoch);
        }
        self.start_of(span, now, epoch, |tag| self.last_success_age(tag))
    }

    /// Returns the time of the last failure in a time window: the start of its bucket.
    fn last_failure_at(&self, span: &WindowSpan, now: u64, epoch: u32) -> Option<u64> {
        self.start_of(span, now, epoch, |tag| self.last_failure_age(tag))
    }

    /// Returns the time at which a bucket of a time window began. `age` returns the age of the
    /// bucket, from the last bucket of the window.
    fn start_of(
        &self,
        span: &WindowSpan,
        now: u64,
        epoch: u32,
        age: impl FnOnce(u64) -> Option<u32>,
    ) -> Option<u64> {
        let current = span.buckets.tag(now, epoch);
        let tag = self.newest().current(current)?;
        // The last bucket is newer than the current one if the clock has run back.
        let ahead = tag.wrapping_sub(current).cast_signed();
        Some(span.buckets.start(now, i64::from(age(tag)?) - ahead))
    }

    /// Empties a count window of any size. A time window is emptied by its buckets: see
    /// [`WindowSpan::after`].
    fn clear_count_window(&self) {
        if let Some(window) = self.count_window() {
            window.clear_last_calls();
        }
    }
}

/// The newest bucket in which a window has counted a call.
///
/// Every call is counted in this bucket or in a newer one. So no call is lost when a clock runs
/// back: the window stays in place until the clock has caught up.
#[derive(Debug)]
pub struct NewestBucket(AtomicU64);

/// The order of a bucket relative to the newest bucket.
enum BucketOrder {
    Newer,
    /// The newest bucket, or an older bucket of the same epoch.
    Reached,
    /// A bucket of an earlier epoch.
    Over,
}

impl NewestBucket {
    pub(crate) fn new(tag: u64) -> Self {
        Self(AtomicU64::new(tag))
    }

    /// Returns the bucket in which a call is counted that ends in the bucket `tag`. `None`: the
    /// call's epoch is over.
    #[inline]
    pub(crate) fn enter(&self, tag: u64, window: &impl Window) -> Option<u64> {
        // Acquire, with the Release of `begin_era` and `enter_another`: a thread that reads a
        // bucket of this era sees that the cells were cleared at the start of the era.
        let newest = self.0.load(Ordering::Acquire);
        if newest == tag { Some(tag) } else { self.enter_another(tag, newest, window) }
    }

    /// Returns the bucket of a call whose bucket is not the newest one. This happens once per
    /// bucket, when another thread has read a later time, and while the clock has run back.
    #[cold]
    #[inline(never)]
    fn enter_another(&self, tag: u64, mut newest: u64, window: &impl Window) -> Option<u64> {
        loop {
            match compare(tag, newest) {
                BucketOrder::Over => return None,
                BucketOrder::Reached => return Some(newest),
                BucketOrder::Newer => {}
            }
            if era(tag) != era(newest) {
                self.begin_era(tag, window);
                newest = self.0.load(Ordering::Acquire);
                continue;
            }
            // Release: passes on to readers of the new bucket that the cells of this era were
            // cleared. Acquire: as in `enter`, for the value that another thread has stored.
            match self.0.compare_exchange(newest, tag, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // A recorder that was installed since then is found at the next bucket.
                    recheck_recorder();
                    return Some(tag);
                }
                Err(other) => newest = other,
            }
        }
    }

    /// Clears the cells that have left the window. Runs before the first call of an era is counted.
    fn begin_era(&self, tag: u64, window: &impl Window) {
        let _lock = lock(window.upkeep());
        // Relaxed: this lock shows the stores of earlier `begin_era` calls. `discard_before` stores
        // without this lock, but before the next circuit is shared. So the calls of that circuit
        // see its store or a later one.
        let newest = self.0.load(Ordering::Relaxed);
        if matches!(compare(tag, newest), BucketOrder::Newer) && era(tag) != era(newest) {
            // If a whole era had no calls, all cells have left the window. The lower bits of their
            // tags do not show that, so all cells are cleared.
            let is_next = era(tag).wrapping_sub(era(newest)) == 1;
            window.clear_expired(is_next.then_some(tag));
            // Release: a thread that reads a bucket of this era sees the cleared cells.
            self.0.store(tag, Ordering::Release);
        }
    }

    /// Discards all buckets before the bucket `tag`, which belongs to a new epoch.
    ///
    /// The first call in this bucket, or in a later bucket of its epoch, clears all cells. If the
    /// clock runs back before that, the first call in an earlier bucket of the epoch clears them.
    pub(crate) fn discard_before(&self, tag: u64) {
        // Release, with the Acquire of `enter`: a thread that reads this bucket sees what was
        // written before.
        self.0.store(tag.wrapping_sub(TAGS_PER_EPOCH), Ordering::Release);
    }

    /// Returns the last bucket of the window when the current bucket is `tag`. `None`: the window
    /// is empty.
    pub(crate) fn current(&self, tag: u64) -> Option<u64> {
        // Acquire: as in `enter`.
        let newest = self.0.load(Ordering::Acquire);
        match compare(tag, newest) {
            BucketOrder::Over => None,
            BucketOrder::Reached => Some(newest),
            BucketOrder::Newer => (era(tag).wrapping_sub(era(newest)) <= 1).then_some(tag),
        }
    }

    /// Returns the newest bucket, if it is not `tag`.
    #[inline]
    pub(crate) fn other_than(&self, tag: u64) -> Option<u64> {
        // Acquire: as in `enter`. A call enters its bucket before it changes a cell, and changes
        // the cell with Release. So a thread that has read the cell with Acquire sees the bucket
        // here.
        let newest = self.0.load(Ordering::Acquire);
        (newest != tag).then_some(newest)
    }
}

const fn era(tag: u64) -> u64 {
    tag >> ERA_BITS
}

const fn compare(tag: u64, newest: u64) -> BucketOrder {
    let ahead = tag.wrapping_sub(newest).cast_signed();
    if ahead > 0 {
        BucketOrder::Newer
    } else if ahead > -(TAGS_PER_EPOCH.cast_signed() / 2) {
        BucketOrder::Reached
    } else {
        BucketOrder::Over
    }
}

/// The place in which a call was recorded.
#[derive(Clone, Copy, Debug)]
pub enum Recorded {
    /// This bucket of a time window. The window has not been summed yet.
    Bucket(u64),
    /// A count window, with its counts after the call.
    Last(Counts),
}

impl Recorded {
    /// The result for a call whose epoch is over.
    const NOTHING: Self = Self::Last(Counts { calls: 0, failures: 0, slow: 0, cancelled: 0 });
}

#[cfg(all(test, loom_models))]
mod models;
#[cfg(all(test, not(loom_models)))]
pub(super) mod tests;
