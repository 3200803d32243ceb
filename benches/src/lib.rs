//! The variants that the suite measures: layers of this workspace and of other crates around a
//! service that does nothing.

#[path = "../../tower-breaker/benches/bare/mod.rs"]
#[allow(dead_code, reason = "the suite makes its calls in two other styles")]
mod bare;
mod call;
mod circuits;
#[cfg(feature = "grpc")]
mod grpc;
mod http_rows;
mod keys;
mod ours;
mod peers;
#[cfg(feature = "reqwest")]
mod reqwest_rows;
mod variant;

pub use circuits::{Circuits, circuits};
pub use variant::{Calls, Expect, Style, Threads, Variant, Variants};

/// The subject of variants that measure this workspace.
pub(crate) const OURS: &str = "ours";

/// The subject of variants whose layer of this workspace is in a chain of reqwest-middleware.
pub(crate) const OURS_IN_CHAIN: &str = "ours, in the chain";

/// Returns whether a subject is of this workspace.
pub fn is_ours(subject: &str) -> bool {
    subject == OURS || subject == OURS_IN_CHAIN
}

/// The row of the service without a layer.
pub const BARE: &str = "bare service";

/// The row of an uncontended `Mutex<u32>`.
pub const LOCK: &str = "uncontended lock";

/// Returns all variants in the order of the tables.
pub fn variants() -> Vec<Variant> {
    let mut variants = Variants::default();
    variants.lock();
    variants.add(BARE, "", Expect::Success, || || bare::Bare, |_| false);
    ours::add(&mut variants);
    peers::add(&mut variants);
    http_rows::add(&mut variants);
    #[cfg(feature = "grpc")]
    grpc::add(&mut variants);
    #[cfg(feature = "reqwest")]
    reqwest_rows::add(&mut variants);
    variants.into_sorted()
}
