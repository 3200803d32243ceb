//! What calls come to.

use tower_fault_classify::__internals::Waiting;
use tower_fault_classify::__internals::sync::Ordering;
use tower_fault_classify::{Fault, Verdict};

use super::transition::wake;
use super::{Cold, Core, Entry, Store, TIMED, begun_at, moment};
use crate::circuit::limits::Limits;
use crate::circuit::state_word::Gate;
use crate::circuit::window::{Counting, Seen};
use crate::machine::{
    ANSWERED, Cancelled, Change, GIVEN_UP, Machine, Moment, Outcome, Reason, RecoveryLimits, Sample, Ticket,
    TripLimits, fewest_failures, may_reach_slow_rate, none_completes, trips,
};

/// How long a call took.
#[derive(Clone, Copy, Debug)]
pub enum Took {
    /// It took until it is settled.
    UntilNow,
    /// It took so many nanoseconds; `None`: nobody knows.
    So(Option<u64>),
}

impl Took {
    fn or(self, until_now: impl FnOnce() -> Option<u64>) -> Option<u64> {
        match self {
            Self::UntilNow => until_now(),
            Self::So(took) => took,
        }
    }
}

impl<T: Store> Core<T> {
    /// Hears what a call came to.
    #[inline]
    pub(crate) fn settle(&self, entry: Entry, verdict: &Verdict) {
        self.tell_settled(entry.stamp, verdict);
        // The usual case passes in registers.
        if entry.word == 0 && verdict.is_success() {
            self.success(entry.stamp);
        } else {
            self.settle_unusual(entry, verdict, Took::UntilNow);
        }
    }

    /// Hears what a call came to that was answered before, after so long.
    pub(crate) fn settle_late(&self, entry: Entry, verdict: &Verdict, took: Took) {
        self.tell_settled(entry.stamp, verdict);
        self.settle_unusual(entry, verdict, took);
    }

    /// How long a call has taken until now, if that matters.
    pub(crate) fn took(&self, entry: Entry) -> Took {
        if !self.has(TIMED) {
            return Took::UntilNow;
        }
        Took::So(self.ran_for(entry, self.plan().clock.now()))
    }

    #[inline(never)]
    fn settle_unusual(&self, entry: Entry, verdict: &Verdict, took: Took) {
        let outcome = Outcome::of(verdict);
        match entry.ticket() {
            Some(ticket) => self.settle_probe(entry.stamp, ticket, outcome, took),
            None if entry.is_uncounted() => {}
            None => match outcome {
                Outcome::Success | Outcome::Slow if entry.word == 0 => self.success(entry.stamp),
                Outcome::Success | Outcome::Slow => self.timed_success(entry, took),
                Outcome::Failure(fault) => self.failure(entry, fault, took),
                Outcome::Answered => self.answered(entry.stamp),
                Outcome::Neutral => {}
            },
        }
    }

    /// Takes back the admission of a call that has not begun: a probe's slot, or its credit in a
    /// slow start.
    #[inline(never)]
    pub(crate) fn cancel(&self, entry: Entry) {
        let gate = self.gate();
        if entry.stamp.is_closed() && gate.stamp() == entry.stamp && !gate.lets_all_through() {
            let now = self.plan().clock.now();
            self.give_back(entry, |machine| machine.give_back_credit(now));
        }
        self.free_slot(entry);
    }

    /// Frees the slot of a probe.
    fn free_slot(&self, entry: Entry) {
        if let Some(ticket) = entry.ticket() {
            self.give_back(entry, |machine| machine.give_back(ticket));
        }
    }

    fn give_back(&self, entry: Entry, give_back: impl FnOnce(&mut Machine)) {
        let mut cold = self.cold();
        if cold.epoch == entry.stamp.epoch() {
            give_back(&mut cold.machine);
            let wakers = cold.place_is_free();
            drop(cold);
            wake(wakers);
        }
    }

    /// Records a call that its caller cancelled before the server answered.
    #[cold]
    pub(crate) fn abandon(&self, entry: Entry) {
        self.cancelled(entry, false);
    }

    /// Records a call that its caller cancelled while it read the server's answer.
    #[cold]
    pub(crate) fn abandon_answered(&self, entry: Entry) {
        self.cancelled(entry, true);
    }

