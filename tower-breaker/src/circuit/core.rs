//! The circuit made concurrent.
//!
//! # The way of a call
//!
//! | case | atomic operations | beside them |
//! |---|---|---|
//! | admitted, closed | 1 load | |
//! | a success, no failure counted | 1 load of the gate, 1 load and 1 store in the thread's own cell | the clock |
//! | a success after failures | the same, and 1 compare-and-swap that empties the run | the clock |
//! | a failure | 1 load, 1 compare-and-swap in the window, 1 on the gate, 16 loads of the failures | the clock |
//! | refused while open | 1 load | the clock |
//! | anything in half-open, any transition | the lock | the clock |
//!
//! # Why no transition is missed
//!
//! A failure is ① put into the window, ② counted on the gate, and only then ③ the window is summed. Of two failures at once
//! the later at ② sees, by the order of the gate's exchanges, what the earlier did at ①; so it sees both. A sum may miss
//! successes that run beside it, never one that was over before.
//!
//! # Why an outcome of the past changes nothing
//!
//! Every transition starts a new epoch, in one exchange, under the lock that orders the transitions. Without the lock the gate is
//! changed only by exchanging a closed word for another of the same epoch; after a transition such an exchange fails, and what
//! was put into the window carries the tag of its own epoch.

use std::task::Waker;

use tower_fault_classify::__shared::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};
use tower_fault_classify::__shared::{Clock, Pool, Recycle, slot};
use tower_fault_classify::{Fault, Verdict};

use super::gate::{Gate, LAST_EPOCH};
use super::waiters::{Seat, Waiters};
use super::window::Window;
use crate::machine::{
    Admission, Change, CircuitState, Counts, Outcome, Reason, RecoveryLimits, Sample, State, Ticket,
    TripLimits, may_reach_rate, trips,
};
use crate::observe::{Observer, Transition, tell};

/// The state of one circuit, on cache lines of its own. The gate and the limits are read by every call and seldom
/// written.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Core {
    gate: AtomicU64,
    trip_limits: AtomicTripLimits,
    clock: Clock,
    window: Window,
    cold: Mutex<Cold>,
}

/// What only transitions and half-open calls touch.
struct Cold {
    name: &'static str,
    epoch: u32,
    state: State,
    limits: RecoveryLimits,
    waiters: Waiters,
    observer: Option<Observer>,
    last: Option<Transition>,
}

impl std::fmt::Debug for Cold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, epoch, state, limits, last, .. } = self;
        f.debug_struct("Cold")
            .field("name", name)
            .field("epoch", epoch)
            .field("state", state)
            .field("limits", limits)
            .field("last", last)
            .finish_non_exhaustive()
    }
}

/// A call that was let in, in the words of the core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    stamp: Gate,
    ticket: Option<Ticket>,
}

impl Entry {
    pub(crate) const fn is_probe(&self) -> bool {
        self.ticket.is_some()
    }
}

/// A call that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) state: CircuitState,
    /// Nanoseconds until it is worth asking again.
    pub(crate) left: u64,
}

/// What a look at the circuit shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) state: CircuitState,
    pub(crate) run: u64,
    pub(crate) counts: Counts,
    pub(crate) left: Option<u64>,
    pub(crate) last: Option<Transition>,
}

impl Core {
    pub(crate) fn new(clock: Clock, window: Window, trip: TripLimits, recovery: RecoveryLimits) -> Self {
        Self {
            gate: AtomicU64::new(Gate::closed(0).word()),
            trip_limits: AtomicTripLimits::new(trip),
            clock,
            window,
            cold: Mutex::new(Cold {
                name: "",
                epoch: 0,
                state: State::Closed,
                limits: recovery,
                waiters: Waiters::default(),
                observer: None,
                last: None,
            }),
        }
    }

