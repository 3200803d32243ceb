//! The times of the last success and the last failure, for the status.
//!
//! - **The last failure** is stored when it is counted. A keyed circuit has no place for it before
//!   it first needs its lock. Until then, the window shows the bucket of the last failure.
//! - **The last success** of a closed circuit is not stored, so that a success costs nothing more.
//!   The window shows its bucket. A transition stores the time, because it empties the window. A
//!   probe stores its time under the lock that it holds anyway.

use tower_fault_classify::__internals::sync::Ordering;

use super::{Core, Store};
use crate::circuit::locked::Locked;
use crate::circuit::state_word::StateWord;
use crate::circuit::window::Window;
use crate::machine::{CircuitState, WindowShape};

/// The time of a failure with its epoch, in one word: `epoch:24 | time:40`.
///
/// The epoch distinguishes the failures of the current circuit from those of the former circuits in
/// the same storage. The time is in units of 2²⁰ ns, about 1 ms. 40 bits last for 36 years.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailureTime(u64);

const TIME_BITS: u32 = 40;
const UNIT_BITS: u32 = 20;

impl FailureTime {
    /// There was no failure. The clock does not reach this time.
    pub(crate) const NONE: u64 = u64::MAX;

    const fn new(epoch: u32, now: u64) -> Self {
        Self(((epoch as u64) << TIME_BITS) | (now >> UNIT_BITS & ((1 << TIME_BITS) - 1)))
    }

    const fn epoch(self) -> u32 {
        (self.0 >> TIME_BITS) as u32
    }

    const fn time(self) -> u64 {
        (self.0 & ((1 << TIME_BITS) - 1)) << UNIT_BITS
    }
}

impl<S: Store> Core<S> {
    /// Stores the time of a failure that the circuit has counted.
    #[inline]
    pub(super) fn store_failure_time(&self, stamp: StateWord, now: u64) {
        if let Some(last) = self.store().last_failure_time() {
            // Relaxed: the time is only displayed.
            last.store(FailureTime::new(stamp.epoch(), now).0, Ordering::Relaxed);
        }
    }

    /// Returns the time of the last failure since the circuit began or was reset. `None`: there was
    /// none, or it is not known.
    ///
    /// `locked` is `None` if the circuit has had no transition.
    pub(super) fn last_failure_at(&self, locked: Option<&Locked>, now: u64, epoch: u32) -> Option<u64> {
        let word = self.store().last_failure_time().map(|last| last.load(Ordering::Relaxed));
        let stored = word.filter(|word| *word != FailureTime::NONE).map(FailureTime);
        let current = stored.filter(|last| locked.is_none_or(|locked| locked.keeps_failure_of(last.epoch())));
        current.map(FailureTime::time).or_else(|| {
            let span = self.span();
            if self.window().is_time_window(&span) {
                self.window().last_failure_at(&span, now, epoch)
            } else {
                None
            }
        })
    }

    /// Returns the time of the last success since the circuit began or was reset. `None`: there was
    /// none, or the circuit is closed and its window holds none.
    ///
    /// `state` is the state of the circuit in the epoch of `locked`.
    pub(super) fn last_success_at(&self, locked: &Locked, state: CircuitState, now: u64) -> Option<u64> {
        if state != CircuitState::Closed {
            return locked.last_success;
        }
        let span = self.span();
        let in_window = self.window().last_success_at(&span, now, locked.epoch);
        // The bucket may have begun before the window did.
        let in_window = in_window.map(|at| at.max(locked.window_since));
        // A later success may have left the window, unless the window covers the whole time.
        let covers_all = match locked.shape {
            WindowShape::Time(nanos) => now.saturating_sub(locked.window_since) <= nanos,
            WindowShape::Count(_) => true,
        };
        in_window.or(locked.last_success.filter(|_| covers_all))
    }

    /// Stores both times, before the window is emptied. The caller holds the lock.
    pub(crate) fn keep_last_times(&self, locked: &mut Locked, state: CircuitState, now: u64) {
        locked.last_success = self.last_success_at(locked, state, now);
        if let Some(last) = self.store().last_failure_time()
            && last.load(Ordering::Relaxed) == FailureTime::NONE
            && let Some(at) = self.last_failure_at(Some(locked), now, locked.epoch)
        {
            last.store(FailureTime::new(locked.epoch, at).0, Ordering::Relaxed);
        }
        locked.window_since = now;
    }
}
