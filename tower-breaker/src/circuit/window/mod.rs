//! The window: what a closed circuit remembers of its calls.
//!
//! A time window is a ring of buckets. [`NewestBucket`] keeps clocks that run back, and cells that
//! were written long ago, from being counted wrongly: a cell stores only the lower bits of its
//! bucket's tag, 24 or 32, and they repeat. A cell written 2²⁴ buckets ago would count again, and a
//! cell written a little later than that would seem newer than the calls that follow. So tags are
//! cut into eras of 2²² buckets, and the first call of an era clears the cells that have left the
//! window. A cell in use is then at most two eras old, and the lower bits of its tag tell its age
//! after any idle time.

#[cfg(feature = "keyed")]
mod packed;

#[cfg(feature = "keyed")]
pub(crate) use packed::PackedCells;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, lock};
use tower_fault_classify::__internals::{
    PaddedRing, StripedCounter, TAGS_PER_EPOCH, TimeBuckets, thread_slot,
};

use super::state_word::LAST_EPOCH;
use crate::machine::{CountWindow, Counts, WindowShape};

const ERA_BITS: u32 = 22;

/// The span of a window, as the recording of a call needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpan {
    pub(crate) buckets: TimeBuckets,
    /// The size of a count window; 0: a time window.
    pub(crate) calls: u32,
}

impl WindowSpan {
    /// The span of an unused window, in `parts` parts.
    pub(crate) const fn of(shape: WindowShape, parts: u64) -> Self {
        match shape {
            WindowShape::Time(nanos) => Self { buckets: TimeBuckets::with_count(nanos, parts), calls: 0 },
            // The buckets go on, for a time window that may follow.
            WindowShape::Count(calls) => Self { buckets: TimeBuckets::with_count(u64::MAX, parts), calls },
        }
    }

    /// The span of a window that was used with `other` until now: it starts empty.
    ///
    /// `other_now` is the current time of the clock that was read with `other`.
    pub(crate) fn after(shape: WindowShape, other: Self, parts: u64, other_now: u64, now: u64) -> Self {
        let new = Self::of(shape, parts);
        Self { buckets: new.buckets.continue_after(other.buckets, other_now, now), ..new }
    }
}

/// Counts of calls, failures, slow and cancelled calls, over a span of time or a number of calls.
/// Every epoch starts empty, and so does another span.
///
/// The required methods are the cells; the provided methods are the window. There are two sets of
/// cells: [`StripedWindow`], in which threads do not write to the same cache line, and the compact
/// cells of a circuit by key.
pub trait Window: Sized {
    /// How many buckets make up a span of time, besides the one that is being filled.
    const PARTS: u64;

    /// Counts a success in a bucket.
    fn add_success(&self, tag: u64);
    /// Counts a failure.
    fn add_failure(&self, tag: u64);
    /// Counts a call as slow that was counted before: a reader that sees it here sees it there,
    /// too.
    fn add_slow(&self, tag: u64);
    /// Counts a cancelled call.
    fn add_cancelled(&self, tag: u64);

    /// The failures in the span that ends with a bucket.
    fn failures(&self, tag: u64) -> u64;
    /// The slow calls.
    fn slow(&self, tag: u64) -> u64;
    /// The cancelled calls.
    fn cancelled(&self, tag: u64) -> u64;
    /// All of them. A call that is counted as slow is also in `calls`.
    fn sums(&self, tag: u64) -> Counts;

    /// The newest bucket.
    fn newest(&self) -> &NewestBucket;
    /// The newest bucket with a completed call that counts in no rate.
    fn answered(&self) -> &AtomicU64;
    /// Clears the cells that are not in the window that ends with the bucket `keep`; `None`: all
    /// cells.
    fn clear_expired(&self, keep: Option<u64>);
    /// Held while cells are cleared.
    fn upkeep(&self) -> &Mutex<()>;

    /// The last n calls in the order in which they ended. One order of all outcomes needs one lock.
    /// `None`: there is no count window, and no configuration asks for one.
    fn last(&self) -> Option<&Mutex<Option<LastCalls>>>;

    /// Whether this is a time window.
    #[inline]
    fn is_time_window(&self, span: &WindowSpan) -> bool {
        self.last().is_none() || span.calls == 0
    }

