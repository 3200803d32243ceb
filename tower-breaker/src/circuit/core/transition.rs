//! What only transitions and half-open calls touch.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use tower_fault_classify::__internals::wall_time;
use tower_fault_classify::Fault;

use super::super::state_word::LAST_EPOCH;
use super::super::wakers::Waiters;
use super::super::window::{Counting, Shape};
use super::control::Setup;
use super::{Core, Store, next_epoch};
use crate::machine::{Change, CircuitState, Machine, RecoveryLimits, Sample};
use crate::telemetry::{LastFailure, Meters, Transition, Watchers, changed};

/// The part of a circuit that stands behind its lock.
pub(crate) struct Cold {
    pub(super) name: &'static str,
    /// Counts the circuits that have had this core.
    pub(super) owner: u64,
    pub(super) epoch: u32,
    /// The epoch in which the circuit began.
    pub(super) first_epoch: u32,
    pub(super) machine: Machine,
    pub(super) limits: RecoveryLimits,
    pub(super) shape: Shape,
    pub(super) waiters: Waiters,
    pub(super) watchers: Arc<Watchers>,
    /// When the present state began.
    pub(super) since: u64,
    pub(super) last: Option<Transition>,
    /// The transition that opened the circuit last.
    pub(super) trip: Option<Transition>,
    pub(super) failure: Option<LastFailure>,
}

impl Cold {
    /// That of a closed circuit.
    pub(crate) fn new(setup: &Setup, now: u64, watchers: Arc<Watchers>) -> Self {
        let mut machine = Machine::new();
        // Nobody has been told of the circuit yet, so that this is how it begins, not a change.
        let _ = machine.disable(setup.disabled);
        Self {
            name: setup.name,
            owner: 0,
            epoch: 0,
            first_epoch: 0,
            machine,
            limits: setup.recovery,
            shape: setup.shape,
            waiters: Waiters::default(),
            watchers,
            since: now,
            last: None,
            trip: None,
            failure: None,
        }
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn state(&self) -> CircuitState {
        self.machine.state()
    }

    /// Whether a circuit that is not closed has recovered as far as anybody asked, and had as long again, by now.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_forgotten(&self, now: u64) -> bool {
        self.machine.forgotten_at(self.since).is_some_and(|at| now >= at)
    }

    /// Whether the circuit has closed and does not let all calls through yet.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_ramping(&self, now: u64) -> bool {
        self.machine.ramp(now).is_some_and(|share| share < 1.0)
    }

    /// Those who wait for a place, if anybody does: one is free.
    pub(super) fn place_is_free(&mut self) -> Vec<Option<Waker>> {
        if self.waiters.want_places() { self.waiters.drain() } else { Vec::new() }
    }
}

impl fmt::Debug for Cold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

impl<T: Store> Core<T> {
    /// Starts the epoch of a state that was just taken on.
    pub(super) fn apply(
        &self,
        cold: &mut Cold,
        change: Change,
        fault: Option<Fault>,
        sample: Option<Sample>,
        now: u64,
    ) -> News {
        let closed = (change.from == CircuitState::Closed).then(|| self.last_sample(sample, cold.epoch, now));
        let consecutive_failures = closed.map_or(0, |closed| closed.run);
        let counts = closed.and_then(|closed| closed.window);
        cold.epoch = next_epoch(cold.epoch);
        self.open_epoch(cold.machine.sign(), cold.epoch);
        let Change { from, to, reason } = change;
        let epoch = cold.epoch.wrapping_sub(cold.first_epoch) & LAST_EPOCH;
        let (circuit, at) = (cold.name, wall_time());
        let transition = Transition {
            circuit,
            key: None,
            from,
            to,
            reason,
            fault,
            counts,
            consecutive_failures,
            at,
            epoch,
        };
        cold.since = now;
        if to == CircuitState::Open {
            cold.trip = Some(transition.clone());
        }
        cold.last = Some(transition.clone());
        let (wakers, watchers) = (cold.waiters.drain(), Arc::clone(&cold.watchers));
        News { wakers, watchers, meters: self.plan().meters(), transition }
    }

    /// What a closed circuit has counted, in the epoch that ends now. `sample`: what led to the
    /// change, if calls did. The caller holds the lock.
    fn last_sample(&self, sample: Option<Sample>, epoch: u32, now: u64) -> Sample {
        let Sample { run, window } = sample.unwrap_or(Sample { run: 0, window: None });
        let window = window.unwrap_or_else(|| {
            let span = self.plan().settings.limits_locked().span;
            self.window().counts_at(&span, now, epoch)
        });
        // A success that came meanwhile may have ended the run.
        Sample { run: run.max(self.gate().run()), window: Some(window) }
    }

    /// Tells of a change, once the lock is released.
    pub(super) fn spread(&self, news: Option<News>) {
        let Some(News { wakers, watchers, meters, transition }) = news else { return };
        wake(wakers);
        if let Some(meters) = meters {
            meters.changed(&transition);
        }
        let transition = Transition { key: self.store().key(), ..transition };
        changed(&transition);
        watchers.tell(&transition);
    }
}

/// Wakes tasks, outside every lock.
pub(super) fn wake(wakers: Vec<Option<Waker>>) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// A transition that others are to hear of, once the lock is released.
#[must_use]
pub(super) struct News {
    wakers: Vec<Option<Waker>>,
    watchers: Arc<Watchers>,
    meters: Option<&'static Meters>,
    transition: Transition,
}
