//! The crates that the layers of this workspace are compared with.
//!
//! A configuration that is not the default is in `docs/benchmarks.md`, too.

mod failsafe;
mod recloser;
pub(crate) mod seatbelt;
mod tower;
mod tower_resilience;

use std::time::Duration;

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
