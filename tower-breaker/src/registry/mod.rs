//! Circuits that are many: by a key of the request, or by name.

#[cfg(feature = "keyed")]
pub(crate) mod keyed;
mod named;
#[cfg(feature = "keyed")]
mod table;

#[cfg(feature = "keyed")]
pub use keyed::{KeyedCircuit, KeyedCircuits};
pub use named::{CircuitRegistry, ControlError};
