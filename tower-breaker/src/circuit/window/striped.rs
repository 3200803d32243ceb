//! The window of a circuit that has room: threads do not meet in it.

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex};
use tower_fault_classify::__internals::{PaddedRing, StripedCounter, thread_slot};

use super::{LastCalls, NO_BUCKET, NewestBucket, Window};
use crate::machine::Counts;

/// A ring for the successes of each thread, and one for each of the other counts.
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

    fn add_abandoned(&self, tag: u64) {
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
