//! The concurrent core of a circuit.
//!
//! | file | content |
//! |---|---|
//! | this file | the interface of the storage, and the usual call: a success through a closed circuit |
//! | `admit.rs`, `record.rs`, `failure_run.rs`, `cancelled.rs` | every other call |
//! | `last_times.rs` | the times of the last success and the last failure |
//! | `transition.rs` | publishes a transition and notifies others |
//! | `control.rs` | manual control, health reports, the snapshot |
//! | `command.rs` | the commands of a coordinator, and the signals to it |
//! | `emit.rs` | metrics and logs |
//!
//! # Costs of a call
//!
//! | case | atomic operations | also |
//! |---|---|---|
//! | admitted, closed | 2 loads: state word, flags | the retry mark of the thread |
//! | a success, no failure counted | 7 loads: state word, sequence number, 3 words, sequence number, newest bucket; 1 load and 1 store in the thread's own cell | the clock |
//! | a success after failures or cancelled calls, or in a slow start by time | the same, and 1 compare-and-swap that resets them | the clock |
//! | a failure | 13 loads: state word, sequence number, 6 words, sequence number, newest bucket, state word, promise, events; 1 load and 1 store in the thread's own cell, 1 compare-and-swap on the state word, 1 store of its time | the clock |
//! | a failure that is not covered by the promise | the same; all limits; 16 loads for each thread with failures, and, if the failures can reach the rate, for each thread with successes; 1 compare-and-swap that stores the next promise | |
//! | with `consecutive_failures_span` | 1 load more; 1 maximum (`fetch_max`) for the first failure after a success | |
//! | a failure that is kept as the last one | those of a failure, and the lock | the texts of the failure |
//! | rejected while open | 4 loads: state word, deadline, flags, events; 1 load and 1 store in the thread's own count | the clock |
//! | a success in a count window | the same without the newest bucket and the cell; 1 load and 2 stores in the thread's own part; the lock of the window after every 1,024th | the clock |
//! | a failed or slow call in a count window | the same as in a time window without the cell and the promise; the lock of the window | the clock |
//! | a cancelled call, any call in half-open, an admission in a slow start, an outcome in a slow start by successes, any transition | the lock | the clock |
//!
//! # Why no transition is missed
//!
//! A failure is handled in three steps:
//!
//! - ① It is recorded in the window.
//! - ② It is counted in the state word, with an atomic exchange.
//! - ③ The window is summed, unless an earlier sum has shown that this failure cannot open the
//!   circuit. `window/due.rs` proves that no failure that must open the circuit is left out. A
//!   keyed circuit always sums the failures.
//!
//! All exchanges of the state word have one order. A failure's exchange is `AcqRel`: it sees what
//! was done before the earlier Release exchanges. The Relaxed exchange that ends a slow start keeps
//! this chain, because a read-modify-write continues a release sequence.
//!
//! So of two concurrent failures, the one that is second at ② sees what the first one recorded at
//! ①. Its sum at ③ contains both failures.
//!
//! A sum may miss successes that do not happen before it. It contains every success that happens
//! before it, in the order that the callers' own synchronisation establishes.
//!
//! Slow calls take the same three steps. At ② a slow success resets the failures.
//!
//! # When no call completes
//!
//! The count of cancelled calls is behind the lock. A bit of the state word says whether it is
//! valid. A cancelled call takes the lock, sets the bit with an exchange, and then counts itself.
//! If the bit was not set, it is the first one, and the count begins with it. The decision follows
//! under the same lock.
//!
//! A completed call that finds the bit clears it with an exchange, without the lock. So the count
//! contains exactly the cancelled calls since the last exchange of a completed call. A success that
//! does not find the bit came before the first cancelled call, or ran concurrently with it.
//!
//! A new epoch begins without the bit. The epoch changes only under the lock, so a cancelled call
//! that finds its own epoch there is counted in it.
//!
//! # How long the consecutive failures last
//!
//! With `consecutive_failures_span`, a failure that finds no failure in the state word stores its
//! time, just before the exchange ② that counts it. Every later failure of the run sees this
//! exchange, and so the time. A failure reads the time after its own exchange.
//!
//! - **The circuit never opens early.** The time is stored as a maximum, so it only grows. A thread
//!   that read the clock long ago cannot replace it with an old time.
//! - **A thread that is late in storing its time does no harm.** It found no failure in the state
//!   word after it had read the clock. So the first failure of the current run was counted after
//!   that time.
//! - **A success, and then the first failure of a later run,** may come between the exchange of a
//!   failure and its reading of the time. The failure then reads the later time and does not open
//!   the circuit. Its run has ended.
//! - **A time in the future** is left by a clock that has run back, or by a late call of a former
//!   circuit in this core, on another clock. The next failure replaces it with the current time. So
//!   the circuit opens late by one span at most.
//! - **A span that was off:** no failure stored its time. `reconfigure` stores the current time
//!   before it turns the span on.
//!
//! # Why an outcome of an earlier epoch changes nothing
//!
//! Every transition begins a new epoch with one exchange of the state word, under the circuit's
//! lock. The lock orders the transitions. Without the lock, a thread may only exchange a closed
//! word for another closed word of the same epoch. After a transition such an exchange fails.
//!
//! A late call may still be recorded in a time window, but under the tag of its own epoch. The
//! window of a later epoch does not count this tag. A count window stores its epoch, and ignores a
//! call of an earlier epoch.

