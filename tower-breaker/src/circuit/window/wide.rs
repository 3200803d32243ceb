//! The window of a circuit that has room: threads do not meet in it.

use tower_fault_classify::__shared::sync::Mutex;
use tower_fault_classify::__shared::{Ring, Striped};

use super::{Counting, LastCalls};
use crate::machine::Counts;

/// A ring for the successes of each thread, and one for each of the other counts.
#[derive(Debug)]
pub(crate) struct Window {
    successes: Striped,
    failures: Ring,
    slow: Ring,
    abandoned: Ring,
    last: Mutex<Option<LastCalls>>,
}

impl Window {
    pub(crate) fn with_stripes(successes: Striped) -> Self {
        let (failures, slow, abandoned) = Default::default();
        Self { successes, failures, slow, abandoned, last: Mutex::new(None) }
    }
}

impl Counting for Window {
    const PARTS: u64 = 15;

    #[inline]
    fn add_success(&self, tag: u32, slot: Option<usize>) {
        self.successes.add(slot, tag, 1);
    }

    #[inline]
    fn add_failure(&self, tag: u32) {
        self.failures.add(tag, 1);
    }

    fn add_slow(&self, tag: u32) {
        self.slow.add(tag, 1);
    }

    fn add_abandoned(&self, tag: u32) {
        self.abandoned.add(tag, 1);
    }

    #[inline]
    fn failures(&self, tag: u32) -> u64 {
        self.failures.sum(tag)
    }

    fn slow(&self, tag: u32) -> u64 {
        self.slow.sum(tag)
    }

    fn abandonments(&self, tag: u32) -> u64 {
        self.abandoned.sum(tag)
    }

    fn sums(&self, tag: u32) -> Counts {
        // Every numerator before its denominator: a call that is recorded meanwhile may then be missing
        // in a numerator, never in the denominator alone.
        let (slow, abandoned) = (self.slow.sum(tag), self.abandoned.sum(tag));
        let failures = self.failures.sum(tag);
        let calls = failures + self.successes.sum(tag);
        Counts { calls, failures, slow, abandoned }
    }

    fn last(&self) -> Option<&Mutex<Option<LastCalls>>> {
        Some(&self.last)
    }
}
