#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(feature = "__internals-tokio"))))]

pub mod body;
pub mod call;
mod circuit;
pub mod classifier;
mod config;
mod error;
pub mod fallback;
mod future;
mod integrations;
#[cfg(feature = "keyed")]
pub mod keyed;
mod label;
mod layer;
mod machine;
mod readiness;
mod registry;
#[cfg(feature = "serde")]
mod serde;
mod service;
pub mod telemetry;

/// How handles and permits refer to their circuit.
///
/// | item | |
/// |---|---|
/// | [`Static`](handle::Static) | the circuit of a layer, of a registry, or of its own: the default |
/// | [`Shared`](keyed::Shared) | one of the circuits of a [`KeyedBreakerLayer`](keyed::KeyedBreakerLayer) (feature `keyed`) |
/// | [`CircuitRef`](handle::CircuitRef) | the trait of the two, sealed |
pub mod handle {
    pub use crate::circuit::{CircuitRef, Static};
}

/// Keeps others from implementing the traits of this crate, so that the traits can change.
mod sealed {
    pub trait Sealed {}
}

pub use circuit::{Circuit, Permit, Status};
pub use config::{BreakerConfig, BreakerConfigBuilder, CancelledPolicy, Mode};
pub use error::{BreakerError, ControlError, Rejection, TimedOut};
pub use future::ResponseFuture;
pub use layer::{BreakerLayer, WithoutClone};
pub use machine::{CircuitState, Counts, HealthReport, Reason};
pub use registry::CircuitRegistry;
pub use service::Breaker;
#[doc(inline)]
pub use tower_fault_classify::__internals::{Clock, ConfigError, ManualClock};
pub use tower_fault_classify::{self as fault_classify, Fault, Health, Kind, Verdict};
