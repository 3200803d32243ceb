//! What the closed circuit remembers of its calls.

#[cfg(feature = "keyed")]
mod pairs;
mod wide;

#[cfg(feature = "keyed")]
pub(crate) use pairs::Pairs;
pub(crate) use wide::Window;

use tower_fault_classify::__shared::sync::{Mutex, lock};
use tower_fault_classify::__shared::{Buckets, Clock};

use super::gate::LAST_EPOCH;
use crate::machine::{CountRing, Counts};

/// How much a window spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nanoseconds.
    Time(u64),
    /// Calls.
    Count(u32),
}

/// A shape as a settling call needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) buckets: Buckets,
    /// 0: the buckets decide.
    pub(crate) calls: u32,
}

impl Span {
    /// A span for a window that nobody has used, in so many parts.
    pub(crate) const fn of(shape: Shape, parts: u64) -> Self {
        match shape {
            Shape::Time(nanos) => Self { buckets: Buckets::cut(nanos, parts), calls: 0 },
            // Buckets are kept all the same, for those that may follow.
            Shape::Count(calls) => Self { buckets: Buckets::cut(u64::MAX, parts), calls },
        }
    }

    /// A span for a window that has been used with another until now: it starts empty.
    pub(crate) fn after(shape: Shape, other: Self, parts: u64, now: u64) -> Self {
        let new = Self::of(shape, parts);
        Self { buckets: new.buckets.after(other.buckets, now), ..new }
    }
}

/// Counts of calls, failures, slow and abandoned calls, over a span of time or a number of calls. It starts anew with every epoch, and
/// with another span.
pub(crate) trait Counting {
    /// So many buckets make up a span of time, beside the one that is being filled.
    const PARTS: u64;

    /// Counts a success in a bucket. `slot` is the calling thread's own number.
    fn add_success(&self, tag: u32, slot: Option<usize>);
    /// Counts a failure.
    fn add_failure(&self, tag: u32);
    /// Counts a call as slow that was counted before: a reader that sees it here sees it there, too.
    fn add_slow(&self, tag: u32);
    /// Counts a call that was given up.
    fn add_abandoned(&self, tag: u32);

    /// The failures in the span that ends with a bucket.
    fn failures(&self, tag: u32) -> u64;
    /// The slow calls.
    fn slow(&self, tag: u32) -> u64;
    /// The calls that were given up.
    fn abandonments(&self, tag: u32) -> u64;
    /// All of them. A call that is counted as slow is also in `calls`.
    fn sums(&self, tag: u32) -> Counts;

    /// The last n calls in the order in which they ended: one order of all outcomes, so one lock. `None`: it has no such window, and no
    /// configuration of one asks for it.
    fn last(&self) -> Option<&Mutex<Option<LastCalls>>>;

    /// Records a success: over a span of time, the clock and the thread's own cell.
    #[inline]
    fn success(&self, span: &Span, clock: Clock, epoch: u32, slot: Option<usize>) {
        if span.calls == 0 {
            self.add_success(span.buckets.tag(clock.now(), epoch), slot);
        } else {
            self.of_last(span, epoch, |ring| ring.record(false, false));
        }
    }

    /// Records a slow success.
    fn slow_success(&self, span: &Span, now: u64, epoch: u32, slot: Option<usize>) -> Seen {
        if span.calls > 0 {
            return Seen::Counts(self.of_last(span, epoch, |ring| ring.record(false, true)));
        }
        let tag = span.buckets.tag(now, epoch);
        self.add_success(tag, slot);
        self.add_slow(tag);
        Seen::Bucket(tag)
    }

    /// Records a failure.
    fn failure(&self, span: &Span, now: u64, epoch: u32, slow: bool) -> Seen {
        if span.calls > 0 {
            return Seen::Counts(self.of_last(span, epoch, |ring| ring.record(true, slow)));
        }
        let tag = span.buckets.tag(now, epoch);
        self.add_failure(tag);
        if slow {
            self.add_slow(tag);
        }
        Seen::Bucket(tag)
    }

    /// Records a call that was given up.
    fn abandoned(&self, span: &Span, now: u64, epoch: u32) -> Seen {
        if span.calls > 0 {
            return Seen::Counts(self.of_last(span, epoch, CountRing::abandon));
        }
        let tag = span.buckets.tag(now, epoch);
        self.add_abandoned(tag);
        Seen::Bucket(tag)
    }

    /// The failures in the window.
    fn failures_in(&self, seen: Seen) -> u64 {
        match seen {
            Seen::Bucket(tag) => self.failures(tag),
            Seen::Counts(counts) => counts.failures,
        }
    }

    /// The slow calls in the window.
    fn slow_in(&self, seen: Seen) -> u64 {
        match seen {
            Seen::Bucket(tag) => self.slow(tag),
            Seen::Counts(counts) => counts.slow,
        }
    }

    /// The calls in the window that were given up.
    fn abandoned_in(&self, seen: Seen) -> u64 {
        match seen {
            Seen::Bucket(tag) => self.abandonments(tag),
            Seen::Counts(counts) => counts.abandoned,
        }
    }

    /// All that is in the window.
    fn counts(&self, seen: Seen) -> Counts {
        match seen {
            Seen::Bucket(tag) => self.sums(tag),
            Seen::Counts(counts) => counts,
        }
    }

