//! The circuit made concurrent.
//!
//! # The way of a call
//!
//! | case | atomic operations | beside them |
//! |---|---|---|
//! | admitted, closed | 2 loads: word, flags | |
//! | a success, no failure counted | 7 loads: word, turn, 3 words, turn, newest bucket; 1 load and 1 store in the thread's own cell | the clock |
//! | a success after failures, or in a ramp | the same, and 1 compare-and-swap that empties the run | the clock |
//! | a failure | 10 loads: word, turn, 5 words, turn, newest bucket, word; 1 compare-and-swap in the window, 1 on the word, 16 loads of the failures | the clock |
//! | refused while open | 3 loads: word, deadline, flags | the clock |
//! | anything in half-open, an admission in a ramp, any transition | the lock | the clock |
//!
//! # Why no transition is missed
//!
//! A failure is ① put into the window, ② counted on the word, and only then ③ the window is summed. Of two failures at once
//! the later at ② sees, by the order of the word's exchanges, what the earlier did at ①; so it sees both. A sum may miss
//! successes that run beside it, never one that was over before. Slow and cancelled calls go the same three steps; their ② exchanges the
//! word's word for itself.
//!
//! # Why an outcome of the past changes nothing
//!
//! Every transition starts a new epoch, in one exchange, under the lock that orders the transitions. Without the lock the word is
//! changed only by exchanging a closed word for another of the same epoch; after a transition such an exchange fails, and what
//! was put into the window carries the tag of its own epoch.

mod control;
mod emit;
mod record;
mod transition;

use std::mem;
use std::task::Waker;
use std::time::Duration;

use tower_fault_classify::__internals::sync::{MutexGuard, Ordering, lock};
use tower_fault_classify::__internals::{Clock, Pool, PoolItem};

use super::limits::Limits;
use super::state_word::{LAST_EPOCH, StateWord};
use super::store::{HotConfig, Single, Store};
use super::wakers::{WakeOn, WakerKey};
use crate::machine::{
    Arrival, Change, CircuitState, Decision, Machine, Moment, RecoveryLimits, State, Ticket,
};

pub(crate) use control::{CircuitConfig, Snapshot};
pub(crate) use record::CallDuration;
pub(crate) use transition::Locked;

/// Every call reads the time when it begins.
const TIMED: u64 = 1;
/// What would be refused is let through, and not counted.
const OBSERVING: u64 = 2;
/// The word of the flags is `instruments:32 | first epoch:24 | flags:8`: the number of the instruments of the
/// circuit's name, and the epoch in which the circuit began, so that the two never disagree.
pub(super) const INSTRUMENTS: u32 = 32;
const FIRST_EPOCH: u32 = 8;

/// The state of one circuit, wherever its parts stand.
#[derive(Debug)]
pub struct Core<T: Store = Single> {
    store: T,
}

/// A call that was let in, in the words of the core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    stamp: StateWord,
    /// Of a probe its ticket; of another call the time when it began, one up, or 0 if nobody asks for that.
    word: u64,
}

impl Admission {
    /// A call that is not counted in the window.
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

    /// How long the call has run by now, if that is known.
    fn duration(&self, now: u64) -> Option<u64> {
        (self.stamp.is_closed() && self.word != 0).then(|| now.saturating_sub(self.word - 1))
    }
}

/// A call that was not.
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

impl<T: Store> Core<T> {
    pub(crate) const fn of(store: T) -> Self {
        Self { store }
    }

    pub(crate) const fn store(&self) -> &T {
        &self.store
    }

    #[inline]
    pub(crate) fn clock(&self) -> Clock {
        self.hot_config().clock.load()
    }

    /// Lets a call in if the circuit is closed: the whole of the usual admission.
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Admission> {
        let word = self.state_word();
        word.admits_all().then(|| self.admitted(word.stamp()))
    }

    #[inline]
    fn admitted(&self, stamp: StateWord) -> Admission {
        Admission { stamp, word: if self.has(TIMED) { start_word(self.hot_config().clock.now()) } else { 0 } }
    }

    /// Relaxed: a flag is for the next call, not for this one.
    #[inline]
    fn has(&self, flag: u64) -> bool {
        self.hot_config().flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Lets a call in, or not.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Admission, Denied> {
        let word = self.state_word();
        if word.admits_all() {
            return Ok(self.admitted(word.stamp()));
        }
        if word.is_bypassed() {
            return Ok(Admission::uncounted(word.epoch()));
        }
        let now = self.hot_config().clock.now();
        match self.open_for(word, now) {
            Some(left) => self.deny(Denied { state: CircuitState::Open, left: Some(left) }, word.epoch()),
            None => self.admit_slow_path(now),
        }
    }

    /// For how many nanoseconds calls are refused, if the word alone says so.
    #[inline]
    pub(crate) fn remaining_open(&self) -> Option<u64> {
        self.open_for(self.state_word(), self.hot_config().clock.now()).filter(|_| !self.has(OBSERVING))
    }

    /// Lets a call in, or not, whose service is asked for its readiness. `Ok(None)`: nothing is
    /// reserved for it, and it asks again when it begins.
    pub(crate) fn reserve(&self, arrival: Arrival) -> Result<Option<Admission>, Denied> {
        let word = self.state_word();
        if word.admits_all() || word.is_bypassed() || (word.is_closed() && arrival == Arrival::AtCall) {
            return Ok(None);
        }
        let now = self.hot_config().clock.now();
        let answer = match self.open_for(word, now) {
            Some(left) => Err(Denied { state: CircuitState::Open, left: Some(left) }),
            None => self
                .decide(now, |machine, limits| machine.reserve(now, arrival, limits))
                .map_err(|(denied, _)| denied),
        };
        match answer {
            Ok(admission) => Ok(Some(admission).filter(|admission| !admission.is_uncounted())),
            // Observers are notified when the call begins.
            Err(_) if self.has(OBSERVING) => Ok(None),
            Err(denied) => Err(denied),
        }
    }

    /// A call that was let in by a closed circuit, also in a slow start.
    pub(crate) fn admit_if_closed(&self) -> Option<Admission> {
        let word = self.state_word();
        word.is_closed().then(|| self.admitted(word.stamp()))
    }

    /// How many nanoseconds an open circuit refuses calls. `None`: it is not open, or its time is
    /// over.
    ///
    /// The deadline may be a later one than the word's, if the circuit has opened again since. It
    /// is then open now, too.
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
        if !self.has(OBSERVING) {
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

    /// Asks the machine about a call. A denied comes with the epoch in which it was decided.
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
            Decision::Admitted => Ok(self.admitted(StateWord::closed(epoch))),
            Decision::Probe(ticket) => {
                Ok(Admission { stamp: StateWord::of(State::HalfOpen, epoch), word: ticket.word() })
            }
            Decision::Uncounted => Ok(Admission::uncounted(epoch)),
            Decision::Denied(left) => Err((Denied { state, left }, epoch)),
        }
    }

