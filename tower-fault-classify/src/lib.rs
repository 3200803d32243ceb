#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
pub mod classifiers;
mod classify;
mod duration;
mod error;
mod error_chain;
pub mod error_mode;
mod fault;
mod future;
mod grpc;
pub mod hint;
mod layer;
#[cfg(feature = "reqwest-middleware")]
pub mod middleware;
mod outcome;
pub mod rules;
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

pub use classify::{Classify, Rule, classify_fn, rule_fn};
pub use error::{BoxError, ClassifiedError};
pub use error_chain::{ErrorChain, classify_error};
pub use fault::{Fault, Health, Kind, Origin, Retryable, Verdict};
pub use future::ResponseFuture;
pub use layer::FaultClassifyLayer;
pub use outcome::{CarriedVerdict, Outcome, classify_response, is_grpc_committed};
pub use service::FaultClassify;
pub use table::grpc::grpc_code_of_status;
