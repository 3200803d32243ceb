//! The count window: the last n calls, in the order in which they ended.
//!
//! Failures, slow calls and cancelled calls are recorded under a lock, because only a lock gives
//! them one order. A success takes no lock: it adds one to a word of its thread, with a load and a
//! store. Each holder of the lock first records the successes that are pending in these words, and
//! then its own call.
//!
//! The result is one order of all calls. Pending successes are equal, so that their order among
//! each other makes no difference. A success that happened before a failure is in its thread's word
//! when the failure takes the lock. So it is recorded before the failure. A success that happens
//! after a failure is added after the failure has read the word. So it is recorded after the
//! failure. A concurrent success is recorded before or after it.
//!
//! A word is `epoch:24 | count:40`. The count wraps. The difference between the count and the count
//! that was recorded last is the number of pending successes. They are recorded after 1,024
//! successes of a thread at the latest, so that the difference never wraps.
//!
//! The first success of an epoch in a word replaces a count of another epoch. Epochs wrap: a
//! success is recorded in a wrong epoch only if exactly a multiple of 2²⁴ transitions happened
//! since the thread's last success.

use tower_fault_classify::__internals::ThreadPart;
use tower_fault_classify::__internals::sync::{AtomicU64, Ordering, lock};

use super::Recorded;
use super::striped::{Part, StripedWindow};
use crate::circuit::state_word::LAST_EPOCH;
use crate::machine::{CountWindow, Counts};
use crate::telemetry::recheck_recorder;

const COUNT_BITS: u32 = 40;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// A thread's successes are recorded after this many at the latest.
const MOST_PENDING: u64 = 1 << 10;
/// How many epochs may begin between the check of a call's epoch and the count of its success.
const LATE: u32 = 1 << 16;

/// The successes of one thread in a count window.
#[derive(Debug, Default)]
pub(super) struct OwnSuccesses {
    /// `epoch:24 | count:40`.
    word: AtomicU64,
    /// The value of `word` up to which the successes were recorded. Changed under the lock of the
    /// last calls.
    recorded: AtomicU64,
    /// The time of the last success.
    last: AtomicU64,
}

/// Returns the word after one more success in this epoch. `None`: the epoch is over.
#[inline]
const fn counted(word: u64, epoch: u32) -> Option<u64> {
    if word >> COUNT_BITS == epoch as u64 {
        Some(word & !COUNT | word.wrapping_add(1) & COUNT)
    } else {
        counted_in_other_epoch(word, epoch)
    }
}

#[cold]
const fn counted_in_other_epoch(word: u64, epoch: u32) -> Option<u64> {
    let newer = ((word >> COUNT_BITS) as u32).wrapping_sub(epoch) & LAST_EPOCH;
    // Only in the shared word: another thread has counted a success of a later epoch there.
    let is_over = newer < LATE && word & COUNT != 0;
    if is_over { None } else { Some((epoch as u64) << COUNT_BITS | 1) }
}

/// Adds a success to the word of a thread. Returns whether the pending successes must be recorded.
#[inline]
fn count(part: ThreadPart<'_, Part>, epoch: u32, now: u64) -> bool {
    let mut is_due = false;
    let last = &part.value().counted.last;
    part.update(
        |part| &part.counted.word,
        |word| {
            let next = counted(word, epoch)?;
            // Relaxed: the word is stored with Release.
            last.store(now, Ordering::Relaxed);
            is_due = next % MOST_PENDING == 0;
            Some(next)
        },
    );
    is_due
}

/// The pending successes of an epoch, and the time of the last of them.
#[derive(Clone, Copy, Default)]
struct Pending {
    successes: u64,
    last: Option<u64>,
}

/// The last n calls of an epoch.
#[derive(Debug)]
pub(super) struct LastCalls {
    epoch: u32,
    ring: CountWindow,
    /// The time of the last success of the epoch, also if it has left the ring.
    last_success: Option<u64>,
}

impl LastCalls {
    fn new(epoch: u32, size: usize) -> Self {
        Self { epoch, ring: CountWindow::new(size), last_success: None }
    }

    const fn is(&self, size: u32, epoch: u32) -> bool {
        self.epoch == epoch && self.ring.size() == size as usize
    }

    fn record_successes(&mut self, Pending { successes, last }: Pending) {
        self.ring.record_successes(successes);
        self.last_success = last.or(self.last_success);
    }
}

impl StripedWindow {
    /// Records a fast success in a count window, without the lock.
    #[inline(never)]
    pub(super) fn count_success(&self, size: u32, now: u64, epoch: u32) {
        match self.own_part() {
            Some(part) => self.count_success_in(ThreadPart::Owned(part), size, now, epoch),
            None => self.count_success_slowly(size, now, epoch),
        }
    }

    #[cold]
    #[inline(never)]
    fn count_success_slowly(&self, size: u32, now: u64, epoch: u32) {
        self.count_success_in(self.part(), size, now, epoch);
    }

