//! The twin of `fleet.rs` without the feature `fleet`: there is no fleet.

use serde::Serialize;

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
}
