#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

mod circuit;
mod config;
mod error;
mod future;
mod layer;
mod machine;
mod observe;
mod reject;
mod service;
mod settle;

pub use circuit::{Circuit, Permit, Status};
pub use config::{BreakerConfig, BreakerConfigBuilder};
pub use error::{BreakerError, Rejection};
pub use future::ResponseFuture;
pub use layer::{BreakerLayer, UncloneableBreakerLayer};
pub use machine::{CircuitState, Counts, Reason};
pub use observe::Transition;
pub use reject::{ErrorMode, Errors, OnReject};
pub use service::Breaker;
pub use settle::{Head, Settle};
#[doc(inline)]
pub use tower_fault_classify::__shared::{Clock, ConfigError, ManualClock};
pub use tower_fault_classify::{
    self as fault_classify, Classify, Fault, Health, Kind, Origin, Outcome, Retry, Rule, Verdict,
};
