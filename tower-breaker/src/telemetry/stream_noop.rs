//! Replaces the streams without the feature `stream`.

use super::Transition;

#[derive(Default)]
pub(super) struct Broadcast;

impl Broadcast {
    #[expect(clippy::unused_self, reason = "it is used with the feature `stream`")]
    pub(super) const fn send(&self, _: &Transition) {}
}
