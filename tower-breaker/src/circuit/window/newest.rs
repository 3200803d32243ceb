//! The newest bucket of a time window.
//!
//! A cell stores only the lower bits of its bucket's tag, 24 or 32. They repeat. A cell written 2²⁴
//! buckets ago would count again, and a cell written a little later than that would seem newer than
//! the calls that follow. So tags are cut into eras of 2²² buckets, and the first call of an era
//! clears the cells that have left the window. A cell in use is then at most two eras old, and the
//! lower bits of its tag tell its age after any idle time.

use tower_fault_classify::__internals::TAGS_PER_EPOCH;
use tower_fault_classify::__internals::sync::{AtomicU64, Ordering, lock};

use super::Window;

const ERA_BITS: u32 = 22;

/// The newest bucket in which a window has counted a call. A call is counted in this bucket or in a
/// newer one. So a clock that runs back loses no call: the window stands still until the clock has
/// caught up.
#[derive(Debug)]
pub struct NewestBucket(AtomicU64);

/// A bucket compared with the newest bucket.
enum Place {
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
            match place(tag, newest) {
                Place::Over => return None,
                Place::Reached => return Some(newest),
                Place::Newer => {}
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
        if matches!(place(tag, newest), Place::Newer) && era(tag) != era(newest) {
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
        match place(tag, newest) {
            Place::Over => None,
            Place::Reached => Some(newest),
            Place::Newer => (era(tag).wrapping_sub(era(newest)) <= 1).then_some(tag),
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

const fn place(tag: u64, newest: u64) -> Place {
    let ahead = tag.wrapping_sub(newest).cast_signed();
    if ahead > 0 {
        Place::Newer
    } else if ahead > -(TAGS_PER_EPOCH.cast_signed() / 2) {
        Place::Reached
    } else {
        Place::Over
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use loom::sync::Arc;
    use loom::thread;
    use tower_fault_classify::__internals::StripedCounter;

    use super::*;
    use crate::circuit::core::models::model;
    use crate::circuit::window::{StripedWindow, WindowShape, WindowSpan};
    use crate::machine::Counts;

    const BUCKET: u64 = 1 << 30;
    const ERA: u64 = BUCKET << ERA_BITS;

    fn window() -> (Arc<StripedWindow>, WindowSpan) {
        let window = StripedWindow::new(StripedCounter::with_stripes(0), 0);
        (
            Arc::new(window),
            WindowSpan::of(WindowShape::Time(BUCKET * StripedWindow::PARTS), StripedWindow::PARTS),
        )
    }

    fn failures(window: &StripedWindow, span: &WindowSpan, now: u64) -> u64 {
        let Counts { calls, failures, .. } = window.counts_at(span, now, 0);
        assert_eq!(calls, failures);
        failures
    }

    #[test]
    fn loom_first_calls_of_an_era_are_counted_and_cells_of_any_earlier_time_are_not() {
        // The lower bits of a tag are the same again after 1,024 eras.
        for idle in [1, 2, 1 << 10] {
            model(move || {
                let (window, span) = window();
                let (before, now) = (17 * BUCKET, 17 * BUCKET + idle * ERA);
                window.record_failure(&span, before, 0, false);
                let other = Arc::clone(&window);
                let thread = thread::spawn(move || {
                    other.record_failure(&span, now, 0, false);
                });
                window.record_failure(&span, now, 0, false);
                thread.join().unwrap();
                assert_eq!(failures(&window, &span, now), 2);
            });
        }
    }

    #[test]
    fn loom_era_that_begins_within_a_window_loses_no_call_of_it() {
        model(|| {
            let (window, span) = window();
            window.record_failure(&span, ERA - 2 * BUCKET, 0, false);
            let other = Arc::clone(&window);
            let thread = thread::spawn(move || {
                other.record_failure(&span, ERA - BUCKET, 0, false);
            });
            window.record_failure(&span, ERA, 0, false);
            thread.join().unwrap();
            assert_eq!(failures(&window, &span, ERA), 3);
        });
    }
}
