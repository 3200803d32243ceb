//! Fault injection: test a stack of layers without a server that fails.
//!
//! A [`FaultInjectionLayer`] takes the place of an unreliable network and server. Put it directly
//! above the client, or around the routes of a server. Some calls then get a fault, and the others
//! are passed on:
//!
//! ```text
//! request ─► JitterRetry ─► Breaker ─► FaultClassify ─► Timeout ─► FaultInjection ─► client
//! ```
//!
//! It works with each service whose response is an `http::Response` or a `reqwest::Response`:
//! reqwest, hyper-util, tonic's channels and servers, axum, `service_fn`. The service must be
//! `Clone`.
//!
//! # Examples
//!
//! With the defaults: each call gets the fault.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_fault_classify::BoxError;
//! use tower_fault_classify::test_util::{FaultInjectionLayer, Injection};
//!
//! async fn client(_: Request<String>) -> Result<Response<String>, BoxError> {
//!     Ok(Response::new("found".to_owned()))
//! }
//!
//! # tokio_test::block_on(async {
//! let faults = FaultInjectionLayer::new().inject(Injection::status(503));
//! let handle = faults.handle();
//! let mut service = ServiceBuilder::new().layer(faults).service_fn(client);
//!
//! let response = service.ready().await?.call(Request::default()).await?;
//! assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
//!
//! // The server recovers.
//! handle.disable();
//! let response = service.ready().await?.call(Request::default()).await?;
//! assert_eq!(response.status(), StatusCode::OK);
//! # Ok::<(), BoxError>(())
//! # }).unwrap();
//! ```
//!
//! Customised: one search of ten is slow and then loses its connection, after 100 calls without a
//! fault. Each run of the test injects the same calls.
//!
//! ```
//! use std::io;
//! use std::time::Duration;
//! use tower_fault_classify::test_util::{FaultInjectionLayer, Injection};
//!
//! fn is_search(request: &http::Request<String>) -> bool {
//!     request.uri().path() == "/search"
//! }
//!
//! let lost = Injection::io_error(io::ErrorKind::ConnectionReset)
//!     .delay_between(Duration::from_millis(50)..=Duration::from_millis(200));
//! let faults = FaultInjectionLayer::new()
//!     .inject(lost)
//!     .rate(0.1)
//!     .seed(7)
//!     .after_calls(100)
//!     .matching(is_search);
//! ```
//!
//! A script has one step for each call:
//!
//! ```
//! use std::io;
//! use std::time::Duration;
//! use tower_fault_classify::Kind;
//! use tower_fault_classify::test_util::{FaultInjectionLayer, Injection};
//!
//! let faults = FaultInjectionLayer::new().script([
//!     Injection::kind(Kind::Throttled).retry_after(Duration::from_secs(2)),
//!     Injection::io_error(io::ErrorKind::ConnectionRefused),
//!     Injection::pass(),
//!     Injection::pass().break_body(1_024),
//!     Injection::hang(),
//! ]);
//! ```
//!
//! [Testing](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/testing.md) has whole
//! programs.
//!
//! # In production
//!
//! Enable the feature `test-util` for `[dev-dependencies]` only. A build without the feature does
//! not contain this module.

mod body;
mod injection;
mod layer;
mod schedule;
mod service;

pub use body::InjectedBody;
pub use injection::Injection;
pub use layer::{
    AllRequests, BoxErrors, ErrorType, FaultInjectionHandle, FaultInjectionLayer, MatchRequest, TypedErrors,
};
pub use schedule::InjectionCounts;
pub use service::{FaultInjection, InjectionFuture};
