//! Admission of calls in all states, reservations, and the registration of waiting tasks.
//!
//! `core/mod.rs` has the fast path, for a closed circuit.

use std::task::Waker;
use std::time::Duration;

use tower_fault_classify::__internals::sync::Ordering;

use super::command::PendingSignal;
use super::{Admission, Core, Store, retry_mark};
use crate::circuit::locked::Locked;
use crate::circuit::state_word::StateWord;
use crate::circuit::wakers::{WakeOn, WakerKey};
use crate::machine::{
    Arrival, Change, CircuitState, Decision, Machine, RecoveryLimits, State, Ticket, retry_in,
};

/// The state that rejected a call, and the time until the circuit admits one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) state: CircuitState,
    /// The nanoseconds after which the circuit admits a call at the latest, unless a coordinator
    /// opened it: then those after which a caller should retry. `None`: the circuit must be reset
    /// or released first.
    pub(crate) left: Option<u64>,
}

impl Denied {
    /// Returns how long the caller of a rejected call should wait. `slack` is how late the
    /// circuit's clock may be.
    ///
    /// For a state other than open and forced open, the result is at most one second:
    ///
    /// - A half-open circuit admits the next call as soon as a probe slot is free, at the latest
    ///   when a lease ends.
    /// - A slow start by time admits the next call after enough other calls have arrived, at the
    ///   latest when the slow start ends.
    /// - A slow start by successes admits the next call as soon as a slot is free, at the latest
    ///   when a lease ends.
    pub(crate) fn retry_after(self, slack: Duration) -> Option<Duration> {
        const SOON: Duration = Duration::from_secs(1);

        let left = Duration::from_nanos(self.left?) + slack;
        Some(if self.state.is_open() { left } else { left.min(SOON) })
    }
}