mod admit;
mod cancelled;
mod command;
mod control;
mod emit;
mod failure_run;
mod last_times;
mod record;
mod snapshot;
mod transition;

pub(crate) use admit::Denied;
pub(crate) use last_times::FailureTime;
pub(crate) use transition::PendingNotification;
pub(super) use transition::wake;

use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};
use tower_fault_classify::__internals::{Clock, RetryScope};
use tower_fault_classify::{Health, Verdict};

use super::hot_config::{Events, Flags, HotConfig, Limits};
use super::locked::Locked;
use super::state_word::{LAST_EPOCH, StateWord};
use super::window::{Window, WindowSpan};
use crate::config::BreakerConfig;
use crate::control::Signal;
use crate::label::Label;
use crate::machine::Ticket;
use crate::telemetry::{Instruments, Observers, Transition, is_recording};

/// The storage of a circuit.
///
/// | storage | memory | |
/// |---|---|---|
/// | `StaticStore` | about 1.1 KB, and 128 bytes for each thread that uses it; see the crate's documentation | faster; shares nothing with other circuits |
/// | `KeyedStore` | about 220 bytes | for keyed circuits, which share their configuration; allocates most of the rest when it is first needed |
pub trait Store {
    /// The window of calls.
    type Window: Window;

    /// Returns the word that every call reads.
    fn state_word(&self) -> &AtomicU64;
    /// Returns the time at which an open circuit admits probes. It is written before the state word
    /// of the open state.
    fn deadline(&self) -> &AtomicU64;
    /// Returns the time at which the manual override of a circuit that is forced closed ends. It is
    /// written before the state word.
    fn bypass_deadline(&self) -> &AtomicU64;
    /// Returns the time of the first failure since the last success. It is kept only while the
    /// configuration has a `consecutive_failures_span`.
    fn first_failure(&self) -> &AtomicU64;
    /// Returns the epoch and the time of the last failure: see [`FailureTime`]. `None`: the storage
    /// has no place for it yet.
    fn last_failure_time(&self) -> Option<&AtomicU64>;
    /// Returns the part of the configuration that calls read. For limits, use
    /// [`read_config`](Self::read_config).
    fn hot_config(&self) -> &HotConfig;
    /// Reads limits of the configuration.
    ///
    /// If the circuit gets a configuration of its own during `read`, that configuration is read.
    fn read_config<T>(&self, read: impl Fn(&HotConfig) -> T) -> T;
    /// Returns the events that calls report.
    fn events(&self) -> Events;
    /// Returns the time before which no time of a first failure was stored, because
    /// `consecutive_failures_span` was off. `None`: [`first_failure`](Self::first_failure) contains
    /// this time.
    fn failures_timed_since(&self) -> Option<&AtomicU64>;
    /// Returns the counts of a closed circuit.
    fn window(&self) -> &Self::Window;
    /// Returns the data of transitions, half-open calls and waiting tasks. Allocates it if
    /// necessary.
    fn locked(&self) -> &Mutex<Locked>;
    /// Returns the data of transitions, half-open calls and waiting tasks. `None`: it has not been
    /// allocated.
    fn locked_if_any(&self) -> Option<&Mutex<Locked>>;
    /// Returns the instruments that count the circuit with these flags. May run user code, so it
    /// must not be called under a lock. `None`: no circuit uses the storage, or the feature
    /// `metrics` is off.
    fn instruments(&self, flags: Flags) -> Option<&'static Instruments>;
    /// Returns the name and the observers, if any, of the circuit to which a call of this epoch
    /// belongs. `None`: the circuit has ended.
    fn observers_of(&self, epoch: u32) -> Option<(&'static str, Option<Arc<Observers>>)>;
    /// Arms the signals that are sent once.
    fn arm(&self, signals: Events);
    /// Disarms a signal, and sends it if it was armed and the call's circuit has not ended.
    ///
    /// `epoch` is that of the call. `None`: the caller has a handle, so that the circuit has not
    /// ended. The caller holds no lock.
    fn signal_once(&self, epoch: Option<u32>, armed: Events, signal: Signal);
    /// Sends a signal to `observers`, which are those of the circuit, and to the listeners of its
    /// map. The caller holds no lock.
    fn signal(&self, observers: &Observers, signal: Signal);
    /// Notifies the listeners of the circuit's map of a transition. The caller holds no lock.
    fn notify_listeners(&self, transition: &Transition);
    /// Counts a rejected call.
    fn count_rejection(&self);
    /// Returns the number of rejected calls of all circuits that have used the storage.
    fn rejections(&self) -> u64;
    /// Returns the current configuration.
    fn config(&self) -> BreakerConfig;
    /// Returns the key as text. May run user code, so it must not be called under a lock.
    fn key(&self) -> Option<Arc<str>>;
    /// Returns the key in the form that a rejection carries. May run user code, so it must not be
    /// called under a lock.
    fn label(&self) -> Option<Label>;
}

/// A circuit, in its storage.
#[derive(Debug)]
pub struct Core<S> {
    store: S,
}

/// The admission of a call, which its permit carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// The state word at the admission, without its failures and slow start. For a call that holds
    /// a slot of a slow start: [`StateWord::slow_start_slot`].
    stamp: StateWord,
    /// For a probe: its ticket. For another call: [`RETRY`] if it is a retry whose failure does not
    /// count, and the time of its start plus one, or 0 if no limit and no slot needs the time.
    word: u64,
}

