//! The circuit made concurrent.
//!
//! This file has the storage's interface, and the usual call: admitted by a closed circuit, and
//! successful. `admit.rs` and `record.rs` have every other call, `transition.rs` what follows from a
//! change of the state, `control.rs` what is done to a circuit from outside, and `emit.rs` metrics
//! and logs.
//!
//! # Costs of a call
//!
//! | case | atomic operations | besides |
//! |---|---|---|
//! | admitted, closed | 2 loads: state word, flags | |
//! | a success, no failure counted | 7 loads: state word, sequence number, 3 words, sequence number, newest bucket; 1 load and 1 store in the thread's own cell | the clock |
//! | a success after failures, or in a slow start | the same, and 1 compare-and-swap that resets the failures | the clock |
//! | a failure | 10 loads: state word, sequence number, 5 words, sequence number, newest bucket, state word; 1 compare-and-swap in the window, 1 on the state word, 16 loads of the failures | the clock |
//! | rejected while open | 3 loads: state word, deadline, flags | the clock |
//! | any call in half-open, an admission in a slow start, any transition | the lock | the clock |
//!
//! # Why no transition is missed
//!
//! A failure is ① recorded in the window, ② counted in the state word, and only then ③ the window is
//! summed. Of two concurrent failures, the later one at ② sees, by the order of the exchanges of the
//! state word, what the earlier one did at ①. So the later failure sees both. A sum may miss
//! successes that are recorded concurrently, but never a success that was recorded before. Slow and
//! cancelled calls take the same three steps; their ② exchanges the state word for itself.
//!
//! # Why an outcome of an earlier epoch changes nothing
//!
//! Every transition begins a new epoch, in one exchange, under the lock that orders the transitions.
//! Without the lock, the state word is changed only by exchanging a closed word for another one of
//! the same epoch. After a transition such an exchange fails, and what was recorded in the window
//! carries the tag of its own epoch.

mod admit;
mod control;
mod emit;
mod record;
mod transition;

pub(crate) use admit::Denied;
pub(super) use transition::wake;

use std::sync::Arc;

use tower_fault_classify::__internals::Clock;
use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};
use tower_fault_classify::Verdict;

use super::hot_config::{HotConfig, Limits};
use super::locked::Locked;
use super::state_word::{LAST_EPOCH, StateWord};
use super::window::Window;
use crate::label::Label;
use crate::machine::{Moment, Ticket};

/// The storage of a circuit: one that has everything to itself, or one of many by key, which share
/// their configuration and allocate most of the rest when it is first needed.
///
/// The two differ in memory, 2.5 KB and about 200 bytes, and in speed.
pub trait Store {
    /// The window of calls.
    type Window: Window;

    /// The word that every call reads.
    fn state_word(&self) -> &AtomicU64;
    /// When an open circuit admits probes. It is written before the state word that says "open".
    fn deadline(&self) -> &AtomicU64;
    /// The part of the configuration that calls read.
    fn hot_config(&self) -> &HotConfig;
    /// The counts of a closed circuit.
    fn window(&self) -> &Self::Window;
    /// What only transitions, half-open calls and waiting tasks touch.
    fn locked(&self) -> &Mutex<Locked>;
    /// The same, if it was needed before.
    fn locked_if_any(&self) -> Option<&Mutex<Locked>>;
    /// The key, as a text. It may run a user's code: never call it under a lock.
    fn key(&self) -> Option<Arc<str>>;
    /// The key, as a rejection carries it. It may run a user's code.
    fn label(&self) -> Option<Label>;
}

/// A circuit in its storage.
#[derive(Debug)]
pub struct Core<S> {
    store: S,
}

/// The admission of a call: what its permit carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// The state word at the admission, without failures and slow start.
    stamp: StateWord,
    /// Of a probe its ticket. Of another call the time when it began plus one, or 0 if no limit
    /// needs the time.
    word: u64,
}

impl Admission {
    /// A call that is not counted.
    const fn uncounted(epoch: u32) -> Self {
        Self { stamp: StateWord::bypassed(epoch), word: 1 }
    }

    #[inline]
    pub(crate) const fn is_uncounted(&self) -> bool {
        self.stamp.is_bypassed()
    }

    const fn ticket(&self) -> Option<Ticket> {
        if self.stamp.is_half_open() { Ticket::from_word(self.word) } else { None }
    }

