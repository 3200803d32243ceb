//! What others hear of a circuit's calls. Without the features `metrics` and `tracing` all of it is nothing.

use tower_fault_classify::__internals::sync::Ordering;
use tower_fault_classify::Verdict;

use super::{CircuitState, Core, Denied, FIRST_EPOCH, INSTRUMENTS, LAST_EPOCH, StateWord, Store};
use crate::error::Rejection;
use crate::telemetry::{Instruments, instruments, rejected};

impl<T: Store> Core<T> {
    /// The flags for the outcome of a call. `None`: the call's circuit has ended, and its core may
    /// be another circuit's by now.
    pub(super) fn flags_of(&self, stamp: StateWord) -> Option<u64> {
        // Acquire: the word that is read below is no older than the circuit that wrote these flags.
        let flags = self.hot_config().flags.load(Ordering::Acquire);
        let first_epoch = (flags >> FIRST_EPOCH) as u32;
        let age = |epoch: u32| epoch.wrapping_sub(first_epoch) & LAST_EPOCH;
        (age(stamp.epoch()) <= age(self.state_word().epoch())).then_some(flags)
    }

    /// The instruments for the outcome of a call.
    fn instruments_of(&self, stamp: StateWord) -> Option<&'static Instruments> {
        instruments((self.flags_of(stamp)? >> INSTRUMENTS) as u32)
    }

    // What follows if there is a recorder is out of line, so that it is not in the way if there is
    // none.
    #[inline(never)]
    fn count_outcome(&self, stamp: StateWord, verdict: &Verdict) {
        if let Some(instruments) = self.instruments_of(stamp) {
            instruments.outcome(verdict);
        }
    }

    #[inline(never)]
    fn count_rejection(&self, state: CircuitState) {
        if let Some(instruments) = self.hot_config().instruments() {
            instruments.rejected(state);
        }
    }

    #[inline]
    pub(super) fn emit_outcome(&self, stamp: StateWord, verdict: &Verdict) {
        if self.hot_config().is_metered() {
            self.count_outcome(stamp, verdict);
        }
    }

    #[inline]
    pub(super) fn emit_cancelled(&self, stamp: StateWord) {
        if self.hot_config().is_metered()
            && let Some(instruments) = self.instruments_of(stamp)
        {
            instruments.cancelled();
        }
    }

    #[inline]
    pub(super) fn emit_slow(&self, stamp: StateWord, slow: bool) {
        if slow
            && self.hot_config().is_metered()
            && let Some(instruments) = self.instruments_of(stamp)
        {
            instruments.slow();
        }
    }

    /// The rejection of a call by the circuit with this name.
    #[inline]
    pub(crate) fn rejection(&self, circuit: &'static str, denied: Denied) -> Rejection {
        let retry_after = denied.retry_after(self.clock().resolution());
        Rejection::new(circuit, self.store().label(), denied.state, retry_after)
    }

    /// A call was turned away.
    #[inline]
    pub(crate) fn emit_rejection(&self, circuit: &'static str, state: CircuitState) {
        if self.hot_config().is_metered() {
            self.count_rejection(state);
        }
        rejected(circuit, || self.key(), state, true);
    }

    /// A call would have been turned away, were the circuit not only observing.
    #[cold]
    pub(super) fn emit_observed_rejection(&self, denied: Denied) {
        if cfg!(feature = "tracing") {
            let circuit = self.locked().name;
            rejected(circuit, || self.key(), denied.state, false);
        }
    }
}