    /// The bucket of a call that ends now. `None`: the call's epoch is over.
    #[inline]
    fn enter(&self, span: &WindowSpan, now: u64, epoch: u32) -> Option<u64> {
        self.newest().enter(span.buckets.tag(now, epoch), self)
    }

    /// Empties a window over time, for calls from the bucket `tag` on, which belongs to a later
    /// epoch.
    fn discard_before(&self, tag: u64) {
        self.answered().store(NO_BUCKET, Ordering::Relaxed);
        self.newest().discard_before(tag);
    }

    /// Records a success: over a span of time, the clock and the thread's own cell.
    #[inline]
    fn record_success(&self, span: &WindowSpan, now: impl FnOnce() -> u64, epoch: u32) {
        if !self.is_time_window(span) {
            self.update_count_window(span, epoch, |ring| ring.record(false, false));
        } else if let Some(tag) = self.enter(span, now(), epoch) {
            self.add_success(tag);
        }
    }

    /// Records a slow success.
    fn record_slow_success(&self, span: &WindowSpan, now: u64, epoch: u32) -> Recorded {
        if !self.is_time_window(span) {
            return self.update_count_window(span, epoch, |ring| ring.record(false, true));
        }
        let Some(tag) = self.enter(span, now, epoch) else { return Recorded::NOTHING };
        self.add_success(tag);
        self.add_slow(tag);
        Recorded::Bucket(tag)
    }

    /// Records a failure.
    #[inline]
    fn record_failure(&self, span: &WindowSpan, now: u64, epoch: u32, slow: bool) -> Recorded {
        if !self.is_time_window(span) {
            return self.update_count_window(span, epoch, |ring| ring.record(true, slow));
        }
        let Some(tag) = self.enter(span, now, epoch) else { return Recorded::NOTHING };
        self.add_failure(tag);
        if slow {
            self.add_slow(tag);
        }
        Recorded::Bucket(tag)
    }

    /// Records a cancelled call.
    fn record_cancelled(&self, span: &WindowSpan, now: u64, epoch: u32) -> Recorded {
        if !self.is_time_window(span) {
            return self.update_count_window(span, epoch, CountWindow::record_cancelled);
        }
        let Some(tag) = self.enter(span, now, epoch) else { return Recorded::NOTHING };
        self.add_cancelled(tag);
        Recorded::Bucket(tag)
    }

    /// Records a completed call that counts in no rate.
    fn record_answered(&self, span: &WindowSpan, now: u64, epoch: u32) {
        if !self.is_time_window(span) {
            self.update_count_window(span, epoch, CountWindow::record_completed);
        } else if let Some(tag) = self.enter(span, now, epoch) {
            // Release: with what the caller did before. If two threads store two buckets at once,
            // the older bucket may stay: the call then counts for one bucket less.
            self.answered().store(tag, Ordering::Release);
        }
    }

    /// The failures in the window.
    fn failures_in(&self, seen: Recorded) -> u64 {
        match seen {
            Recorded::Bucket(tag) => self.failures(tag),
            Recorded::Last { counts, .. } => counts.failures,
        }
    }

    /// The slow calls in the window.
    fn slow_in(&self, seen: Recorded) -> u64 {
        match seen {
            Recorded::Bucket(tag) => self.slow(tag),
            Recorded::Last { counts, .. } => counts.slow,
        }
    }

    /// The cancelled calls in the window.
    fn cancelled_in(&self, seen: Recorded) -> u64 {
        match seen {
            Recorded::Bucket(tag) => self.cancelled(tag),
            Recorded::Last { counts, .. } => counts.cancelled,
        }
    }

    /// All counts of the window.
    fn counts(&self, seen: Recorded) -> Counts {
        match seen {
            Recorded::Bucket(tag) => self.sums(tag),
            Recorded::Last { counts, .. } => counts,
        }
    }

    /// Whether the window with these counts holds a completed call.
    fn completed_in(&self, seen: Recorded, counts: &Counts) -> bool {
        match seen {
            // Acquire: as the counts are read.
            Recorded::Bucket(tag) => {
                counts.calls > 0 || tag.wrapping_sub(self.answered().load(Ordering::Acquire)) <= Self::PARTS
            }
            Recorded::Last { completed, .. } => completed,
        }
    }

