//! Replaces the metrics if the feature `metrics` is off.

use tower_fault_classify::Fault;

use crate::policy::{GiveUp, RetryEvent};

/// The metrics of the policies with one name. There are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct PolicyMetrics;

#[allow(clippy::unused_self, reason = "the same interface as with the feature `metrics`")]
impl PolicyMetrics {
    pub(super) const fn of(_: &'static str) -> Self {
        Self
    }

    #[inline]
    pub(super) const fn attempt(self) {}

    #[inline]
    pub(super) const fn retry(self, _: &RetryEvent) {}

    #[inline]
    pub(super) const fn give_up(self, _: GiveUp, _: &Fault) {}
}
