#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod error_chain;
mod classify;
mod duration;
mod error;
mod fault;
mod future;
mod grpc;
pub mod hint;
mod layer;
#[cfg(feature = "reqwest-middleware")]
pub mod middleware;
mod telemetry;
mod outcome;
mod rules;
mod service;
mod table;
pub mod tables;
#[cfg(feature = "tower-http")]
mod tower_http;
pub mod upload;
mod system_time;

#[cfg(feature = "__shared")]
#[doc(hidden)]
#[path = "internals/mod.rs"]
pub mod __shared;

pub use body::{
    BodyEnd, Head, How, JudgeEnd, JudgedBody, OnEnd, Peek, Peeked, PutBody, TakeBody, Told, Track, TrackBody,
    Unwatched, Watch, judge_body,
};
#[cfg(feature = "error-body")]
pub use body::{BodyRule, ErrorBodies, ErrorBody, PeekedBody, Reading};
#[cfg(feature = "llm")]
pub use body::{LlmErrors, LlmEvents};
pub use error_chain::judge_error;
pub use classify::{
    AsError, Auto, Boxed, Classify, ErrorsOnly, NestedErrors, ResponseCoverage, Rule, RuleFirst, Typed,
    classify_fn, rule_fn,
};
pub use error::{BoxError, ErrorChain, Judged};
pub use fault::{Fault, Health, Kind, Origin, Retryable, Verdict};
pub use future::ResponseFuture;
pub use layer::{FaultClassifyLayer, KeepErrors, WrapErrors};
pub use outcome::{Carried, Outcome, grpc_has_begun, judge_outcome};
pub use rules::{GrpcOnly, GrpcRules, StatusRules, UnknownErrors};
pub use service::{ErrorMode, FaultClassify};
pub use table::grpc::grpc_code_of;
#[cfg(feature = "tower-http")]
pub use tower_http::TowerHttp;