/// The bit of an admission's word that marks a retry. The times of a [`Clock`] do not reach it.
const RETRY: u64 = 1 << 63;

impl Admission {
    /// Returns the admission of a call that is not counted.
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

    /// Returns the admission of a call that holds a slot of a slow start since the time `from`.
    const fn with_slow_start_slot(epoch: u32, from: u64, retry: u64) -> Self {
        Self { stamp: StateWord::slow_start_slot(epoch), word: start_word(from) | retry }
    }

    /// Returns the time since which the call has held a slot of a slow start. `None`: it was
    /// admitted without a slot.
    fn slow_start_slot(&self) -> Option<u64> {
        self.stamp.has_slow_start_slot().then(|| (self.word & !RETRY) - 1)
    }

    /// Returns the admission without its slot of a slow start.
    const fn without_slow_start_slot(self) -> Self {
        if self.stamp.has_slow_start_slot() {
            Self { stamp: StateWord::closed(self.stamp.epoch()), word: self.word }
        } else {
            self
        }
    }

    /// Returns how long the call has run at the time `now`. `None`: its start is not known.
    fn duration(&self, now: u64) -> Option<u64> {
        (self.is_of_closed_circuit() && self.is_timed()).then(|| now.saturating_sub((self.word & !RETRY) - 1))
    }

    /// Returns whether the start of the call is known. The call must not be a probe.
    const fn is_timed(&self) -> bool {
        self.word & !RETRY != 0
    }

    /// Returns whether the call is a retry whose failure does not count. The call must not be a
    /// probe.
    const fn is_retry(&self) -> bool {
        self.word & RETRY != 0
    }

    /// Returns whether the circuit was closed at the admission, and counts the call.
    const fn is_of_closed_circuit(&self) -> bool {
        self.stamp.is_closed() || self.stamp.has_slow_start_slot()
    }
}

/// How long a call took.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallDuration {
    /// From its start until it is recorded.
    UntilNow,
    /// This number of nanoseconds. `None`: the duration is not known.
    Measured(Option<u64>),
}

impl CallDuration {
    pub(crate) fn of(duration: Duration) -> Self {
        Self::Measured(Some(nanos(duration)))
    }

    fn or(self, until_now: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Self::UntilNow => until_now(),
            Self::Measured(duration) => duration,
        }
    }
}

/// The usual call: a success through a closed circuit.
impl<S: Store> Core<S> {
    /// Returns whether the circuit is closed and not in a slow start.
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

