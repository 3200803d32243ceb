//! What only transitions and half-open calls touch.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;

use tower_fault_classify::__internals::{Clock, system_time};
use tower_fault_classify::Fault;

use super::super::state_word::LAST_EPOCH;
use super::super::wakers::WakerList;
use super::super::window::{Window, WindowShape};
use super::control::CircuitConfig;
use super::{Core, Store, next_epoch};
use crate::machine::{Change, CircuitState, Machine, RecoveryLimits, Sample};
use crate::telemetry::{Instruments, LastFailure, Observers, Transition, changed};

/// The part of a circuit that stands behind its lock.
pub struct Locked {
    pub(super) name: &'static str,
    /// As it was configured.
    pub(super) clock: Clock,
    /// Counts the circuits that have had this core.
    pub(super) owner: u64,
    pub(super) epoch: u32,
    /// The epoch in which the circuit began.
    pub(super) first_epoch: u32,
    pub(super) machine: Machine,
    pub(super) limits: RecoveryLimits,
    pub(super) shape: WindowShape,
    pub(super) wakers: WakerList,
    pub(super) observers: Arc<Observers>,
    /// When the present state began.
    pub(super) since: u64,
    pub(super) last_transition: Option<Transition>,
    /// The transition that opened the circuit last.
    pub(super) last_trip: Option<Transition>,
    pub(super) last_failure: Option<LastFailure>,
}

impl Locked {
    /// That of a closed circuit.
    pub(crate) fn new(config: &CircuitConfig, clock: Clock, observers: Arc<Observers>) -> Self {
        let mut machine = Machine::new();
        // Nobody has been told of the circuit yet, so that this is how it begins, not a change.
        let _ = machine.set_disabled(config.disabled);
        Self {
            name: config.name,
            clock,
            owner: 0,
            epoch: 0,
            first_epoch: 0,
            machine,
            limits: config.recovery,
            shape: config.shape,
            wakers: WakerList::default(),
            observers,
            since: clock.now(),
            last_transition: None,
            last_trip: None,
            last_failure: None,
        }
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn state(&self) -> CircuitState {
        self.machine.state()
    }

    /// Whether a circuit that is not closed has recovered as far as anybody asked, and had as long again, by now.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_forgotten(&self, now: u64) -> bool {
        self.machine.idle_at(self.since).is_some_and(|at| now >= at)
    }

    /// Whether the circuit has closed and does not let all calls through yet.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_in_slow_start(&self, now: u64) -> bool {
        self.machine.slow_start_share(now).is_some_and(|share| share < 1.0)
    }

    /// Those who wait for a place, if anybody does: one is free.
    pub(super) fn wakers_for_free_slot(&mut self) -> Vec<Option<Waker>> {
        if self.wakers.wants_probe_slot() { self.wakers.drain() } else { Vec::new() }
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, epoch, machine, limits, last_transition, .. } = self;
        f.debug_struct("Cold")
            .field("name", name)
            .field("epoch", epoch)
            .field("machine", machine)
            .field("limits", limits)
            .field("last_transition", last_transition)
            .finish_non_exhaustive()
    }
}

impl<T: Store> Core<T> {
    /// Starts the epoch of a state that was just taken on.
    pub(super) fn apply(
        &self,
        locked: &mut Locked,
        change: Change,
        fault: Option<Fault>,
        sample: Option<Sample>,
        now: u64,
    ) -> PendingNotification {
        let closed =
            (change.from == CircuitState::Closed).then(|| self.last_sample(sample, locked.epoch, now));
        let consecutive_failures = closed.map_or(0, |closed| closed.consecutive_failures);
        let counts = closed.and_then(|closed| closed.window);
        locked.epoch = next_epoch(locked.epoch);
        self.publish(locked.machine.published_state(), locked.epoch);
        let Change { from, to, reason } = change;
        let epoch = locked.epoch.wrapping_sub(locked.first_epoch) & LAST_EPOCH;
        let (circuit, at) = (locked.name, system_time());
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
        locked.since = now;
        if to == CircuitState::Open {
            locked.last_trip = Some(transition.clone());
        }
        locked.last_transition = Some(transition.clone());
        let (wakers, observers) = (locked.wakers.drain(), Arc::clone(&locked.observers));
        PendingNotification { wakers, observers, instruments: self.hot_config().instruments(), transition }
    }

    /// What a closed circuit has counted, in the epoch that ends now. `sample`: what led to the
    /// change, if calls did. The caller holds the lock.
    fn last_sample(&self, sample: Option<Sample>, epoch: u32, now: u64) -> Sample {
        let Sample { consecutive_failures, window } =
            sample.unwrap_or(Sample { consecutive_failures: 0, window: None });
        let window = window.unwrap_or_else(|| {
            let span = self.hot_config().limits.load_locked().span;
            self.window().counts_at(&span, now, epoch)
        });
        // A success that came meanwhile may have ended the run.
        Sample {
            consecutive_failures: consecutive_failures.max(self.state_word().consecutive_failures()),
            window: Some(window),
        }
    }

    /// Tells of a change, once the lock is released.
    pub(super) fn notify(&self, pending: Option<PendingNotification>) {
        let Some(PendingNotification { wakers, observers, instruments, transition }) = pending else {
            return;
        };
        wake(wakers);
        if let Some(instruments) = instruments {
            instruments.changed(&transition);
        }
        let transition = Transition { key: self.store().key(), ..transition };
        changed(&transition);
        observers.tell(&transition);
    }
}

/// Wakes tasks, outside every lock.
pub(super) fn wake(wakers: Vec<Option<Waker>>) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// A transition that others are to hear of, once the lock is released.
#[must_use]
pub(super) struct PendingNotification {
    wakers: Vec<Option<Waker>>,
    observers: Arc<Observers>,
    instruments: Option<&'static Instruments>,
    transition: Transition,
}