    /// Lets everything through. The caller holds the lock, so that the epoch is the machine's.
    fn end_slow_start(&self) {
        // Beside failures and successes, which exchange the same word. No order is needed: nothing else is published by it.
        let _ = self.store.state_word().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let word = StateWord::from_word(word);
            (word.is_closed() && !word.admits_all()).then(|| word.without_slow_start().word())
        });
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state_word().admits_all()
    }

    /// Whether a call that was let in may still begin: no transition came between. A probe's lease begins anew.
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
        let now = self.hot_config().clock.now();
        let mut locked = self.locked();
        let Locked { epoch, machine, limits, .. } = &mut *locked;
        *epoch == stamp.epoch() && machine.renew(ticket, now, limits)
    }

    /// Publishes a new epoch; the caller holds the lock.
    fn publish(&self, published_state: State, epoch: u32) {
        if let State::OpenUntil(until) = published_state {
            // Relaxed: the exchange below publishes it.
            self.store.deadline().store(until, Ordering::Relaxed);
        }
        let word = StateWord::of(published_state, epoch);
        // Release: who reads this epoch sees what was done before it began. An exchange rather than a store, so that it
        // stands in one order with those of the failures and successes that run beside it.
        self.store.state_word().swap(word.word(), Ordering::AcqRel);
    }

    /// Registers a task that waits for something else, to be woken by the next transition. Look at the word again
    /// afterwards: a transition that came before has woken nobody.
    pub(crate) fn register_waker(&self, waker_key: &mut Option<WakerKey>, waker: &Waker, wake_on: WakeOn) {
        // A waker may run anything when it is cloned or dropped: both are done outside the lock.
        let waker = waker.clone();
        let mut locked = self.locked();
        let (registered, former) = locked.wakers.register(*waker_key, waker, wake_on);
        drop(locked);
        drop(former);
        *waker_key = Some(registered);
    }

    /// The task waits no longer.
    pub(crate) fn deregister_waker(&self, waker_key: WakerKey) {
        // Bound, so that the waker, which may run anything when it is dropped, is dropped after the lock.
        let waker = self.locked().wakers.deregister(waker_key);
        drop(waker);
    }

    fn limits(&self) -> Limits {
        self.hot_config().limits.limits().unwrap_or_else(|| {
            let _locked = self.locked();
            self.hot_config().limits.load_locked()
        })
    }

    #[inline]
    fn state_word(&self) -> StateWord {
        // Acquire: what was done before this epoch began is visible to the calls of this epoch.
        StateWord::from_word(self.store.state_word().load(Ordering::Acquire))
    }

    #[inline]
    fn hot_config(&self) -> &HotConfig {
        self.store.hot_config()
    }

    #[inline]
    fn window(&self) -> &T::Window {
        self.store.window()
    }

    fn locked(&self) -> MutexGuard<'_, Locked> {
        lock(self.store.locked())
    }
}

/// The word of a call that began at a time.
const fn start_word(now: u64) -> u64 {
    now.saturating_add(1)
}

fn moment(now: u64) -> Moment {
    Moment { now, draw: fastrand::f64() }
}

const fn next_epoch(epoch: u32) -> u32 {
    (epoch + 1) & LAST_EPOCH
}

static POOL: Pool<Core> = Pool::new();

impl PoolItem for Core {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }

    fn retire(&self) {
        let mut locked = self.locked();
        let (instruments, state) = (self.hot_config().instruments(), locked.machine.state());
        locked.owner += 1;
        locked.epoch = next_epoch(locked.epoch);
        locked.machine = Machine::new();
        self.publish(State::Closed { slow_start: false }, locked.epoch);
        // Release, after the word: an outcome that reads these flags finds the epoch of its call to
        // be over.
        self.hot_config().flags.store(0, Ordering::Release);
        let observers = mem::take(&mut locked.observers);
        let wakers = locked.wakers.drain();
        let pending = (locked.last_transition.take(), locked.last_trip.take(), locked.last_failure.take());
        drop(locked);
        if let Some(instruments) = instruments {
            instruments.ends(state);
        }
        drop((observers, wakers, pending));
    }
}

#[cfg(all(test, loom_models))]
pub(super) mod models;
#[cfg(all(test, not(loom_models)))]
mod tests;