    /// All that is in the window of an epoch, at a time.
    fn counts_at(&self, span: &Span, now: u64, epoch: u32) -> Counts {
        if span.calls == 0 {
            return self.sums(span.buckets.tag(now, epoch));
        }
        let last = self.last().map(lock);
        last.as_deref()
            .and_then(Option::as_ref)
            .filter(|last| last.is(span, epoch))
            .map_or_else(Counts::default, |last| last.ring.counts())
    }

    /// Empties a window of so many calls, whatever its size. One over time is left behind by its buckets: see [`Span::after`].
    fn forget_last_calls(&self) {
        let last = self.last().map(|last| lock(last).take());
        drop(last);
    }

    /// Changes the last calls of an epoch; what belongs to an older epoch changes nothing.
    fn of_last(&self, span: &Span, epoch: u32, change: impl FnOnce(&mut CountRing) -> Counts) -> Counts {
        let Some(mut last) = self.last().map(lock) else { return Counts::default() };
        let last = match &mut *last {
            Some(last) if last.is(span, epoch) => last,
            Some(last) if epoch.wrapping_sub(last.epoch) & LAST_EPOCH > LAST_EPOCH / 2 => {
                return Counts::default();
            }
            Some(last) if last.ring.size() == span.calls as usize => {
                last.epoch = epoch;
                last.ring.clear();
                last
            }
            other => other.insert(LastCalls { epoch, ring: CountRing::new(span.calls as usize) }),
        };
        change(&mut last.ring)
    }
}

/// The last n calls of an epoch.
#[derive(Debug)]
pub(crate) struct LastCalls {
    epoch: u32,
    ring: CountRing,
}

/// What a call saw when it was recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// The bucket; its sums are still to be taken.
    Bucket(u32),
    /// The counts.
    Counts(Counts),
}

impl LastCalls {
    const fn is(&self, span: &Span, epoch: u32) -> bool {
        self.epoch == epoch && self.ring.size() == span.calls as usize
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::time::Duration;

    use tower_fault_classify::__shared::Striped;

    use proptest::prelude::*;

    use super::*;

    fn record(window: &Window, span: &Span, clock: Clock, epoch: u32, failed: bool) {
        if failed {
            window.failure(span, clock.now(), epoch, false);
        } else {
            window.success(span, clock, epoch, Some(0));
        }
    }

    fn window() -> Window {
        Window::with_stripes(Striped::with_stripes(1))
    }

    const fn counts(calls: u64, failures: u64) -> Counts {
        Counts { calls, failures, slow: 0, abandoned: 0 }
    }

    #[test]
    fn a_time_window_is_as_long_as_asked_and_up_to_a_bucket_longer() {
        for nanos in [1_000_000, 4_999_999, 60_000_000_000, 365 * 24 * 3_600_000_000_000] {
            let (clock, hand) = Clock::manual();
            hand.set(Duration::from_secs(40_000_000));
            let (window, span) = (window(), Span::of(Shape::Time(nanos), Window::PARTS));
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
        let (window, span) = (window(), Span::of(Shape::Time(60_000_000_000), Window::PARTS));
        record(&window, &span, clock, 0, true);
        hand.advance(Duration::from_secs(7 * 24 * 60 * 60));
        assert_eq!(window.counts_at(&span, clock.now(), 0), Counts::default());
        record(&window, &span, clock, 0, true);
        assert_eq!(window.counts_at(&span, clock.now(), 0), counts(1, 1));
    }

    #[test]
    fn every_epoch_starts_empty() {
        let (clock, _hand) = Clock::manual();
        for shape in [Shape::Time(60_000_000_000), Shape::Count(10)] {
            let (window, span) = (window(), Span::of(shape, Window::PARTS));
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
        let shapes = [60, 600, 1, 3_600].map(|seconds| Shape::Time(seconds * 1_000_000_000));
        let mut span = Span::of(Shape::Time(60_000_000_000), Window::PARTS);
        for shape in shapes.into_iter().chain([Shape::Count(5), Shape::Count(7), shapes[0], shapes[1]]) {
            record(&window, &span, clock, 3, true);
            span = Span::after(shape, span, Window::PARTS, clock.now());
            assert_eq!(window.counts_at(&span, clock.now(), 3), counts(0, 0), "{shape:?}");
            record(&window, &span, clock, 3, true);
            record(&window, &span, clock, 3, false);
            assert_eq!(window.counts_at(&span, clock.now(), 3), counts(2, 1), "{shape:?}");
        }
    }

    #[test]
    fn slow_and_abandoned_calls_are_counted_beside_the_others() {
        let (clock, _hand) = Clock::manual();
        for shape in [Shape::Time(60_000_000_000), Shape::Count(10)] {
            let (window, span) = (window(), Span::of(shape, Window::PARTS));
            let now = clock.now();
            window.abandoned(&span, now, 0);
            let seen = window.abandoned(&span, now, 0);
            assert_eq!((window.abandoned_in(seen), window.counts(seen).calls), (2, 0));
            window.failure(&span, now, 0, true);
            let seen = window.slow_success(&span, now, 0, Some(0));
            assert_eq!((window.slow_in(seen), window.failures_in(seen)), (2, 1));
            assert_eq!(window.counts(seen).calls, 2, "{shape:?}");
        }
    }

    proptest! {
        /// Against every call kept in a list: steps of time and outcomes.
        #[test]
        fn the_time_window_counts_as_the_naive_one(steps in proptest::collection::vec((0_u64..8_000, any::<bool>()), 1..200)) {
            let (clock, hand) = Clock::manual();
            let (window, span) = (window(), Span::of(Shape::Time(60_000_000_000), Window::PARTS));
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
