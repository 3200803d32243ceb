//! The window of a circuit that is not keyed. Threads do not write to the same cache line.
//!
//! # Memory
//!
//! A thread's ring of successes is allocated at its first success. Its other counts are allocated
//! at its first failed or rejected call, or at its first call in a count window. The rings of slow
//! and cancelled calls are allocated at the first such call.

use std::sync::OnceLock;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering};
use tower_fault_classify::__internals::{
    BucketRing, PaddedRing, PerThread, RING_CELLS, StripedCounter, ThreadPart,
};

use super::count::{LastCalls, OwnSuccesses};
use super::{Due, NewestBucket, Window};
use crate::machine::Counts;

/// The window of a circuit that is not keyed.
///
/// It has a ring of successes and a ring of failures for each thread, and one ring for each of the
/// other counts.
#[derive(Debug)]
pub struct StripedWindow {
    newest: NewestBucket,
    due: Due,
    successes: StripedCounter,
    // Allocated, because most circuits have only successes for most of their life.
    others: OnceLock<Box<OtherCounts>>,
    upkeep: Mutex<()>,
    /// The last n calls of a count window.
    pub(super) last: Mutex<Option<Box<LastCalls>>>,
}

/// All counts except for the successes of a time window.
#[derive(Debug)]
struct OtherCounts {
    parts: PerThread<Part>,
    slow: LazyRing,
    cancelled: LazyRing,
}

/// The other counts of one thread, with their own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Part {
    failures: BucketRing<RING_CELLS>,
    pub(super) counted: OwnSuccesses,
    rejections: AtomicU64,
}

/// Counts a rejected call.
#[inline]
fn count_rejection(part: ThreadPart<'_, Part>) {
    part.update(|part| &part.rejections, |count| Some(count.wrapping_add(1)));
}

/// A ring that is allocated at the first addition.
#[derive(Debug)]
struct LazyRing(OnceLock<Box<PaddedRing>>);

impl Default for LazyRing {
    fn default() -> Self {
        let ring = Self(OnceLock::new());
        if cfg!(loom_models) {
            // As for the values of a `PerThread`.
            ring.get();
        }
        ring
    }
}

impl LazyRing {
    /// Returns the ring, which is allocated if necessary.
    fn get(&self) -> &PaddedRing {
        self.0.get_or_init(Box::default)
    }

    fn sum(&self, tag: u64) -> u64 {
        self.0.get().map_or(0, |ring| ring.sum(tag))
    }

    fn clear_expired(&self, keep: Option<u64>) {
        if let Some(ring) = self.0.get() {
            ring.clear_expired(keep);
        }
    }
}

impl StripedWindow {
    /// Creates an empty window that begins at the bucket `tag`.
    pub(crate) fn new(successes: StripedCounter, tag: u64) -> Self {
        let window = Self {
            newest: NewestBucket::new(tag),
            due: Due::default(),
            successes,
            others: OnceLock::new(),
            upkeep: Mutex::new(()),
            last: Mutex::new(None),
        };
        if cfg!(loom_models) {
            // As for the values of a `PerThread`.
            window.others();
        }
        window
    }

    /// Returns the other counts, which are allocated if necessary.
    fn others(&self) -> &OtherCounts {
        self.others.get_or_init(|| {
            let parts = PerThread::with_slots(self.successes.stripes());
            Box::new(OtherCounts { parts, slow: LazyRing::default(), cancelled: LazyRing::default() })
        })
    }

    /// Returns the other counts that the calling thread owns. `None`: see [`part`](Self::part).
    #[inline]
    pub(super) fn own_part(&self) -> Option<&Part> {
        self.others.get()?.parts.own()
    }

    /// Returns the calling thread's other counts in every case, also in those that
    /// [`own_part`](Self::own_part) leaves out.
    pub(super) fn part(&self) -> ThreadPart<'_, Part> {
        self.others().parts.part()
    }

    /// Returns the other counts of all threads. They include those of every use that happened
    /// before.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.others.get().into_iter().flat_map(|others| others.parts.iter())
    }

    fn slow_and_cancelled(&self, tag: u64) -> (u64, u64) {
        self.others.get().map_or((0, 0), |others| (others.slow.sum(tag), others.cancelled.sum(tag)))
    }

    /// Discards the promise that the next failures cannot open the circuit.
    pub(crate) fn discard_promise(&self) {
        self.due.discard();
    }

    /// Counts a rejected call.
    #[inline]
    pub(crate) fn count_rejection(&self) {
        match self.own_part() {
            Some(part) => count_rejection(ThreadPart::Owned(part)),
            None => self.count_rejection_slowly(),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_rejection_slowly(&self) {
        count_rejection(self.part());
    }

    /// Returns the number of rejected calls since the window was created. It may miss concurrent
    /// ones.
    pub(crate) fn rejections(&self) -> u64 {
        let counts = self.parts().map(|part| part.rejections.load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    #[cold]
    #[inline(never)]
    fn add_failure_slowly(&self, tag: u64) {
        self.part().add(|part| &part.failures, tag, 1);
    }
}

impl Window for StripedWindow {
    const PARTS: u64 = RING_CELLS as u64 - 1;

    #[inline]
    fn add_success(&self, tag: u64) {
        self.successes.add(tag, 1);
    }

    #[inline]
    fn try_add_success(&self, tag: u64) -> bool {
        self.successes.try_add(tag, 1)
    }

    #[inline]
    fn add_failure(&self, tag: u64) {
        match self.own_part() {
            Some(part) => part.failures.add_exclusive(tag, 1),
            None => self.add_failure_slowly(tag),
        }
    }

    fn add_slow(&self, tag: u64) {
        self.others().slow.get().add(tag, 1);
    }

    fn add_cancelled(&self, tag: u64) {
        self.others().cancelled.get().add(tag, 1);
    }

    fn failures(&self, tag: u64) -> u64 {
        self.parts().map(|part| part.failures.sum(tag)).sum()
    }

    fn slow(&self, tag: u64) -> u64 {
        self.slow_and_cancelled(tag).0
    }

    fn sums(&self, tag: u64) -> Counts {
        // Each numerator is read before its denominator, and each call is written to the
        // denominator first. The Release of `add_slow`, with the Acquire of `sum`, keeps this
        // order. So a call that is recorded concurrently may be missing in a numerator, but it is
        // never in a numerator without its denominator. The Release of `add_failure` likewise
        // ensures that a sum with a failure contains the successes that happened before it.
        let (slow, cancelled) = self.slow_and_cancelled(tag);
        let failures = self.failures(tag);
        let calls = failures + self.successes.sum(tag);
        Counts { calls, failures, slow, cancelled }
    }

    fn last_success_age(&self, tag: u64) -> Option<u32> {
        self.successes.newest_age(tag)
    }

    fn last_failure_age(&self, tag: u64) -> Option<u32> {
        self.parts().filter_map(|part| part.failures.newest_age(tag)).min()
    }

    #[inline]
    fn newest(&self) -> &NewestBucket {
        &self.newest
    }

    #[inline]
    fn due(&self) -> Option<&Due> {
        Some(&self.due)
    }

    fn clear_expired(&self, keep: Option<u64>) {
        self.due.discard();
        self.successes.clear_expired(keep);
        if let Some(others) = self.others.get() {
            others.parts.iter().for_each(|part| part.failures.clear_expired(keep));
            others.slow.clear_expired(keep);
            others.cancelled.clear_expired(keep);
        }
    }

    fn upkeep(&self) -> &Mutex<()> {
        &self.upkeep
    }

    #[inline]
    fn count_window(&self) -> Option<&StripedWindow> {
        Some(self)
    }
}
