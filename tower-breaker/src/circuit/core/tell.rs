//! What others hear of a circuit's calls. Without the features `metrics` and `tracing` all of it is nothing.

#![cfg_attr(not(feature = "metrics"), expect(clippy::unused_self, reason = "it is asked for its meters"))]

use tower_fault_classify::Verdict;

use super::{CircuitState, Core, Refusal, Store};
use crate::observe;
#[cfg(feature = "metrics")]
use tower_fault_classify::__shared::sync::Ordering;

impl<T: Store> Core<T> {
    /// The meters of the circuit's name: their number stands above the flags.
    #[cfg(feature = "metrics")]
    #[inline]
    pub(super) fn meters(&self) -> &'static observe::Meters {
        // Relaxed: it was written before anybody had the circuit.
        observe::meters((self.plan().flags.load(Ordering::Relaxed) >> super::METERS) as u32)
    }

    #[inline]
    pub(super) fn tell_settled(&self, verdict: &Verdict) {
        #[cfg(feature = "metrics")]
        self.meters().settled(verdict);
        let _ = verdict;
    }

    #[inline]
    pub(super) fn tell_abandoned(&self) {
        #[cfg(feature = "metrics")]
        self.meters().abandoned();
    }

    #[inline]
    pub(super) fn tell_slow(&self, slow: bool) {
        #[cfg(feature = "metrics")]
        if slow {
            self.meters().slow();
        }
        let _ = slow;
    }

    /// A call was turned away.
    #[inline]
    pub(crate) fn tell_refused(&self, circuit: &'static str, state: CircuitState) {
        #[cfg(feature = "metrics")]
        self.meters().rejected(state);
        observe::rejected(circuit, state, true);
    }

    /// A call would have been turned away, were the circuit not only observing.
    #[cold]
    pub(super) fn tell_spared(&self, refusal: Refusal) {
        if cfg!(feature = "tracing") {
            let circuit = self.cold().name;
            observe::rejected(circuit, refusal.state, false);
        }
    }
}
