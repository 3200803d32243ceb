//! Fault classification for [tower] services: one layer decides what went wrong, and other layers
//! read its verdict.
//!
//! Most middleware has one question: is this outcome a failure? A retry and a circuit breaker need
//! different answers:
//!
//! - 429: the request may be sent again, and the response says nothing about the server's health.
//! - 500: the server fails, and a POST must not be sent again.
//! - A refused connection: the server fails, and the request may be sent again.
//!
//! So a [`Verdict`] is a success, or a [`Fault`] with separate axes:
//!
//! | axis | says | read by |
//! |---|---|---|
//! | [`Kind`] | what went wrong | logs, metrics, retry budgets |
//! | [`Retryable`] | when the request may be sent again: it was not sent, the server refused it, it is idempotent, never | [`tower-jitter-retry`] |
//! | [`Health`] | what the outcome says about the server: healthy, failing, nothing | [`tower-breaker`] |
//! | [`Origin`] | where the fault arose: caller, local, transport, remote, unknown | logs, metrics |
//! | [`retry_after`](Fault::retry_after) | the delay that the server asked for | both |
//!
//! ```text
//! request ─► JitterRetry ─► Breaker ─► FaultClassify ─► Timeout ─► client
//!                 ▲            ▲             │
//!                 └────────────┴── verdict ──┘
//! ```
//!
//! [`FaultClassifyLayer`] classifies each outcome once, next to the client. Every outer layer reads
//! the verdict. A layer with its own classifier uses that instead.
//!
//! # Example
//!
//! With the built-in tables:
//!
//! ```
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, Health, Retryable};
//!
//! # tokio_test::block_on(async {
//! let mut service = ServiceBuilder::new()
//!     .layer(FaultClassifyLayer::new())
//!     .service(service_fn(async |_: ()| {
//!         http::Response::builder().status(429).header("retry-after", "3").body(())
//!     }));
//!
//! let response = service.ready().await?.call(()).await?;
//! let verdict = CarriedVerdict::get(&response).expect("a fault is carried");
//! let fault = verdict.fault().expect("429 is a fault");
//! assert_eq!((fault.retryable(), fault.health()), (Retryable::Refused, Health::Neutral));
//! assert_eq!(fault.retry_after(), Some(Duration::from_secs(3)));
//! # Ok::<(), tower_fault_classify::ClassifiedError>(())
//! # }).unwrap();
//! ```
//!
//! With a rule. A closure is checked before the tables, and returns `None` to defer to them:
//!
//! ```
//! use tower::{ServiceBuilder, service_fn};
//! use tower_fault_classify::{Fault, FaultClassifyLayer, Health, Kind, Origin, Retryable};
//!
//! type Response = http::Response<String>;
//!
//! // This server answers 404 while it starts.
//! let starting = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);
//! let layer = FaultClassifyLayer::new().rule(
//!     move |outcome: Result<&Response, &std::io::Error>| match outcome {
//!         Ok(response) if response.status() == 404 => Some(starting.into()),
//!         _ => None,
//!     },
//! );
//! let service = ServiceBuilder::new()
//!     .layer(layer)
//!     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(Response::default())));
//! # fn check<Request, S: tower::Service<Request>>(_: &S) {}
//! # check::<(), _>(&service);
//! ```
//!
//! # Layer order
//!
//! Put the layer directly above the innermost timeout, and below retry and breaker. [Layer
//! order](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md) has other
//! orders.
//!
//! # How it decides
//!
//! [`Auto`] is the default classifier of every layer of these crates. It classifies the outcomes of
//! a plain `service_fn` and of HTTP clients:
//!
//! - **Responses.** [`Outcome`] provides the verdict that a response carries, the response's own
//!   verdict, and its HTTP status. The first of them that exists decides. A response with none of
//!   them is a success. `http::Response`, `reqwest::Response` (feature `reqwest`), `()`, numbers,
//!   strings, `Vec`, `Option` and `Box` implement `Outcome`. For your own type, write
//!   `impl Outcome for Rows {}`. For a type of another crate, call `.errors_only()` on the layer.
//! - **Errors.** An error is classified by its whole `source()` chain. It may implement `Error`, or
//!   be a box with an error (`BoxError`, `anyhow::Error`). No trait covers both, so a marker
//!   ([`TypedError`], [`BoxedError`]) is inferred from the type of the error. You see the marker
//!   only in the type of a layer.
//! - **Nested results.** A `Result` within the result, as `tokio::time::timeout` returns it, is
//!   classified by its inner error. The inner error must implement `Error`, and the value must have
//!   an `Outcome`. Otherwise use `.classify(NestedErrors::new())`, or combine the two results with
//!   `??` below the layer. Do not use `.errors_only()` there: an `Ok(Err(_))` is then a success.
//!
//! The tables are in [`tables`], with a source for each row.
//!
//! No feature knows the types of database drivers. Pass the driver's code to [`sqlstate_fault`]
//! (PostgreSQL) or [`redis_fault`] (Redis, Valkey), in a rule, or below all layers with
//! [`ClassifiedError::new`].
//! [Databases](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/databases.md) has
//! programs.
//!
//! **An error that no table has a row for counts as a failure of the server, and the request is
//! sent again if it is idempotent.** This is the convention of circuit breakers and retries.
//! [`UnknownErrors`] changes it, for this layer and every outer layer:
//!
//! ```
//! use tower_fault_classify::rules::UnknownErrors;
//! use tower_fault_classify::{FaultClassifyLayer, Health};
//!
//! let row = UnknownErrors::row().with_health(Health::Neutral);
//! let layer = FaultClassifyLayer::new().rule(UnknownErrors::new(row));
//! # let service = tower::ServiceBuilder::new()
//! #     .layer(layer)
//! #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(())));
//! # fn check<Request, S: tower::Service<Request>>(_: &S) {}
//! # check::<(), _>(&service);
//! ```
//!
//! # Rules
//!
//! - [`StatusRules`] and [`GrpcRules`] change single rows of the tables.
//! - [`GrpcOnly`] is for stacks that carry gRPC calls only. A response that is not a gRPC response
//!   is then a failure, also with status 200. Without the rule such a response is a success.
//! - [`UnknownErrors`] changes how errors are classified that no table has a row for.
//! - A closure, or another [`Rule`], decides on any outcome.
//!
//! A rule becomes part of the service's type. A closure has no name that a struct field can write,
//! so use a rule of this crate or a function pointer there:
//!
//! ```
//! use tower_fault_classify::classifiers::{Auto, BoxedError, RuleFirst};
//! use tower_fault_classify::rules::StatusRules;
//! use tower_fault_classify::{FaultClassify, FaultClassifyLayer, Health, Kind, Origin, Retryable};
//!
//! struct Teapots<Client> {
//!     client: FaultClassify<Client, RuleFirst<StatusRules, Auto<BoxedError>>>,
//! }
//!
//! let row = StatusRules::row(418)
//!     .with_kind(Kind::Unavailable)
//!     .with_retryable(Retryable::IfIdempotent)
//!     .with_health(Health::Unhealthy)
//!     .with_origin(Origin::Remote);
//! let layer = FaultClassifyLayer::new().rule(StatusRules::new().status(418, row));
//! # let client = tower::Layer::layer(&layer, ());
//! # let _ = Teapots { client }.client;
//! ```
//!
//! If the compiler finds no `Service` in a stack and does not say why, pass the stack to this
//! function. The error then names the bound that does not hold. [Compile
//! errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/compile-errors.md) has
//! the usual ones.
//!
//! ```
//! fn check<Request, S: tower::Service<Request>>(_: &S) {}
//! ```
//!
//! # Where the verdict is
//!
//! | outcome | where the verdict is | when it is ignored |
//! |---|---|---|
//! | a response that is a fault by its status alone | its status | never |
//! | any other response that is a fault | [`CarriedVerdict`] in its extensions | its status has changed since |
//! | an error | [`ClassifiedError`] around the error, found at any depth of `source()` | never |
//! | an error, with `.keep_errors()` | nowhere: each layer classifies the error again | |
//!
//! A success carries nothing. [`CarriedVerdict::get`] and [`classify_response`] read the verdict on
//! a response. `reqwest::Response` is supported like `http::Response`. The error of
//! reqwest-middleware does not return the client's error from `source()`. With the feature
//! `reqwest-middleware` the client's error is found nevertheless, and `middleware::TowerMiddleware`
//! puts tower layers into the chain of reqwest-middleware.
//!
//! To log an error, print it with its sources, because `Display` covers only one layer.
//! [`ErrorChain`] prints the whole chain in one line, each text once.
//! [Errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/errors.md) shows how a
//! caller finds the verdict in an error.
//!
//! # Redirects
//!
//! A client that follows redirects returns the outcome of the last hop. "Not sent" and "refused"
//! then say nothing about the request that the caller sent: a POST may have been processed before
//! it was redirected. A classifier does not see the request, so the retry layer decides: it
//! compares [`Outcome::url`] with the request's URL. Errors of reqwest do not say which hop failed;
//! their faults are [`maybe_redirected`](Fault::maybe_redirected). Your own retry code that reads
//! [`Retryable`] must do the same.
//!
//! # Response bodies
//!
//! The head of a response does not always decide. Two optional modes also read the body.
//!
//! **`track_body`** puts a [`TrackedBody`] around the body. It calls a hook exactly once, with the
//! verdict on the whole call: at the gRPC trailers, at an error of the stream, or when the reader
//! drops the body. With `idle_limit` (feature `tokio`) it is also called when a stream stalls.
//! Frames and trailers pass through unchanged, and nothing is buffered.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_fault_classify::{FaultClassifyLayer, Kind, Verdict};
//!
//! # tokio_test::block_on(async {
//! let (sender, verdicts) = std::sync::mpsc::channel();
//! let service = ServiceBuilder::new()
//!     .layer(FaultClassifyLayer::new().track_body(move |verdict: Verdict| sender.send(verdict).unwrap()))
//!     .service(service_fn(async |_: ()| {
//!         // A gRPC response that ends without the status that it must end with.
//!         let half = Full::new(Bytes::from("half a message"));
//!         http::Response::builder().header("content-type", "application/grpc").body(half)
//!     }));
//!
//! let response = service.oneshot(()).await?;
//! response.into_body().collect().await.unwrap();
//! let verdict = verdicts.recv().unwrap();
//! assert_eq!(verdict.fault().unwrap().kind(), Kind::Server);
//! # Ok::<(), tower_fault_classify::ClassifiedError>(())
//! # }).unwrap();
//! ```
//!
//! **`read_error_bodies`** (feature `error-body`) reads the beginning of the body of a response
//! whose status is 400 or more: by default at most 64 KiB, and for at most one second. A
//! [`BodyRule`] classifies the response by these bytes. The body is forwarded byte for byte. With
//! `first_event_timeout` of `ErrorBodies`, the layer also waits for the first event of an event
//! stream, so that a stream that breaks before it can be retried. The feature `llm` has the rules
//! for the APIs of language models, and finds the errors in their event streams:
//!
//! ```
//! # #[cfg(feature = "llm")]
//! # tokio_test::block_on(async {
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_fault_classify::body::{ErrorBodies, LlmErrors};
//! use tower_fault_classify::{CarriedVerdict, FaultClassifyLayer, Kind, Retryable};
//!
//! const BODY: &str = r#"{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}"#;
//!
//! let service = ServiceBuilder::new()
//!     .layer(FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new())))
//!     .service(service_fn(async |_: ()| {
//!         http::Response::builder().status(429).body(Full::new(Bytes::from(BODY)))
//!     }));
//!
//! let response = service.oneshot(()).await?;
//! let fault = *CarriedVerdict::get(&response).unwrap().fault().unwrap();
//! // Not every 429 may be sent again.
//! assert_eq!((fault.kind(), fault.retryable()), (Kind::Quota, Retryable::Never));
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), BODY);
//! # Ok::<(), tower_fault_classify::ClassifiedError>(())
//! # }).unwrap();
//! ```
//!
//! An outer layer that tracks bodies classifies the end of a body itself, because the verdict of
//! the hook is not passed on. Give both layers the same rules.
//!
//! # Streaming uploads
//!
//! The error of a request's own body is the caller's: kind `client`, never retried, neutral.
//!
//! While a body waits for its source, a timeout or a lost connection is not the server's fault
//! either, and the request is not retried. For that, an [`UploadLayer`] or the retry layer has to
//! track the body. A streaming body that neither of them tracks is not known to wait: a timeout, or
//! a lost connection, then counts as a failure of the server. See the module [`upload`].
//!
//! # Proxies and DNS
//!
//! [`tables`] lists the failures of proxies and of name resolution, with the verdict on each.
//!
//! - Until the tunnel is open, the request is not sent. Most of these failures are therefore
//!   `unsent`, and the retry layer sends a POST again too. For reqwest see [Redirects](#redirects).
//! - A proxy that rejects this client would reject it again: such a failure is `never` retried.
//! - A proxy that is down, and a name that does not resolve, are `unhealthy`: the path to the
//!   server does not work. If several servers share a proxy, their circuits open together.
//! - A proxy answers a request for an `http` URL without a tunnel. A 502 of the proxy is then
//!   classified like a 502 of the server.
//! - A client tries the addresses of a name one after the other. If one of them accepts the
//!   connection, the call does not fail.
//! - The errors of hyper-util's SOCKS connectors have no source. If the proxy is down or closes the
//!   connection, or if the connector cannot resolve the server's name, the failure is `unavailable`
//!   and `unsent`.
//!
//! **Timeouts.** The `connect_timeout` of reqwest covers name resolution and the proxy, and so does
//! that of a tonic endpoint with a connector of its own. The one of hyper-util's `HttpConnector`
//! covers only the TCP connection, so put a timeout around the connector too. A timeout around the
//! whole client does not show whether the request was sent: it is `if_idempotent`.
//!
//! **HTTP proxies that do not open a tunnel.** hyper-util reports all statuses except 200 and 407
//! as the same error, whether the rules of the proxy forbid the server (403) or the proxy does not
//! reach the server (502, 503, 504). The error is neutral, so a circuit breaker does not open for a
//! server that an HTTP proxy does not reach. SOCKS4 also has one code for both. If your proxy
//! forbids nothing, count such calls as failures. The rule below also counts streams that an HTTP/2
//! server refuses.
//!
//! ```
//! use tower_fault_classify::{BoxError, FaultClassifyLayer, Health, Kind, classify_error};
//!
//! type Response = http::Response<String>;
//!
//! let layer = FaultClassifyLayer::new().rule(|outcome: Result<&Response, &BoxError>| {
//!     let fault = classify_error(&**outcome.err()?);
//!     (fault.kind() == Kind::Unavailable).then(|| fault.with_health(Health::Unhealthy).into())
//! });
//! # let service = tower::ServiceBuilder::new()
//! #     .layer(layer)
//! #     .service(tower::service_fn(async |_: ()| Ok::<_, BoxError>(Response::default())));
//! # fn check<Request, S: tower::Service<Request>>(_: &S) {}
//! # check::<(), _>(&service);
//! ```
//!
//! # TLS
//!
//! | outcome | verdict |
//! |---|---|
//! | the client rejects the server's certificate, or both have no version, cipher suite or protocol in common | `protocol`, `never`, `unhealthy` |
//! | the server rejects the client's certificate, or its absence | `auth`, `never`, `neutral` |
//! | the server sends the alert `internal_error` in the handshake | `server`, `unsent`, `unhealthy` |
//! | the connection ends during the handshake | `transient`, `unsent`, `unhealthy` |
//! | the handshake does not end within the client's connect timeout | `timeout`, `unsent`, `unhealthy` |
//! | the handshake does not end within a timeout around the client | `timeout`, `if_idempotent`, `unhealthy` |
//!
//! So a circuit breaker opens if a server's certificate expires.
//!
//! Set a connect timeout that includes the handshake. A POST is then sent again after a handshake
//! that stalls. A timeout around the client does not say how far the call got. Two connect timeouts
//! do not include the handshake: that of hyper-util's `HttpConnector`, and that of tonic's
//! `Endpoint`. tonic has `ClientTlsConfig::timeout` for it.
//!
//! The errors of rustls are recognised, and those of native-tls with OpenSSL 3. With native-tls on
//! Windows or macOS, a rejected certificate has the verdict of a failure to connect.
//! [`tables`] has every situation.
//!
//! # Modules and main types
//!
//! | item | content |
//! |---|---|
//! | [`FaultClassifyLayer`], [`FaultClassify`], [`ResponseFuture`] | the layer, its service, and the service's future |
//! | [`Verdict`], [`Fault`], [`Kind`], [`Retryable`], [`Health`], [`Origin`] | the verdict and its axes |
//! | [`Classify`], [`Rule`], [`classify_fn`], [`rule_fn`] | classifiers and rules of your own |
//! | [`Outcome`], [`CarriedVerdict`], [`classify_response`], [`is_grpc_committed`] | the verdict on a response |
//! | [`ClassifiedError`], [`ErrorChain`], [`classify_error`], [`BoxError`] | the verdict on an error |
//! | [`body`] | verdicts from response bodies |
//! | [`classifiers`] | ready-made classifiers, [`Auto`] among them |
//! | [`error_mode`] | whether the layer wraps errors |
//! | [`hint`] | the delays that a server asks for in its headers |
//! | [`middleware`] (feature `reqwest-middleware`) | tower layers inside reqwest-middleware's chain |
//! | [`request`] | settings of one request, in its extensions |
//! | [`rules`] | rules that change parts of the tables |
//! | [`tables`] | the built-in tables; [`sqlstate_fault`] and [`redis_fault`] for the errors of PostgreSQL and Redis |
//! | [`test_util`] (feature `test-util`) | a layer that injects faults in tests |
//! | [`upload`] | request bodies that fail or wait |
//!
//! # Guides
//!
//! | guide | content |
//! |---|---|
//! | [Getting started](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/getting-started.md) | the first stack |
//! | [Layer order](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md) | where the layer belongs |
//! | [Errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/errors.md) | how a caller reads an error |
//! | [Databases](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/databases.md) | rules for the drivers of PostgreSQL and Redis |
//! | [Streaming bodies](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/streaming.md) | response bodies, uploads, gRPC streams |
//! | [Observability](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/observability.md) | logs and metrics |
//! | [Performance](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/performance.md) | what a call costs, which settings change that, how it scales |
//! | [Testing](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/testing.md) | tests of code that reads verdicts |
//! | [Compile errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/compile-errors.md) | what to do if a stack does not compile |
//! | [Migrating](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/migrating.md) | the equivalent of another crate's configuration |
//!
//! # Features
//!
//! No feature is enabled by default. Each feature compiles only the crates in its row, and their
//! dependencies.
//!
//! | feature | compiles | classifies |
//! |---|---|---|
//! | (none) | `bytes`, `http`, `http-body`, `httpdate`, `base64`, `tower-layer`, `tower-service`, `pin-project-lite` | `http::Response`, `io::Error` |
//! | `h2` | h2 | its errors: `REFUSED_STREAM`, GOAWAY, a stream that is reset because the request's body failed. Enable it if your client speaks HTTP/2 |
//! | `hyper` | hyper | its errors |
//! | `hyper-util` | hyper, hyper-util's legacy client | their errors |
//! | `reqwest` | hyper, hyper-util, reqwest without its default features (which compiles tower-http) | `reqwest::Response`, `reqwest::Error` |
//! | `reqwest-middleware` | the crates of `reqwest`, async-trait, reqwest-middleware | its error; adds `middleware::TowerMiddleware` |
//! | `tokio` | tokio's time; also adds `idle_limit` of tracked bodies | `tokio::time::error::Elapsed` |
//! | `tonic` | tonic, hyper, h2 | `Status`, `ConnectError`, `TimeoutExpired` |
//! | `tower` | tower's timeout, load shed and buffer; also passes on `tower::load::Load` | `Elapsed`, `Overloaded`, `Closed`, `ServiceError` |
//! | `tower-http` | tower-http's timeout | the `TimeoutError` of its bodies; adds `TowerHttp`, which turns classifiers of `tower_http::classify` into rules |
//!
//! | feature | compiles | adds |
//! |---|---|---|
//! | `follow-redirect` | tower-http's timeout and `FollowRedirect` | the URL of a response after a redirect, which the retry layer compares with the request's |
//! | `error-body` | tokio's time, memchr | `read_error_bodies` |
//! | `llm` | tokio's time, memchr, `serde`, `serde_json` | `LlmErrors`, `inspect_llm_events`, `llm_fault` |
//! | `metrics` | metrics | the counter `tower_fault_classify_faults_total` by `layer` ([`name`](FaultClassifyLayer::name)), `error.type` (the kind) and `fault.origin` |
//! | `tracing` | tracing | an event at debug level for each fault; its fields are named as in OpenTelemetry where OpenTelemetry has a name |
//! | `draft-ratelimit` | nothing more | the `RateLimit` field of an IETF draft |
//! | `test-util` | tokio's time, fastrand | the module `test_util`: faults for tests |
//!
//! # Platforms
//!
//! The crate reads the system's clock for a `Retry-After` date if the response has no valid `Date`
//! header. On `wasm32-unknown-unknown` reading the time panics, because the standard library has no
//! clock there.
//!
//! `read_error_bodies` needs a tokio runtime with its timer enabled. So do the delays of the module
//! `test_util`.
//!
//! # Minimum Rust version
//!
//! Rust 1.88.
//!
//! [`Auto`]: classifiers::Auto
//! [`BodyRule`]: body::BodyRule
//! [`BoxedError`]: classifiers::BoxedError
//! [`GrpcOnly`]: rules::GrpcOnly
//! [`GrpcRules`]: rules::GrpcRules
//! [`StatusRules`]: rules::StatusRules
//! [`TrackedBody`]: body::TrackedBody
//! [`TypedError`]: classifiers::TypedError
//! [`UnknownErrors`]: rules::UnknownErrors
//! [`UploadLayer`]: upload::UploadLayer
//! [`redis_fault`]: tables::redis_fault
//! [`sqlstate_fault`]: tables::sqlstate_fault
//! [`tower-breaker`]: https://docs.rs/tower-breaker
//! [`tower-jitter-retry`]: https://docs.rs/tower-jitter-retry
//! [tower]: https://docs.rs/tower

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod body;
#[cfg(feature = "__internals")]
mod circuit_rejection;
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
#[cfg(any(feature = "__internals", feature = "metrics", feature = "tracing"))]
mod name;
mod outcome;
pub mod request;
pub mod rules;
mod service;
mod system_time;
mod table;
pub mod tables;
mod telemetry;
#[cfg(feature = "test-util")]
pub mod test_util;
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

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
