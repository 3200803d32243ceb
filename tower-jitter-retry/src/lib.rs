#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(feature = "__internals-tokio"))))]

mod attempt;
mod backoff;
mod budget;
mod future;
mod layer;
mod policy;
mod replay;
mod request;
mod retrier;
mod rng;
#[cfg(feature = "serde")]
mod serde;
mod service;
mod telemetry;
#[cfg(feature = "tower-retry")]
mod tower_policy;

pub use backoff::{Backoff, Delays, Jitter};
pub use budget::{AwsBudgetBuilder, Budget, BudgetBuilder, GrpcBudgetBuilder, RetryBudget, Ticket};
pub use future::ResponseFuture;
pub use layer::JitterRetryLayer;
pub use policy::{GiveUp, RetryEvent, RetryPolicy, RetryPolicyBuilder};
#[cfg(any(feature = "axum", feature = "reqwest", feature = "tonic"))]
pub use replay::SavedBody;
pub use replay::{Replay, ReplayBody, ReplayError, RetryBody};
pub use request::{
    Attempt, ByTrait, CloneRequests, Deadline, Mark, NonIdempotent, Notes, RequestInfo, Resend, RetryRequest,
    RetrySafety, SavedHttp, remove_marker,
};
pub use retrier::{Retrier, Retrying};
pub use service::JitterRetry;
pub use telemetry::Retried;
#[doc(inline)]
pub use tower_fault_classify::__internals::{Clock, ConfigError, ManualClock};
pub use tower_fault_classify::{
    self as fault_classify, Classify, Fault, Health, Kind, Origin, Outcome, Retryable, Rule, Verdict,
};
#[cfg(feature = "tower-retry")]
pub use tower_policy::{Delay, TowerPolicy};
