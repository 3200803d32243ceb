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

    /// Clears `len` bits from `start` on. Returns how many of them were set.
    fn clear(&mut self, start: usize, len: usize) -> u64 {
        let (mut from, end) = (start, start + len);
        let mut set = 0;
        while from < end {
            let to = end.min((from / 64 + 1) * 64);
            let mask = (u64::MAX >> (64 - (to - from))) << (from % 64);
            let word = &mut self.0[from / 64];
            set += u64::from((*word & mask).count_ones());
            *word &= !mask;
            from = to;
        }
        set
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

    /// Records a number of successes, in as many steps as the window has words at most.
    pub(crate) fn record_successes(&mut self, successes: u64) {
        if successes == 0 {
            return;
        }
        self.counts.cancelled = 0;
        let before = self.next;
        self.next = (before + (successes % self.size as u64) as usize) % self.size;
        // If there are more than the window holds, the last ones fill it.
        let successes = usize::try_from(successes).unwrap_or(usize::MAX).min(self.size);
        let to_end = successes.min(self.size - before);
        self.replace_by_successes(before, to_end);
        self.replace_by_successes(0, successes - to_end);
    }

    fn replace_by_successes(&mut self, start: usize, len: usize) {
        let (failed, slow) = (self.failed.clear(start, len), self.slow.clear(start, len));
        if self.counts.calls == self.size as u64 {
            self.counts.failures -= failed;
            self.counts.slow -= slow;
        } else {
            // The bits after the last call have no meaning.
            self.counts.calls += len as u64;
        }
    }

    /// Counts a cancelled call. The next call that succeeds or fails resets this count.
    pub(crate) const fn record_cancelled(&mut self) {
        self.counts.cancelled += 1;
    }

    /// Returns the index of the next outcome.
    pub(crate) const fn next(&self) -> usize {
        self.next
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

    /// A change of a window.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Call { failed: bool, slow: bool },
        Successes(u64),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => any::<(bool, bool)>().prop_map(|(failed, slow)| Step::Call { failed, slow }),
            3 => prop_oneof![0_u64..5, 0_u64..300].prop_map(Step::Successes),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn count_window_matches_naive_model(size in prop_oneof![1_usize..4, 1_usize..200], steps in proptest::collection::vec(step(), 0..300)) {
            let mut window = CountWindow::new(size);
            let mut all = Vec::new();
            for step in steps {
                match step {
                    Step::Call { failed, slow } => {
                        window.record(failed, slow);
                        all.push((failed, slow));
                    }
                    Step::Successes(successes) => {
                        window.record_successes(successes);
                        all.extend((0..successes).map(|_| (false, false)));
                    }
                    Step::Clear => {
                        window.clear();
                        all.clear();
                    }
                }
                let last = &all[all.len().saturating_sub(size)..];
                let expected = Counts {
                    calls: last.len() as u64,
                    failures: last.iter().filter(|(failed, _)| *failed).count() as u64,
                    slow: last.iter().filter(|(_, slow)| *slow).count() as u64,
                    cancelled: 0,
                };
                prop_assert_eq!(window.counts(), expected);
                prop_assert_eq!(window.size(), size);
            }
        }
    }

    #[test]
    fn window_of_a_million_calls_records_any_number_of_successes() {
        let mut window = CountWindow::new(1_000_000);
        window.record(true, true);
        for successes in [999_999, 1, u64::MAX] {
            window.record_successes(successes);
            let failures = u64::from(successes == 999_999);
            let expected = Counts { calls: 1_000_000, failures, slow: failures, cancelled: 0 };
            assert_eq!(window.counts(), expected, "{successes}");
        }
    }

    #[test]
    fn counted_call_resets_cancelled_calls() {
        let mut window = CountWindow::new(3);
        let records: [fn(&mut CountWindow); 3] = [
            |window| window.record(false, false),
            |window| window.record(true, false),
            |window| window.record_successes(1),
        ];
        for record in records {
            (0..4).for_each(|_| window.record_cancelled());
            window.record_successes(0);
            assert_eq!(window.counts().cancelled, 4);
            record(&mut window);
            assert_eq!(window.counts().cancelled, 0);
        }
        assert_eq!(window.counts(), Counts { calls: 3, failures: 1, ..Counts::default() });
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
