//! The data of transitions, half-open calls and waiting tasks, behind the circuit's lock.

use std::fmt;
use std::sync::Arc;

use tower_fault_classify::__internals::Clock;

use super::state_word::LAST_EPOCH;
use super::wakers::WakerList;
use crate::config::BreakerConfig;
#[cfg(feature = "keyed")]
use crate::machine::CircuitState;
use crate::machine::{CancelledRun, Machine, Moment, RecoveryLimits, WindowShape};
use crate::rng::JitterStream;
use crate::telemetry::{LastFailure, Observers, Transition};

/// The part of a circuit that its lock protects.
pub struct Locked {
    pub(crate) name: &'static str,
    /// The configured clock. The circuit may read the precise clock in place of the coarse one.
    pub(crate) clock: Clock,
    pub(crate) epoch: u32,
    /// The epoch in which the current circuit began.
    pub(crate) first_epoch: u32,
    pub(crate) machine: Machine,
    /// The failures since the last success. Only valid while the circuit is not closed: a closed
    /// circuit counts them in its state word.
    pub(crate) consecutive_failures: u64,
    /// The cancelled calls. Only valid while the state word has its bit for them.
    pub(crate) cancelled: CancelledRun,
    pub(crate) limits: RecoveryLimits,
    pub(crate) jitter: JitterStream,
    pub(crate) shape: WindowShape,
    pub(crate) wakers: WakerList,
    // Allocated at the first use, because most circuits never have an observer.
    pub(crate) observers: Option<Arc<Observers>>,
    /// The time at which the current state began, in nanoseconds on the circuit's clock.
    pub(crate) since: u64,
    /// The number of rejections that [`Store::rejections`](super::core::Store::rejections) showed
    /// when the circuit began.
    pub(crate) rejections_before: u64,
    /// The number of rejections that it showed at the last transition.
    pub(crate) rejections_at_transition: u64,
    // Allocated, because most circuits never have a transition. The two are often the same one.
    pub(crate) last_transition: Option<Arc<Transition>>,
    /// The last transition that opened the circuit.
    pub(crate) last_trip: Option<Arc<Transition>>,
    pub(crate) last_failure: Option<Arc<LastFailure>>,
    /// The time of the last success before the window began, or of the last successful probe.
    pub(crate) last_success: Option<u64>,
    /// The time at which the window began. 0: it has been there from the start.
    pub(crate) window_since: u64,
    /// The epoch since which failures are kept: that of the last reset, or the first one. A failed
    /// call of an earlier epoch is not kept.
    pub(crate) keeps_failures_since: u32,
}

impl Locked {
    /// Creates the data of a new circuit.
    pub(crate) fn new(
        config: &BreakerConfig,
        clock: Clock,
        jitter: JitterStream,
        observers: Option<Arc<Observers>>,
    ) -> Self {
        let mut machine = Machine::new();
        // The change is ignored: this is the initial state, not a transition.
        let _ = machine.set_disabled(config.is_disabled());
        Self {
            name: config.name(),
            clock,
            epoch: 0,
            first_epoch: 0,
            machine,
            consecutive_failures: 0,
            cancelled: CancelledRun::default(),
            limits: config.recovery,
            jitter,
            shape: config.window,
            wakers: WakerList::default(),
            observers,
            since: clock.now(),
            rejections_before: 0,
            rejections_at_transition: 0,
            last_transition: None,
            last_trip: None,
            last_failure: None,
            last_success: None,
            window_since: 0,
            keeps_failures_since: 0,
        }
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn state(&self) -> CircuitState {
        self.machine.state()
    }

    /// Returns whether the circuit is idle, although it is not closed: see [`Machine::idle_at`].
    #[cfg(feature = "keyed")]
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        self.machine.idle_at(self.since, &self.limits).is_some_and(|at| now >= at)
    }

    /// Returns whether a slow start of the circuit is in use.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_in_slow_start(&self, now: u64) -> bool {
        self.machine.is_in_slow_start(now)
    }

    /// Returns the observers, which are allocated if necessary.
    pub(crate) fn observers(&mut self) -> Arc<Observers> {
        Arc::clone(self.observers.get_or_insert_default())
    }

    /// Returns whether `epoch` is one of the current circuit, and not of a former one in the same
    /// storage.
    pub(crate) const fn is_own_epoch(&self, epoch: u32) -> bool {
        // Epochs wrap, so their distances from the first one are compared.
        let age = epoch.wrapping_sub(self.first_epoch) & LAST_EPOCH;
        age <= self.epoch.wrapping_sub(self.first_epoch) & LAST_EPOCH
    }

    /// Returns whether the failure of a call that began in `epoch` may become the last failure.
    pub(crate) const fn keeps_failure_of(&self, epoch: u32) -> bool {
        // Epochs wrap, so their distances from the current one are compared.
        let age = self.epoch.wrapping_sub(epoch) & LAST_EPOCH;
        age <= self.epoch.wrapping_sub(self.keeps_failures_since) & LAST_EPOCH
    }

    /// Removes the last failure and the time of the last success. Failures of earlier epochs are
    /// not kept any more.
    pub(crate) fn clear_last_calls(&mut self) -> Option<Arc<LastFailure>> {
        self.last_success = None;
        self.keeps_failures_since = self.epoch;
        self.last_failure.take()
    }

    /// Returns the input of a decision at the time `now`.
    pub(crate) fn moment(&mut self, now: u64) -> Moment {
        Moment { now, draw: self.jitter.peek() }
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, epoch, machine, limits, last_transition, .. } = self;
        f.debug_struct("Locked")
            .field("name", name)
            .field("epoch", epoch)
            .field("machine", machine)
            .field("limits", limits)
            .field("last_transition", last_transition)
            .finish_non_exhaustive()
    }
}