    /// All counts of the window of an epoch, at a time.
    fn counts_at(&self, span: &WindowSpan, now: u64, epoch: u32) -> Counts {
        if self.is_time_window(span) {
            let bucket = self.newest().current(span.buckets.tag(now, epoch));
            return bucket.map_or_else(Counts::default, |tag| self.sums(tag));
        }
        let last = self.last().map(lock);
        last.as_deref()
            .and_then(Option::as_ref)
            .filter(|last| last.is(span, epoch))
            .map_or_else(Counts::default, |last| last.ring.counts())
    }

    /// Empties a count window of any size. A time window is emptied by its buckets: see
    /// [`WindowSpan::after`].
    fn clear_count_window(&self) {
        let last = self.last().map(|last| lock(last).take());
        drop(last);
    }

    /// Changes the last calls of an epoch; what belongs to an older epoch changes nothing.
    fn update_count_window(
        &self,
        span: &WindowSpan,
        epoch: u32,
        change: impl FnOnce(&mut CountWindow),
    ) -> Recorded {
        let Some(mut last) = self.last().map(lock) else { return Recorded::NOTHING };
        let last = match &mut *last {
            Some(last) if last.is(span, epoch) => last,
            Some(last) if epoch.wrapping_sub(last.epoch) & LAST_EPOCH > LAST_EPOCH / 2 => {
                return Recorded::NOTHING;
            }
            Some(last) if last.ring.size() == span.calls as usize => {
                last.epoch = epoch;
                last.ring.clear();
                last
            }
            other => other.insert(LastCalls { epoch, ring: CountWindow::new(span.calls as usize) }),
        };
        change(&mut last.ring);
        Recorded::Last { counts: last.ring.counts(), completed: last.ring.has_completed() }
    }
}

/// The newest bucket in which a window has counted a call. A call is counted in this bucket or in a
/// newer one. So a clock that runs back loses no call: the window does not move until the clock has
/// caught up.
#[derive(Debug)]
pub struct NewestBucket(AtomicU64);

