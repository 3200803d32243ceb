#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod classify;
mod duration;
mod error;
mod error_chain;
mod error_mode;
mod fault;
mod future;
mod grpc;
pub mod hint;
mod layer;
#[cfg(feature = "reqwest-middleware")]
pub mod middleware;
mod outcome;
mod rules;
mod service;
mod system_time;
mod table;
pub mod tables;
mod telemetry;
#[cfg(feature = "tower-http")]
mod tower_http;
pub mod upload;

#[cfg(feature = "__internals")]
#[doc(hidden)]
#[path = "internals/mod.rs"]
pub mod __internals;

pub use body::{
    BodyEnd, Head, How, JudgeEnd, JudgedBody, OnEnd, Peek, Peeked, PutBody, TakeBody, Told, Track, TrackBody,
    Unwatched, Watch, judge_body,
};
#[cfg(feature = "error-body")]
pub use body::{BodyRule, ErrorBodies, ErrorBody, PeekedBody, Reading};
#[cfg(feature = "llm")]
pub use body::{LlmErrors, LlmEvents};
pub use classify::{
    Auto, Classify, ErrorsOnly, NestedErrors, ResponseCoverage, Rule, RuleFirst, classify_fn, rule_fn,
};
pub use error::{AsError, BoxError, Boxed, Judged, Typed};
pub use error_chain::{ErrorChain, judge_error};
pub use error_mode::{ErrorMode, KeepErrors, WrapErrors};
pub use fault::{Fault, Health, Kind, Origin, Retryable, Verdict};
pub use future::ResponseFuture;
pub use layer::FaultClassifyLayer;
pub use outcome::{Carried, Outcome, grpc_has_begun, judge_outcome};
pub use rules::{GrpcOnly, GrpcRules, StatusRules, UnknownErrors};
pub use service::FaultClassify;
pub use table::grpc::grpc_code_of;
#[cfg(feature = "tower-http")]
pub use tower_http::TowerHttp;
