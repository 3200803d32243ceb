//! What others hear of a circuit's calls. Without the features `metrics` and `tracing` all of it is nothing.

#![cfg_attr(not(feature = "metrics"), expect(clippy::unused_self, reason = "it is asked for its meters"))]

use tower_fault_classify::Verdict;

use super::{CircuitState, Core, Refusal, Store};
use crate::observe;

impl<T: Store> Core<T> {
    /// Whether there is a recorder. What follows if there is one stands apart, so that it is not in the way if there is none.
    #[cfg(feature = "metrics")]
    #[inline]
    fn is_metered(&self) -> bool {
        self.plan().is_metered()
    }

    #[cfg(feature = "metrics")]
    #[inline(never)]
    fn count_settled(&self, verdict: &Verdict) {
        if let Some(meters) = self.meters() {
            meters.settled(verdict);
        }
    }

    #[cfg(feature = "metrics")]
    #[inline(never)]
    fn count_refused(&self, state: CircuitState) {
        if let Some(meters) = self.meters() {
            meters.rejected(state);
        }
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn meters(&self) -> Option<&'static observe::Meters> {
        self.plan().meters()
    }

    #[inline]
    pub(super) fn tell_settled(&self, verdict: &Verdict) {
        #[cfg(feature = "metrics")]
        if self.is_metered() {
            self.count_settled(verdict);
        }
        let _ = verdict;
    }

    #[inline]
    pub(super) fn tell_abandoned(&self) {
        #[cfg(feature = "metrics")]
        if let Some(meters) = self.meters() {
            meters.abandoned();
        }
    }

    #[inline]
    pub(super) fn tell_slow(&self, slow: bool) {
        #[cfg(feature = "metrics")]
        if let Some(meters) = self.meters().filter(|_| slow) {
            meters.slow();
        }
        let _ = slow;
    }

    /// A call was turned away.
    #[inline]
    pub(crate) fn tell_refused(&self, circuit: &'static str, state: CircuitState) {
        #[cfg(feature = "metrics")]
        if self.is_metered() {
            self.count_refused(state);
        }
        observe::rejected(circuit, || self.key(), state, true);
    }

    /// A call would have been turned away, were the circuit not only observing.
    #[cold]
    pub(super) fn tell_spared(&self, refusal: Refusal) {
        if cfg!(feature = "tracing") {
            let circuit = self.cold().name;
            observe::rejected(circuit, || self.key(), refusal.state, false);
        }
    }
}
