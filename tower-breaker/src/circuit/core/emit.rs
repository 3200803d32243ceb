//! Metrics and logs of calls, and the observers of failures. Without the features `metrics` and
//! `tracing`, the metrics and logs do nothing.

use tower_fault_classify::__internals::{CircuitRecord, system_time};
use tower_fault_classify::{Fault, Verdict};

use super::{Admission, Core, Denied, Store};
use crate::circuit::hot_config::{Events, Flags};
use crate::circuit::state_word::{LAST_EPOCH, StateWord};
use crate::error::Rejection;
use crate::machine::CircuitState;
use crate::telemetry::{Failure, Instruments, is_recording, log_failure, log_rejection, logs_failures};

impl<S: Store> Core<S> {
    /// Returns the flags for the outcome of a call. `None`: the call's circuit has ended, and
    /// another circuit may use the core now.
    ///
    /// The call belongs to the current circuit if its epoch lies between the circuit's first epoch
    /// and the current epoch.
    pub(super) fn flags_of(&self, stamp: StateWord) -> Option<Flags> {
        // The flags are read before the state word, with Acquire: the state word is then not older
        // than the first epoch in the flags.
        let flags = self.hot_config().flags_acquire();
        let age = |epoch: u32| epoch.wrapping_sub(flags.first_epoch()) & LAST_EPOCH;
        (age(stamp.epoch()) <= age(self.state_word().epoch())).then_some(flags)
    }

    /// Returns the instruments for the outcome of a call.
    fn instruments_of(&self, stamp: StateWord) -> Option<&'static Instruments> {
        self.store().instruments(self.flags_of(stamp)?)
    }

    // Out of line, to keep the path without a recorder short.
    #[inline(never)]
    pub(super) fn emit_outcome(&self, admission: Admission, verdict: &Verdict) {
        if let Some(instruments) = self.instruments_of(admission.stamp) {
            instruments.outcome(verdict, admission.is_of_closed_circuit() && admission.is_retry());
        }
    }

    #[inline(never)]
    fn emit_rejected(&self, state: CircuitState) {
        if let Some(instruments) = self.store().instruments(self.hot_config().flags()) {
            instruments.rejected(state);
        }
    }

    #[inline]
    pub(super) fn emit_cancelled(&self, stamp: StateWord) {
        if is_recording()
            && let Some(instruments) = self.instruments_of(stamp)
        {
            instruments.cancelled();
        }
    }

    #[inline]
    pub(super) fn emit_slow(&self, stamp: StateWord, slow: bool) {
        if slow
            && is_recording()
            && let Some(instruments) = self.instruments_of(stamp)
        {
            instruments.slow();
        }
    }

    /// Logs a failure that the circuit has counted, and notifies its observers. The caller does not
    /// hold the lock.
    #[inline]
    pub(super) fn emit_failure(&self, stamp: StateWord, fault: &Fault, consecutive_failures: u64) {
        let events = self.store().events();
        if events.has(Events::FAILURES) || logs_failures() {
            self.report_failure(events, stamp, fault, consecutive_failures);
        }
    }

    #[cold]
    #[inline(never)]
    fn report_failure(&self, events: Events, stamp: StateWord, fault: &Fault, consecutive_failures: u64) {
        if events.has(Events::FAILURE_SIGNAL) {
            self.signal_failure(stamp);
        }
        if events.has(Events::FAILURE_OBSERVER) || logs_failures() {
            self.notify_failure(stamp, fault, consecutive_failures);
        }
    }

    fn notify_failure(&self, stamp: StateWord, fault: &Fault, consecutive_failures: u64) {
        let Some((circuit, observers)) = self.store().observers_of(stamp.epoch()) else { return };
        let state = if stamp.is_half_open() { CircuitState::HalfOpen } else { CircuitState::Closed };
        let (key, fault, at) = (self.key(), *fault, system_time());
        let failure = Failure { circuit, key, fault, state, consecutive_failures, at };
        log_failure(&failure);
        if let Some(observers) = observers {
            observers.notify_failure(&failure);
        }
    }

    /// Returns the rejection of a call by the circuit with this record.
    #[inline]
    pub(crate) fn rejection(&self, circuit: &'static CircuitRecord, denied: Denied) -> Rejection {
        let retry_after = denied.retry_after(self.clock().resolution());
        Rejection::new(circuit, self.store().label(), denied.state, retry_after)
    }

    /// Counts and logs the rejection of a call.
    #[inline]
    pub(crate) fn emit_rejection(&self, circuit: &'static str, state: CircuitState) {
        self.count_rejection();
        if is_recording() {
            self.emit_rejected(state);
        }
        log_rejection(|| circuit, || self.key(), state, true);
    }

    // Out of line, to keep the path of a success short.
    #[inline(never)]
    fn count_rejection(&self) {
        self.store().count_rejection();
        self.signal_demand();
    }

    /// Logs a call that the circuit would have rejected if it did not only observe.
    #[cold]
    pub(super) fn emit_observed_rejection(&self, denied: Denied) {
        log_rejection(|| self.locked().name, || self.key(), denied.state, false);
        self.signal_demand();
    }
}
