//! The label of a key, as a rejection contains it.
//!
//! The result of a call may contain a rejection. If a rejection held a counted reference to its
//! label, every call would contain the code that drops the reference: about 30 instructions of a
//! success. A label is therefore stored in a record that is reused but never freed, and a rejection
//! copies the address of the record.

#[cfg(feature = "keyed")]
pub(crate) use tower_fault_classify::__internals::{CircuitLabel as Label, KeptLabel};

/// The label of the overflow circuit.
#[cfg(feature = "keyed")]
pub(crate) const OVERFLOW: &str = "(overflow)";

/// Uninhabited: without the feature `keyed` there are no keys and no labels.
#[cfg(not(feature = "keyed"))]
#[derive(Clone, Copy, Debug)]
pub enum Label {}