    /// Returns the admission of a call by a closed circuit.
    #[inline]
    fn admission(&self, stamp: StateWord) -> Admission {
        let flags = self.hot_config().flags();
        let start = if flags.is_timed() { start_word(self.hot_config().now()) } else { 0 };
        Admission { stamp, word: start | retry_mark(flags) }
    }

    /// Marks an admitted call as a retry, as if a retry layer had begun it.
    pub(crate) fn mark_retry(&self, admission: &mut Admission) {
        if admission.is_of_closed_circuit() && !self.hot_config().flags().counts_failed_retries() {
            admission.word |= RETRY;
        }
    }

    /// Records the outcome of a call.
    #[expect(clippy::inline_always, reason = "out of line, the verdict passes through memory")]
    #[inline(always)]
    pub(crate) fn record(&self, admission: Admission, verdict: &Verdict) {
        if is_recording() {
            self.emit_outcome(admission, verdict);
        }
        // The usual cases, whose arguments are passed in registers. The word of a call that was not
        // admitted by a closed circuit is not 0.
        match verdict {
            Verdict::Success if admission.word == 0 => self.record_success(admission.stamp),
            Verdict::Success if admission.stamp.is_closed() => self.record_fast_success(admission),
            Verdict::Fault(fault) if admission.word == 0 && fault.health() == Health::Unhealthy => {
                self.record_failure(admission.stamp, fault);
            }
            _ => self.record_slow_path(admission, verdict, CallDuration::UntilNow),
        }
    }

    /// Records a success that was not a probe.
    #[inline(never)]
    fn record_success(&self, stamp: StateWord) {
        // First, because the call of the system's clock would save what was read before.
        let now = self.hot_config().now();
        if self.state_word().is_unchanged_since(stamp)
            && let Some(span) = self.store.read_config(HotConfig::try_span)
            && self.window().record_usual_success(&span, now, stamp.epoch())
        {
            return;
        }
        self.record_success_slowly(stamp, now);
    }

    /// The part of [`record_success`](Self::record_success) for all other cases.
    #[cold]
    #[inline(never)]
    fn record_success_slowly(&self, stamp: StateWord, now: u64) {
        if self.count_success(stamp) {
            self.window().record_success(&self.span(), now, stamp.epoch());
        }
    }

    /// Resets the consecutive failures and the cancelled calls, if there are any. Returns `false`
    /// if the epoch is over.
    #[inline]
    fn count_success(&self, stamp: StateWord) -> bool {
        self.state_word().is_unchanged_since(stamp) || self.reset_failures(stamp)
    }

    /// The part of [`count_success`](Self::count_success) that changes the state word.
    #[cold]
    #[inline(never)]
    fn reset_failures(&self, stamp: StateWord) -> bool {
        self.update_state_word(stamp, StateWord::with_success).is_some()
    }

    /// Exchanges a closed state word of this epoch for another one. Returns the previous word.
    /// `None`: the epoch is over.
    #[inline]
    fn update_state_word(
        &self,
        stamp: StateWord,
        update: impl Fn(StateWord) -> StateWord,
    ) -> Option<StateWord> {
        // Release: the next exchange sees what this thread has recorded in the window. Acquire:
        // this thread sees what was recorded in the window before the earlier exchanges.
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
        // Acquire, with the Release of `publish`: the calls of this epoch see what was done before
        // the epoch began.
        StateWord::from_word(self.store.state_word().load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn hot_config(&self) -> &HotConfig {
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
        self.store.read_config(HotConfig::limits)
    }

    /// Returns the span of the window.
    #[inline]
    pub(crate) fn span(&self) -> WindowSpan {
        self.store.read_config(HotConfig::span)
    }
}

/// Returns the admission's word of a call that started at the time `now`.
const fn start_word(now: u64) -> u64 {
    debug_assert!(now < RETRY - 1, "a clock stops before");
    now + 1
}

/// Returns [`RETRY`] if a call that begins now is a retry whose failure does not count, and
/// otherwise 0.
#[inline]
fn retry_mark(flags: Flags) -> u64 {
    if !flags.counts_failed_retries() && RetryScope::is_active() { RETRY } else { 0 }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) const fn next_epoch(epoch: u32) -> u32 {
    (epoch + 1) & LAST_EPOCH
}

#[cfg(all(test, loom_models))]
pub(super) mod models;
#[cfg(all(test, not(loom_models)))]
mod tests;
