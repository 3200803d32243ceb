//! The circuit made concurrent.
//!
//! # The way of a call
//!
//! | case | atomic operations | beside them |
//! |---|---|---|
//! | admitted, closed | 2 loads: gate, flags | |
//! | a success, no failure counted | 7 loads: gate, turn, 3 words, turn, newest bucket; 1 load and 1 store in the thread's own cell | the clock |
//! | a success after failures, or in a ramp | the same, and 1 compare-and-swap that empties the run | the clock |
//! | a failure | 10 loads: gate, turn, 5 words, turn, newest bucket, gate; 1 compare-and-swap in the window, 1 on the gate, 16 loads of the failures | the clock |
//! | refused while open | 3 loads: gate, deadline, flags | the clock |
//! | anything in half-open, an admission in a ramp, any transition | the lock | the clock |
//!
//! # Why no transition is missed
//!
//! A failure is ① put into the window, ② counted on the gate, and only then ③ the window is summed. Of two failures at once
//! the later at ② sees, by the order of the gate's exchanges, what the earlier did at ①; so it sees both. A sum may miss
//! successes that run beside it, never one that was over before. Slow and cancelled calls go the same three steps; their ② exchanges the
//! gate's word for itself.
//!
//! # Why an outcome of the past changes nothing
//!
//! Every transition starts a new epoch, in one exchange, under the lock that orders the transitions. Without the lock the gate is
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
use tower_fault_classify::__internals::{Clock, Pool, Recycle};

use super::limits::Limits;
use super::state_word::{Gate, LAST_EPOCH};
use super::store::{Plan, Single, Store};
use super::wakers::{Seat, WaitsFor};
use crate::machine::{
    Admission, Arrival, Change, CircuitState, Machine, Moment, RecoveryLimits, Sign, Ticket,
};

pub(crate) use control::{Setup, View};
pub(crate) use record::Took;
pub(crate) use transition::Cold;

/// Every call reads the time when it begins.
const TIMED: u64 = 1;
/// What would be refused is let through, and not counted.
const OBSERVING: u64 = 2;
/// The word of the flags is `meters:32 | first epoch:24 | flags:8`: the number of the meters of the
/// circuit's name, and the epoch in which the circuit began, so that the two never disagree.
pub(super) const METERS: u32 = 32;
const FIRST_EPOCH: u32 = 8;

/// The state of one circuit, wherever its parts stand.
#[derive(Debug)]
pub(crate) struct Core<T: Store = Single> {
    store: T,
}

/// A call that was let in, in the words of the core.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    stamp: Gate,
    /// Of a probe its ticket; of another call the time when it began, one up, or 0 if nobody asks for that.
    word: u64,
}

impl Entry {
    /// A call that is not counted in the window.
    const fn uncounted(epoch: u32) -> Self {
        Self { stamp: Gate::free(epoch), word: 1 }
    }

    #[inline]
    pub(crate) const fn is_uncounted(&self) -> bool {
        self.stamp.is_free()
    }

    const fn ticket(&self) -> Option<Ticket> {
        if self.stamp.is_half_open() { Ticket::from_word(self.word) } else { None }
    }

    /// How long the call has run by now, if that is known.
    fn took(&self, now: u64) -> Option<u64> {
        (self.stamp.is_closed() && self.word != 0).then(|| now.saturating_sub(self.word - 1))
    }
}

/// A call that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) state: CircuitState,
    /// Nanoseconds until the circuit admits a call at the latest. `None`: until it is reset or
    /// released.
    pub(crate) left: Option<u64>,
}

