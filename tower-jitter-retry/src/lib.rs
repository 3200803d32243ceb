#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(feature = "__internals-tokio"))))]

mod attempt;
pub mod backoff;
pub mod budget;
mod future;
mod layer;
mod policy;
pub mod replay;
pub mod request;
mod retrier;
mod rng;
#[cfg(feature = "serde")]
mod serde;
mod service;
mod telemetry;
#[cfg(feature = "tower-retry")]
pub mod tower_policy;

pub use tower_fault_classify as fault_classify;
#[doc(inline)]
pub use tower_fault_classify::__internals::{Clock, ConfigError, ManualClock};

pub use backoff::Jitter;
pub use budget::Budget;
pub use future::ResponseFuture;
pub use layer::JitterRetryLayer;
pub use policy::{GiveUp, RetryEvent, RetryPolicy, RetryPolicyBuilder};
pub use replay::ReplayBody;
pub use request::{Deadline, NonIdempotent, RequestInfo, RetrySafety};
pub use retrier::{Retrier, Retrying};
pub use service::JitterRetry;
pub use telemetry::Retried;
#[cfg(feature = "tower-retry")]
pub use tower_policy::TowerPolicy;
