//! Replaces the logs if the feature `tracing` is off.

use std::sync::Arc;

use super::{Failure, Transition};
use crate::machine::CircuitState;

pub(crate) const fn log_transition(_: &Transition) {}

#[inline]
pub(crate) const fn logs_failures() -> bool {
    false
}

pub(crate) const fn log_failure(_: &Failure) {}

#[inline]
pub(crate) fn log_rejection(
    _: impl FnOnce() -> &'static str,
    _: impl FnOnce() -> Option<Arc<str>>,
    _: CircuitState,
    _: bool,
) {
}