impl Refusal {
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
        self.plan().clock.load()
    }

    /// Lets a call in if the circuit is closed: the whole of the usual admission.
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Entry> {
        let gate = self.gate();
        gate.lets_all_through().then(|| self.normal(gate.stamp()))
    }

    #[inline]
    fn normal(&self, stamp: Gate) -> Entry {
        Entry { stamp, word: if self.has(TIMED) { begun_at(self.plan().clock.now()) } else { 0 } }
    }

    /// Relaxed: a flag is for the next call, not for this one.
    #[inline]
    fn has(&self, flag: u64) -> bool {
        self.plan().flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Lets a call in, or not.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Entry, Refusal> {
        let gate = self.gate();
        if gate.lets_all_through() {
            return Ok(self.normal(gate.stamp()));
        }
        if gate.is_free() {
            return Ok(Entry::uncounted(gate.epoch()));
        }
        let now = self.plan().clock.now();
        match self.open_for(gate, now) {
            Some(left) => self.refuse(Refusal { state: CircuitState::Open, left: Some(left) }, gate.epoch()),
            None => self.admit_slowly(now),
        }
    }

    /// For how many nanoseconds calls are refused, if the gate alone says so.
    #[inline]
    pub(crate) fn refuses_for(&self) -> Option<u64> {
        self.open_for(self.gate(), self.plan().clock.now()).filter(|_| !self.has(OBSERVING))
    }

    /// Lets a call in, or not, whose service is asked for its readiness. `Ok(None)`: nothing is
    /// reserved for it, and it asks again when it begins.
    pub(crate) fn reserve(&self, arrival: Arrival) -> Result<Option<Entry>, Refusal> {
        let gate = self.gate();
        if gate.lets_all_through() || gate.is_free() || (gate.is_closed() && arrival == Arrival::AtCall) {
            return Ok(None);
        }
        let now = self.plan().clock.now();
        let answer = match self.open_for(gate, now) {
            Some(left) => Err(Refusal { state: CircuitState::Open, left: Some(left) }),
            None => self
                .ask_machine(now, |machine, limits| machine.reserve(now, arrival, limits))
                .map_err(|(refusal, _)| refusal),
        };
        match answer {
            Ok(entry) => Ok(Some(entry).filter(|entry| !entry.is_uncounted())),
            // Observers are notified when the call begins.
            Err(_) if self.has(OBSERVING) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// A call that was let in by a closed circuit, also in a slow start.
    pub(crate) fn entry_if_closed(&self) -> Option<Entry> {
        let gate = self.gate();
        gate.is_closed().then(|| self.normal(gate.stamp()))
    }

    /// How many nanoseconds an open circuit refuses calls. `None`: it is not open, or its time is
    /// over.
    ///
    /// The deadline may be a later one than the gate's, if the circuit has opened again since. It
    /// is then open now, too.
    #[inline]
    pub(super) fn open_for(&self, gate: Gate, now: u64) -> Option<u64> {
        if !gate.is_timed() {
            return None;
        }
        // Relaxed: the gate was read with Acquire, and the deadline was written before it.
        let left = self.store.deadline().load(Ordering::Relaxed).saturating_sub(now);
        (left > 0).then_some(left)
    }

    #[inline]
    fn refuse(&self, refusal: Refusal, epoch: u32) -> Result<Entry, Refusal> {
        if !self.has(OBSERVING) {
            return Err(refusal);
        }
        self.tell_spared(refusal);
        Ok(Entry::uncounted(epoch))
    }

    #[inline(never)]
    fn admit_slowly(&self, now: u64) -> Result<Entry, Refusal> {
        self.ask_machine(now, |machine, limits| machine.admit(now, limits))
            .or_else(|(refusal, epoch)| self.refuse(refusal, epoch))
    }

    /// Asks the machine about a call. A refusal comes with the epoch in which it was decided.
    #[inline(never)]
    fn ask_machine(
        &self,
        now: u64,
        ask: impl FnOnce(&mut Machine, &RecoveryLimits) -> (Admission, Option<Change>),
    ) -> Result<Entry, (Refusal, u32)> {
        let mut cold = self.cold();
        let Cold { machine, limits, .. } = &mut *cold;
        let (admission, change) = ask(machine, limits);
        let state = machine.state();
        if state == CircuitState::Closed && machine.ramp(now).is_none() {
            self.end_ramp();
        }
        let news = change.map(|change| self.apply(&mut cold, change, None, None, now));
        let epoch = cold.epoch;
        drop(cold);
        self.spread(news);
        match admission {
            Admission::Normal => Ok(self.normal(Gate::closed(epoch))),
            Admission::Probe(ticket) => {
                Ok(Entry { stamp: Gate::of(Sign::HalfOpen, epoch), word: ticket.word() })
            }
            Admission::Uncounted => Ok(Entry::uncounted(epoch)),
            Admission::Refused(left) => Err((Refusal { state, left }, epoch)),
        }
    }

    /// Lets everything through. The caller holds the lock, so that the epoch is the machine's.
    fn end_ramp(&self) {
        // Beside failures and successes, which exchange the same word. No order is needed: nothing else is published by it.
        let _ = self.store.gate().fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let gate = Gate::from_word(word);
            (gate.is_closed() && !gate.lets_all_through()).then(|| gate.without_ramp().word())
        });
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.gate().lets_all_through()
    }

    /// Whether a call that was let in may still begin: no transition came between. A probe's lease begins anew.
    #[inline]
    pub(crate) fn renew(&self, entry: Entry) -> bool {
        if entry.stamp.is_closed() {
            self.gate().stamp() == entry.stamp
        } else {
            entry.ticket().is_some_and(|ticket| self.renew_probe(entry.stamp, ticket))
        }
    }

    #[cold]
    fn renew_probe(&self, stamp: Gate, ticket: Ticket) -> bool {
        let now = self.plan().clock.now();
        let mut cold = self.cold();
        let Cold { epoch, machine, limits, .. } = &mut *cold;
        *epoch == stamp.epoch() && machine.renew(ticket, now, limits)
    }

    /// Publishes a new epoch; the caller holds the lock.
    fn open_epoch(&self, sign: Sign, epoch: u32) {
        if let Sign::OpenUntil(until) = sign {
            // Relaxed: the exchange below publishes it.
            self.store.deadline().store(until, Ordering::Relaxed);
        }
        let gate = Gate::of(sign, epoch);
        // Release: who reads this epoch sees what was done before it began. An exchange rather than a store, so that it
        // stands in one order with those of the failures and successes that run beside it.
        self.store.gate().swap(gate.word(), Ordering::AcqRel);
    }

    /// Registers a task that waits for something else, to be woken by the next transition. Look at the gate again
    /// afterwards: a transition that came before has woken nobody.
    pub(crate) fn wait(&self, seat: &mut Option<Seat>, waker: &Waker, what: WaitsFor) {
        // A waker may run anything when it is cloned or dropped: both are done outside the lock.
        let waker = waker.clone();
        let mut cold = self.cold();
        let (registered, former) = cold.waiters.register(*seat, waker, what);
        drop(cold);
        drop(former);
        *seat = Some(registered);
    }

    /// The task waits no longer.
    pub(crate) fn leave(&self, seat: Seat) {
        // Bound, so that the waker, which may run anything when it is dropped, is dropped after the lock.
        let waker = self.cold().waiters.leave(seat);
        drop(waker);
    }

    fn limits(&self) -> Limits {
        self.plan().settings.limits().unwrap_or_else(|| {
            let _cold = self.cold();
            self.plan().settings.limits_locked()
        })
    }

    #[inline]
    fn gate(&self) -> Gate {
        // Acquire: what was done before this epoch began is visible to the calls of this epoch.
        Gate::from_word(self.store.gate().load(Ordering::Acquire))
    }

    #[inline]
    fn plan(&self) -> &Plan {
        self.store.plan()
    }

    #[inline]
    fn window(&self) -> &T::Window {
        self.store.window()
    }

    fn cold(&self) -> MutexGuard<'_, Cold> {
        lock(self.store.cold())
    }
}