    #[inline(never)]
    fn cancelled(&self, entry: Entry, answered: bool) {
        self.tell_abandoned(entry.stamp);
        if entry.is_uncounted() {
            return;
        }
        // The caller left in the middle of its upload: the server could not answer yet.
        if Waiting::is_noted() {
            return self.free_slot(entry);
        }
        let limits = self.limits();
        let now = self.plan().clock.now();
        match (limits.trip.cancelled, entry.ticket()) {
            (Cancelled::Ignored, _) => self.free_slot(entry),
            (Cancelled::Failure, _) => self.settle_unusual(entry, &GIVEN_UP.into(), Took::UntilNow),
            (Cancelled::FailureFrom(from), _) => {
                if self.ran_for(entry, now).is_some_and(|ran| ran >= from) {
                    self.settle_unusual(entry, &GIVEN_UP.into(), Took::UntilNow);
                } else {
                    self.free_slot(entry);
                }
            }
            (Cancelled::IfNoneCompletes, _) if answered => {
                self.settle_unusual(entry, &ANSWERED.into(), Took::UntilNow);
            }
            (Cancelled::IfNoneCompletes, Some(ticket)) => {
                let most = limits.trip.minimum_calls;
                self.with_probe(entry.stamp, now, |machine, at, recovery| {
                    (machine.abandon_probe(ticket, most, at, recovery), None)
                });
            }
            (Cancelled::IfNoneCompletes, None) => self.count_cancelled(entry.stamp, &limits, now),
        }
    }

    /// Hears that a caller gave up who had waited since then for the service behind the circuit.
    pub(crate) fn give_up_waiting(&self, since: u64) {
        let gate = self.gate();
        if gate.is_closed() {
            self.abandon(Entry { stamp: gate.stamp(), word: begun_at(since) });
        }
    }

    /// How long a call has run at least, if that is known.
    fn ran_for(&self, entry: Entry, now: u64) -> Option<u64> {
        match entry.ticket() {
            Some(ticket) => {
                let cold = self.cold();
                cold.machine.ran_for(ticket, now, &cold.limits)
            }
            None => entry.took(now),
        }
    }

    /// Hears of a success of a call that was no probe.
    #[inline]
    pub(crate) fn success(&self, stamp: Gate) {
        if self.gate() == stamp || self.end_run(stamp) {
            let span = self.plan().settings.span().unwrap_or_else(|| self.limits().span);
            self.window().success(&span, || self.plan().clock.now(), stamp.epoch());
        }
    }

    fn timed_success(&self, entry: Entry, took: Took) {
        let stamp = entry.stamp;
        let now = self.plan().clock.now();
        let limits = self.limits();
        let slow = limits.trip.is_slow(took.or(|| entry.took(now)));
        self.tell_slow(stamp, slow);
        if !slow {
            self.success(stamp);
        } else if self.gate().stamp() == stamp {
            let seen = self.window().slow_success(&limits.span, now, stamp.epoch()); // ①
            // ② also ends the run.
            if self.end_run(stamp) {
                self.look(stamp, &limits.trip, 0, Some(seen), None, now);
            }
        }
    }

    /// Empties the run of failures. False: the epoch is over.
    #[cold]
    #[inline(never)]
    fn end_run(&self, stamp: Gate) -> bool {
        self.exchange(stamp, Gate::without_run).is_some()
    }