    /// How long the call has run at the time `now`, if its beginning is known.
    fn duration(&self, now: u64) -> Option<u64> {
        (self.stamp.is_closed() && self.word != 0).then(|| now.saturating_sub(self.word - 1))
    }
}

/// How long a call took.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallDuration {
    /// Until it is recorded.
    UntilNow,
    /// This number of nanoseconds. `None`: it is not known.
    Measured(Option<u64>),
}

impl CallDuration {
    fn or(self, until_now: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Self::UntilNow => until_now(),
            Self::Measured(duration) => duration,
        }
    }
}

/// The usual call.
impl<S: Store> Core<S> {
    /// Whether the circuit is closed and not in a slow start.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state_word().admits_all()
    }

    /// Admits a call if the circuit is closed and not in a slow start.
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Admission> {
        let word = self.state_word();
        word.admits_all().then(|| self.admission(word.stamp()))
    }

    /// The admission of a call to a closed circuit.
    #[inline]
    fn admission(&self, stamp: StateWord) -> Admission {
        let timed = self.hot_config().flags().is_timed();
        Admission { stamp, word: if timed { start_word(self.hot_config().now()) } else { 0 } }
    }

    /// Records the outcome of a call.
    #[inline]
    pub(crate) fn record(&self, admission: Admission, verdict: &Verdict) {
        if self.hot_config().flags().is_metered() {
            self.emit_outcome(admission.stamp, verdict);
        }
        // The usual case passes in registers.
        if admission.word == 0 && verdict.is_success() {
            self.record_success(admission.stamp);
        } else {
            self.record_slow_path(admission, verdict, CallDuration::UntilNow);
        }
    }

    /// Records a success of a call that was not a probe.
    #[inline]
    fn record_success(&self, stamp: StateWord) {
        if self.state_word() == stamp || self.reset_failures(stamp) {
            let limits = self.hot_config().limits();
            let span = limits.span().unwrap_or_else(|| self.limits().span);
            self.window().record_success(&span, || self.hot_config().now(), stamp.epoch());
        }
    }

    /// Resets the consecutive failures. False: the epoch is over.
    #[cold]
    #[inline(never)]
    fn reset_failures(&self, stamp: StateWord) -> bool {
        self.update_state_word(stamp, StateWord::without_failures).is_some()
    }

    /// Exchanges a closed state word of this epoch for another one, and returns what it was. `None`:
    /// the epoch is over.
    #[inline]
    fn update_state_word(
        &self,
        stamp: StateWord,
        update: impl Fn(StateWord) -> StateWord,
    ) -> Option<StateWord> {
        // Release publishes what was recorded in the window to the next exchange; Acquire shows what
        // was recorded before the earlier ones.
        let before = self.store.state_word().fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let word = StateWord::from_word(word);
            (word.stamp() == stamp).then(|| update(word).word())
        });
        before.ok().map(StateWord::from_word)
    }
}

/// Access to the storage.
impl<S: Store> Core<S> {
    pub(crate) const fn new(store: S) -> Self {
        Self { store }
    }

    pub(crate) const fn store(&self) -> &S {
        &self.store
    }

    #[inline]
    pub(crate) fn clock(&self) -> Clock {
        self.hot_config().clock()
    }

    #[inline]
    pub(super) fn state_word(&self) -> StateWord {
        // Acquire: what was done before this epoch began is visible to the calls of this epoch.
        StateWord::from_word(self.store.state_word().load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn hot_config(&self) -> &HotConfig {
        self.store.hot_config()
    }

    #[inline]
    pub(super) fn window(&self) -> &S::Window {
        self.store.window()
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Locked> {
        lock(self.store.locked())
    }

    fn limits(&self) -> Limits {
        self.hot_config().limits().load().unwrap_or_else(|| {
            let _locked = self.locked();
            self.hot_config().limits().load_locked()
        })
    }
}

/// The word of a call that began at the time `now`.
const fn start_word(now: u64) -> u64 {
    now.saturating_add(1)
}

fn moment(now: u64) -> Moment {
    Moment { now, draw: fastrand::f64() }
}

pub(super) const fn next_epoch(epoch: u32) -> u32 {
    (epoch + 1) & LAST_EPOCH
}

#[cfg(all(test, loom_models))]
pub(super) mod models;
#[cfg(all(test, not(loom_models)))]
mod tests;
