//! What the closed circuit remembers of its calls.

mod newest;
#[cfg(feature = "keyed")]
mod packed;
mod striped;

pub(crate) use newest::NewestBucket;
#[cfg(feature = "keyed")]
pub(crate) use packed::PackedCells;
pub(crate) use striped::StripedWindow;

use tower_fault_classify::__internals::TimeBuckets;
use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering, lock};

use super::state_word::LAST_EPOCH;
use crate::machine::{CountWindow, Counts, WindowShape};

/// A shape as a settling call needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpan {
    pub(crate) buckets: TimeBuckets,
    /// 0: the buckets decide.
    pub(crate) calls: u32,
}

impl WindowSpan {
    /// A span for a window that nobody has used, in so many parts.
    pub(crate) const fn of(shape: WindowShape, parts: u64) -> Self {
        match shape {
            WindowShape::Time(nanos) => Self { buckets: TimeBuckets::with_count(nanos, parts), calls: 0 },
            // Buckets are kept all the same, for those that may follow.
            WindowShape::Count(calls) => Self { buckets: TimeBuckets::with_count(u64::MAX, parts), calls },
        }
    }

    /// A span for a window that has been used with another until now: it starts empty.
    ///
    /// `other_now` is the present time of the clock that was read with `other`.
    pub(crate) fn after(shape: WindowShape, other: Self, parts: u64, other_now: u64, now: u64) -> Self {
        let new = Self::of(shape, parts);
        Self { buckets: new.buckets.continue_after(other.buckets, other_now, now), ..new }
    }
}

/// Counts of calls, failures, slow and cancelled calls, over a span of time or a number of calls. It starts anew with every epoch, and
/// with another span.
pub trait Window: Sized {
    /// So many buckets make up a span of time, beside the one that is being filled.
    const PARTS: u64;

    /// Counts a success in a bucket.
    fn add_success(&self, tag: u64);
    /// Counts a failure.
    fn add_failure(&self, tag: u64);
    /// Counts a call as slow that was counted before: a reader that sees it here sees it there,
    /// too.
    fn add_slow(&self, tag: u64);
    /// Counts a call that was given up.
    fn add_abandoned(&self, tag: u64);

    /// The failures in the span that ends with a bucket.
    fn failures(&self, tag: u64) -> u64;
    /// The slow calls.
    fn slow(&self, tag: u64) -> u64;
    /// The calls that were given up.
    fn cancelled(&self, tag: u64) -> u64;
    /// All of them. A call that is counted as slow is also in `calls`.
    fn sums(&self, tag: u64) -> Counts;

    /// The newest bucket.
    fn newest(&self) -> &NewestBucket;
    /// The newest bucket with a completed call that counts in no rate.
    fn answered(&self) -> &AtomicU64;
    /// Clears cells: see [`BucketRing::clear_expired`](tower_fault_classify::__internals::BucketRing::clear_expired).
    fn clear_expired(&self, keep: Option<u64>);
    /// Held while cells are cleared.
    fn upkeep(&self) -> &Mutex<()>;

    /// The last n calls in the order in which they ended: one order of all outcomes, so one lock. `None`: it has no such window, and no
    /// configuration of one asks for it.
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

