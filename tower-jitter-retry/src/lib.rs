//! Retries for [tower] services: with backoff, jitter and a budget, and only where sending the
//! request again is safe.
//!
//! The layer retries by what went wrong, not by a list of statuses. A request that was never sent
//! is always safe to send again. A request that the server may have processed is sent again only if
//! it is idempotent. A [budget] that successes refill limits the retries, so that retries do not
//! overload a server that is failing.
//!
//! The crate is one tower layer, [`JitterRetryLayer`], with a [`RetryPolicy`]. The policy also
//! works [without tower](#without-this-layer), and with [tower's own retry
//! layer](#without-this-layer). Two other crates complete it: [`tower-breaker`] stops calls to a
//! server that fails, and [`tower-fault-classify`] decides what went wrong.
//!
//! # Example
//!
//! With the defaults, a call makes up to three attempts, or up to two if they time out:
//!
//! ```
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let mut service = ServiceBuilder::new()
//!     .layer(JitterRetryLayer::new(RetryPolicy::default()))
//!     .service(service_fn(async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(()))));
//!
//! let request = http::Request::get("/").body(String::new()).unwrap();
//! let response = service.ready().await?.call(request).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```
//!
//! With other limits, for your own request type:
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, service_fn};
//! use tower_jitter_retry::{Budget, JitterRetryLayer, RequestInfo, RetryPolicy};
//!
//! #[derive(Clone)]
//! struct Query(String);
//!
//! // Counts as idempotent: each method of `RequestInfo` has a default.
//! impl RequestInfo for Query {}
//!
//! let policy = RetryPolicy::builder()
//!     .max_attempts(5)
//!     .initial_backoff(Duration::from_millis(50))
//!     .max_backoff(Duration::from_secs(2))
//!     .max_elapsed(Duration::from_secs(20))
//!     .budget(Budget::tokens().capacity(20).build()?)
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(JitterRetryLayer::new(policy).clone_requests())
//!     .service(service_fn(async |query: Query| Ok::<_, std::io::Error>(query.0)));
//! # fn check<Request, S: tower::Service<Request>>(_: &S) {}
//! # check::<Query, _>(&service);
//! # Ok::<(), tower_jitter_retry::ConfigError>(())
//! ```
//!
//! [`RetryPolicy`] lists all settings with their defaults.
//!
//! # How it decides
//!
//! The fault of an attempt ([`Retryable`](fault_classify::Retryable)) and the request decide
//! whether the request is sent again:
//!
//! | the request | fault | sent again |
//! |---|---|---|
//! | was not sent: a refused connection, a load shed below | `Unsent` | always; [`NonIdempotent`] limits it |
//! | was not processed, as the server says: for example 421, 425, 429 | `Refused` | always; [`NonIdempotent`] limits it |
//! | may have been processed: for example a timeout, a reset, 500, 502, 503, 504 | `IfIdempotent` | if it is idempotent |
//! | failed with an error that no table has a row for; see [`UnknownErrors`](fault_classify::rules::UnknownErrors) | `IfIdempotent` | if it is idempotent |
//! | was refused permanently, or rejected by a circuit breaker | `Never` | never |
//!
//! - An HTTP request is idempotent by its method (RFC 9110), or by an `Idempotency-Key` header that
//!   is not blank. Any other request counts as idempotent unless its [`RequestInfo`] says
//!   otherwise.
//! - [`RetrySafety`] overrides that, for one request or for a layer. `RetrySafety::Never` means
//!   that the request is sent once, even if it could not be sent at all.
//! - For one request, `RetrySafety` and [`Deadline`] are extensions of the request:
//!   `request.with_extension(RetrySafety::Always)`, with
//!   [`RequestExt`](request::RequestExt) for `http::Request` and `reqwest::Request`. For
//!   reqwest-middleware, use `with_extension` of its `RequestBuilder`.
//! - [`non_idempotent`](RetryPolicyBuilder::non_idempotent) sets the faults after which a request
//!   that is not idempotent is sent again.
//! - gRPC sends every call by POST. [`idempotent_methods`](RetryPolicyBuilder::idempotent_methods)
//!   lists the methods that may be called twice. A gRPC call is not retried once its response has
//!   begun (gRFC A6).
//! - A gateway uses [`RetryPolicy::gateway`]. A request that is not idempotent is then sent again
//!   only if it was not sent. The remote client's `Idempotency-Key` has no effect, and its retry
//!   marks are removed.
//!
//! A retry also needs all of these:
//!
//! - an attempt that is left, of [`max_attempts`](RetryPolicyBuilder::max_attempts);
//! - time within [`max_elapsed`](RetryPolicyBuilder::max_elapsed);
//! - time before the request's [`Deadline`] or `grpc-timeout`; the layer shortens the
//!   `grpc-timeout` of each attempt to the time that is left;
//! - a withdrawal that the [`Budget`] grants;
//! - a request that can be [sent again](#how-a-request-is-sent-again).
//!
//! Otherwise the caller immediately gets the outcome of the last attempt, with its type unchanged.
//!
//! ## Time limits
//!
//! No retry is sent after `max_elapsed` or after the deadline:
//!
//! - A delay that would end too late is not begun.
//! - A retry that waits for the inner service's readiness (a permit, a turn) waits at most until
//!   then. It then gives up its place in the queue, and the caller gets the outcome of the previous
//!   attempt.
//! - The time is checked again right before a retry is sent.
//!
//! The first attempt is always sent. No attempt is cut short; a timeout below the layer does that.
//!
//! ## Result
//!
//! The caller gets the outcome of the last attempt that was *sent*:
//!
//! | the last attempt | the caller gets |
//! |---|---|
//! | is answered, or fails | its outcome |
//! | is rejected locally at its first poll: an open circuit, load shed | the outcome of the previous attempt |
//! | is not sent, because the inner service's readiness fails or the time is over | the outcome of the previous attempt |
//! | is rejected later, after it was pending (behind a `Buffer`) | the rejection; [`Retried::last_sent`] has the fault of the previous attempt |
//!
//! So a 502 that opens the circuit reaches the caller, and not "the circuit is open". For this, the
//! layer keeps the last response during the delay, the wait for readiness and the first poll of the
//! next attempt. It drops the response before the second poll, because the response's body may hold
//! the stream or the permit that the next attempt waits for.
//!
//! ## Redirects
//!
//! A server may process a POST and answer with a redirect. If the target of the redirect then
//! fails, the POST is not sent again: `Unsent` and `Refused` count as `IfIdempotent`.
//!
//! A response shows a redirect by its URL. An error of reqwest does not say which hop failed, and
//! reqwest follows redirects by default. So **a POST through reqwest is not sent again after a
//! refused connection**. Such a POST is sent again with
//! [`follows_redirects(false)`](RetryPolicyBuilder::follows_redirects) and a client that follows no
//! redirects (`redirect::Policy::none()`). For tower-http's `FollowRedirect` see [Layer
//! order](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md#redirects).
//!
//! ## Nested retry layers
//!
//! A request that may be sent again carries an [`Attempt`](request::Attempt) in its extensions. The
//! mark says which faults this layer retries for the request. An inner retry layer leaves those
//! faults to this layer: three nested layers of three attempts make three calls, not 27.
//!
//! - An inner layer still retries the faults that this layer does not: those of a gRPC method that
//!   only the inner layer lists, or a 503 below a layer with `errors_only()`.
//! - Below a layer with `errors_only().rule(…)`, an inner layer that classifies all responses also
//!   retries the responses that the rule covers. Both layers then retry these responses.
//! - Requests that are neither `http::Request` nor `reqwest::Request` carry no mark, and their
//!   attempts multiply.
//! - A proxy removes the mark of a remote client: [`RetryPolicy::gateway`] does, and so does
//!   [`RetryPolicyBuilder::remove_marker`].
//!
//! # How long it waits
//!
//! The delay before retry n is drawn uniformly from this range, in nanoseconds:
//!
//! ```text
//! 0 ..= min(max_backoff, initial_backoff * backoff_multiplier^(n-1))
//! ```
//!
//! This is full jitter. The range is cut at the maximum before the draw. If less time is left than
//! the range allows, the range is cut at the time that is left. [`Jitter`] has the other kinds,
//! with their ranges and sources.
//!
//! A server can ask for a delay:
//!
//! | hint | delay | backoff after it |
//! |---|---|---|
//! | `Retry-After`, `retry-after-ms`, gRPC `RetryInfo` | a minimum: the longer of the hint and the backoff's own delay | continues to grow |
//! | `grpc-retry-pushback-ms` | exact: it replaces the backoff; 0 means immediately | starts again |
//!
//! - A hint is never shortened. It is stretched by up to half of it (at most 5 s), so that clients
//!   that got the same hint do not return together. [`Jitter::None`] does not stretch it.
//! - A hint of more than 60 s ([`max_retry_after`](RetryPolicyBuilder::max_retry_after)), or one
//!   that does not fit into the time that is left, ends the retries.
//! - A delay of zero uses no timer. It yields to the runtime from time to time: each retry takes a
//!   unit of the tokio task's cooperative budget.
//!
//! # How a request is sent again
//!
//! A request implements [`RetryRequest`](request::RetryRequest). The layer never clones a request
//! that cannot be sent again, and never for the last attempt. A request that cannot be sent again
//! is sent once, unchanged.
//!
//! | request | how it is copied |
//! |---|---|
//! | `http::Request<B>` | its head is cloned; the next table says how its body is kept |
//! | `reqwest::Request` (feature `reqwest`) | `try_clone`: a body in memory is shared, and a request with a streaming body is sent once |
//! | `()`, `bool`, `char`, numbers, strings, `Bytes`, and a `Vec` of these | cloned, regardless of size |
//! | an `Option` of any `Clone` type with a [`RequestInfo`] | cloned, regardless of size |
//! | `http::Request<B>` with any other `B: Clone`, with `.clone_requests()` | cloned, regardless of size |
//! | your own `Clone` type with a [`RequestInfo`], with `.clone_requests()` | cloned, regardless of size |
//!
//! `.clone_requests()` changes only how a request is copied. The method, `Idempotency-Key`,
//! [`RetrySafety`], [`Deadline`], gRPC method and marks of an `http::Request` have the same effect
//! as without it.
//!
//! | body of an `http::Request` | how it is kept |
//! |---|---|
//! | `()`, `Empty`, `&'static str`, `&'static [u8]`, `Bytes`, `Full<Bytes>`, `Full<&'static [u8]>` | its clone shares the data: nothing is copied, and no limit applies |
//! | `reqwest::Body` in memory (feature `reqwest`) | its clone shares the data. It stays in memory, so that reqwest can follow a 307 or 308 |
//! | `String`, `Vec<u8>`, `Full` of any other buffer | copied for each attempt that another one may follow, up to `replay_limit`; a larger body is sent once |
//! | `axum::body::Body`, `tonic::body::Body`, `reqwest::Body` that streams (features `axum`, `tonic`, `reqwest`) | recorded while the first attempt reads it, up to `replay_limit`; its type stays. An empty body costs nothing |
//! | any other streaming body, in a [`ReplayBody`] | recorded in the same way |
//!
//! - [`replay_limit`](RetryPolicyBuilder::replay_limit) is 64 KiB by default. A stream that
//!   outgrows it is sent once, unchanged.
//! - With `replay_limit(0)` only bodies are kept that cost no copy.
//! - Nothing is copied or recorded for a request that can only be sent once: with one attempt, or
//!   with `RetrySafety::Never`. A POST that may be sent again if it was not processed has its body
//!   kept like any other.
//! - A streaming body that is recorded is also tracked: while it waits for its source, a timeout or
//!   a lost connection is not retried, and a breaker below does not count it. A breaker below also
//!   does not count a call that is dropped meanwhile.
//! - Use [`track_uploads(false)`](RetryPolicyBuilder::track_uploads) for gRPC streams whose client
//!   waits for answers before it sends more. Use an
//!   [`UploadLayer`](fault_classify::upload::UploadLayer) for requests that are sent once.
//!
//! Each attempt waits for the inner service's readiness. The first attempt uses the readiness of
//! this service, later attempts that of a clone.
//!
//! **Cancellation.** Dropping the call's future drops the attempt in progress, or the delay.
//! Nothing is spawned.
//!
//! # Without this layer
//!
//! A worker, a batch job or a script calls [`RetryPolicy::retry`] for futures, or
//! [`RetryPolicy::retry_blocking`] on a thread. Decisions, budget and delays are those of the
//! layer.
//!
//! ```
//! use tower_jitter_retry::RetryPolicy;
//!
//! # async fn load(page: u32) -> std::io::Result<u32> { Ok(page) }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let policy = RetryPolicy::default();
//! let page = policy.retry(async || load(7).await).await?;
//! # assert_eq!(page, 7);
//! # Ok::<(), std::io::Error>(())
//! # }).unwrap();
//! ```
//!
//! | method of the policy | use |
//! |---|---|
//! | [`errors_only`](RetryPolicy::errors_only), [`rule`](RetryPolicy::rule), [`classify`](RetryPolicy::classify) | other verdicts on the results |
//! | [`deadline`](RetryPolicy::deadline) | when no further attempt of a call starts |
//! | [`idempotent`](RetryPolicy::idempotent) | a call that must not be made twice |
//!
//! With a circuit of [`tower-breaker`] in the closure, the retry and the breaker work together as
//! their layers do. A rejection is not retried:
//!
//! ```
//! use std::time::Duration;
//! use tower_breaker::{BreakerConfig, Circuit};
//! use tower_jitter_retry::{Deadline, RetryPolicy};
//!
//! # async fn load(page: u32) -> std::io::Result<u32> { Ok(page) }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let (policy, circuit) = (RetryPolicy::default(), Circuit::new(BreakerConfig::default()));
//! let deadline = Deadline::within(Duration::from_secs(5));
//! let page = policy.deadline(deadline).retry(|| circuit.call(load(7))).await?;
//! # assert_eq!(page, 7);
//! # Ok::<(), tower_breaker::BreakerError<std::io::Error>>(())
//! # }).unwrap();
//! ```
//!
//! An event loop, a simulation or a runtime other than tokio uses the module [`decision`]. It takes
//! the outcome of an attempt and the time, and returns a delay or the reason to stop. The layer
//! uses it for its own decisions.
//!
//! To use a policy with tower's own `RetryLayer`, see `RetryPolicy::for_tower` (feature
//! `tower-retry`).
//!
//! # Modules and main types
//!
//! | item | content |
//! |---|---|
//! | [`JitterRetryLayer`], [`JitterRetry`], [`ResponseFuture`] | the layer, its service, and the service's future |
//! | [`RetryPolicy`], [`RetryPolicyBuilder`] | the policy: limits, backoff, budget, safety |
//! | [`PolicyHandle`] | replaces the policy of running services |
//! | [`RetrySafety`], [`NonIdempotent`], [`Deadline`], [`RequestInfo`] | what may be sent again, until when; your own request types |
//! | [`RetryEvent`], [`Retried`], [`GiveUp`] | reports on a retry, on a call, and the reason for its end |
//! | [`Retrier`], [`Retrying`] | retries without tower |
//! | [`backoff`] | the formula of the delays, [`Jitter`] |
//! | [`budget`] | retry budgets, [`Budget`] |
//! | [`decision`] | the retry decision without I/O, for other runtimes and simulations |
//! | [`replay`] | bodies that can be sent again, [`ReplayBody`] |
//! | [`request`] | requests that can be sent again; the marks of nested layers |
//! | [`test_util`] (feature `test-util`) | helpers for tests of your own code |
//! | [`tower_policy`] (feature `tower-retry`) | a policy for tower's own retry layer |
//! | [`fault_classify`] | the crate `tower-fault-classify` |
//!
//! # Guides
//!
//! | guide | content |
//! |---|---|
//! | [Getting started](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/getting-started.md) | the first stack |
//! | [Layer order](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md) | where the retry belongs among breakers, timeouts, limits and buffers; [clients that retry by themselves](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md#clients-that-retry-by-themselves) |
//! | [Errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/errors.md) | what a caller gets, and the texts of errors |
//! | [Observability](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/observability.md) | the callback, logs, all metrics, alerts |
//! | [Databases](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/databases.md) | retries of whole transactions |
//! | [Streaming bodies](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/streaming.md) | replay of request bodies, uploads, gRPC streams |
//! | [Configuration files](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md) | settings in TOML and JSON |
//! | [Performance](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/performance.md) | what a call costs, which settings change that, how it scales |
//! | [Testing](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/testing.md) | tests of code that uses these layers |
//! | [Compile errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/compile-errors.md) | what to do if a stack does not compile |
//! | [Migrating](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/migrating.md) | the equivalent of another crate's configuration |
//!
//! # Layer order
//!
//! The retry layer is the outermost: above a breaker, so that no attempt is sent while the circuit
//! is open. A breaker of `tower-breaker` does not count the failures of retries. A client that
//! retries by itself below this layer multiplies the attempts.
//!
//! # Errors
//!
//! The caller gets the error of the last attempt, with its type unchanged. The `Display` text of an
//! error often covers only its own layer. To log an error with its causes, print
//! [`ErrorChain(&error)`](fault_classify::ErrorChain).
//!
//! # Observability
//!
//! - [`on_retry`](RetryPolicyBuilder::on_retry) is called before each retry, with the number of the
//!   attempt that failed, from 1.
//! - If a retry was planned for a call, the response has [`Retried`] in its extensions: the number
//!   of attempts, the time, why no further attempt followed, and the fault of the last attempt that
//!   was sent. [`Retried::of`] finds it on an error that contains a verdict (`ClassifiedError`):
//!   the errors of a `FaultClassifyLayer`, and the rejections of a breaker.
//! - The feature `tracing` adds an event for each retry, and for each call that failed and is not
//!   retried, with the reason ([`GiveUp`]). The feature `metrics` counts both.
//!
//! # Performance
//!
//! [Benchmarks](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/benchmarks.md) has
//! the times of calls, and compares them with those of other crates. Allocations:
//!
//! | case | allocations |
//! |---|---|
//! | a success at the first attempt, with or without a budget | 0 |
//! | a retry without delay, with or without a budget | 0 |
//! | the delay before a retry: its timer | 1 |
//! | an HTTP request that may be sent again | 2 for the mark in empty extensions, at most 1 in others; 1 for a stream; the clones of its extensions; at most 1 for its URI |
//! | the same, with the marker off | those without the mark |
//! | an HTTP request that is sent once | 0 |
//! | each retry of an HTTP request | 2 for the headers, 2 for the mark |
//! | the first retry of an HTTP request | also 2 for each header name that is not a standard one, and 1 if values of an earlier request are still in use |
//! | the end of a call that was retried | 3 for [`Retried`] in empty extensions, 1 in others |
//!
//! A thread keeps the memory of up to 16 copied request heads for later requests: at most 10 KB
//! each.
//!
//! A stream of 1 GiB takes 1.03 times as long as the stream alone. Its memory is at most the replay
//! limit, one frame and 400 bytes.
//!
//! # Features
//!
//! No feature is enabled by default.
//!
//! | feature | adds |
//! |---|---|
//! | `axum` | retries of `http::Request` with axum's body |
//! | `tonic` | retries of `http::Request` with tonic's body; classifies tonic's errors |
//! | `reqwest`, `reqwest-middleware` | retries of `reqwest::Request`, and of `http::Request` with reqwest's body; classifies reqwest's responses and the errors of these crates |
//! | `follow-redirect` | recognizes responses after a redirect that tower-http's `FollowRedirect` followed |
//! | `h2`, `hyper`, `hyper-util`, `tower`, `tower-http` | classifies the errors of these crates: see [`fault_classify`]. `tower` also passes on `tower::load::Load` |
//! | `metrics`, `tracing` | counters and a histogram for the `metrics` crate; events for retries |
//! | `serde` | reads and writes [`RetryPolicy`] and [`Budget`], and durations in your own settings (`HumanDuration`) |
//! | `schemars` | JSON Schemas of [`RetryPolicy`] and [`Budget`] |
//! | `tower-retry` | a policy for tower's own retry layer |
//! | `test-util` | the module [`test_util`]: decisions without a service, a budget that counts, a clock, and values, for tests of your own code |
//!
//! # Platforms
//!
//! The layer needs a tokio runtime with its timer enabled, if a retry has to wait. The module
//! [`decision`] needs no runtime. The crate needs 64-bit atomics, and a standard library with a
//! clock: it does not run on `wasm32-unknown-unknown`.
//!
//! # Minimum Rust version
//!
//! Rust 1.88.
//!
//! [tower]: https://docs.rs/tower
//! [`tower-breaker`]: https://docs.rs/tower-breaker
//! [`tower-fault-classify`]: https://docs.rs/tower-fault-classify

#![cfg_attr(
    docsrs,
    feature(doc_cfg),
    doc(auto_cfg(hide(feature = "__internals-test-util", feature = "__internals-tokio")))
)]

mod attempt;
pub mod backoff;
pub mod budget;
pub mod decision;
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
#[cfg(feature = "test-util")]
pub mod test_util;
#[cfg(feature = "tower-retry")]
pub mod tower_policy;

pub use tower_fault_classify as fault_classify;
#[doc(inline)]
#[cfg(feature = "serde")]
pub use tower_fault_classify::__internals::settings::HumanDuration;
pub use tower_fault_classify::__internals::{Clock, ConfigError, ManualClock};

pub use backoff::Jitter;
pub use budget::Budget;
pub use future::ResponseFuture;
pub use layer::JitterRetryLayer;
pub use policy::{GiveUp, PolicyHandle, RetryEvent, RetryPolicy, RetryPolicyBuilder};
pub use replay::ReplayBody;
pub use request::{Deadline, NonIdempotent, RequestInfo, RetrySafety};
pub use retrier::{Retrier, Retrying};
pub use service::JitterRetry;
pub use telemetry::Retried;
#[cfg(feature = "tower-retry")]
pub use tower_policy::TowerPolicy;

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
