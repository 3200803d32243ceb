//! The circuit made concurrent.
//!
//! # The way of a call
//!
//! | case | atomic operations | beside them |
//! |---|---|---|
//! | admitted, closed | 2 loads: gate, flags | |
//! | a success, no failure counted | 6 loads: gate, turn, 3 words, turn; 1 load and 1 store in the thread's own cell | the clock |
//! | a success after failures, or in a ramp | the same, and 1 compare-and-swap that empties the run | the clock |
//! | a failure | 9 loads: gate, turn, 5 words, turn, gate; 1 compare-and-swap in the window, 1 on the gate, 16 loads of the failures | the clock |
//! | refused while open | 2 loads: gate, flags | the clock |
//! | anything in half-open, an admission in a ramp, any transition | the lock | the clock |
//!
//! # Why no transition is missed
//!
//! A failure is ① put into the window, ② counted on the gate, and only then ③ the window is summed. Of two failures at once
//! the later at ② sees, by the order of the gate's exchanges, what the earlier did at ①; so it sees both. A sum may miss
//! successes that run beside it, never one that was over before. Slow and abandoned calls go the same three steps; their ② exchanges the
//! gate's word for itself.
//!
//! # Why an outcome of the past changes nothing
//!
//! Every transition starts a new epoch, in one exchange, under the lock that orders the transitions. Without the lock the gate is
//! changed only by exchanging a closed word for another of the same epoch; after a transition such an exchange fails, and what
//! was put into the window carries the tag of its own epoch.

mod control;

use std::task::Waker;

use tower_fault_classify::__shared::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};
use tower_fault_classify::__shared::{Clock, Pool, Recycle, slot};
use tower_fault_classify::{Fault, Verdict};

use super::gate::{Gate, LAST_EPOCH};
use super::settings::{Limits, Settings};
use super::waiters::{Seat, Waiters};
use super::window::{Seen, Shape, Span, Window};
use crate::machine::{
    Abandoned, Admission, Change, CircuitState, Counts, GIVEN_UP, Machine, Moment, Outcome, Reason,
    RecoveryLimits, Sample, Sign, Ticket, fewest_failures, may_reach_slow_rate, none_completes, trips,
};
use crate::observe::{LastFailure, Observer, Transition, tell};
use crate::rng::draw;

pub(crate) use control::Setup;

/// Every call reads the time when it begins.
const TIMED: u64 = 1;
/// What would be refused is let through, and not counted.
const OBSERVING: u64 = 2;

/// The state of one circuit, on cache lines of its own. The gate and the limits are read by every call and seldom
/// written.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Core {
    gate: AtomicU64,
    flags: AtomicU64,
    settings: Settings,
    clock: Clock,
    window: Window,
    cold: Mutex<Cold>,
}

/// What only transitions and half-open calls touch.
struct Cold {
    name: &'static str,
    /// Counts the circuits that have had this core.
    owner: u64,
    epoch: u32,
    machine: Machine,
    limits: RecoveryLimits,
    shape: Shape,
    waiters: Waiters,
    observer: Option<Observer>,
    /// When the present state began.
    since: u64,
    last: Option<Transition>,
    /// The transition that opened the circuit last.
    trip: Option<Transition>,
    failure: Option<LastFailure>,
}

impl std::fmt::Debug for Cold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, epoch, machine, limits, last, .. } = self;
        f.debug_struct("Cold")
            .field("name", name)
            .field("epoch", epoch)
            .field("machine", machine)
            .field("limits", limits)
            .field("last", last)
            .finish_non_exhaustive()
    }
}

/// A call that was let in, in the words of the core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    stamp: Gate,
    /// Of a probe its ticket; of another call the time when it began, or 0 if nobody asks for that.
    word: u64,
}

impl Entry {
    /// A call that nobody counts.
    const UNCOUNTED: Self = Self { stamp: Gate::free(), word: 1 };

    const fn ticket(&self) -> Option<Ticket> {
        if self.stamp.is_half_open() { Ticket::from_word(self.word) } else { None }
    }

    /// How long the call has run by now, if that is known.
    fn took(&self, now: u64) -> Option<u64> {
        (self.stamp.is_closed() && self.word != 0).then(|| now.saturating_sub(self.word))
    }
}

/// A call that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) state: CircuitState,
    /// Nanoseconds until it is worth asking again. `None`: until somebody does something about it.
    pub(crate) left: Option<u64>,
}

impl Core {
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Lets a call in if the circuit is closed: the whole of the usual admission.
    #[inline]
    pub(crate) fn admit_closed(&self) -> Option<Entry> {
        let gate = self.gate();
        gate.lets_all_through().then(|| self.normal(gate.stamp()))
    }

