//! Replaces the metrics if the feature `metrics` is off: there are no instruments, and no code for
//! them.

use tower_fault_classify::Verdict;

use super::Transition;
use crate::machine::CircuitState;

/// The instruments of a circuit name. Uninhabited.
#[derive(Debug)]
pub(crate) enum Instruments {}

pub(crate) const fn register(_: &'static str) -> u32 {
    0
}

#[inline]
pub(crate) const fn instruments(_: u32) -> Option<&'static Instruments> {
    None
}

impl Instruments {
    pub(crate) const fn outcome(&self, _: &Verdict) {
        match *self {}
    }

    pub(crate) const fn cancelled(&self) {
        match *self {}
    }

    pub(crate) const fn slow(&self) {
        match *self {}
    }

    pub(crate) const fn rejected(&self, _: CircuitState) {
        match *self {}
    }

    pub(crate) const fn circuit_created(&self, _: CircuitState) {
        match *self {}
    }

    pub(crate) const fn circuit_dropped(&self, _: CircuitState) {
        match *self {}
    }

    pub(crate) const fn transition(&self, _: &Transition) {
        match *self {}
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn evicted(&self) {
        match *self {}
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn overflowed(&self) {
        match *self {}
    }
}
