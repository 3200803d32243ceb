//! What the closed circuit remembers of its calls.

use tower_fault_classify::__shared::sync::{Mutex, lock};
use tower_fault_classify::__shared::{Buckets, Clock, Ring, Striped};

use super::gate::LAST_EPOCH;
use crate::machine::{CountRing, Counts};

/// The shape of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nanoseconds.
    Time(u64),
    /// Calls.
    Count(u32),
}

/// Counts of calls and failures, over a span of time or a number of calls. It starts anew with every epoch.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the usual variant is the large one, and must not be a pointer away"
)]
pub(crate) enum Window {
    Time(TimeWindow),
    /// The last n calls in the order in which they ended: one order of all outcomes, so one lock.
    Count(Mutex<CountWindow>),
}

#[derive(Debug)]
pub(crate) struct TimeWindow {
    buckets: Buckets,
    successes: Striped,
    failures: Ring,
}

#[derive(Debug)]
pub(crate) struct CountWindow {
    size: u32,
    epoch: u32,
    ring: CountRing,
}

/// What a failure saw when it was recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// The bucket; its sums are still to be taken.
    Bucket(u32),
    Counts(Counts),
}

impl Window {
    pub(crate) fn new(shape: Shape) -> Self {
        Self::with_stripes(shape, Striped::new())
    }

