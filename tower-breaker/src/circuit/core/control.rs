//! What is done to a circuit from outside of its calls.

use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::sync::{Ordering, lock};
use tower_fault_classify::__internals::{Clock, Striped};

use super::super::window::{Counting, Shape, Span, Window};
use super::transition::wake;
use super::{
    CircuitState, Cold, Core, FIRST_EPOCH, Limits, METERS, Machine, OBSERVING, Single, Store, TIMED, moment,
};
use crate::label::Label;
use crate::machine::{Cancelled, Change, Counts, Force, HealthReport, RecoveryLimits, TripLimits};
use crate::telemetry::{LastFailure, Transition, Watchers, meters, number};

/// What a configuration tells a core, beside the clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) trip: TripLimits,
    pub(crate) recovery: RecoveryLimits,
    pub(crate) shape: Shape,
    pub(crate) observing: bool,
    pub(crate) disabled: bool,
}

/// What a look at the circuit shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) state: CircuitState,
    pub(crate) ramp: Option<f64>,
    pub(crate) run: u64,
    pub(crate) counts: Counts,
    pub(crate) left: Option<u64>,
    /// How long the state has lasted.
    pub(crate) lasted: u64,
    pub(crate) last: Option<Transition>,
    pub(crate) trip: Option<Transition>,
    pub(crate) failure: Option<LastFailure>,
}

impl Setup {
    /// The clock to be read for a circuit that is configured with `clock`: see [`Clock::fit_for`].
    pub(crate) fn fit(&self, clock: Clock) -> Clock {
        let window = match self.shape {
            Shape::Time(nanos) => nanos,
            Shape::Count(_) => u64::MAX,
        };
        let slow = self.trip.slow.map_or(u64::MAX, |slow| slow.from);
        let cancelled = match self.trip.cancelled {
            Cancelled::FailureFrom(nanos) => nanos,
            _ => u64::MAX,
        };
        let RecoveryLimits { open, probe_lease, ramp, .. } = self.recovery;
        let ramp = if ramp == 0 { u64::MAX } else { ramp };
        let times = [window, slow, cancelled, open.first, probe_lease, ramp];
        let shortest = times.into_iter().fold(u64::MAX, u64::min);
        clock.fit_for(Duration::from_nanos(shortest))
    }

    /// Registers the meters of the name, if there is a recorder, and returns their number. It runs
    /// the recorder: never under a lock.
    pub(crate) fn register_meters(&self) -> u32 {
        number(self.name)
    }

    /// The word that tells a call at once what it must know of the configuration.
    pub(crate) fn flags(&self, meters: u32, first_epoch: u32) -> u64 {
        let timed = if self.trip.timed() { TIMED } else { 0 };
        let observing = if self.observing { OBSERVING } else { 0 };
        (u64::from(meters) << METERS) | (u64::from(first_epoch) << FIRST_EPOCH) | timed | observing
    }
}

impl Core {
    /// A core that is yet to be adopted.
    pub(crate) fn new(clock: Clock, stripes: Striped, setup: &Setup) -> Self {
        Self::of(Single::new(clock, stripes, setup))
    }

    /// Makes the core a closed circuit of another owner, on any clock. Calls of former owners may
    /// still use it: their epoch is over.
    pub(crate) fn adopt(&self, setup: &Setup, clock: Clock) {
        let number = setup.register_meters();
        let mut cold = self.cold();
        cold.name = setup.name;
        cold.first_epoch = cold.epoch;
        cold.since = clock.now();
        self.write(&mut cold, setup, None, number, clock);
        // Nobody has been told of the circuit yet, so that this is how it begins, not a change.
        if cold.machine.disable(setup.disabled).is_some() {
            self.open_epoch(cold.machine.sign(), cold.epoch);
        }
        let state = cold.machine.state();
        drop(cold);
        if let Some(meters) = meters(number) {
            meters.begins(state);
        }
    }

    /// Changes the limits, and keeps all the rest. The window starts empty if its shape is another.
    /// `clock` shows the same time as the clock in use.
    pub(crate) fn reconfigure(&self, setup: &Setup, clock: Clock) {
        let now = clock.now();
        let number = setup.register_meters();
        let mut cold = self.cold();
        let (shape, metered) = (cold.shape, self.plan().meters().is_some());
        self.write(&mut cold, setup, Some(shape), number, clock);
        let state = cold.machine.state();
        let change = cold.machine.disable(setup.disabled);
        // Without a change of the state, too: the circuit may have begun to observe, or to reject.
        let wakers = cold.waiters.drain();
        let news = change.map(|change| self.apply(&mut cold, change, None, None, now));
        drop(cold);
        // The recorder was installed after the circuit began.
        if let Some(meters) = meters(number).filter(|_| !metered) {
            meters.begins(state);
        }
        wake(wakers);
        self.spread(news);
    }