    /// Records a call that was given up.
    fn record_cancelled(&self, span: &WindowSpan, now: u64, epoch: u32) -> Recorded {
        if !self.is_time_window(span) {
            return self.update_count_window(span, epoch, CountWindow::record_cancelled);
        }
        let Some(tag) = self.enter(span, now, epoch) else { return Recorded::NOTHING };
        self.add_abandoned(tag);
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

    /// The calls in the window that were given up.
    fn cancelled_in(&self, seen: Recorded) -> u64 {
        match seen {
            Recorded::Bucket(tag) => self.cancelled(tag),
            Recorded::Last { counts, .. } => counts.cancelled,
        }
    }

    /// All that is in the window.
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

    /// All that is in the window of an epoch, at a time.
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

    /// Empties a window of so many calls, whatever its size. One over time is left behind by its buckets: see [`WindowSpan::after`].
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

/// The last n calls of an epoch.
#[derive(Debug)]
pub struct LastCalls {
    epoch: u32,
    ring: CountWindow,
}

/// What a call saw when it was recorded.
#[derive(Clone, Copy, Debug)]
pub enum Recorded {
    /// The bucket; its sums are still to be taken.
    Bucket(u64),
    /// The counts of the last calls, and whether one of them completed.
    Last { counts: Counts, completed: bool },
}

impl Recorded {
    /// Of a call whose epoch is over.
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

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::time::Duration;

    use tower_fault_classify::__internals::{Clock, StripedCounter};

    use proptest::prelude::*;

    use super::*;

    fn record(window: &StripedWindow, span: &WindowSpan, clock: Clock, epoch: u32, failed: bool) {
        if failed {
            window.record_failure(span, clock.now(), epoch, false);
        } else {
            window.record_success(span, || clock.now(), epoch);
        }
    }

    fn window() -> StripedWindow {
        StripedWindow::new(StripedCounter::with_stripes(1), 0)
    }

    const fn counts(calls: u64, failures: u64) -> Counts {
        Counts { calls, failures, slow: 0, cancelled: 0 }
    }

    #[test]
    fn a_time_window_is_as_long_as_asked_and_up_to_a_bucket_longer() {
        for nanos in [1_000_000, 4_999_999, 60_000_000_000, 365 * 24 * 3_600_000_000_000] {
            let (clock, hand) = Clock::manual();
            hand.set(Duration::from_secs(40_000_000));
            let (window, span) = (window(), WindowSpan::of(WindowShape::Time(nanos), StripedWindow::PARTS));
            record(&window, &span, clock, 0, true);
            record(&window, &span, clock, 0, false);
            let whole = counts(2, 1);
            hand.advance(Duration::from_nanos(nanos));
            assert_eq!(window.counts_at(&span, clock.now(), 0), whole, "{nanos}");
            hand.advance(Duration::from_nanos(nanos / 15 + 2));
            assert_eq!(window.counts_at(&span, clock.now(), 0), Counts::default(), "{nanos}");
        }
    }

    #[test]
    fn a_pause_of_a_week_leaves_an_empty_window() {
        let (clock, hand) = Clock::manual();
        let (window, span) =
            (window(), WindowSpan::of(WindowShape::Time(60_000_000_000), StripedWindow::PARTS));
        record(&window, &span, clock, 0, true);
        hand.advance(Duration::from_secs(7 * 24 * 60 * 60));
        assert_eq!(window.counts_at(&span, clock.now(), 0), Counts::default());
        record(&window, &span, clock, 0, true);
        assert_eq!(window.counts_at(&span, clock.now(), 0), counts(1, 1));
    }

    #[test]
    fn every_epoch_starts_empty() {
        let (clock, _hand) = Clock::manual();
        for shape in [WindowShape::Time(60_000_000_000), WindowShape::Count(10)] {
            let (window, span) = (window(), WindowSpan::of(shape, StripedWindow::PARTS));
            record(&window, &span, clock, 4, true);
            record(&window, &span, clock, 5, false);
            assert_eq!(window.counts_at(&span, clock.now(), 5), counts(1, 0));
            record(&window, &span, clock, 4, true);
            assert_eq!(window.counts_at(&span, clock.now(), 5), counts(1, 0), "{shape:?}");
            record(&window, &span, clock, LAST_EPOCH, true);
        }
    }

    #[test]
    fn another_span_starts_empty_and_counts_on_in_the_same_epoch() {
        let (clock, hand) = Clock::manual();
        hand.set(Duration::from_secs(40_000_000));
        let window = window();
        let shapes = [60, 600, 1, 3_600].map(|seconds| WindowShape::Time(seconds * 1_000_000_000));
        let mut span = WindowSpan::of(WindowShape::Time(60_000_000_000), StripedWindow::PARTS);
        for shape in
            shapes.into_iter().chain([WindowShape::Count(5), WindowShape::Count(7), shapes[0], shapes[1]])
        {
            record(&window, &span, clock, 3, true);
            span = WindowSpan::after(shape, span, StripedWindow::PARTS, clock.now(), clock.now());
            assert_eq!(window.counts_at(&span, clock.now(), 3), counts(0, 0), "{shape:?}");
            record(&window, &span, clock, 3, true);
            record(&window, &span, clock, 3, false);
            assert_eq!(window.counts_at(&span, clock.now(), 3), counts(2, 1), "{shape:?}");
        }
    }

    #[test]
    fn slow_and_abandoned_calls_are_counted_beside_the_others() {
        let (clock, _hand) = Clock::manual();
        for shape in [WindowShape::Time(60_000_000_000), WindowShape::Count(10)] {
            let (window, span) = (window(), WindowSpan::of(shape, StripedWindow::PARTS));
            let now = clock.now();
            window.record_cancelled(&span, now, 0);
            let seen = window.record_cancelled(&span, now, 0);
            assert_eq!((window.cancelled_in(seen), window.counts(seen).calls), (2, 0));
            window.record_failure(&span, now, 0, true);
            let seen = window.record_slow_success(&span, now, 0);
            assert_eq!((window.slow_in(seen), window.failures_in(seen)), (2, 1));
            assert_eq!(window.counts(seen).calls, 2, "{shape:?}");
        }
    }

    proptest! {
        /// Against every call kept in a list: steps of time and outcomes.
        #[test]
        fn the_time_window_counts_as_the_naive_one(steps in proptest::collection::vec((0_u64..8_000, any::<bool>()), 1..200)) {
            let (clock, hand) = Clock::manual();
            let (window, span) = (window(), WindowSpan::of(WindowShape::Time(60_000_000_000), StripedWindow::PARTS));
            let mut naive: Vec<(u64, bool)> = Vec::new();
            for (millis, failed) in steps {
                hand.advance(Duration::from_millis(millis));
                record(&window, &span, clock, 0, failed);
                // Rounding moves a bucket's edge by less than a nanosecond in this test's span.
                let bucket = |nanos: u64| nanos / 4_000_000_000;
                naive.push((bucket(clock.now()), failed));
                let now = bucket(clock.now());
                let inside = naive.iter().filter(|(at, _)| now - at < 16);
                let expected = Counts {
                    calls: inside.clone().count() as u64,
                    failures: inside.filter(|(_, failed)| *failed).count() as u64,
                    ..Counts::default()
                };
                prop_assert_eq!(window.counts_at(&span, clock.now(), 0), expected);
            }
        }
    }
}
