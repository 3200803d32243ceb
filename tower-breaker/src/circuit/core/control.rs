//! What is done to a circuit from outside of its calls.

use std::sync::Arc;
use std::time::Duration;

use tower_fault_classify::__internals::sync::{Ordering, lock};
use tower_fault_classify::__internals::{Clock, StripedCounter};

use super::super::window::{StripedWindow, Window, WindowShape, WindowSpan};
use super::transition::wake;
use super::{
    CircuitState, Core, FIRST_EPOCH, INSTRUMENTS, Limits, Locked, Machine, OBSERVING, Single, Store, TIMED,
    moment,
};
use crate::machine::{Cancelled, Change, Counts, Force, HealthReport, RecoveryLimits, TripLimits};
use crate::telemetry::{LastFailure, Observers, Transition, instruments, number};

/// What a configuration tells a core, beside the clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CircuitConfig {
    pub(crate) name: &'static str,
    pub(crate) trip: TripLimits,
    pub(crate) recovery: RecoveryLimits,
    pub(crate) shape: WindowShape,
    pub(crate) observing: bool,
    pub(crate) disabled: bool,
}

/// What a evaluate at the circuit shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) state: CircuitState,
    pub(crate) slow_start: Option<f64>,
    pub(crate) consecutive_failures: u64,
    pub(crate) counts: Counts,
    pub(crate) remaining: Option<u64>,
    /// How long the state has lasted.
    pub(crate) lasted: u64,
    pub(crate) last_transition: Option<Transition>,
    pub(crate) last_trip: Option<Transition>,
    pub(crate) last_failure: Option<LastFailure>,
}

impl CircuitConfig {
    /// The clock to be read for a circuit that is configured with `clock`: see [`Clock::fit_for`].
    pub(crate) fn fit(&self, clock: Clock) -> Clock {
        let window = match self.shape {
            WindowShape::Time(nanos) => nanos,
            WindowShape::Count(_) => u64::MAX,
        };
        let slow = self.trip.slow.map_or(u64::MAX, |slow| slow.from);
        let cancelled = match self.trip.cancelled {
            Cancelled::FailureFrom(nanos) => nanos,
            _ => u64::MAX,
        };
        let RecoveryLimits { open, probe_lease, slow_start, .. } = self.recovery;
        let slow_start = if slow_start == 0 { u64::MAX } else { slow_start };
        let times = [window, slow, cancelled, open.initial, probe_lease, slow_start];
        let shortest = times.into_iter().fold(u64::MAX, u64::min);
        clock.fit_for(Duration::from_nanos(shortest))
    }

    /// Registers the instruments of the name, if there is a recorder, and returns their number. It runs
    /// the recorder: never under a lock.
    pub(crate) fn register_instruments(&self) -> u32 {
        number(self.name)
    }

    /// The word that tells a call at once what it must know of the configuration.
    pub(crate) fn flags(&self, instruments: u32, first_epoch: u32) -> u64 {
        let needs_duration = if self.trip.needs_duration() { TIMED } else { 0 };
        let observing = if self.observing { OBSERVING } else { 0 };
        (u64::from(instruments) << INSTRUMENTS)
            | (u64::from(first_epoch) << FIRST_EPOCH)
            | needs_duration
            | observing
    }
}

impl Core {
    /// A core that is yet to be adopted.
    pub(crate) fn new(clock: Clock, stripes: StripedCounter, config: &CircuitConfig) -> Self {
        Self::of(Single::new(clock, stripes, config))
    }

    /// Makes the core a closed circuit of another owner, on any clock. Calls of former owners may
    /// still use it: their epoch is over.
    pub(crate) fn adopt(&self, config: &CircuitConfig, configured: Clock) {
        let clock = config.fit(configured);
        let number = config.register_instruments();
        let mut locked = self.locked();
        locked.name = config.name;
        locked.clock = configured;
        locked.first_epoch = locked.epoch;
        locked.since = clock.now();
        self.write(&mut locked, config, None, number, clock);
        // Nobody has been told of the circuit yet, so that this is how it begins, not a change.
        if locked.machine.set_disabled(config.disabled).is_some() {
            self.publish(locked.machine.published_state(), locked.epoch);
        }
        let state = locked.machine.state();
        drop(locked);
        if let Some(instruments) = instruments(number) {
            instruments.begins(state);
        }
    }