    fn write(&self, cold: &mut Cold, setup: &Setup, before: Option<Shape>, meters: u32, clock: Clock) {
        let former = self.plan().settings.limits_locked().span;
        let (former_now, now) = (self.plan().clock.now(), clock.now());
        let span = if before == Some(setup.shape) {
            former
        } else {
            Span::after(setup.shape, former, Window::PARTS, former_now, now)
        };
        if before.is_none() {
            // Before the clock and the limits: a former owner's call that reads one of those finds
            // its bucket left behind.
            self.window().leave_behind(span.buckets.tag(now, cold.epoch));
        }
        self.plan().clock.store(clock);
        self.plan().settings.write(&Limits { span, trip: setup.trip });
        if before != Some(setup.shape) {
            self.window().forget_last_calls();
        }
        // Release: a thread that reads the circuit's first epoch here reads a gate that is no older.
        self.plan().flags.store(setup.flags(meters, cold.first_epoch), Ordering::Release);
        cold.limits = setup.recovery;
        cold.shape = setup.shape;
    }

    /// How long a probe keeps its place, in nanoseconds.
    pub(crate) fn probe_lease(&self) -> u64 {
        self.cold().limits.probe_lease
    }

    /// The number of the circuit that has the core.
    pub(crate) fn owner(&self) -> u64 {
        self.cold().owner
    }

    /// Keeps a failure in place of the last one, if it is one of this owner's.
    pub(crate) fn keep(&self, owner: u64, failure: LastFailure) {
        let mut cold = self.cold();
        if cold.owner == owner {
            let before = cold.failure.replace(failure);
            drop(cold);
            drop(before);
        }
    }
}

impl<T: Store> Core<T> {
    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.store().key()
    }

    #[inline]
    pub(crate) fn label(&self) -> Option<Label> {
        self.store().label()
    }

    pub(crate) fn watchers(&self) -> Arc<Watchers> {
        Arc::clone(&self.cold().watchers)
    }

    /// Opens by hand; see [`Machine::trip_by_hand`].
    pub(crate) fn trip_by_hand(&self) -> Result<(), CircuitState> {
        let at = moment(self.plan().clock.now());
        self.control(|machine, limits| machine.trip_by_hand(at, limits))
    }

    /// Closes by hand; see [`Machine::reset`].
    pub(crate) fn reset(&self) -> Result<(), CircuitState> {
        self.control(|machine, _| machine.reset().map(Some))
    }

    pub(crate) fn force(&self, force: Force) -> Result<(), CircuitState> {
        self.control(|machine, _| machine.force(force))
    }

    pub(crate) fn release(&self) {
        let released = self.control(|machine, limits| Ok(machine.release(limits)));
        debug_assert!(released.is_ok(), "a release is never refused");
    }

    /// Hears what a health checker says; see [`Machine::report`]. Under force it says nothing.
    pub(crate) fn report(&self, report: HealthReport) {
        let at = moment(self.plan().clock.now());
        let reported = self.control(|machine, limits| Ok(machine.report(report, at, limits)));
        debug_assert!(reported.is_ok(), "a report is never refused");
    }

    /// Does something to the machine. The error is the state that forbids it.
    fn control(
        &self,
        act: impl FnOnce(&mut Machine, &RecoveryLimits) -> Result<Option<Change>, Force>,
    ) -> Result<(), CircuitState> {
        let now = self.plan().clock.now();
        let mut cold = self.cold();
        let Cold { machine, limits, .. } = &mut *cold;
        let Ok(change) = act(machine, limits) else { return Err(machine.state()) };
        let news = change.map(|change| self.apply(&mut cold, change, None, None, now));
        drop(cold);
        self.spread(news);
        Ok(())
    }

    pub(crate) fn view(&self) -> View {
        let now = self.plan().clock.now();
        let cold = self.store().cold_if_any().map(lock);
        // Under the lock the epoch and the limits stand still, so that all is of one epoch.
        let gate = self.gate();
        let span = self.plan().settings.limits_locked().span;
        let run = if gate.is_closed() { gate.run() } else { 0 };
        let counts = self.window().counts_at(&span, now, gate.epoch());
        let Some(cold) = cold else {
            let state = gate.untroubled_state();
            return View { state, run, counts, ..View::default() };
        };
        View {
            state: cold.machine.state(),
            ramp: cold.machine.ramp(now),
            run,
            counts,
            left: gate.is_timed().then(|| self.open_for(gate, now).unwrap_or(0)),
            lasted: now.saturating_sub(cold.since),
            last: cold.last.clone(),
            trip: cold.trip.clone(),
            failure: cold.failure.clone(),
        }
    }
}