    /// Takes the core over for a circuit. Nobody else has it.
    pub(crate) fn adopt(&self, name: &'static str, trip: TripLimits, recovery: RecoveryLimits) {
        self.trip_limits.store(trip);
        let mut cold = self.cold();
        cold.name = name;
        cold.limits = recovery;
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    pub(crate) fn observe(&self, observer: Observer) {
        self.cold().observer = Some(observer);
    }

    /// Lets a call in if the circuit is closed: the whole of the usual admission.
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Entry> {
        let gate = self.gate();
        gate.is_closed().then(|| Entry { stamp: gate.stamp(), ticket: None })
    }

    /// Lets a call in, or not.
    pub(crate) fn admit(&self) -> Result<Entry, Refusal> {
        let gate = self.gate();
        if gate.is_closed() {
            return Ok(Entry { stamp: gate.stamp(), ticket: None });
        }
        let now = self.clock.now();
        match gate.open_for(now) {
            Some(left) => Err(Refusal { state: CircuitState::Open, left }),
            None => self.admit_probe(now),
        }
    }

    #[inline(never)]
    fn admit_probe(&self, now: u64) -> Result<Entry, Refusal> {
        let mut cold = self.cold();
        let Cold { state, limits, .. } = &mut *cold;
        let (admission, change) = state.admit(now, limits);
        let state = state.name();
        let news = change.map(|change| self.apply(&mut cold, change, None, None));
        let epoch = cold.epoch;
        drop(cold);
        News::spread(news);
        match admission {
            Admission::Normal => Ok(Entry { stamp: Gate::closed(epoch), ticket: None }),
            Admission::Probe(ticket) => Ok(Entry { stamp: Gate::half_open(epoch), ticket: Some(ticket) }),
            Admission::Refused(left) => Err(Refusal { state, left }),
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.gate().is_closed()
    }

    /// Whether a call that was let in may still begin: no transition came between. A probe's lease begins anew.
    pub(crate) fn renew(&self, Entry { stamp, ticket }: Entry) -> bool {
        match ticket {
            None => self.gate().stamp() == stamp,
            Some(ticket) => {
                let now = self.clock.now();
                let mut cold = self.cold();
                let Cold { epoch, state, limits, .. } = &mut *cold;
                *epoch == stamp.epoch() && state.renew(ticket, now, limits)
            }
        }
    }

    /// Hears what a call came to.
    #[inline]
    pub(crate) fn settle(&self, Entry { stamp, ticket }: Entry, verdict: Verdict) {
        // The usual case passes in registers.
        if ticket.is_none() && verdict.is_success() {
            self.success(stamp);
        } else {
            self.settle_unusual(stamp, ticket, &verdict);
        }
    }

    fn settle_unusual(&self, stamp: Gate, ticket: Option<Ticket>, verdict: &Verdict) {
        match (ticket, Outcome::of(verdict)) {
            (Some(ticket), outcome) => self.settle_probe(stamp, ticket, outcome),
            (None, Outcome::Success) => self.success(stamp),
            (None, Outcome::Failure(fault)) => self.failure(stamp, fault),
            (None, Outcome::Neutral) => {}
        }
    }

    /// Hears that a call was given up before it came to anything.
    #[inline]
    pub(crate) fn abandon(&self, Entry { stamp, ticket }: Entry) {
        if let Some(ticket) = ticket {
            self.settle_probe(stamp, ticket, Outcome::Neutral);
        }
    }

    /// Hears of a success of a call that was no probe.
    pub(crate) fn success(&self, stamp: Gate) {
        if self.gate() == stamp || self.end_run(stamp) {
            self.window.success(&self.clock, stamp.epoch(), slot());
        }
    }

    /// Empties the run of failures. False: the epoch is over.
    #[cold]
    fn end_run(&self, stamp: Gate) -> bool {
        // Release and Acquire, as every exchange on the gate: see "Why no transition is missed".
        self.gate
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                (Gate::from_word(word).stamp() == stamp).then_some(stamp.word())
            })
            .is_ok()
    }

