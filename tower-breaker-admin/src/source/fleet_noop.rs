//! The twin of `fleet.rs` without the feature `fleet`: there is no fleet.

use serde::Serialize;

use crate::action::FleetOrder;
use crate::problem::Problem;

#[derive(Clone, Debug, Serialize)]
pub(crate) enum FleetView {}

#[derive(Clone, Default)]
pub(crate) struct FleetSource;

#[allow(clippy::unused_self, reason = "the same interface as with the feature `fleet`")]
impl FleetSource {
    pub(crate) const fn status(&self) -> Option<serde_json::Value> {
        None
    }

    pub(crate) const fn circuit(&self, _: &str) -> Option<FleetView> {
        None
    }

    pub(crate) const fn is_shared(&self, _: &str) -> bool {
        false
    }

    #[cfg(feature = "keyed")]
    pub(crate) const fn key_name<K>(&self, _: &str, _: &K) -> Option<String> {
        None
    }

    pub(crate) const fn epoch(&self, _: &str) -> u64 {
        0
    }

    pub(crate) fn not_shared(&self) -> Problem {
        Problem::bad_request("`scope` is `fleet`, and there is no fleet; use `process`")
    }

    #[allow(clippy::unused_async, reason = "the same interface as with the feature `fleet`")]
    pub(crate) async fn operate(&self, _: &str, _: FleetOrder) -> Result<Record, Problem> {
        Err(self.not_shared())
    }

    #[allow(clippy::unused_async, reason = "the same interface as with the feature `fleet`")]
    pub(crate) async fn list(&self, _: Option<&str>, _: usize) -> Result<(), Problem> {
        Err(Problem::not_found("there is no fleet"))
    }
}

/// A record of the fleet, which never exists.
pub(crate) struct Record {
    pub(crate) epoch: u64,
    never: FleetView,
}

pub(crate) fn with_record(_: FleetView, record: Record) -> FleetView {
    record.never
}
