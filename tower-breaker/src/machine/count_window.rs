//! The exact window of the last n calls.

use super::state::Counts;

/// The outcomes of the last calls. Each call has two bits: failed and slow.
#[derive(Debug)]
pub(crate) struct CountWindow {
    failed: Bits,
    slow: Bits,
    size: usize,
    /// The index of the next outcome. In a full window this is the index of the oldest outcome.
    next: usize,
    counts: Counts,
}

/// One bit per call.
#[derive(Debug)]
struct Bits(Box<[u64]>);

impl Bits {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)].into())
    }

    /// Sets a bit and returns its previous value.
    fn replace(&mut self, index: usize, bit: bool) -> bool {
        let (word, mask) = (&mut self.0[index / 64], 1 << (index % 64));
        let was = *word & mask != 0;
        *word = if bit { *word | mask } else { *word & !mask };
        was
    }
}

impl CountWindow {
    /// Creates an empty window of `size` calls. `size` must be at least 1.
    pub(crate) fn new(size: usize) -> Self {
        Self { failed: Bits::new(size), slow: Bits::new(size), size, next: 0, counts: Counts::default() }
    }

    /// Returns the number of calls that the window holds at most.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// Records a call that succeeded or failed.
    pub(crate) fn record(&mut self, failed: bool, slow: bool) {
        let (was_failed, was_slow) =
            (self.failed.replace(self.next, failed), self.slow.replace(self.next, slow));
        if self.counts.calls == self.size as u64 {
            self.counts.failures -= u64::from(was_failed);
            self.counts.slow -= u64::from(was_slow);
        } else {
            self.counts.calls += 1;
        }
        self.counts.failures += u64::from(failed);
        self.counts.slow += u64::from(slow);
        self.counts.cancelled = 0;
        self.next = (self.next + 1) % self.size;
    }

    /// Counts a cancelled call. The next call that succeeds or fails resets this count.
    pub(crate) const fn record_cancelled(&mut self) {
        self.counts.cancelled += 1;
    }

    /// Returns whether the next outcome is stored in the first place.
    pub(crate) const fn is_at_start(&self) -> bool {
        self.next == 0
    }

    /// Returns the counts of the window.
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Empties the window. The bits need no reset: they are read only when the window is full
    /// again, and all of them have been overwritten by then.
    pub(crate) fn clear(&mut self) {
        self.next = 0;
        self.counts = Counts::default();
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn count_window_matches_naive_model(size in 1_usize..200, calls in proptest::collection::vec(any::<(bool, bool)>(), 0..500), clear_at in 0_usize..500) {
            let mut window = CountWindow::new(size);
            let mut all = Vec::new();
            for (index, call) in calls.into_iter().enumerate() {
                if index == clear_at {
                    window.clear();
                    all.clear();
                }
                all.push(call);
                let last = &all[all.len().saturating_sub(size)..];
                let expected = Counts {
                    calls: last.len() as u64,
                    failures: last.iter().filter(|(failed, _)| *failed).count() as u64,
                    slow: last.iter().filter(|(_, slow)| *slow).count() as u64,
                    cancelled: 0,
                };
                window.record(call.0, call.1);
                prop_assert_eq!(window.counts(), expected);
                prop_assert_eq!(window.size(), size);
            }
        }
    }

    #[test]
    fn counted_call_resets_cancelled_calls() {
        let mut window = CountWindow::new(3);
        for failed in [false, true] {
            (0..4).for_each(|_| window.record_cancelled());
            assert_eq!(window.counts().cancelled, 4);
            window.record(failed, false);
            assert_eq!(window.counts().cancelled, 0);
        }
        assert_eq!(window.counts(), Counts { calls: 2, failures: 1, ..Counts::default() });
    }

    #[test]
    fn count_window_full_of_successes_counts_failures_exactly() {
        let mut window = CountWindow::new(10);
        for _ in 0..100_000 {
            window.record(false, false);
        }
        for _ in 0..5 {
            window.record(true, false);
        }
        assert_eq!(window.counts(), Counts { calls: 10, failures: 5, ..Counts::default() });
    }
}
