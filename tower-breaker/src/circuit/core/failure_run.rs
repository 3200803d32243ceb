//! Counts consecutive failures, and the time that they span.

use tower_fault_classify::__internals::sync::{AtomicU64, Ordering};

use super::{Core, Store};
use crate::circuit::state_word::StateWord;
use crate::machine::Sample;

impl<S: Store> Core<S> {
    /// ② Counts a failure in the state word. Returns the run of failures, without the window, and
    /// the failure's number. `None`: the epoch is over.
    ///
    /// `span` is the time that a run must span, or 0.
    #[inline]
    pub(super) fn count_failure(&self, stamp: StateWord, span: u64, now: u64) -> Option<(Sample, u64)> {
        let before = self.update_state_word(stamp, |word| {
            if span > 0 && word.consecutive_failures() == 0 {
                self.begin_run(now);
            }
            word.with_failure()
        })?;
        let counted = before.with_failure();
        let failing_for = if span > 0 { self.failing_for(now) } else { 0 };
        let consecutive_failures = counted.consecutive_failures();
        Some((Sample { consecutive_failures, failing_for, window: None }, counted.number()))
    }

    /// Stores the time of the first failure of a run, before the failure is counted.
    fn begin_run(&self, now: u64) {
        // The maximum, so that a thread that read the clock long ago cannot store an old time while
        // a later run is in progress. AcqRel: see `correct_time`.
        let first = self.store().first_failure().fetch_max(now, Ordering::AcqRel);
        if first > now {
            self.correct_time(self.store().first_failure(), first);
        }
    }

    /// Returns the time since the first failure of the run.
    fn failing_for(&self, now: u64) -> u64 {
        let mut first = self.time_until(now, self.store().first_failure());
        if let Some(since) = self.store().failures_timed_since() {
            first = first.max(self.time_until(now, since));
        }
        now.saturating_sub(first)
    }

    /// Loads a time, and corrects it if it is in the future.
    #[inline]
    fn time_until(&self, now: u64, time: &AtomicU64) -> u64 {
        // Acquire: see `correct_time`.
        let loaded = time.load(Ordering::Acquire);
        if loaded > now {
            self.correct_time(time, loaded);
        }
        loaded
    }

    /// Replaces a time if it is in the future: the clock has run back, or a call of a former
    /// circuit in this core has stored the time.
    ///
    /// The Acquire of the caller orders the reading of the clock below after the reading with which
    /// `stored` was stored. So no other time is in the future here.
    #[cold]
    fn correct_time(&self, time: &AtomicU64, stored: u64) {
        let now = self.hot_config().now();
        if stored > now {
            // Release: as for every store of this time. If the exchange fails, another thread has
            // stored a time meanwhile, which stays.
            let _ = time.compare_exchange(stored, now, Ordering::Release, Ordering::Relaxed);
        }
    }
}
