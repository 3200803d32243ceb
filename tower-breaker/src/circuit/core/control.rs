//! Manual control, health reports, and the status of a circuit.

use std::sync::Arc;

use tower_fault_classify::__internals::sync::lock;

use super::{Core, Store, wake};
use crate::circuit::hot_config::Events;
use crate::circuit::locked::Locked;
use crate::circuit::status::StatusValues;
use crate::circuit::window::Window;
use crate::config::BreakerConfig;
use crate::machine::{CircuitState, Effect, Force, HealthReport, Machine, Moment, RecoveryLimits};
use crate::telemetry::Observers;

impl<S: Store> Core<S> {
    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.store().key()
    }

    pub(crate) fn config(&self) -> BreakerConfig {
        self.store().config()
    }

    pub(crate) fn observers(&self) -> Arc<Observers> {
        self.locked().observers()
    }

    /// Publishes whether the circuit has observers of failures. Called after they have changed.
    pub(crate) fn publish_observes_failures(&self) {
        self.observers().publish_observes_failures(|observes| {
            self.hot_config().set_events(Events::FAILURE_OBSERVER, observes);
        });
    }

    /// Opens the circuit manually; see [`Machine::trip_manually`].
    pub(crate) fn trip_manually(&self) -> Result<(), CircuitState> {
        self.control(Machine::trip_manually).map(drop)
    }

    /// Opens the circuit manually for this many nanoseconds; see [`Machine::trip_for`].
    pub(crate) fn trip_for(&self, period: u64) -> Result<(), CircuitState> {
        self.control(|machine, at, _| machine.trip_for(period, at.now)).map(drop)
    }

    /// Half-opens the circuit manually; see [`Machine::probe_now`].
    pub(crate) fn probe_now(&self) -> Result<(), CircuitState> {
        self.control(|machine, _, limits| machine.probe_now(limits)).map(drop)
    }

    /// Closes the circuit manually; see [`Machine::reset`].
    pub(crate) fn reset(&self) -> Result<(), CircuitState> {
        self.control(|machine, _, _| machine.reset().map(Effect::Changed)).map(drop)
    }

    /// Forces the circuit for this many nanoseconds; see [`Machine::force`]. `None`: until it is
    /// released.
    pub(crate) fn force(&self, force: Force, period: Option<u64>) -> Result<(), CircuitState> {
        self.control(|machine, at, _| {
            machine.force(force, period.map(|period| at.now.saturating_add(period)))
        })
        .map(drop)
    }

    /// Returns how many manual overrides were set. The number wraps.
    pub(crate) fn overrides(&self) -> u32 {
        self.store().locked_if_any().map_or(0, |locked| lock(locked).machine.overrides())
    }

    pub(crate) fn release(&self) {
        let released = self.control(|machine, _, limits| Ok(machine.release(limits).into()));
        debug_assert!(released.is_ok(), "release must not fail");
    }

    /// Applies the report of a health checker; see [`Machine::report`].
    pub(crate) fn report(&self, report: HealthReport) {
        let reported = self.control(|machine, at, limits| Ok(machine.report(report, at, limits).into()));
        debug_assert!(reported.is_ok(), "report must not fail");
    }

    /// Applies an operation to the machine. A manual override whose time is over ends first. The
    /// error is the state that does not allow the operation.
    pub(super) fn control(
        &self,
        operation: impl FnOnce(&mut Machine, Moment, &RecoveryLimits) -> Result<Effect, Force>,
    ) -> Result<Effect, CircuitState> {
        let now = self.hot_config().now();
        let mut locked = self.locked();
        let ended = self.end_override(&mut locked, now);
        let at = locked.moment(now);
        let Locked { machine, limits, .. } = &mut *locked;
        let effect = operation(machine, at, limits).map_err(|_| machine.state());
        let (mut pending, mut wakers) = (None, Vec::new());
        match effect {
            Ok(Effect::Changed(change)) => {
                pending = Some(self.apply(&mut locked, change, None, None, now));
            }
            Ok(Effect::Retimed) => {
                self.publish(locked.machine.published_state(), locked.epoch);
                // The timers of waiting tasks may end after the new deadline.
                wakers = locked.wakers.drain();
            }
            Ok(Effect::Unchanged) | Err(_) => {}
        }
        drop(locked);
        self.notify(ended);
        wake(wakers);
        self.notify(pending);
        effect
    }

    /// Applies a new configuration with `write`, under the lock. `write` returns whether the
    /// configuration disables the circuit.
    ///
    /// If `write` returns `None`, nothing is applied, and the result is `false`.
    #[cfg(feature = "keyed")]
    pub(crate) fn apply_config(&self, write: impl FnOnce(&mut Locked) -> Option<bool>) -> bool {
        let now = self.hot_config().now();
        let mut locked = self.locked();
        // Before the new configuration applies: the override was over under the former one.
        let ended = self.end_override(&mut locked, now);
        let Some(disabled) = write(&mut locked) else {
            drop(locked);
            self.notify(ended);
            return false;
        };
        let change = locked.machine.set_disabled(disabled);
        // Wake the tasks even if the state has not changed: the circuit may now only observe, or
        // reject calls again.
        let wakers = locked.wakers.drain();
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        drop(locked);
        wake(wakers);
        self.notify(ended);
        self.notify(pending);
        true
    }

    pub(crate) fn snapshot(&self) -> StatusValues {
        let now = self.hot_config().now();
        let locked = self.store().locked_if_any().map(lock);
        // Under the lock neither the epoch nor the limits change, so all values are of one epoch.
        // Without `locked`, there was no transition when it was read. A concurrent transition may
        // mix the values of two epochs.
        let word = self.state_word();
        let span = self.span();
        let consecutive_failures = if word.is_closed() {
            word.consecutive_failures()
        } else {
            locked.as_ref().map_or(0, |locked| locked.consecutive_failures)
        };
        let counts = self.window().counts_at(&span, now, word.epoch());
        let elapsed = |at: u64| now.saturating_sub(at);
        let since_last_failure = self.last_failure_at(locked.as_deref(), now, word.epoch()).map(elapsed);
        let Some(locked) = locked else {
            let state = word.initial_state();
            let last_success = self.window().last_success_at(&span, now, word.epoch());
            let since_last_success = last_success.map(elapsed);
            let counted = StatusValues { state, consecutive_failures, counts, ..StatusValues::default() };
            return StatusValues { since_last_success, since_last_failure, ..counted };
        };
        let rejections = self.store().rejections();
        StatusValues {
            state: locked.machine.state(),
            slow_start: locked.machine.slow_start_share(now),
            consecutive_failures,
            counts,
            half_open: locked.machine.half_open_progress(now, &locked.limits),
            rejections: rejections.wrapping_sub(locked.rejections_before),
            rejections_since_transition: rejections.wrapping_sub(locked.rejections_at_transition),
            open_remaining: locked.machine.open_remaining(now),
            override_remaining: locked.machine.override_remaining(now),
            lasted: now.saturating_sub(locked.since),
            since_last_success: self.last_success_at(&locked, locked.machine.state(), now).map(elapsed),
            since_last_failure,
            last_transition: locked.last_transition.as_deref().cloned(),
            last_trip: locked.last_trip.as_deref().cloned(),
            last_failure: locked.last_failure.clone(),
        }
    }
}