    pub(crate) fn with_stripes(shape: Shape, successes: Striped) -> Self {
        match shape {
            Shape::Time(nanos) => {
                Self::Time(TimeWindow { buckets: Buckets::of(nanos), successes, failures: Ring::default() })
            }
            Shape::Count(size) => {
                let ring = CountRing::new(size as usize);
                Self::Count(Mutex::new(CountWindow { size, epoch: 0, ring }))
            }
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        match self {
            Self::Time(window) => Shape::Time(window.buckets.span()),
            Self::Count(window) => Shape::Count(lock(window).size),
        }
    }

    /// Records a success: with a time window, the clock and the thread's own cell.
    #[inline]
    pub(crate) fn success(&self, clock: &Clock, epoch: u32, slot: Option<usize>) {
        match self {
            Self::Time(window) => window.successes.add(slot, window.buckets.tag(clock.now(), epoch), 1),
            Self::Count(window) => {
                lock(window).record(epoch, false);
            }
        }
    }

    /// Records a failure.
    pub(crate) fn failure(&self, now: u64, epoch: u32) -> Seen {
        match self {
            Self::Time(window) => {
                let tag = window.buckets.tag(now, epoch);
                window.failures.add(tag, 1);
                Seen::Bucket(tag)
            }
            Self::Count(window) => Seen::Counts(lock(window).record(epoch, true)),
        }
    }

    /// The failures in the window.
    pub(crate) fn failures(&self, seen: Seen) -> u64 {
        match (self, seen) {
            (Self::Time(window), Seen::Bucket(tag)) => window.failures.sum(tag),
            (_, Seen::Counts(counts)) => counts.failures,
            (Self::Count(_), Seen::Bucket(_)) => 0,
        }
    }

    /// Calls and failures in the window.
    pub(crate) fn counts(&self, seen: Seen) -> Counts {
        match (self, seen) {
            (Self::Time(window), Seen::Bucket(tag)) => {
                let failures = window.failures.sum(tag);
                Counts { calls: failures + window.successes.sum(tag), failures }
            }
            (_, Seen::Counts(counts)) => counts,
            (Self::Count(_), Seen::Bucket(_)) => Counts::default(),
        }
    }

    /// Calls and failures in the window of an epoch, at a time.
    pub(crate) fn counts_at(&self, now: u64, epoch: u32) -> Counts {
        match self {
            Self::Time(window) => self.counts(Seen::Bucket(window.buckets.tag(now, epoch))),
            Self::Count(window) => {
                let window = lock(window);
                if window.epoch == epoch { window.ring.counts() } else { Counts::default() }
            }
        }
    }
}

impl CountWindow {
    /// Records an outcome of an epoch; one of an older epoch changes nothing.
    fn record(&mut self, epoch: u32, failed: bool) -> Counts {
        if self.epoch != epoch {
            let newer = epoch.wrapping_sub(self.epoch) & LAST_EPOCH <= LAST_EPOCH / 2;
            if !newer {
                return Counts::default();
            }
            self.epoch = epoch;
            self.ring.clear();
        }
        self.ring.record(failed)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn record(window: &Window, clock: &Clock, epoch: u32, failed: bool) {
        if failed {
            window.failure(clock.now(), epoch);
        } else {
            window.success(clock, epoch, Some(0));
        }
    }

    #[test]
    fn a_time_window_is_as_long_as_asked_and_up_to_a_bucket_longer() {
        for nanos in [1_000_000, 4_999_999, 60_000_000_000, 365 * 24 * 3_600_000_000_000] {
            let (clock, hand) = Clock::manual();
            hand.set(Duration::from_secs(40_000_000));
            let window = Window::with_stripes(Shape::Time(nanos), Striped::with_stripes(1));
            record(&window, &clock, 0, true);
            record(&window, &clock, 0, false);
            let whole = Counts { calls: 2, failures: 1 };
            hand.advance(Duration::from_nanos(nanos));
            assert_eq!(window.counts_at(clock.now(), 0), whole, "{nanos}");
            hand.advance(Duration::from_nanos(nanos / 15 + 2));
            assert_eq!(window.counts_at(clock.now(), 0), Counts::default(), "{nanos}");
        }
    }

    #[test]
    fn a_pause_of_a_week_leaves_an_empty_window() {
        let (clock, hand) = Clock::manual();
        let window = Window::with_stripes(Shape::Time(60_000_000_000), Striped::with_stripes(1));
        record(&window, &clock, 0, true);
        hand.advance(Duration::from_secs(7 * 24 * 60 * 60));
        assert_eq!(window.counts_at(clock.now(), 0), Counts::default());
        record(&window, &clock, 0, true);
        assert_eq!(window.counts_at(clock.now(), 0), Counts { calls: 1, failures: 1 });
    }

    #[test]
    fn every_epoch_starts_empty() {
        let (clock, _hand) = Clock::manual();
        for shape in [Shape::Time(60_000_000_000), Shape::Count(10)] {
            let window = Window::with_stripes(shape, Striped::with_stripes(1));
            record(&window, &clock, 4, true);
            record(&window, &clock, 5, false);
            assert_eq!(window.counts_at(clock.now(), 5), Counts { calls: 1, failures: 0 });
            record(&window, &clock, 4, true);
            assert_eq!(window.counts_at(clock.now(), 5), Counts { calls: 1, failures: 0 }, "{shape:?}");
            record(&window, &clock, LAST_EPOCH, true);
            assert_eq!(window.shape(), shape);
        }
    }

    proptest! {
        /// Against every call kept in a list: steps of time and outcomes.
        #[test]
        fn the_time_window_counts_as_the_naive_one(steps in proptest::collection::vec((0_u64..8_000, any::<bool>()), 1..200)) {
            let (clock, hand) = Clock::manual();
            let window = Window::with_stripes(Shape::Time(60_000_000_000), Striped::with_stripes(1));
            let mut naive: Vec<(u64, bool)> = Vec::new();
            for (millis, failed) in steps {
                hand.advance(Duration::from_millis(millis));
                record(&window, &clock, 0, failed);
                // Rounding moves a bucket's edge by less than a nanosecond in this test's span.
                let bucket = |nanos: u64| nanos / 4_000_000_000;
                naive.push((bucket(clock.now()), failed));
                let now = bucket(clock.now());
                let inside = naive.iter().filter(|(at, _)| now - at < 16);
                let expected = Counts {
                    calls: inside.clone().count() as u64,
                    failures: inside.filter(|(_, failed)| *failed).count() as u64,
                };
                prop_assert_eq!(window.counts_at(clock.now(), 0), expected);
            }
        }
    }
}
