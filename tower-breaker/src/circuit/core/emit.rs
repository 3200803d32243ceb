//! What others hear of a circuit's calls. Without the features `metrics` and `tracing` all of it is nothing.

use tower_fault_classify::__internals::sync::Ordering;
use tower_fault_classify::Verdict;

use super::{CircuitState, Core, FIRST_EPOCH, Gate, LAST_EPOCH, METERS, Refusal, Store};
use crate::telemetry::{Meters, meters, rejected};

impl<T: Store> Core<T> {
    /// The flags for the outcome of a call. `None`: the call's circuit has ended, and its core may
    /// be another circuit's by now.
    pub(super) fn flags_of(&self, stamp: Gate) -> Option<u64> {
        // Acquire: the gate that is read below is no older than the circuit that wrote these flags.
        let flags = self.plan().flags.load(Ordering::Acquire);
        let first_epoch = (flags >> FIRST_EPOCH) as u32;
        let age = |epoch: u32| epoch.wrapping_sub(first_epoch) & LAST_EPOCH;
        (age(stamp.epoch()) <= age(self.gate().epoch())).then_some(flags)
    }

    /// The meters for the outcome of a call.
    fn meters_of(&self, stamp: Gate) -> Option<&'static Meters> {
        meters((self.flags_of(stamp)? >> METERS) as u32)
    }

    // What follows if there is a recorder is out of line, so that it is not in the way if there is
    // none.
    #[inline(never)]
    fn count_settled(&self, stamp: Gate, verdict: &Verdict) {
        if let Some(meters) = self.meters_of(stamp) {
            meters.settled(verdict);
        }
    }

    #[inline(never)]
    fn count_refused(&self, state: CircuitState) {
        if let Some(meters) = self.plan().meters() {
            meters.rejected(state);
        }
    }

    #[inline]
    pub(super) fn tell_settled(&self, stamp: Gate, verdict: &Verdict) {
        if self.plan().is_metered() {
            self.count_settled(stamp, verdict);
        }
    }

    #[inline]
    pub(super) fn tell_abandoned(&self, stamp: Gate) {
        if self.plan().is_metered()
            && let Some(meters) = self.meters_of(stamp)
        {
            meters.cancelled();
        }
    }

    #[inline]
    pub(super) fn tell_slow(&self, stamp: Gate, slow: bool) {
        if slow
            && self.plan().is_metered()
            && let Some(meters) = self.meters_of(stamp)
        {
            meters.slow();
        }
    }

    /// A call was turned away.
    #[inline]
    pub(crate) fn tell_refused(&self, circuit: &'static str, state: CircuitState) {
        if self.plan().is_metered() {
            self.count_refused(state);
        }
        rejected(circuit, || self.key(), state, true);
    }

    /// A call would have been turned away, were the circuit not only observing.
    #[cold]
    pub(super) fn tell_spared(&self, refusal: Refusal) {
        if cfg!(feature = "tracing") {
            let circuit = self.cold().name;
            rejected(circuit, || self.key(), refusal.state, false);
        }
    }
}
