//! The window of a circuit that is not keyed. Threads do not write to the same cache line.
//!
//! # Memory
//!
//! A thread's part is allocated when the thread first uses the circuit. The rings of slow and
//! cancelled calls are allocated at the first such call.

use std::sync::OnceLock;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, Ordering};
use tower_fault_classify::__internals::{BucketRing, PaddedRing, PerThread, ThreadPart};

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
    pub(super) parts: PerThread<Part>,
    slow: LazyRing,
    cancelled: LazyRing,
    upkeep: Mutex<()>,
    /// The last n calls of a count window.
    pub(super) last: Mutex<Option<Box<LastCalls>>>,
}

/// The counts of one thread, with their own cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Part {
    successes: BucketRing<16>,
    failures: LazyRing,
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
    #[inline]
    fn get(&self) -> &PaddedRing {
        match self.0.get() {
            Some(ring) => ring,
            None => self.allocate(),
        }
    }

    #[cold]
    #[inline(never)]
    fn allocate(&self) -> &PaddedRing {
        self.0.get_or_init(Box::default)
    }

    fn sum(&self, tag: u64) -> u64 {
        self.0.get().map_or(0, |ring| ring.sum(tag))
    }

    fn newest_age(&self, tag: u64) -> Option<u32> {
        self.0.get().and_then(|ring| ring.newest_age(tag))
    }

    fn clear_expired(&self, keep: Option<u64>) {
        if let Some(ring) = self.0.get() {
            ring.clear_expired(keep);
        }
    }
}

impl StripedWindow {
    /// Creates an empty window that begins at the bucket `tag`.
    pub(crate) fn new(parts: PerThread<Part>, tag: u64) -> Self {
        Self {
            newest: NewestBucket::new(tag),
            due: Due::default(),
            parts,
            slow: LazyRing::default(),
            cancelled: LazyRing::default(),
            upkeep: Mutex::new(()),
            last: Mutex::new(None),
        }
    }

    /// Discards the promise that the next failures cannot open the circuit.
    pub(crate) fn discard_promise(&self) {
        self.due.discard();
    }

    /// Counts a rejected call.
    #[inline]
    pub(crate) fn count_rejection(&self) {
        match self.parts.own() {
            Some(part) => count_rejection(ThreadPart::Owned(part)),
            None => self.count_rejection_slowly(),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_rejection_slowly(&self) {
        count_rejection(self.parts.part());
    }

    /// Returns the number of rejected calls since the window was created. It may miss concurrent
    /// ones.
    pub(crate) fn rejections(&self) -> u64 {
        let counts = self.parts.iter().map(|part| part.rejections.load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    fn successes(&self, tag: u64) -> u64 {
        self.parts.iter().map(|part| part.successes.sum(tag)).sum()
    }

    #[cold]
    #[inline(never)]
    fn add_slowly(&self, tag: u64, failed: bool) {
        self.parts.part().add(|part| if failed { part.failures.get() } else { &part.successes }, tag, 1);
    }
}

impl Window for StripedWindow {
    const PARTS: u64 = 15;

    #[inline]
    fn add_success(&self, tag: u64) {
        match self.parts.own() {
            Some(part) => part.successes.add_exclusive(tag, 1),
            None => self.add_slowly(tag, false),
        }
    }

    #[inline]
    fn add_failure(&self, tag: u64) {
        match self.parts.own() {
            Some(part) => part.failures.get().add_exclusive(tag, 1),
            None => self.add_slowly(tag, true),
        }
    }

    fn add_slow(&self, tag: u64) {
        self.slow.get().add(tag, 1);
    }

    fn add_cancelled(&self, tag: u64) {
        self.cancelled.get().add(tag, 1);
    }

    fn failures(&self, tag: u64) -> u64 {
        self.parts.iter().map(|part| part.failures.sum(tag)).sum()
    }

    fn slow(&self, tag: u64) -> u64 {
        self.slow.sum(tag)
    }

    fn sums(&self, tag: u64) -> Counts {
        // Each numerator is read before its denominator, and each call is written to the
        // denominator first. The Release of `add_slow`, with the Acquire of `sum`, keeps this
        // order. So a call that is recorded concurrently may be missing in a numerator, but it is
        // never in a numerator without its denominator. The Release of `add_failure` likewise
        // ensures that a sum with a failure contains the successes that happened before it.
        let (slow, cancelled) = (self.slow.sum(tag), self.cancelled.sum(tag));
        let failures = self.failures(tag);
        let calls = failures + self.successes(tag);
        Counts { calls, failures, slow, cancelled }
    }

    fn last_success_age(&self, tag: u64) -> Option<u32> {
        self.parts.iter().filter_map(|part| part.successes.newest_age(tag)).min()
    }

    fn last_failure_age(&self, tag: u64) -> Option<u32> {
        self.parts.iter().filter_map(|part| part.failures.newest_age(tag)).min()
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
        for part in self.parts.iter() {
            part.successes.clear_expired(keep);
            part.failures.clear_expired(keep);
        }
        self.slow.clear_expired(keep);
        self.cancelled.clear_expired(keep);
    }

    fn upkeep(&self) -> &Mutex<()> {
        &self.upkeep
    }

    #[inline]
    fn count_window(&self) -> Option<&StripedWindow> {
        Some(self)
    }
}