/// The word of a call that began at a time.
const fn begun_at(now: u64) -> u64 {
    now.saturating_add(1)
}

fn moment(now: u64) -> Moment {
    Moment { now, draw: fastrand::f64() }
}

const fn next_epoch(epoch: u32) -> u32 {
    (epoch + 1) & LAST_EPOCH
}

static POOL: Pool<Core> = Pool::new();

impl Recycle for Core {
    fn pool() -> &'static Pool<Self> {
        &POOL
    }

    fn retire(&self) {
        let mut cold = self.cold();
        let (meters, state) = (self.plan().meters(), cold.machine.state());
        cold.owner += 1;
        cold.epoch = next_epoch(cold.epoch);
        cold.machine = Machine::new();
        self.open_epoch(Sign::Closed { ramping: false }, cold.epoch);
        // Release, after the gate: an outcome that reads these flags finds the epoch of its call to
        // be over.
        self.plan().flags.store(0, Ordering::Release);
        let watchers = mem::take(&mut cold.watchers);
        let wakers = cold.waiters.drain();
        let news = (cold.last.take(), cold.trip.take(), cold.failure.take());
        drop(cold);
        if let Some(meters) = meters {
            meters.ends(state);
        }
        drop((watchers, wakers, news));
    }
}

#[cfg(all(test, loom_models))]
pub(super) mod models;
#[cfg(all(test, not(loom_models)))]
mod tests;
