#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

mod call;
mod circuit;
mod config;
mod error;
mod future;
mod health;
mod layer;
mod machine;
mod observe;
mod reject;
mod rng;
#[cfg(feature = "serde")]
mod serde;
mod service;
mod settle;

pub use call::Call;
pub use circuit::{Circuit, Permit, Status};
#[doc(hidden)]
pub use circuit::{Hold, OneOf, Own};
pub use config::{AbandonedPolicy, BreakerConfig, BreakerConfigBuilder, Mode};
pub use error::{BreakerError, Forced, Rejection};
pub use future::ResponseFuture;
pub use health::HealthBy;
pub use layer::{BreakerLayer, UncloneableBreakerLayer};
pub use machine::{CircuitState, Counts, HealthReport, Reason};
pub use observe::{KeepFailures, LastFailure, Transition};
pub use reject::{ErrorMode, Errors, OnReject, Rejected};
pub use service::Breaker;
pub use settle::{Head, Settle};
#[doc(inline)]
pub use tower_fault_classify::__shared::{Clock, ConfigError, ManualClock};
pub use tower_fault_classify::{
    self as fault_classify, Classify, Fault, Health, Kind, Origin, Outcome, Retry, Rule, Verdict,
};