    #[inline]
    fn count_success_in(&self, part: ThreadPart<'_, Part>, size: u32, now: u64, epoch: u32) {
        if count(part, epoch, now) {
            self.record_pending(size, epoch);
        }
    }

    #[cold]
    #[inline(never)]
    fn record_pending(&self, size: u32, epoch: u32) {
        self.update_count_window(size, epoch, |_| {});
    }

    pub(super) fn count_slow_success(&self, size: u32, now: u64, epoch: u32) -> Recorded {
        self.update_count_window(size, epoch, |last| {
            last.ring.record(false, true);
            last.last_success = Some(now);
        })
    }

    pub(super) fn count_failure(&self, size: u32, epoch: u32, slow: bool) -> Recorded {
        self.update_count_window(size, epoch, |last| last.ring.record(true, slow))
    }

    pub(super) fn count_cancelled(&self, size: u32, epoch: u32) {
        self.update_count_window(size, epoch, |last| last.ring.record_cancelled());
    }

    /// Returns the counts of the last calls of an epoch.
    pub(super) fn last_counts(&self, size: u32, epoch: u32) -> Counts {
        self.read_count_window(size, epoch).0
    }

    /// Returns the time of the last success of an epoch.
    pub(super) fn last_counted_success(&self, size: u32, epoch: u32) -> Option<u64> {
        self.read_count_window(size, epoch).1
    }

    /// Empties a count window of any size.
    pub(super) fn clear_last_calls(&self) {
        let mut last = lock(&self.last);
        let cleared = last.take();
        for Part { counted, .. } in self.parts() {
            counted.recorded.store(counted.word.load(Ordering::Acquire), Ordering::Relaxed);
        }
        drop(last);
        drop(cleared);
    }

    /// Returns the successes of an epoch that are not recorded. With `take` they are recorded now.
    /// The caller holds the lock of the last calls.
    fn pending(&self, epoch: u32, take: bool) -> Pending {
        let mut pending = Pending::default();
        for Part { counted, .. } in self.parts() {
            // Acquire, with the Release of `count`: the time is that of this success or a later
            // one.
            let word = counted.word.load(Ordering::Acquire);
            if word >> COUNT_BITS != u64::from(epoch) {
                continue;
            }
            // Relaxed: the lock orders the accesses.
            let recorded = counted.recorded.load(Ordering::Relaxed);
            let before = if recorded >> COUNT_BITS == u64::from(epoch) { recorded & COUNT } else { 0 };
            let successes = (word & COUNT).wrapping_sub(before) & COUNT;
            if successes > 0 {
                pending.successes += successes;
                pending.last = pending.last.max(Some(counted.last.load(Ordering::Relaxed)));
            }
            if take {
                counted.recorded.store(word, Ordering::Relaxed);
            }
        }
        pending
    }

    /// Returns the counts of the last calls of an epoch, and the time of its last success.
    fn read_count_window(&self, size: u32, epoch: u32) -> (Counts, Option<u64>) {
        let mut last = lock(&self.last);
        match &mut *last {
            Some(last) if last.is(size, epoch) => {
                last.record_successes(self.pending(epoch, true));
                (last.ring.counts(), last.last_success)
            }
            // A later epoch, or another size: the caller has read an old configuration.
            Some(last) if !is_before(last.epoch, epoch) => Default::default(),
            // Only successes so far, which stay pending.
            _ => {
                let Pending { successes, last } = self.pending(epoch, false);
                let calls = successes.min(size.into());
                (Counts { calls, ..Counts::default() }, last)
            }
        }
    }

    /// Records the pending successes, and then changes the last calls of an epoch. A call of an
    /// older epoch changes nothing.
    #[inline(never)]
    fn update_count_window(&self, size: u32, epoch: u32, change: impl FnOnce(&mut LastCalls)) -> Recorded {
        let mut last = lock(&self.last);
        let last = match &mut *last {
            Some(last) if last.is(size, epoch) => last,
            Some(last) if is_before(epoch, last.epoch) => return Recorded::NOTHING,
            Some(last) if last.ring.size() == size as usize => {
                last.epoch = epoch;
                last.last_success = None;
                last.ring.clear();
                last
            }
            other => other.insert(Box::new(LastCalls::new(epoch, size as usize))),
        };
        let before = last.ring.next();
        last.record_successes(self.pending(epoch, true));
        change(last);
        if last.ring.next() <= before {
            // The calls have reached the end of the ring. As for each new bucket of a time window.
            recheck_recorder();
        }
        Recorded::Last(last.ring.counts())
    }
}

/// Returns whether an epoch is before `other`. Epochs wrap.
const fn is_before(epoch: u32, other: u32) -> bool {
    epoch.wrapping_sub(other) & LAST_EPOCH > LAST_EPOCH / 2
}