/// A bucket compared with the newest bucket.
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

    /// The bucket of a call that ends at the bucket `tag`. `None`: the call's epoch is over.
    #[inline]
    pub(crate) fn enter(&self, tag: u64, window: &impl Window) -> Option<u64> {
        // Acquire: with the cells that were cleared before this era began.
        let newest = self.0.load(Ordering::Acquire);
        if newest == tag { Some(tag) } else { self.enter_another(tag, newest, window) }
    }

    /// Runs once per bucket, when another thread has read a later time, and while the clock has run
    /// back.
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
            // Release: with what was cleared before this era began.
            match self.0.compare_exchange(newest, tag, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(tag),
                Err(other) => newest = other,
            }
        }
    }

    /// Clears the cells that have left the window, before a call is counted in the first bucket of
    /// an era.
    fn begin_era(&self, tag: u64, window: &impl Window) {
        let _lock = lock(window.upkeep());
        // Relaxed: eras begin only under the lock.
        let newest = self.0.load(Ordering::Relaxed);
        if matches!(compare(tag, newest), BucketOrder::Newer) && era(tag) != era(newest) {
            // After an era without calls, all cells have left the window. The lower bits of their
            // tags do not tell.
            let is_next = era(tag).wrapping_sub(era(newest)) == 1;
            window.clear_expired(is_next.then_some(tag));
            // Release: a thread that reads this era finds the cells cleared.
            self.0.store(tag, Ordering::Release);
        }
    }

    /// Leaves every bucket behind. The first call in the bucket `tag` or in a later one of its
    /// epoch clears all cells, and so does one in an earlier bucket if the clock runs back before.
    pub(crate) fn discard_before(&self, tag: u64) {
        // Release: as above.
        self.0.store(tag.wrapping_sub(TAGS_PER_EPOCH), Ordering::Release);
    }

    /// The bucket with which the window ends at the bucket `tag`. `None`: the window is empty.
    pub(crate) fn current(&self, tag: u64) -> Option<u64> {
        // Acquire: with the cells that were cleared before this era began.
        let newest = self.0.load(Ordering::Acquire);
        match compare(tag, newest) {
            BucketOrder::Over => None,
            BucketOrder::Reached => Some(newest),
            BucketOrder::Newer => (era(tag).wrapping_sub(era(newest)) <= 1).then_some(tag),
        }
    }

    /// The newest bucket, if it is not `tag`.
    pub(crate) fn other_than(&self, tag: u64) -> Option<u64> {
        // Acquire: as above. A call enters its bucket before it changes a cell, so a reader of the
        // cell sees the bucket.
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

/// The window of a static circuit: a ring for the successes of each thread, and one for each of the
/// other counts.
#[derive(Debug)]
pub struct StripedWindow {
    newest: NewestBucket,
    answered: AtomicU64,
    successes: StripedCounter,
    failures: PaddedRing,
    slow: PaddedRing,
    cancelled: PaddedRing,
    upkeep: Mutex<()>,
    last: Mutex<Option<LastCalls>>,
}

impl StripedWindow {
    /// An empty window that begins at the bucket `tag`.
    pub(crate) fn new(successes: StripedCounter, tag: u64) -> Self {
        Self {
            newest: NewestBucket::new(tag),
            answered: AtomicU64::new(NO_BUCKET),
            successes,
            failures: PaddedRing::default(),
            slow: PaddedRing::default(),
            cancelled: PaddedRing::default(),
            upkeep: Mutex::new(()),
            last: Mutex::new(None),
        }
    }
}

impl Window for StripedWindow {
    const PARTS: u64 = 15;

    #[inline]
    fn add_success(&self, tag: u64) {
        self.successes.add(thread_slot(), tag, 1);
    }

    #[inline]
    fn add_failure(&self, tag: u64) {
        self.failures.add(tag, 1);
    }

    fn add_slow(&self, tag: u64) {
        self.slow.add(tag, 1);
    }

    fn add_cancelled(&self, tag: u64) {
        self.cancelled.add(tag, 1);
    }

    #[inline]
    fn failures(&self, tag: u64) -> u64 {
        self.failures.sum(tag)
    }

    fn slow(&self, tag: u64) -> u64 {
        self.slow.sum(tag)
    }

    fn cancelled(&self, tag: u64) -> u64 {
        self.cancelled.sum(tag)
    }

    fn sums(&self, tag: u64) -> Counts {
        // Every numerator before its denominator: a call that is recorded meanwhile may then be
        // missing in a numerator, never in the denominator alone.
        let (slow, cancelled) = (self.slow.sum(tag), self.cancelled.sum(tag));
        let failures = self.failures.sum(tag);
        let calls = failures + self.successes.sum(tag);
        Counts { calls, failures, slow, cancelled }
    }

    #[inline]
    fn newest(&self) -> &NewestBucket {
        &self.newest
    }

    fn answered(&self) -> &AtomicU64 {
        &self.answered
    }

    fn clear_expired(&self, keep: Option<u64>) {
        self.successes.clear_expired(keep);
        self.failures.clear_expired(keep);
        self.slow.clear_expired(keep);
        self.cancelled.clear_expired(keep);
    }

    fn upkeep(&self) -> &Mutex<()> {
        &self.upkeep
    }

    #[inline]
    fn last(&self) -> Option<&Mutex<Option<LastCalls>>> {
        Some(&self.last)
    }
}

/// The last n calls of an epoch.
#[derive(Debug)]
pub struct LastCalls {
    epoch: u32,
    ring: CountWindow,
}

/// Where a call was recorded, and what its recorder saw.
#[derive(Clone, Copy, Debug)]
pub enum Recorded {
    /// In this bucket. Its sums are still to be taken.
    Bucket(u64),
    /// The counts of the last calls, and whether one of them completed.
    Last { counts: Counts, completed: bool },
}

impl Recorded {
    /// A call whose epoch is over.
    const NOTHING: Self =
        Self::Last { counts: Counts { calls: 0, failures: 0, slow: 0, cancelled: 0 }, completed: false };
}

impl LastCalls {
    const fn is(&self, span: &WindowSpan, epoch: u32) -> bool {
        self.epoch == epoch && self.ring.size() == span.calls as usize
    }
}

/// A bucket that no window reaches.
pub(crate) const NO_BUCKET: u64 = 1 << 63;

#[cfg(all(test, loom_models))]
mod models;
#[cfg(all(test, not(loom_models)))]
mod tests;