    fn failure(&self, stamp: Gate, fault: &Fault) {
        if self.gate().stamp() != stamp {
            return;
        }
        let now = self.clock.now();
        let seen = self.window.failure(now, stamp.epoch()); // ①
        // ② Release publishes ① to whoever counts next, Acquire shows what those before have put in.
        let counted = self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let gate = Gate::from_word(word);
            (gate.stamp() == stamp).then(|| gate.one_more_failure().word())
        });
        let Ok(before) = counted else { return };
        let run = Gate::from_word(before).one_more_failure().run();
        let limits = self.trip_limits.load();
        // ③
        let window = may_reach_rate(&limits, self.window.failures(seen)).then(|| self.window.counts(seen));
        if let Some(reason) = trips(&limits, &Sample { run, window }) {
            self.trip(stamp.epoch(), reason, fault, now, window);
        }
    }

    #[cold]
    fn trip(&self, epoch: u32, reason: Reason, fault: &Fault, now: u64, counts: Option<Counts>) {
        let mut cold = self.cold();
        if cold.epoch != epoch {
            return;
        }
        let Cold { state, limits, .. } = &mut *cold;
        let change = state.trip(reason, fault, now, limits);
        let news = change.map(|change| self.apply(&mut cold, change, Some(*fault), counts));
        drop(cold);
        News::spread(news);
    }

    #[inline(never)]
    fn settle_probe(&self, stamp: Gate, ticket: Ticket, outcome: Outcome<'_>) {
        let now = self.clock.now();
        let mut cold = self.cold();
        if cold.epoch != stamp.epoch() {
            return;
        }
        let Cold { state, limits, .. } = &mut *cold;
        let change = state.settle_probe(ticket, outcome, now, limits);
        let fault = match outcome {
            Outcome::Failure(fault) => Some(*fault),
            Outcome::Success | Outcome::Neutral => None,
        };
        let news = change.map(|change| self.apply(&mut cold, change, fault, None));
        drop(cold);
        News::spread(news);
    }

    /// Starts the epoch of a state that was just taken on.
    fn apply(&self, cold: &mut Cold, change: Change, fault: Option<Fault>, counts: Option<Counts>) -> News {
        cold.epoch = next_epoch(cold.epoch);
        let gate = match cold.state {
            State::Closed => Gate::closed(cold.epoch),
            State::Open { until } => Gate::open(cold.epoch, until),
            State::HalfOpen(_) => Gate::half_open(cold.epoch),
        };
        self.open_epoch(gate);
        let Change { from, to, reason } = change;
        let transition =
            Transition { circuit: cold.name, from, to, reason, fault, counts, epoch: cold.epoch };
        cold.last = Some(transition);
        News { wakers: cold.waiters.drain(), observer: cold.observer.clone(), transition }
    }

    /// Publishes the word of a new epoch; the caller holds the lock.
    fn open_epoch(&self, gate: Gate) {
        // Release: who reads this epoch sees what was done before it began. An exchange rather than a store, so that it
        // stands in one order with those of the failures and successes that run beside it.
        self.gate.swap(gate.word(), Ordering::AcqRel);
    }

    /// Registers a task that waits for something else, to be woken by the next transition. Look at the gate again
    /// afterwards: a transition that came before has woken nobody.
    pub(crate) fn wait(&self, seat: &mut Option<Seat>, waker: &Waker) {
        *seat = Some(self.cold().waiters.register(*seat, waker));
    }

    /// The task waits no longer.
    pub(crate) fn leave(&self, seat: Seat) {
        // Bound, so that the waker, which may run anything when it is dropped, is dropped after the lock.
        let waker = self.cold().waiters.leave(seat);
        drop(waker);
    }

    pub(crate) fn view(&self) -> View {
        let now = self.clock.now();
        let cold = self.cold();
        // Under the lock the epoch stands still, so that gate and state are of one epoch.
        let gate = self.gate();
        View {
            state: cold.state.name(),
            run: if gate.is_closed() { gate.run() } else { 0 },
            counts: self.window.counts_at(now, cold.epoch),
            left: gate.open_for(now),
            last: cold.last,
        }
    }

    #[inline]
    fn gate(&self) -> Gate {
        // Acquire: what was done before this epoch began is visible to the calls of this epoch.
        Gate::from_word(self.gate.load(Ordering::Acquire))
    }

    fn cold(&self) -> MutexGuard<'_, Cold> {
        lock(&self.cold)
    }
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
        cold.epoch = next_epoch(cold.epoch);
        cold.state = State::Closed;
        self.open_epoch(Gate::closed(cold.epoch));
        let observer = cold.observer.take();
        let wakers = cold.waiters.drain();
        cold.last = None;
        drop(cold);
        drop((observer, wakers));
    }
}

/// A transition that others are to hear of, once the lock is released.
#[must_use]
struct News {
    wakers: Vec<Option<Waker>>,
    observer: Option<Observer>,
    transition: Transition,
}

impl News {
    fn spread(news: Option<Self>) {
        let Some(Self { wakers, observer, transition }) = news else { return };
        wakers.into_iter().flatten().for_each(Waker::wake);
        if let Some(observer) = observer {
            tell(&observer, &transition);
        }
    }
}

/// [`TripLimits`] that every failure reads without a lock.
#[derive(Debug)]
struct AtomicTripLimits {
    /// `consecutive_failures:32 | minimum_calls:32`
    counts: AtomicU64,
    /// The rate's bits; NaN: none.
    rate: AtomicU64,
}

impl AtomicTripLimits {
    fn new(limits: TripLimits) -> Self {
        let (counts, rate) = Self::pack(limits);
        Self { counts: AtomicU64::new(counts), rate: AtomicU64::new(rate) }
    }

    fn pack(limits: TripLimits) -> (u64, u64) {
        let counts = (u64::from(limits.consecutive_failures) << 32) | u64::from(limits.minimum_calls);
        (counts, limits.failure_rate.unwrap_or(f64::NAN).to_bits())
    }

    /// Relaxed: they are stored before the circuit has a handle, and reach every thread with it.
    fn store(&self, limits: TripLimits) {
        let (counts, rate) = Self::pack(limits);
        self.counts.store(counts, Ordering::Relaxed);
        self.rate.store(rate, Ordering::Relaxed);
    }

    fn load(&self) -> TripLimits {
        let counts = self.counts.load(Ordering::Relaxed);
        let rate = f64::from_bits(self.rate.load(Ordering::Relaxed));
        TripLimits {
            consecutive_failures: (counts >> 32) as u32,
            minimum_calls: counts as u32,
            failure_rate: (!rate.is_nan()).then_some(rate),
        }
    }
}

#[cfg(all(test, loom_models))]
mod models;
#[cfg(all(test, not(loom_models)))]
mod tests;