    /// Changes the limits, and keeps all the rest. The window starts empty if its shape is another.
    pub(crate) fn reconfigure(&self, config: &CircuitConfig) {
        let number = config.register_instruments();
        let mut locked = self.locked();
        // It shows the same time as the clock in use.
        let clock = config.fit(locked.clock);
        let now = clock.now();
        let (shape, metered) = (locked.shape, self.hot_config().instruments().is_some());
        self.write(&mut locked, config, Some(shape), number, clock);
        let state = locked.machine.state();
        let change = locked.machine.set_disabled(config.disabled);
        // Without a change of the state, too: the circuit may have begun to observe, or to reject.
        let wakers = locked.wakers.drain();
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        drop(locked);
        // The recorder was installed after the circuit began.
        if let Some(instruments) = instruments(number).filter(|_| !metered) {
            instruments.begins(state);
        }
        wake(wakers);
        self.notify(pending);
    }

    fn write(
        &self,
        locked: &mut Locked,
        config: &CircuitConfig,
        before: Option<WindowShape>,
        instruments: u32,
        clock: Clock,
    ) {
        let former = self.hot_config().limits.load_locked().span;
        let (former_now, now) = (self.hot_config().clock.now(), clock.now());
        let span = if before == Some(config.shape) {
            former
        } else {
            WindowSpan::after(config.shape, former, StripedWindow::PARTS, former_now, now)
        };
        if before.is_none() {
            // Before the clock and the limits: a former owner's call that reads one of those finds
            // its bucket left behind.
            self.window().leave_behind(span.buckets.tag(now, locked.epoch));
        }
        self.hot_config().clock.store(clock);
        self.hot_config().limits.write(&Limits { span, trip: config.trip });
        if before != Some(config.shape) {
            self.window().forget_last_calls();
        }
        // Release: a thread that reads the circuit's first epoch here reads a word that is no older.
        self.hot_config().flags.store(config.flags(instruments, locked.first_epoch), Ordering::Release);
        locked.limits = config.recovery;
        locked.shape = config.shape;
    }

    /// How long a probe keeps its place, in nanoseconds.
    pub(crate) fn probe_lease(&self) -> u64 {
        self.locked().limits.probe_lease
    }

    /// The clock as it was configured. The core reads the precise clock in place of the coarse one
    /// while a configured time is short.
    pub(crate) fn configured_clock(&self) -> Clock {
        self.locked().clock
    }

    /// The number of the circuit that has the core.
    pub(crate) fn owner(&self) -> u64 {
        self.locked().owner
    }

    /// Keeps a failure in place of the last one, if it is one of this owner's.
    pub(crate) fn keep(&self, owner: u64, failure: LastFailure) {
        let mut locked = self.locked();
        if locked.owner == owner {
            let before = locked.last_failure.replace(failure);
            drop(locked);
            drop(before);
        }
    }
}

impl<T: Store> Core<T> {
    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.store().key()
    }

    pub(crate) fn observers(&self) -> Arc<Observers> {
        Arc::clone(&self.locked().observers)
    }

    /// Opens by hand; see [`Machine::trip_manually`].
    pub(crate) fn trip_manually(&self) -> Result<(), CircuitState> {
        let at = moment(self.hot_config().clock.now());
        self.control(|machine, limits| machine.trip_manually(at, limits))
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
        let at = moment(self.hot_config().clock.now());
        let reported = self.control(|machine, limits| Ok(machine.report(report, at, limits)));
        debug_assert!(reported.is_ok(), "a report is never refused");
    }

    /// Does something to the machine. The error is the state that forbids it.
    fn control(
        &self,
        act: impl FnOnce(&mut Machine, &RecoveryLimits) -> Result<Option<Change>, Force>,
    ) -> Result<(), CircuitState> {
        let now = self.hot_config().clock.now();
        let mut locked = self.locked();
        let Locked { machine, limits, .. } = &mut *locked;
        let Ok(change) = act(machine, limits) else { return Err(machine.state()) };
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        drop(locked);
        self.notify(pending);
        Ok(())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = self.hot_config().clock.now();
        let locked = self.store().locked_if_any().map(lock);
        // Under the lock the epoch and the limits stand still, so that all is of one epoch.
        let word = self.state_word();
        let span = self.hot_config().limits.load_locked().span;
        let consecutive_failures = if word.is_closed() { word.consecutive_failures() } else { 0 };
        let counts = self.window().counts_at(&span, now, word.epoch());
        let Some(locked) = locked else {
            let state = word.initial_state();
            return Snapshot { state, consecutive_failures, counts, ..Snapshot::default() };
        };
        Snapshot {
            state: locked.machine.state(),
            slow_start: locked.machine.slow_start_share(now),
            consecutive_failures,
            counts,
            remaining: word.is_open_until_deadline().then(|| self.open_for(word, now).unwrap_or(0)),
            lasted: now.saturating_sub(locked.since),
            last_transition: locked.last_transition.clone(),
            last_trip: locked.last_trip.clone(),
            last_failure: locked.last_failure.clone(),
        }
    }
}
