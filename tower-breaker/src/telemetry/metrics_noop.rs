//! Replaces the metrics if the feature `metrics` is off: there are no instruments, and no code for
//! them.

use tower_fault_classify::Verdict;

use super::Transition;
use crate::machine::CircuitState;

/// The instruments of a circuit name. Uninhabited.
#[derive(Debug)]
pub enum Instruments {}

#[inline]
pub(crate) const fn is_recording() -> bool {
    false
}

#[inline]
pub(crate) const fn recheck_recorder() {}

pub(crate) const fn register(_: &'static str) -> u32 {
    0
}

#[inline]
pub(crate) const fn instruments(_: u32) -> Option<&'static Instruments> {
    None
}

impl Instruments {
    pub(crate) const fn outcome(&self, _: &Verdict, _: bool) {
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
}

#[cfg(feature = "keyed")]
impl Instruments {
    pub(crate) const fn map_created(&self) {
        match *self {}
    }

    pub(crate) const fn evicted(&self) {
        match *self {}
    }

    pub(crate) const fn overflowed(&self) {
        match *self {}
    }
}

/// The instruments of one key's circuit. There are none.
#[cfg(feature = "keyed")]
#[derive(Debug, Default)]
pub(crate) struct KeyInstruments {}

#[cfg(feature = "keyed")]
impl KeyInstruments {
    #[allow(clippy::unused_self, reason = "the same interface as with the feature `metrics`")]
    pub(crate) const fn get(&self) -> Option<&'static Instruments> {
        None
    }

    #[allow(clippy::unused_self, reason = "the same interface as with the feature `metrics`")]
    pub(crate) fn get_or_register(
        &self,
        _: &'static str,
        _: usize,
        _: impl FnOnce() -> Option<String>,
    ) -> Option<&'static Instruments> {
        None
    }
}
