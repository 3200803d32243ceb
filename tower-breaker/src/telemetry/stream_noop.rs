//! Replaces the streams if the feature `stream` is off.

use super::Transition;

#[derive(Default)]
pub(super) struct Broadcast;

impl Broadcast {
    #[expect(clippy::unused_self, reason = "the signature is that of the feature `stream`")]
    pub(super) const fn send(&self, _: &Transition) {}
}
