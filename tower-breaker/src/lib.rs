#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(feature = "__internals-tokio"))))]

mod body;
mod call;
#[macro_use]
mod circuit;
mod config;
mod error;
mod future;
mod health;
#[cfg(feature = "keyed")]
mod keyed;
mod layer;
mod machine;
mod observe;
mod readiness;
mod registry;
mod reject;
mod rng;
#[cfg(feature = "serde")]
mod serde;
mod service;
mod settle;

pub use body::TrackBody;
pub use call::Call;
#[cfg(feature = "tokio")]
pub use call::CallWithin;
#[cfg(feature = "keyed")]
#[doc(hidden)]
pub use circuit::OneOf;
pub use circuit::{Circuit, Permit, Status};
#[doc(hidden)]
pub use circuit::{Hold, Own};
pub use config::{AbandonedPolicy, BreakerConfig, BreakerConfigBuilder, Mode};
#[cfg(feature = "keyed")]
pub use config::{KeyedConfig, KeyedConfigBuilder, Overflow};
pub use error::{BreakerError, Forced, Rejection, TimedOut};
pub use future::ResponseFuture;
pub use health::HealthBy;
#[cfg(feature = "keyed")]
pub use keyed::{ByRef, ByValue, KeyedBreaker, KeyedBreakerLayer, KeyedResponseFuture, PickCircuit};
pub use layer::{BreakerLayer, UncloneableBreakerLayer};
pub use machine::{CircuitState, Counts, HealthReport, Reason};
pub use observe::{KeepFailures, KeepLastFailure, LastFailure, LastFailureMode, NoLastFailure, Transition};
#[cfg(feature = "stream")]
pub use observe::{Missed, Transitions};
pub use registry::{CircuitRegistry, ControlError};
#[cfg(feature = "keyed")]
pub use registry::{KeyedCircuit, KeyedCircuits};
pub use reject::{ErrorMode, Errors, Fallback, FallbackAsync, GrpcUnavailable, Http503, OnReject, Rejected};
pub use service::Breaker;
pub use settle::{Head, Settle};
#[doc(inline)]
pub use tower_fault_classify::__internals::{Clock, ConfigError, ManualClock};
pub use tower_fault_classify::{
    self as fault_classify, Classify, Fault, Health, Kind, Origin, Outcome, Retryable, Rule, Verdict,
};
