#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(feature = "__internals-tokio"))))]

mod body;
mod call;
mod circuit;
mod classifier;
mod config;
mod error;
mod fallback;
mod future;
mod integrations;
#[cfg(feature = "keyed")]
mod keyed;
mod label;
mod layer;
mod machine;
mod readiness;
mod registry;
#[cfg(feature = "serde")]
mod serde;
mod service;
mod telemetry;

pub use body::{OnBodyEnd, OnHead, RecordOutcome};
pub use call::Call;
#[cfg(feature = "tokio")]
pub use call::CallWithin;
pub use circuit::{Circuit, CircuitRef, Permit, Static, Status};
pub use classifier::{HealthBy, KeepFailures, KeepLastFailure, LastFailureMode, NoLastFailure};
pub use config::{BreakerConfig, BreakerConfigBuilder, CancelledPolicy, Mode};
#[cfg(feature = "keyed")]
pub use config::{KeyedConfig, KeyedConfigBuilder, Overflow};
pub use error::{BreakerError, ControlError, Rejection, TimedOut};
pub use fallback::{
    Fallback, FallbackAsync, GrpcUnavailable, Http503, OnReject, Rejected, RejectionMode, ReturnError,
};
pub use future::ResponseFuture;
#[cfg(feature = "keyed")]
pub use keyed::{
    ByRef, ByValue, KeyedBreaker, KeyedBreakerLayer, KeyedCircuit, KeyedCircuits, KeyedResponseFuture,
    PickCircuit, Shared,
};
pub use layer::{BreakerLayer, WithoutClone};
pub use machine::{CircuitState, Counts, HealthReport, Reason};
pub use registry::CircuitRegistry;
pub use service::Breaker;
pub use telemetry::{LastFailure, Transition};
#[cfg(feature = "stream")]
pub use telemetry::{Missed, Transitions};
#[doc(inline)]
pub use tower_fault_classify::__internals::{Clock, ConfigError, ManualClock};
pub use tower_fault_classify::{
    self as fault_classify, Classify, Fault, Health, Kind, Origin, Outcome, Retryable, Rule, Verdict,
};