impl<S: Store> Core<S> {
    /// Admits a call or rejects it.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Admission, Denied> {
        let word = self.state_word();
        if word.admits_all() {
            return Ok(self.admission(word.stamp()));
        }
        if word.is_bypassed() {
            return Ok(Admission::uncounted(word.epoch()));
        }
        let now = self.hot_config().now();
        match self.open_for(word, now) {
            Some(left) => self.deny(Denied { state: CircuitState::Open, left: Some(left) }, word.epoch()),
            None => self.admit_slow_path(word, now),
        }
    }

    /// Returns after how many nanoseconds a caller that the circuit rejects should retry, without
    /// taking the lock. `None`: the circuit is not open until a deadline, the deadline has passed,
    /// or the circuit only observes.
    #[inline]
    pub(crate) fn remaining_open(&self) -> Option<u64> {
        self.open_for(self.state_word(), self.hot_config().now())
            .filter(|_| !self.hot_config().flags().is_observing())
    }

    /// Admits or rejects a call when its service is polled for readiness. `Ok(None)`: nothing is
    /// reserved, and the circuit decides when the call begins.
    pub(crate) fn reserve(&self, arrival: Arrival) -> Result<Option<Admission>, Denied> {
        let word = self.state_word();
        if word.admits_all() || word.is_bypassed() || (word.is_closed() && arrival == Arrival::AtCall) {
            return Ok(None);
        }
        let now = self.hot_config().now();
        if self.is_bypassed_at(word, now) {
            return Ok(None);
        }
        let decision = match self.open_for(word, now) {
            Some(left) => Err(Denied { state: CircuitState::Open, left: Some(left) }),
            None => self
                .decide(now, |machine, limits| machine.reserve(now, arrival, limits))
                .map_err(|(denied, _)| denied),
        };
        match decision {
            Ok(admission) => Ok(Some(admission).filter(|admission| !admission.is_uncounted())),
            // The circuit only observes: the rejection is logged when the call begins.
            Err(_) if self.hot_config().flags().is_observing() => Ok(None),
            Err(denied) => {
                self.signal_demand();
                Err(denied)
            }
        }
    }

    /// Decides whether a call that begins now would be admitted; see [`Machine::would_admit`].
    #[cfg(feature = "tokio")]
    pub(crate) fn would_admit(&self, arrival: Arrival) -> Result<(), Denied> {
        let word = self.state_word();
        if word.admits_all() || word.is_bypassed() || self.hot_config().flags().is_observing() {
            return Ok(());
        }
        let now = self.hot_config().now();
        let mut locked = self.locked();
        let Locked { machine, limits, .. } = &mut *locked;
        let state = machine.state();
        let decision = machine.would_admit(now, arrival, limits);
        drop(locked);
        decision.map_err(|left| {
            self.signal_demand();
            Denied { state, left }
        })
    }

    /// Admits a call if the circuit is closed, even in a slow start.
    ///
    /// The slow start does not count the call, which holds no slot.
    pub(crate) fn admit_if_closed(&self) -> Option<Admission> {
        let word = self.state_word();
        word.is_closed().then(|| self.admission(word.stamp()))
    }

    /// Returns after how many nanoseconds a caller that an open circuit rejects should retry: see
    /// [`retry_in`]. `None`: the circuit is not open until a deadline, or its open time is over.
    ///
    /// If the circuit has opened again since `word` was read, the deadline may be a later one than
    /// that of `word`. This does no harm, because the circuit is open now, too.
    #[inline]
    pub(super) fn open_for(&self, word: StateWord, now: u64) -> Option<u64> {
        if !word.is_open_until_deadline() {
            return None;
        }
        // Relaxed: the state word was read with Acquire, and the deadline was written before that
        // word.
        let left = self.store.deadline().load(Ordering::Relaxed).saturating_sub(now);
        (left > 0).then(|| retry_in(left, word.takeover()))
    }

    /// Returns whether a manual override with an end admits all calls at the time `now`.
    ///
    /// If the circuit has been forced closed again since `word` was read, the deadline may be a
    /// later one than that of `word`. This does no harm, because the circuit is forced closed now,
    /// too.
    pub(super) fn is_bypassed_at(&self, word: StateWord, now: u64) -> bool {
        // Relaxed: the state word was read with Acquire, and the deadline was written before that
        // word.
        word.is_bypassed_until_deadline() && now < self.store.bypass_deadline().load(Ordering::Relaxed)
    }

    /// Rejects a call, or admits it uncounted if the circuit only observes.
    #[inline]
    fn deny(&self, denied: Denied, epoch: u32) -> Result<Admission, Denied> {
        if !self.hot_config().flags().is_observing() {
            return Err(denied);
        }
        self.emit_observed_rejection(denied);
        Ok(Admission::uncounted(epoch))
    }

    #[inline(never)]
    fn admit_slow_path(&self, word: StateWord, now: u64) -> Result<Admission, Denied> {
        if self.is_bypassed_at(word, now) {
            return Ok(Admission::uncounted(word.epoch()));
        }
        self.decide(now, |machine, limits| machine.admit(now, limits))
            .or_else(|(denied, epoch)| self.deny(denied, epoch))
    }

    /// Decides on a call under the lock. A rejection contains the epoch in which it was decided.
    #[inline(never)]
    fn decide(
        &self,
        now: u64,
        decide: impl FnOnce(&mut Machine, &RecoveryLimits) -> (Decision, Option<Change>),
    ) -> Result<Admission, (Denied, u32)> {
        let mut locked = self.locked();
        let Locked { machine, limits, .. } = &mut *locked;
        let (decision, change) = decide(machine, limits);
        let state = machine.state();
        if state == CircuitState::Closed && machine.slow_start_share(now).is_none() {
            self.end_slow_start();
        }
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        let signal = PendingSignal::of_probe(&mut locked);
        let epoch = locked.epoch;
        drop(locked);
        self.notify(pending);
        self.send(signal);
        match decision {
            Decision::Admitted => Ok(self.admission(StateWord::closed(epoch))),
            Decision::AdmittedWithSlot(from) => {
                let retry = retry_mark(self.hot_config().flags());
                Ok(Admission::with_slow_start_slot(epoch, from, retry))
            }
            Decision::Probe(ticket) => {
                Ok(Admission { stamp: StateWord::of(State::HalfOpen, epoch), word: ticket.word() })
            }
            Decision::Uncounted => Ok(Admission::uncounted(epoch)),
            Decision::Denied(left) => Err((Denied { state, left }, epoch)),
        }
    }

    /// Ends the slow start in the state word. The caller holds the lock, so that no transition
    /// changes the epoch meanwhile.
    pub(super) fn end_slow_start(&self) {
        // An exchange, because failures and successes exchange the same word concurrently. Relaxed:
        // the exchange publishes nothing but the word itself. What earlier exchanges published
        // stays visible, because a read-modify-write continues their release sequences.
        let _ = self.store.state_word().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let word = StateWord::from_word(word);
            (word.is_closed() && !word.admits_all()).then(|| word.without_slow_start().word())
        });
    }

    /// Returns whether an admitted call may still begin.
    ///
    /// A counted call may begin if there was no transition since its admission. A probe may begin
    /// if, in addition, its lease has not ended; the lease is then extended. A call with a slot of
    /// a slow start may begin if, in addition, no other call has taken the slot. For an uncounted
    /// call the result is `false`.
    #[inline]
    pub(crate) fn renew(&self, admission: Admission) -> bool {
        if admission.stamp.is_closed() {
            self.state_word().stamp() == admission.stamp
        } else if let Some(from) = admission.slow_start_slot() {
            self.holds_slow_start_slot(admission.stamp, from)
        } else {
            admission.ticket().is_some_and(|ticket| self.renew_probe(admission.stamp, ticket))
        }
    }

    #[cold]
    fn holds_slow_start_slot(&self, stamp: StateWord, from: u64) -> bool {
        let locked = self.locked();
        locked.epoch == stamp.epoch() && locked.machine.holds_slow_start_slot(from)
    }

    #[cold]
    fn renew_probe(&self, stamp: StateWord, ticket: Ticket) -> bool {
        let now = self.hot_config().now();
        let mut locked = self.locked();
        let Locked { epoch, machine, limits, .. } = &mut *locked;
        *epoch == stamp.epoch() && machine.renew(ticket, now, limits)
    }

    /// Registers a task. The next change of the circuit wakes it. With [`WakeOn::FreeSlot`] or
    /// [`WakeOn::Turn`], a slot of a probe or of a slow start that becomes free wakes it, too.
    ///
    /// The caller must read the circuit's decision (state word and flags) again afterwards, because
    /// an earlier change has not woken the task. The circuit's lock orders the change and the
    /// registration.
    pub(crate) fn register_waker(&self, waker_key: &mut Option<WakerKey>, waker: &Waker, wake_on: WakeOn) {
        // Cloning and dropping a waker may run user code, so both happen outside of the lock.
        let waker = waker.clone();
        let mut locked = self.locked();
        let (registered, replaced) = locked.wakers.register(*waker_key, waker, wake_on);
        drop(locked);
        drop(replaced);
        *waker_key = Some(registered);
    }

    /// Ends the turn of a task that was registered with [`WakeOn::Turn`], because it was admitted
    /// or does not wait any more. Wakes the next task: another slot may be free.
    ///
    /// So while a slot is free and tasks wait for their turn, one of them is woken. The last one is
    /// rejected, and registers again.
    #[cfg(feature = "tokio")]
    pub(crate) fn end_turn(&self, waker_key: WakerKey) {
        let mut locked = self.locked();
        let (own, next) = (locked.wakers.deregister(waker_key), locked.wakers.take_next_turn());
        drop(locked);
        drop(own);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Removes a registered task.
    pub(crate) fn deregister_waker(&self, waker_key: WakerKey) {
        // In a binding, so that the waker is dropped after the lock is released.
        let waker = self.locked().wakers.deregister(waker_key);
        drop(waker);
    }
}
