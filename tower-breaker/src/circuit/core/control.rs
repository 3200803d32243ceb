//! Manual control, health reports, and the snapshot of a circuit.

use std::sync::Arc;

use tower_fault_classify::__internals::sync::lock;

use super::{Core, Store};
use crate::circuit::locked::Locked;
use crate::circuit::status::Snapshot;
use crate::circuit::window::Window;
use crate::machine::{Change, CircuitState, Force, HealthReport, Machine, Moment, RecoveryLimits};
use crate::telemetry::Observers;

impl<S: Store> Core<S> {
    pub(crate) fn key(&self) -> Option<Arc<str>> {
        self.store().key()
    }

    pub(crate) fn observers(&self) -> Arc<Observers> {
        Arc::clone(&self.locked().observers)
    }

    /// Opens the circuit manually; see [`Machine::trip_manually`].
    pub(crate) fn trip_manually(&self) -> Result<(), CircuitState> {
        self.control(Machine::trip_manually)
    }

    /// Closes the circuit manually; see [`Machine::reset`].
    pub(crate) fn reset(&self) -> Result<(), CircuitState> {
        self.control(|machine, _, _| machine.reset().map(Some))
    }

    pub(crate) fn force(&self, force: Force) -> Result<(), CircuitState> {
        self.control(|machine, _, _| machine.force(force))
    }

    pub(crate) fn release(&self) {
        let released = self.control(|machine, _, limits| Ok(machine.release(limits)));
        debug_assert!(released.is_ok(), "release must not fail");
    }

    /// Applies the report of a health checker; see [`Machine::report`].
    pub(crate) fn report(&self, report: HealthReport) {
        let reported = self.control(|machine, at, limits| Ok(machine.report(report, at, limits)));
        debug_assert!(reported.is_ok(), "report must not fail");
    }

    /// Applies an operation to the machine. The error is the state that does not allow the
    /// operation.
    fn control(
        &self,
        operation: impl FnOnce(&mut Machine, Moment, &RecoveryLimits) -> Result<Option<Change>, Force>,
    ) -> Result<(), CircuitState> {
        let now = self.hot_config().now();
        let mut locked = self.locked();
        let at = locked.moment(now);
        let Locked { machine, limits, .. } = &mut *locked;
        let Ok(change) = operation(machine, at, limits) else { return Err(machine.state()) };
        let pending = change.map(|change| self.apply(&mut locked, change, None, None, now));
        drop(locked);
        self.notify(pending);
        Ok(())
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = self.hot_config().now();
        let locked = self.store().locked_if_any().map(lock);
        // Under the lock neither the epoch nor the limits change, so all values are of one epoch.
        // Without `locked`, there was no transition when it was read. A concurrent transition may
        // mix the values of two epochs.
        let word = self.state_word();
        let span = self.hot_config().span_locked();
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