    /// Exchanges a closed gate of this epoch for another, and returns what it was.
    #[inline]
    fn exchange(&self, stamp: Gate, to: impl Fn(Gate) -> Gate) -> Option<Gate> {
        // Release publishes what was put into the window to whoever exchanges next, Acquire shows what those before have put in.
        let before = self.store.gate().fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let gate = Gate::from_word(word);
            (gate.stamp() == stamp).then(|| to(gate).word())
        });
        before.ok().map(Gate::from_word)
    }

    fn failure(&self, entry: Entry, fault: &Fault, took: Took) {
        let stamp = entry.stamp;
        if self.gate().stamp() != stamp {
            return;
        }
        if entry.word != 0 {
            return self.timed_failure(entry, fault, took);
        }
        let now = self.plan().clock.now();
        let glance = self.plan().settings.glance().unwrap_or_else(|| {
            let _cold = self.cold();
            self.plan().settings.glance().expect("nobody writes under the lock")
        });
        let seen = self.window().failure(&glance.span, now, stamp.epoch(), false); // ①
        let Some(before) = self.exchange(stamp, Gate::one_more_failure) else { return }; // ②
        let run = before.one_more_failure().run();
        // ③
        if run >= glance.run || self.window().failures_in(seen) >= glance.failures {
            let limits = self.limits();
            // A window of another shape has been configured since: it starts empty, without this failure.
            let seen = (limits.span == glance.span).then_some(seen);
            self.look(stamp, &limits.trip, run, seen, Some(fault), now);
        }
    }

    #[inline(never)]
    fn timed_failure(&self, entry: Entry, fault: &Fault, took: Took) {
        let stamp = entry.stamp;
        let now = self.plan().clock.now();
        let limits = self.limits();
        let slow = limits.trip.is_slow(took.or(|| entry.took(now)));
        self.tell_slow(stamp, slow);
        let seen = self.window().failure(&limits.span, now, stamp.epoch(), slow); // ①
        let Some(before) = self.exchange(stamp, Gate::one_more_failure) else { return }; // ②
        self.look(stamp, &limits.trip, before.one_more_failure().run(), Some(seen), Some(fault), now);
    }

    /// ③: whether the circuit opens. `seen` is where the call was recorded, if that window is still the circuit's.
    #[inline(never)]
    fn look(
        &self,
        stamp: Gate,
        trip: &TripLimits,
        run: u64,
        mut seen: Option<Seen>,
        fault: Option<&Fault>,
        now: u64,
    ) {
        let may_reach = |seen: &Seen| {
            self.window().failures_in(*seen) >= fewest_failures(trip)
                || (trip.slow.is_some() && may_reach_slow_rate(trip, self.window().slow_in(*seen)))
        };
        loop {
            let window = seen.filter(may_reach).map(|seen| self.window().counts(seen));
            let sample = Sample { run, window };
            let Some(reason) = trips(trip, &sample) else { return };
            match window.and(seen).and_then(|seen| self.moved_on(seen)) {
                None => return self.trip(stamp.epoch(), reason, fault, now, sample),
                later => seen = later,
            }
        }
    }

    /// The newest bucket, if it is another than the one whose window was summed.
    ///
    /// When a bucket ends, calls of the next one replace the counts of the oldest. A sum that runs
    /// meanwhile may hold the oldest failures without the oldest calls, so it must be taken again.
    fn moved_on(&self, seen: Seen) -> Option<Seen> {
        let Seen::Bucket(summed) = seen else { return None };
        self.window().newest().other_than(summed).map(Seen::Bucket)
    }

    fn count_cancelled(&self, stamp: Gate, limits: &Limits, now: u64) {
        if self.gate().stamp() != stamp {
            return;
        }
        let mut seen = self.window().cancelled(&limits.span, now, stamp.epoch()); // ①
        if self.exchange(stamp, |gate| gate).is_none() {
            return; // ②
        }
        loop {
            // Usually the number of cancelled calls decides, without the other counts.
            if !none_completes(&limits.trip, self.window().cancelled_in(seen), false) {
                return;
            }
            let counts = self.window().counts(seen); // ③
            let completed = self.window().completed_in(seen, &counts);
            if !none_completes(&limits.trip, counts.cancelled, completed) {
                return;
            }
            match self.moved_on(seen) {
                None => {
                    let sample = Sample { run: 0, window: Some(counts) };
                    return self.trip(stamp.epoch(), Reason::NoneCompletes, Some(&GIVEN_UP), now, sample);
                }
                Some(later) => seen = later,
            }
        }
    }

    /// Records a completed call that counts in no rate.
    fn answered(&self, stamp: Gate) {
        if self.gate().stamp() == stamp {
            self.window().answer(&self.limits().span, self.plan().clock.now(), stamp.epoch());
        }
    }

    #[cold]
    fn trip(&self, epoch: u32, reason: Reason, fault: Option<&Fault>, now: u64, sample: Sample) {
        let at = moment(now);
        let mut cold = self.cold();
        if cold.epoch != epoch {
            return;
        }
        let Cold { machine, limits, .. } = &mut *cold;
        let change = machine.trip(reason, fault, at, limits);
        let news = change.map(|change| self.apply(&mut cold, change, fault.copied(), Some(sample), now));
        drop(cold);
        self.spread(news);
    }

    #[inline(never)]
    fn settle_probe(&self, stamp: Gate, ticket: Ticket, outcome: Outcome<'_>, took: Took) {
        let now = self.plan().clock.now();
        let limits = self.limits().trip;
        let mut slow = false;
        self.with_probe(stamp, now, |machine, at, recovery| {
            let outcome = match outcome {
                Outcome::Success if limits.is_slow(took.or(|| machine.ran_for(ticket, now, recovery))) => {
                    slow = true;
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
        self.tell_slow(stamp, slow);
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
        let wakers = cold.place_is_free();
        drop(cold);
        wake(wakers);
        self.spread(news);
    }
}
