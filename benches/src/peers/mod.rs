//! The crates that the layers of this workspace are compared with.
//!
//! A configuration that is not the default is in `docs/benchmarks.md`, too.

mod failsafe;
mod recloser;
pub(crate) mod seatbelt;
mod tower;
mod tower_resilience;

use std::time::Duration;

use crate::circuits::{Circuits, calling};
use crate::variant::Variants;

/// Longer than any run.
pub(crate) const AN_HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn add(variants: &mut Variants) {
    seatbelt::add(variants);
    tower_resilience::add(variants);
    recloser::add(variants);
    failsafe::add(variants);
    tower::add(variants);
}

/// Returns the circuits of these crates.
pub(crate) fn circuits() -> [Circuits; 4] {
    [
        Circuits { subject: "seatbelt", create: || calling(seatbelt::default_breaker()) },
        Circuits { subject: "tower-resilience", create: || calling(tower_resilience::default_breaker()) },
        Circuits { subject: "recloser", create: || calling(recloser::default_breaker()) },
        Circuits { subject: "failsafe", create: || calling(failsafe::default_breaker()) },
    ]
}
