//! Admission on every path but the usual one.

use std::task::Waker;
use std::time::Duration;

use tower_fault_classify::__internals::sync::Ordering;

use super::{Admission, Core, Store};
use crate::circuit::locked::Locked;
use crate::circuit::state_word::StateWord;
use crate::circuit::wakers::{WakeOn, WakerKey};
use crate::machine::{Arrival, Change, CircuitState, Decision, Machine, RecoveryLimits, State, Ticket};

/// Why a call was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) state: CircuitState,
    /// Nanoseconds until the circuit admits a call at the latest. `None`: until it is reset or
    /// released.
    pub(crate) left: Option<u64>,
}

impl Denied {
    /// How long the caller of a rejected call should wait. `slack`: how far the circuit's clock may
    /// be behind.
    ///
    /// A half-open circuit, and one in its slow start, admits the next call as soon as a slot is
    /// free or enough calls have come. The end of the lease or of the slow start is only the latest
    /// time for it.
    pub(crate) fn retry_after(self, slack: Duration) -> Option<Duration> {
        const SOON: Duration = Duration::from_secs(1);

        let left = Duration::from_nanos(self.left?) + slack;
        Some(if self.state == CircuitState::Open { left } else { left.min(SOON) })
    }
}

impl<S: Store> Core<S> {
    /// Admits a call, or denies it.
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
            None => self.admit_slow_path(now),
        }
    }

    /// For how many nanoseconds the circuit rejects calls, if the state word alone says so.
    #[inline]
    pub(crate) fn remaining_open(&self) -> Option<u64> {
        self.open_for(self.state_word(), self.hot_config().now())
            .filter(|_| !self.hot_config().flags().is_observing())
    }

    /// Admits a call whose service is polled for readiness, or denies it. `Ok(None)`: nothing is
    /// reserved for it, and the circuit decides when it begins.
    pub(crate) fn reserve(&self, arrival: Arrival) -> Result<Option<Admission>, Denied> {
        let word = self.state_word();
        if word.admits_all() || word.is_bypassed() || (word.is_closed() && arrival == Arrival::AtCall) {
            return Ok(None);
        }
        let now = self.hot_config().now();
        let answer = match self.open_for(word, now) {
            Some(left) => Err(Denied { state: CircuitState::Open, left: Some(left) }),
            None => self
                .decide(now, |machine, limits| machine.reserve(now, arrival, limits))
                .map_err(|(denied, _)| denied),
        };
        match answer {
            Ok(admission) => Ok(Some(admission).filter(|admission| !admission.is_uncounted())),
            // Observers are notified when the call begins.
            Err(_) if self.hot_config().flags().is_observing() => Ok(None),
            Err(denied) => Err(denied),
        }
    }

    /// Admits a call if the circuit is closed, even in a slow start.
    pub(crate) fn admit_if_closed(&self) -> Option<Admission> {
        let word = self.state_word();
        word.is_closed().then(|| self.admission(word.stamp()))
    }

    /// For how many nanoseconds an open circuit rejects calls. `None`: it is not open, or its open
    /// time is over.
    ///
    /// The deadline may be later than that of the state word, if the circuit has opened again since.
    /// Then it is open now, too.
    #[inline]
    pub(super) fn open_for(&self, word: StateWord, now: u64) -> Option<u64> {
        if !word.is_open_until_deadline() {
            return None;
        }
        // Relaxed: the word was read with Acquire, and the deadline was written before it.
        let left = self.store.deadline().load(Ordering::Relaxed).saturating_sub(now);
        (left > 0).then_some(left)
    }

    #[inline]
    fn deny(&self, denied: Denied, epoch: u32) -> Result<Admission, Denied> {
        if !self.hot_config().flags().is_observing() {
            return Err(denied);
        }
        self.emit_observed_rejection(denied);
        Ok(Admission::uncounted(epoch))
    }

    #[inline(never)]
    fn admit_slow_path(&self, now: u64) -> Result<Admission, Denied> {
        self.decide(now, |machine, limits| machine.admit(now, limits))
            .or_else(|(denied, epoch)| self.deny(denied, epoch))
    }

    /// Decides on a call under the lock. A denial comes with the epoch in which it was decided.
    #[inline(never)]
    fn decide(
        &self,
        now: u64,
        ask: impl FnOnce(&mut Machine, &RecoveryLimits) -> (Decision, Option<Change>),
    ) -> Result<Admission, (Denied, u32)> {
        let mut locked = self.locked();
        let Locked { machine, limits, .. } = &mut *locked;
        let (admission, change) = ask(machine, limits);
        let state = machine.state();
        if state == CircuitState::Closed && machine.slow_start_share(now).is_none() {
            self.end_slow_start();
        }
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        let epoch = locked.epoch;
        drop(locked);
        self.notify(pending);
        match admission {
            Decision::Admitted => Ok(self.admission(StateWord::closed(epoch))),
            Decision::Probe(ticket) => {
                Ok(Admission { stamp: StateWord::of(State::HalfOpen, epoch), word: ticket.word() })
            }
            Decision::Uncounted => Ok(Admission::uncounted(epoch)),
            Decision::Denied(left) => Err((Denied { state, left }, epoch)),
        }
    }

    /// Ends the slow start. The caller holds the lock, so that the epoch is the machine's.
    fn end_slow_start(&self) {
        // Failures and successes exchange the same word concurrently. No order is needed: nothing
        // else is published by it.
        let _ = self.store.state_word().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let word = StateWord::from_word(word);
            (word.is_closed() && !word.admits_all()).then(|| word.without_slow_start().word())
        });
    }

    /// Whether an admitted call may still begin: there was no transition since. A probe's lease is
    /// extended.
    #[inline]
    pub(crate) fn renew(&self, admission: Admission) -> bool {
        if admission.stamp.is_closed() {
            self.state_word().stamp() == admission.stamp
        } else {
            admission.ticket().is_some_and(|ticket| self.renew_probe(admission.stamp, ticket))
        }
    }

    #[cold]
    fn renew_probe(&self, stamp: StateWord, ticket: Ticket) -> bool {
        let now = self.hot_config().now();
        let mut locked = self.locked();
        let Locked { epoch, machine, limits, .. } = &mut *locked;
        *epoch == stamp.epoch() && machine.renew(ticket, now, limits)
    }

    /// Registers a task that waits for something else, to be woken by the next transition. Read the
    /// state word again afterwards: an earlier transition has not woken the task.
    pub(crate) fn register_waker(&self, waker_key: &mut Option<WakerKey>, waker: &Waker, wake_on: WakeOn) {
        // Cloning and dropping a waker may run user code: both are done outside of the lock.
        let waker = waker.clone();
        let mut locked = self.locked();
        let (registered, former) = locked.wakers.register(*waker_key, waker, wake_on);
        drop(locked);
        drop(former);
        *waker_key = Some(registered);
    }

    /// Removes a registered task.
    pub(crate) fn deregister_waker(&self, waker_key: WakerKey) {
        // Bound, so that the waker is dropped after the lock is released.
        let waker = self.locked().wakers.deregister(waker_key);
        drop(waker);
    }
}
