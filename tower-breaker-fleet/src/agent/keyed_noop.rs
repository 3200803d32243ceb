//! The twin of `keyed.rs` without the feature `keyed`: there are no circuits by key.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Time;
use super::run::Agent;
use super::shared::View;
use crate::record::CircuitRecord;
use crate::store::{Session, StoreError};

pub(crate) enum Layer {}

pub(crate) enum KeyRequest {}

#[derive(Default)]
pub(crate) struct Layers;

#[derive(Default)]
pub(crate) struct Keys {
    pub(super) outdated: VecDeque<Arc<Layer>>,
}

impl Layer {
    pub(super) fn on_added(&self) {
        match *self {}
    }

    pub(super) fn on_removed(&self) {
        match *self {}
    }
}

#[allow(clippy::unused_self, reason = "the same interface as with the feature `keyed`")]
impl Layers {
    pub(super) const fn view(&self, _: &str, _: Time) -> Option<View> {
        None
    }

    pub(super) const fn remove_observers(&self) {}
}

#[allow(clippy::unused_self, reason = "the same interface as with the feature `keyed`")]
impl Keys {
    pub(super) const fn next_scan(&self) -> Option<Time> {
        None
    }

    pub(super) const fn on_connected(&mut self, _: &Layers) {}
}

#[allow(clippy::unused_self, reason = "the same interface as with the feature `keyed`")]
#[allow(clippy::needless_pass_by_value, reason = "the same interface as with the feature `keyed`")]
impl Agent {
    pub(super) fn on_key_request(&mut self, request: KeyRequest) {
        match request {}
    }

    pub(super) fn on_unshared_record(&mut self, record: CircuitRecord) {
        self.shared.cache(record);
    }

    pub(super) fn keep_record(&mut self, layer: &Layer, _: Option<CircuitRecord>) {
        match *layer {}
    }

    pub(super) fn review_keys(&mut self, _: Time) {}

    pub(super) fn scan_if_due(&mut self, _: Time) {}

    #[allow(clippy::unused_async, reason = "the same interface as with the feature `keyed`")]
    pub(super) async fn load_layer(
        &mut self,
        _: &mut dyn Session,
        layer: Arc<Layer>,
    ) -> Result<(), StoreError> {
        match *layer {}
    }
}