    #[inline]
    fn normal(&self, stamp: Gate) -> Entry {
        Entry { stamp, word: if self.has(TIMED) { self.clock.now().max(1) } else { 0 } }
    }

    /// Relaxed: a flag is for the next call, not for this one.
    #[inline]
    fn has(&self, flag: u64) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Lets a call in, or not.
    #[inline]
    pub(crate) fn admit(&self) -> Result<Entry, Refusal> {
        let gate = self.gate();
        if gate.lets_all_through() {
            return Ok(self.normal(gate.stamp()));
        }
        if gate.is_free() {
            return Ok(Entry::UNCOUNTED);
        }
        let now = self.clock.now();
        match gate.open_for(now) {
            Some(left) => self.refuse(Refusal { state: CircuitState::Open, left: Some(left) }),
            None => self.admit_slowly(now),
        }
    }

    /// How long the circuit refuses calls, if the gate alone says so; else 0.
    #[inline]
    pub(crate) fn refuses_for(&self) -> u64 {
        match self.gate().open_for(self.clock.now()) {
            Some(left) if !self.has(OBSERVING) => left,
            _ => 0,
        }
    }

    #[inline]
    fn refuse(&self, refusal: Refusal) -> Result<Entry, Refusal> {
        if self.has(OBSERVING) { Ok(Entry::UNCOUNTED) } else { Err(refusal) }
    }

    #[inline(never)]
    fn admit_slowly(&self, now: u64) -> Result<Entry, Refusal> {
        let mut cold = self.cold();
        let Cold { machine, limits, .. } = &mut *cold;
        let (admission, change) = machine.admit(now, limits);
        let state = machine.state();
        if state == CircuitState::Closed && machine.ramp(now).is_none() {
            self.end_ramp();
        }
        let news = change.map(|change| self.apply(&mut cold, change, None, None, now));
        let epoch = cold.epoch;
        drop(cold);
        News::spread(news);
        match admission {
            Admission::Normal => Ok(self.normal(Gate::closed(epoch))),
            Admission::Probe(ticket) => {
                Ok(Entry { stamp: Gate::of(Sign::HalfOpen, epoch), word: ticket.word() })
            }
            Admission::Uncounted => Ok(Entry::UNCOUNTED),
            Admission::Refused(left) => self.refuse(Refusal { state, left }),
        }
    }

