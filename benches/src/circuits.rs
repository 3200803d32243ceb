//! Circuits whose memory is measured.

use std::pin::pin;

use tower::{Layer, Service};
use tower_breaker::{BreakerConfig, BreakerLayer};

use crate::bare::Bare;
use crate::call::finish;
use crate::peers;

/// A kind of circuits.
pub struct Circuits {
    pub subject: &'static str,
    /// Creates a circuit, and returns a function that makes a call through it.
    pub create: fn() -> Box<dyn Fn() + Send + Sync>,
}

/// Returns all kinds, each with its default configuration.
pub fn circuits() -> Vec<Circuits> {
    let mut circuits = vec![Circuits {
        subject: crate::OURS,
        create: || {
            let layer: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
            calling(move || layer.layer(Bare))
        },
    }];
    circuits.extend(peers::circuits());
    circuits
}

pub(crate) fn calling<S: Service<bool>>(
    service: impl Fn() -> S + Send + Sync + 'static,
) -> Box<dyn Fn() + Send + Sync> {
    Box::new(move || assert!(finish(pin!(service().call(false))).is_ok(), "a new circuit rejects a call"))
}
