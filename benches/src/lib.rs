//! The variants that the suite measures: layers of this workspace and of other crates around a
//! service that does nothing.

mod call;
mod circuits;
#[cfg(feature = "grpc")]
mod grpc;
mod http_rows;
mod keys;
mod ours;
mod peers;
mod service;
mod variant;

pub use circuits::{Circuits, circuits};
pub use variant::{Calls, Expect, Style, Threads, Variant, Variants};

/// The subject of variants that measure this workspace.
pub const OURS: &str = "ours";

/// The row of the service without a layer.
pub const BARE: &str = "bare service";

/// The row of an uncontended `Mutex<u32>`.
pub const LOCK: &str = "uncontended lock";

/// Returns all variants in the order of the tables.
pub fn variants() -> Vec<Variant> {
    let mut variants = Variants::default();
    variants.lock();
    variants.add(BARE, "", Expect::Success, || || service::Bare, |_| false);
    ours::add(&mut variants);
    peers::add(&mut variants);
    http_rows::add(&mut variants);
    #[cfg(feature = "grpc")]
    grpc::add(&mut variants);
    variants.into_sorted()
}
