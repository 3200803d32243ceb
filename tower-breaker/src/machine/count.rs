//! The window of the last n calls, exactly.

use super::Counts;

/// The outcomes of the last calls, one bit each.
#[derive(Debug)]
pub(crate) struct CountRing {
    failed: Box<[u64]>,
    size: usize,
    /// Where the next outcome goes, which is where the oldest stands once the ring is full.
    next: usize,
    counts: Counts,
}

impl CountRing {
    /// An empty window of `size` calls, at least one.
    pub(crate) fn new(size: usize) -> Self {
        Self { failed: vec![0; size.div_ceil(64)].into(), size, next: 0, counts: Counts::default() }
    }

    /// What the window holds after one more call.
    pub(crate) fn record(&mut self, failed: bool) -> Counts {
        let (word, bit) = (self.next / 64, 1 << (self.next % 64));
        if self.counts.calls == self.size as u64 {
            self.counts.failures -= u64::from(self.failed[word] & bit != 0);
        } else {
            self.counts.calls += 1;
        }
        if failed {
            self.failed[word] |= bit;
            self.counts.failures += 1;
        } else {
            self.failed[word] &= !bit;
        }
        self.next = (self.next + 1) % self.size;
        self.counts
    }

    /// What the window holds.
    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Forgets everything. The bits may stay: what they say is read only once the ring is full again.
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
        fn it_holds_exactly_the_last_calls(size in 1_usize..200, calls in proptest::collection::vec(any::<bool>(), 0..500), clear_at in 0_usize..500) {
            let mut ring = CountRing::new(size);
            let mut all = Vec::new();
            for (index, failed) in calls.into_iter().enumerate() {
                if index == clear_at {
                    ring.clear();
                    all.clear();
                }
                all.push(failed);
                let last = &all[all.len().saturating_sub(size)..];
                let expected = Counts {
                    calls: last.len() as u64,
                    failures: last.iter().filter(|failed| **failed).count() as u64,
                };
                prop_assert_eq!(ring.record(failed), expected);
                prop_assert_eq!(ring.counts(), expected);
            }
        }
    }

    #[test]
    fn a_window_that_was_full_of_successes_opens_after_as_many_failures_as_any_other() {
        let mut ring = CountRing::new(10);
        for _ in 0..100_000 {
            ring.record(false);
        }
        for _ in 0..5 {
            ring.record(true);
        }
        assert_eq!(ring.counts(), Counts { calls: 10, failures: 5 });
    }
}