    /// Lets everything through. The caller holds the lock, so that the epoch is the machine's.
    fn end_ramp(&self) {
        // Beside failures and successes, which exchange the same word. No order is needed: nothing else is published by it.
        let _ = self.gate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let gate = Gate::from_word(word);
            (gate.is_closed() && !gate.lets_all_through()).then(|| gate.without_ramp().word())
        });
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.gate().lets_all_through()
    }

    /// Whether a call that was let in may still begin: no transition came between. A probe's lease begins anew.
    pub(crate) fn renew(&self, entry: Entry) -> bool {
        match entry.ticket() {
            None => entry.stamp.is_closed() && self.gate().stamp() == entry.stamp,
            Some(ticket) => {
                let now = self.clock.now();
                let mut cold = self.cold();
                let Cold { epoch, machine, limits, .. } = &mut *cold;
                *epoch == entry.stamp.epoch() && machine.renew(ticket, now, limits)
            }
        }
    }

    /// Hears what a call came to.
    #[inline]
    pub(crate) fn settle(&self, entry: Entry, verdict: &Verdict) {
        // The usual case passes in registers.
        if entry.word == 0 && verdict.is_success() {
            self.success(entry.stamp);
        } else {
            self.settle_unusual(entry, verdict);
        }
    }

    fn settle_unusual(&self, entry: Entry, verdict: &Verdict) {
        let outcome = Outcome::of(verdict);
        match entry.ticket() {
            Some(ticket) => self.settle_probe(entry.stamp, ticket, outcome),
            None if entry.stamp.is_free() => {}
            None => match outcome {
                Outcome::Success | Outcome::Slow if entry.word == 0 => self.success(entry.stamp),
                Outcome::Success | Outcome::Slow => self.timed_success(entry),
                Outcome::Failure(fault) => self.failure(entry, fault),
                Outcome::Neutral => {}
            },
        }
    }

    /// Hears that a call was let in and has not begun.
    pub(crate) fn cancel(&self, entry: Entry) {
        if let Some(ticket) = entry.ticket() {
            let mut cold = self.cold();
            if cold.epoch == entry.stamp.epoch() {
                cold.machine.give_back(ticket);
            }
        }
    }

    /// Hears that a call was given up before it came to anything.
    #[cold]
    pub(crate) fn abandon(&self, entry: Entry) {
        if entry.stamp.is_free() {
            return;
        }
        let limits = self.limits();
        let now = self.clock.now();
        match (limits.trip.abandoned, entry.ticket()) {
            (Abandoned::Ignored, None) => {}
            (Abandoned::Ignored, Some(_)) => self.cancel(entry),
            (Abandoned::Failure, _) => self.settle_unusual(entry, &GIVEN_UP.into()),
            (Abandoned::FailureFrom(from), _) => {
                if self.began(entry).is_some_and(|began| now.saturating_sub(began) >= from) {
                    self.settle_unusual(entry, &GIVEN_UP.into());
                } else {
                    self.cancel(entry);
                }
            }
            (Abandoned::IfNoneCompletes, Some(ticket)) => {
                let most = limits.trip.minimum_calls;
                self.with_probe(entry.stamp, now, |machine, at, recovery| {
                    (machine.abandon_probe(ticket, most, at, recovery), None)
                });
            }
            (Abandoned::IfNoneCompletes, None) => self.abandoned(entry.stamp, &limits, now),
        }
    }

    /// Hears that a caller gave up who had waited since then for the service behind the circuit.
    pub(crate) fn give_up_waiting(&self, since: u64) {
        let gate = self.gate();
        if gate.is_closed() {
            self.abandon(Entry { stamp: gate.stamp(), word: since.max(1) });
        }
    }

    /// When a call began, if that is known.
    fn began(&self, entry: Entry) -> Option<u64> {
        match entry.ticket() {
            Some(ticket) => self.cold().machine.began(ticket),
            None => (entry.word != 0).then_some(entry.word),
        }
    }

    /// Hears of a success of a call that was no probe.
    #[inline]
    pub(crate) fn success(&self, stamp: Gate) {
        if self.gate() == stamp || self.end_run(stamp) {
            let span = self.settings.span().unwrap_or_else(|| self.limits().span);
            self.window.success(&span, &self.clock, stamp.epoch(), slot());
        }
    }

    fn timed_success(&self, entry: Entry) {
        let stamp = entry.stamp;
        let now = self.clock.now();
        let limits = self.limits();
        if !limits.trip.is_slow(entry.took(now)) {
            self.success(stamp);
        } else if self.gate().stamp() == stamp {
            let seen = self.window.slow_success(&limits.span, now, stamp.epoch(), slot()); // ①
            // ② also ends the run.
            if self.end_run(stamp) {
                self.look(stamp, &limits, 0, seen, None, now);
            }
        }
    }

    /// Empties the run of failures. False: the epoch is over.
    #[cold]
    fn end_run(&self, stamp: Gate) -> bool {
        self.exchange(stamp, Gate::without_run).is_some()
    }

    /// Exchanges a closed gate of this epoch for another, and returns what it was.
    #[inline]
    fn exchange(&self, stamp: Gate, to: impl Fn(Gate) -> Gate) -> Option<Gate> {
        // Release publishes what was put into the window to whoever exchanges next, Acquire shows what those before have put in.
        let before = self.gate.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let gate = Gate::from_word(word);
            (gate.stamp() == stamp).then(|| to(gate).word())
        });
        before.ok().map(Gate::from_word)
    }

    fn failure(&self, entry: Entry, fault: &Fault) {
        let stamp = entry.stamp;
        if self.gate().stamp() != stamp {
            return;
        }
        if entry.word != 0 {
            return self.timed_failure(entry, fault);
        }
        let now = self.clock.now();
        let glance = self.settings.glance().unwrap_or_else(|| {
            let _cold = self.cold();
            self.settings.glance().expect("nobody writes under the lock")
        });
        let seen = self.window.failure(&glance.span, now, stamp.epoch(), false); // ①
        let Some(before) = self.exchange(stamp, Gate::one_more_failure) else { return }; // ②
        let run = before.one_more_failure().run();
        // ③
        if run >= glance.run || self.window.failures_in(seen) >= glance.failures {
            self.look(stamp, &self.limits(), run, seen, Some(fault), now);
        }
    }

    #[inline(never)]
    fn timed_failure(&self, entry: Entry, fault: &Fault) {
        let stamp = entry.stamp;
        let now = self.clock.now();
        let limits = self.limits();
        let slow = limits.trip.is_slow(entry.took(now));
        let seen = self.window.failure(&limits.span, now, stamp.epoch(), slow); // ①
        let Some(before) = self.exchange(stamp, Gate::one_more_failure) else { return }; // ②
        self.look(stamp, &limits, before.one_more_failure().run(), seen, Some(fault), now);
    }

    /// ③: whether the circuit opens.
    #[inline(never)]
    fn look(&self, stamp: Gate, limits: &Limits, run: u64, seen: Seen, fault: Option<&Fault>, now: u64) {
        let Limits { trip, .. } = limits;
        let whole = self.window.failures_in(seen) >= fewest_failures(trip)
            || (trip.slow.is_some() && may_reach_slow_rate(trip, self.window.slow_in(seen)));
        let window = whole.then(|| self.window.counts(seen));
        if let Some(reason) = trips(trip, &Sample { run, window }) {
            self.trip(stamp.epoch(), reason, fault, now, window);
        }
    }

    fn abandoned(&self, stamp: Gate, limits: &Limits, now: u64) {
        if self.gate().stamp() != stamp {
            return;
        }
        let seen = self.window.abandoned(&limits.span, now, stamp.epoch()); // ①
        let same = self.exchange(stamp, |gate| gate); // ②
        if same.is_some() && self.window.abandoned_in(seen) >= limits.trip.minimum_calls.into() {
            let counts = self.window.counts(seen); // ③
            if none_completes(&limits.trip, &counts) {
                self.trip(stamp.epoch(), Reason::NoneCompletes, Some(&GIVEN_UP), now, Some(counts));
            }
        }
    }

    #[cold]
    fn trip(&self, epoch: u32, reason: Reason, fault: Option<&Fault>, now: u64, counts: Option<Counts>) {
        let at = moment(now);
        let mut cold = self.cold();
        if cold.epoch != epoch {
            return;
        }
        let Cold { machine, limits, .. } = &mut *cold;
        let change = machine.trip(reason, fault, at, limits);
        let news = change.map(|change| self.apply(&mut cold, change, fault.copied(), counts, now));
        drop(cold);
        News::spread(news);
    }

    #[inline(never)]
    fn settle_probe(&self, stamp: Gate, ticket: Ticket, outcome: Outcome<'_>) {
        let now = self.clock.now();
        let limits = self.limits().trip;
        self.with_probe(stamp, now, |machine, at, recovery| {
            let outcome = match outcome {
                Outcome::Success
                    if limits.is_slow(machine.began(ticket).map(|began| now.saturating_sub(began))) =>
                {
                    Outcome::Slow
                }
                outcome => outcome,
            };
            let fault = match outcome {
                Outcome::Failure(fault) => Some(*fault),
                _ => None,
            };
            (machine.settle_probe(ticket, outcome, at, recovery), fault)
        });
    }

    /// Asks the machine about a probe of this epoch.
    fn with_probe(
        &self,
        stamp: Gate,
        now: u64,
        ask: impl FnOnce(&mut Machine, Moment, &RecoveryLimits) -> (Option<Change>, Option<Fault>),
    ) {
        let at = moment(now);
        let mut cold = self.cold();
        if cold.epoch != stamp.epoch() {
            return;
        }
        let Cold { machine, limits, .. } = &mut *cold;
        let (change, fault) = ask(machine, at, limits);
        let news = change.map(|change| self.apply(&mut cold, change, fault, None, now));
        drop(cold);
        News::spread(news);
    }

    /// Starts the epoch of a state that was just taken on.
    fn apply(
        &self,
        cold: &mut Cold,
        change: Change,
        fault: Option<Fault>,
        counts: Option<Counts>,
        now: u64,
    ) -> News {
        cold.epoch = next_epoch(cold.epoch);
        self.open_epoch(Gate::of(cold.machine.sign(), cold.epoch));
        let Change { from, to, reason } = change;
        let transition =
            Transition { circuit: cold.name, from, to, reason, fault, counts, epoch: cold.epoch };
        cold.since = now;
        cold.last = Some(transition);
        if to == CircuitState::Open {
            cold.trip = Some(transition);
        }
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

    fn limits(&self) -> Limits {
        self.settings.limits().unwrap_or_else(|| {
            let _cold = self.cold();
            self.settings.limits_locked()
        })
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

fn moment(now: u64) -> Moment {
    Moment { now, draw: draw() }
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
        cold.machine = Machine::new();
        self.open_epoch(Gate::closed(cold.epoch));
        let observer = cold.observer.take();
        let wakers = cold.waiters.drain();
        (cold.last, cold.trip) = (None, None);
        let failure = cold.failure.take();
        drop(cold);
        drop((observer, wakers, failure));
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

#[cfg(all(test, loom_models))]
mod models;
#[cfg(all(test, not(loom_models)))]
mod tests;
