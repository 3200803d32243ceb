//! A circuit breaker for [tower] services: it stops calls to a service that fails, and resumes them
//! when the service has recovered.
//!
//! While a service fails, callers get an error immediately, instead of waiting for a timeout. The
//! service gets no calls until it has had time to recover. A few probe calls then decide whether
//! the traffic resumes.
//!
//! The crate is one tower layer, [`BreakerLayer`]. A [`Circuit`] also works [without
//! tower](#without-tower). Two other crates complete it: [`tower-jitter-retry`] retries failed
//! calls, and [`tower-fault-classify`] decides which outcomes are failures.
//!
//! # Example
//!
//! With the defaults, five consecutive failures that span a second open the circuit. Here, a manual
//! clock advances instead of a wait:
//!
//! ```
//! use std::io;
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_breaker::{BreakerConfig, BreakerError, BreakerLayer, Clock};
//!
//! async fn search(_query: String) -> Result<String, io::Error> {
//!     Err(io::ErrorKind::ConnectionRefused.into())
//! }
//!
//! # tokio_test::block_on(async {
//! let (clock, time) = Clock::manual();
//! let config = BreakerConfig::builder().clock(clock).build()?;
//! let mut service =
//!     ServiceBuilder::new().layer(BreakerLayer::new(config)).service(service_fn(search));
//!
//! for _ in 0..5 {
//!     let error = service.ready().await?.call("rust".to_owned()).await.unwrap_err();
//!     assert!(matches!(error, BreakerError::Inner(_)));
//!     time.advance(Duration::from_millis(250));
//! }
//! // The circuit is open: this call is rejected, and `search` is not called.
//! match service.ready().await?.call("rust".to_owned()).await {
//!     Err(BreakerError::Rejected(rejection)) => println!("{rejection}"),
//!     _ => unreachable!(),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! With other limits, a name and an observer:
//!
//! ```
//! use std::time::Duration;
//! use tower_breaker::{BreakerConfig, BreakerLayer};
//!
//! let config = BreakerConfig::builder()
//!     .name("search")
//!     .consecutive_failures(0) // The failure rate alone decides.
//!     .failure_rate(0.3)
//!     .minimum_calls(50)
//!     .time_window(Duration::from_secs(30))
//!     .open_for(Duration::from_secs(5))
//!     .build()?;
//! let layer: BreakerLayer = BreakerLayer::new(config).on_transition(|transition| {
//!     eprintln!("{}: {} ({})", transition.circuit, transition.to, transition.reason);
//! });
//! // The handle to the circuit, for status and manual control.
//! let circuit = layer.circuit();
//! # assert_eq!(circuit.name(), "search");
//! # Ok::<(), tower_breaker::ConfigError>(())
//! ```
//!
//! [`BreakerConfig`] lists all settings with their defaults. Two presets exist:
//!
//! | preset | use |
//! |---|---|
//! | [`BreakerConfig::default`] | a client that makes concurrent calls, from one to thousands per second |
//! | [`BreakerConfig::single_flight`] | a worker that makes one call at a time: consecutive failures alone decide, and the circuit stays open until it is reset |
//!
//! # How it decides
//!
//! ```text
//!                  too many failures
//!      ┌────────┐ ───────────────────► ┌────────┐
//!      │ closed │                      │  open  │ ◄─┐
//!      └────────┘ ◄──┐                 └────────┘   │
//!                    │  enough             │        │ a probe
//!                    │  probes             │ time   │ failed
//!                    │  succeeded          ▼ over   │
//!                    │               ┌───────────┐  │
//!                    └────────────── │ half-open │ ─┘
//!                                    └───────────┘
//! ```
//!
//! | state | calls | next state |
//! |---|---|---|
//! | **closed** | admitted; in a slow start, a growing share of them, or a growing number at the same time | open, after consecutive failures, or at a share of failed or slow calls in a window |
//! | **open** | rejected immediately; the inner service is not called | half-open, at the first call or readiness poll after the open time |
//! | **half-open** | one or a few are admitted as probes, the others are rejected | closed, after enough successful probes; open, after one failed probe, after one slow probe if slow calls count, or by default after ten cancelled probes since the last completed one |
//!
//! - **Failures.** The health axis of the verdict decides, not the error or the status alone. A 503
//!   and a refused connection are failures. A 404 and a 429 are not. See [`fault_classify`].
//! - **Unknown errors.** An error that [`fault_classify`] does not know counts as a failure.
//!   [`UnknownErrors`](fault_classify::rules::UnknownErrors) changes this: `.rule(…)` of any layer
//!   and of any circuit accepts it.
//! - **Retries.** By default, the failures of retries do not open a closed circuit: see
//!   [`count_failed_retries`](BreakerConfigBuilder::count_failed_retries).
//! - **Open time.** By default it is 3 s, and up to half as long again by jitter. A server's
//!   `Retry-After` of up to 5 minutes ([`max_retry_after`](BreakerConfigBuilder::max_retry_after))
//!   can lengthen it; the jitter is then added to that delay. The open time can grow with each open
//!   period, or last until the circuit is reset.
//! - **Probes.** Each probe holds a slot for the time of its lease, so that a probe that never ends
//!   cannot block the recovery. A success, a neutral outcome and a cancelled probe free the slot.
//! - **Late outcomes.** A call belongs to the state in which it began. If the state has changed
//!   since, its outcome has no effect.
//! - **Cancelled calls** are ignored by default, with one exception: if ten calls were cancelled
//!   since the last completed call, over at least a second, the breaker assumes that the server
//!   hangs, and opens. This covers stacks whose only timeout is *above* the breaker. A neutral
//!   response, such as a 429, is a completed call. [`CancelledPolicy`] has the details and the
//!   alternatives.
//! - **Uploads.** A call that is dropped while its tracked upload waits for the remote client has
//!   no effect with any policy; see [Streaming bodies](#streaming-bodies).
//! - **Panics.** A call that panics is a failure. The panic propagates to the caller.
//! - **Retry time.** A rejection says how long to wait ([`Rejection::retry_after`], `Retry-After`,
//!   gRPC pushback). From an open circuit, that is the time until its first probe. From a half-open
//!   circuit or one in slow start it is at most 1 s, because the circuit admits calls continuously.
//! - **Shared circuits.** Every circuit decides by itself. The module [`control`] lets your code
//!   decide for several circuits with one backend.
//!
//! # Modules and main types
//!
//! | item | content |
//! |---|---|
//! | [`BreakerLayer`], [`Breaker`], [`ResponseFuture`] | the layer, its service, and the service's future |
//! | [`BreakerConfig`], [`BreakerConfigBuilder`], [`CancelledPolicy`], [`Mode`] | the configuration |
//! | [`Circuit`], [`Permit`], [`Status`] | a handle to a circuit, a permit for one call, the status of the circuit |
//! | [`CircuitRegistry`] | circuits by name |
//! | [`BreakerError`], [`Rejection`], [`TimedOut`], [`ControlError`] | the errors |
//! | [`CircuitState`], [`Reason`], [`Counts`], [`HalfOpen`], [`HealthReport`] | values in a status and in a transition |
//! | [`body`] | whether the outcome is recorded at the response's head or at the end of its body |
//! | [`call`] | calls without tower: guards and their futures |
//! | [`classifier`] | classifiers that the layer adds |
//! | [`control`] | commands and signals for code that decides for several circuits with one backend |
//! | [`fallback`] | responses in place of errors |
//! | [`handle`] | how handles and permits refer to a circuit |
//! | [`keyed`] (feature `keyed`) | a circuit for each key of a request |
//! | [`telemetry`] | transitions, as values and as a stream; failures; the last failure |
//! | [`test_util`] (feature `test-util`) | helpers for tests of your own code |
//! | [`fault_classify`] | the crate `tower-fault-classify`; [`Verdict`], [`Fault`], [`Kind`] and [`Health`] are its types |
//!
//! # Guides
//!
//! | guide | content |
//! |---|---|
//! | [Getting started](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/getting-started.md) | the first stack |
//! | [Layer order](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/layer-order.md) | where the breaker belongs among retries, timeouts, limits and buffers |
//! | [Errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/errors.md) | how a caller handles a rejection |
//! | [Fallbacks](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/fallbacks.md) | responses in place of errors |
//! | [Manual control](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/manual-control.md) | trip, reset, force, reconfigure, health reports |
//! | [Observability](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/observability.md) | observers, logs, all metrics, alerts |
//! | [Databases](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/databases.md) | circuits around pools and connections |
//! | [Streaming bodies](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/streaming.md) | response bodies, uploads, gRPC streams |
//! | [Configuration files](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/configuration.md) | settings in TOML and JSON |
//! | [Performance](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/performance.md) | what a call costs, which settings change that, how it scales |
//! | [Testing](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/testing.md) | tests of code that uses these layers |
//! | [Compile errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/compile-errors.md) | what to do if a stack does not compile |
//! | [Migrating](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/migrating.md) | the equivalent of another crate's configuration |
//!
//! # Where the state lives
//!
//! The circuit belongs to the layer. All services that a layer makes, and all clones of them, share
//! one circuit. axum and tonic call `layer()` many times; the circuit stays the same. A new layer
//! has a new circuit, so create the layer once.
//!
//! [`BreakerLayer::with_circuit`] creates a layer for an existing circuit. A [`CircuitRegistry`]
//! creates circuits by name, each with its own limits. It lists and controls them, for a dashboard
//! or a health page.
//!
//! # Circuits by key
//!
//! A `KeyedBreakerLayer` (feature `keyed`) has a circuit for each key of a request: its host, a
//! gRPC method, a tenant, a model. The module [`keyed`] has an example.
//!
//! - By default, the layer keeps at most 10,000 circuits (`max_keys`). When the map is full, a new
//!   key evicts the circuit with the least to lose: first an idle one, then one with successes
//!   only, then one whose last failure is more than a tenth of the window ago. Failures since the
//!   last success count as long as the key is kept, even after they have left the window.
//! - A circuit is never evicted while it is forced, disabled, open until it is reset, in a slow
//!   start, or in use, nor soon after a failed, slow or cancelled call. Any other open circuit is
//!   kept for twice its last open time, and a half-open circuit for as long as its last open time.
//!   So junk keys cannot reset the circuit of a dead key, and dead keys cannot fill the map
//!   permanently.
//! - If no circuit can be evicted, the calls of the new key are sent unguarded, or share one
//!   circuit (`Overflow`). Both are counted.
//! - A worker or a pool uses the circuits without a layer: `KeyedCircuits::circuit` returns the
//!   circuit of a key.
//! - `KeyedCircuits::reconfigure` changes all circuits while they run, and `configure` those of one
//!   key. `remove` removes the circuit of a key that is gone.
//! - A keyed service is always ready, because the circuit is only known with the request. Its
//!   future then waits for a clone of the inner service. So a dead connection of one key does not
//!   delay the calls of another.
//!
//! # Manual control
//!
//! A manual override takes precedence over a health report, which takes precedence over the
//! circuit's own decisions. A circuit that its configuration disables refuses overrides. [Manual
//! control](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/manual-control.md) has
//! the details.
//!
//! | method | effect |
//! |---|---|
//! | [`trip`](Circuit::trip), [`reset`](Circuit::reset) | opens or closes the circuit now; its own decisions then continue |
//! | [`force_open`](Circuit::force_open), [`force_closed`](Circuit::force_closed) | forces the state until [`release`](Circuit::release) |
//! | [`trip_for`](Circuit::trip_for), [`force_open_for`](Circuit::force_open_for), [`force_closed_for`](Circuit::force_closed_for) | the same for a given time |
//! | [`probe_now`](Circuit::probe_now) | half-opens an open circuit now |
//! | [`reconfigure`](Circuit::reconfigure) | changes the limits; state, open deadline, permits and clock stay |
//! | [`report`](Circuit::report) | applies a health report: critical opens the circuit, recovered admits probes immediately |
//! | [`apply`](Circuit::apply) | applies a [command](control::Command) of code that decides for several circuits |
//! | [`Mode::ObserveOnly`], in the configuration | changes the circuit's state, but rejects no call |
//! | [`Mode::Disabled`], in the configuration | admits all calls and counts none |
//! | [`snapshot`](Circuit::snapshot), [`restore`](Circuit::restore) | keep the state over a restart of the process: see the module [`snapshot`] |
//!
//! A readiness page should use [`Status::rejects_calls`]. It includes forced open, and is `false`
//! again when the open time or the override is over. The circuit then waits for the next call,
//! which is a probe. The instance must become ready to receive that call.
//!
//! # Without tower
//!
//! A worker or a connection pool calls through the circuit itself. Outcomes are classified as in a
//! layer: a response by its status, an error by its chain of sources.
//!
//! ```
//! # #[cfg(feature = "tokio")] {
//! use std::time::Duration;
//! use tower_breaker::{BreakerConfig, BreakerError, Circuit};
//! use tower_fault_classify::ErrorChain;
//!
//! async fn import(item: &str) -> std::io::Result<usize> {
//!     Ok(item.len())
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let circuit = Circuit::new(BreakerConfig::single_flight().name("nightly import").build()?);
//! for item in ["a", "b"] {
//!     match circuit.call_within(Duration::from_secs(5), import(item)).await {
//!         Ok(length) => println!("{item}: {length} bytes"),
//!         Err(BreakerError::Rejected(rejection)) => println!("{item} was not sent: {rejection}"),
//!         Err(error) => println!("{item}: {}", ErrorChain(&error)),
//!     }
//! }
//! # Ok::<(), tower_breaker::ConfigError>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! These methods run a call:
//!
//! | method | runs |
//! |---|---|
//! | [`call`](Circuit::call) | a future, on any executor |
//! | `call_within` (feature `tokio`) | a future, with a timeout, which counts as a failure |
//! | [`call_blocking`](Circuit::call_blocking) | a closure, on this thread |
//! | [`protect`](Circuit::protect) | nothing: it returns a function that guards an async function |
//!
//! These methods change how outcomes are classified. They return a [`Guard`](call::Guard), which
//! has the methods above:
//!
//! | method | use |
//! |---|---|
//! | [`errors_only`](Circuit::errors_only) | values that are not an [`Outcome`](fault_classify::Outcome), such as files and database rows |
//! | [`rule`](Circuit::rule), [`health`](Circuit::health) | other verdicts for some outcomes |
//! | [`classify`](Circuit::classify) | a classifier of your own, or `NestedErrors` for a result within a result |
//!
//! ```
//! use tower_breaker::fault_classify::rules::StatusRules;
//! use tower_breaker::{BreakerConfig, BreakerError, Circuit, Verdict};
//!
//! # async fn send(query: &str) -> std::io::Result<http::Response<String>> {
//! #     Ok(http::Response::new(query.to_owned()))
//! # }
//! # tokio_test::block_on(async {
//! let circuit = Circuit::new(BreakerConfig::default());
//! // This API returns 404 for an empty result. A 503 still counts as a failure.
//! let search = circuit
//!     .rule(StatusRules::new().status(404, Verdict::Success))
//!     .protect(async |query: String| send(&query).await);
//!
//! let response = search("rust".to_owned()).await?;
//! # assert_eq!(response.body(), "rust");
//! # Ok::<(), BreakerError<std::io::Error>>(())
//! # }).unwrap();
//! ```
//!
//! These methods record the outcome of a call that runs elsewhere:
//!
//! | method | use |
//! |---|---|
//! | [`try_acquire`](Circuit::try_acquire) | your code asks before the call, and records a [`Verdict`] with the [`Permit`] |
//! | [`record`](Circuit::record), [`record_with_duration`](Circuit::record_with_duration) | other code makes the calls, and your code only observes their outcomes; also of a [`CircuitRegistry`], by name |
//!
//! These methods wait for an open circuit (feature `tokio`). A worker then needs no sleep between
//! its attempts:
//!
//! | method | waits until the circuit admits a call, and resolves to |
//! |---|---|
//! | `ready` | nothing: the call follows, and is rejected if another one was first |
//! | `acquire` | a [`Permit`] |
//!
//! To retry around a circuit, use `RetryPolicy::retry` of [`tower-jitter-retry`]:
//! `policy.retry(|| circuit.call(query())).await`. A rejection is not retried.
//!
//! # Fallbacks
//!
//! | method of the layer | a rejected call resolves to |
//! |---|---|
//! | [`fallback`](BreakerLayer::fallback) | the return value of a closure, which gets the request and the rejection |
//! | [`fallback_async`](BreakerLayer::fallback_async) | the output of a future: a cache, another server |
//! | [`http_fallback`](BreakerLayer::http_fallback) | an empty 503 with `Retry-After` |
//! | [`grpc_fallback`](BreakerLayer::grpc_fallback) | a trailers-only `UNAVAILABLE` with `grpc-retry-pushback-ms` |
//!
//! The error type is then the inner service's own, so that an axum stack stays `Infallible`. The
//! last two carry the rejection's verdict: no outer layer sends the request again, and no outer
//! breaker counts it.
//!
//! # Streaming bodies
//!
//! By default a call ends with the head of its response. With
//! [`track_body`](BreakerLayer::track_body) it ends with the body: gRPC trailers decide, and a body
//! that breaks is a failure. A stream that still delivers data some time after its head
//! ([`healthy_after`](BreakerLayer::healthy_after)) is a success, so that it does not hold a
//! probe's slot for hours. A stream that delivers nothing for longer than the `idle_limit` (feature
//! `tokio`) is a failure. A slow call is one whose head was slow.
//!
//! In a gateway, put an [`UploadLayer`](fault_classify::upload::UploadLayer) above the breaker.
//! Otherwise a few uploads that stall open the circuit. The duration of a call includes its upload:
//! see [`slow_call_rate`](BreakerConfigBuilder::slow_call_rate) before you count slow calls in a
//! gateway.
//!
//! # Load balancing
//!
//! By default a service is ready while its circuit is open, and rejects the call, so that a caller
//! fails fast. A balancer needs the opposite. With `not_ready_when_open` (feature `tokio`) the
//! service is not ready while the circuit is open, so that `tower::balance` and `ready_cache` skip
//! it. It becomes ready by itself when the open time is over.
//!
//! # Errors
//!
//! | inner error | the breaker's error | how to find the rejection |
//! |---|---|---|
//! | an error type `E` | [`BreakerError<E>`] | `match`: `BreakerError::Rejected(rejection)` |
//! | `BoxError`, `anyhow::Error` | the same type | `error.is::<Rejection>()` |
//!
//! A call through a [`Circuit`] without tower returns the same error types.
//!
//! - A rejection reads ``circuit breaker `search` is open; retry after 30 s``. The text of a keyed
//!   rejection names the key. Responses and gRPC statuses made from it do not, because they may
//!   leave the process.
//! - [`BreakerError`] prints the error in it. To log an error with its causes, print
//!   [`ErrorChain(&error)`](fault_classify::ErrorChain).
//! - Both error types work with `?`, `Buffer`, `Timeout`, tonic's generated clients and axum's
//!   `HandleErrorLayer`. To keep your own error type, put `map_err` above the breaker, with a
//!   `From<BreakerError<E>>`.
//! - With the feature `axum` a rejection is a response (503). With `tonic` it is a `Status`: a
//!   generated client gets `UNAVAILABLE`, through any layers.
//! - Every outer layer recognizes a rejection by the verdict in its `source()` chain, in any order
//!   of layers. The request is not sent again, and the rejection is no failure of the server.
//!
//! # Performance
//!
//! Without a key, a successful call through a closed circuit takes no lock and allocates nothing. A
//! slow start takes a lock.
//!
//! | case | atomic operations | other work |
//! |---|---|---|
//! | admitted, closed | 2 loads in `poll_ready`, 2 in `call` | |
//! | a success, no failure counted | 7 loads, 1 store in the thread's own cell | clock |
//! | a success after failures | the same, and 1 compare-and-swap | clock |
//! | a failure | 13 loads, 1 store in the thread's own cell, 1 compare-and-swap, 1 store of its time; all cells, but only at the next failure that can reach the failure rate | clock |
//! | rejected | 4 loads, 1 store in the thread's own count | clock |
//! | a success by a key | the map's read lock, a reference count up and down, 10 loads, 1 compare-and-swap | hash, clock |
//! | a success by the key of the service's last 16 calls | the same without the lock; the count is one that only this service uses | hash, clock |
//! | half-open, in a slow start, a transition, the first outcome after a transition | a lock | clock |
//!
//! - For a success, the loads are of two adjacent cache lines, which change only with the circuit's
//!   state.
//! - Of these cases, only a transition allocates. In addition, a circuit without a key allocates at
//!   a thread's first success, at its first failed or rejected call, and at the first slow and the
//!   first cancelled call. A keyed circuit allocates when it is created, and at its first
//!   transition, slow, cancelled or half-open call. A service allocates about 50 bytes when it has
//!   called one key 16 times in a row, to find the circuit of the key faster.
//! - If slow calls count, each call also reads the clock when it begins.
//! - A clone of the service counts a handle up, and its drop counts it down, with one atomic
//!   read-modify-write. They write only to the cache line of the thread that clones.
//! - With a count window, a failed, slow or cancelled call takes a lock, because all calls have one
//!   order. A success takes no lock, except for every 1,024th one of a thread.
//! - The storage of a circuit without a key is never freed. The next circuit reuses it, with any
//!   settings and any clock, in constant time. A call reaches it by a plain reference instead of a
//!   counted one. Memory is bounded by the largest number of such circuits that existed at the same
//!   time. A keyed circuit is freed with its last handle, usually on eviction.
//!
//! The memory of a circuit without a key, in bytes:
//!
//! | part | bytes | with 2 cores | with 64 cores |
//! |---|---|---|---|
//! | an unused circuit | 960 + 32 for each core | 1,024 | 3,008 |
//! | its counts of handles, allocated for eight circuits at once | 64 + 32 for each core | 128 | 2,112 |
//! | each thread with a successful call | 128 | 256 for two threads | 8,192 for 64 threads |
//! | the first failed or rejected call | 128 + 32 for each core | 192 | 2,176 |
//! | each thread with a failed or rejected call | 256 | 512 for two threads | 16,384 for 64 threads |
//!
//! At most `2 × cores + 4` threads at a time have counts of their own. The other threads share one
//! more set of counts. The first slow and the first cancelled call add 128 bytes each. In a count
//! window, each call counts like a failed one. A transition, an observer, a count window and a
//! waiting task add what they store.
//!
//! # Named types
//!
//! Every type has a name, so that a struct can hold a stack without a boxed service:
//!
//! ```
//! use std::time::Duration;
//! use tower::timeout::Timeout;
//! use tower::{ServiceBuilder, service_fn};
//! use tower_breaker::fault_classify::{FaultClassify, FaultClassifyLayer};
//! use tower_breaker::{Breaker, BreakerConfig, BreakerLayer};
//!
//! struct Search<Client> {
//!     client: Breaker<FaultClassify<Timeout<Client>>>,
//! }
//!
//! impl<Client: Clone> Search<Client> {
//!     fn new(client: Client) -> Self {
//!         let client = ServiceBuilder::new()
//!             .layer(BreakerLayer::new(BreakerConfig::default()))
//!             .layer(FaultClassifyLayer::new())
//!             .timeout(Duration::from_secs(10))
//!             .service(client);
//!         Self { client }
//!     }
//! }
//! # let search = Search::new(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
//! # fn check<R, S: tower::Service<R>>(_: &S) {}
//! # check::<(), _>(&search.client);
//! ```
//!
//! # Testing
//!
//! A manual clock moves time in tests. Rejections and timeouts can be created, for tests of code
//! that handles them:
//!
//! ```
//! use std::time::Duration;
//! use tower_breaker::{BreakerConfig, BreakerError, Circuit, CircuitState, Clock, Rejection};
//!
//! /// The code under test.
//! fn status_of<T>(result: &Result<T, BreakerError<std::io::Error>>) -> u16 {
//!     match result {
//!         Ok(_) => 200,
//!         Err(BreakerError::Rejected(_)) => 503,
//!         Err(_) => 502,
//!     }
//! }
//!
//! let rejected = BreakerError::Rejected(Rejection::open("search", Duration::from_secs(30)));
//! assert_eq!(status_of::<()>(&Err(rejected)), 503);
//!
//! let (clock, time) = Clock::manual();
//! let circuit = Circuit::new(BreakerConfig::builder().clock(clock).build()?);
//! circuit.trip()?;
//! time.advance(circuit.status().retry_after.unwrap());
//! // The open time is over: the next call is a probe.
//! assert!(circuit.try_acquire().is_ok());
//! assert_eq!(circuit.status().state, CircuitState::HalfOpen);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! No feature is enabled by default.
//!
//! | feature | adds |
//! |---|---|
//! | `keyed` | the module [`keyed`]: a circuit for each key of a request |
//! | `tokio` | `not_ready_when_open`, `Circuit::call_within`, `Circuit::ready` and `acquire`, `idle_limit` of tracked bodies, `Clock::tokio` (which tests can pause); classifies tokio's errors |
//! | `axum` | `IntoResponse` for [`Rejection`], [`TimedOut`] and [`BreakerError`] |
//! | `tonic` | `tonic::Status` from [`Rejection`], [`TimedOut`] and [`BreakerError`]; classifies tonic's errors |
//! | `metrics` | counters and gauges for the `metrics` crate |
//! | `stream` | transitions as a stream: `Circuit::transitions` |
//! | `tracing` | events for transitions and rejections |
//! | `serde` | reads and writes [`BreakerConfig`] and `KeyedConfig`, and durations in your own settings (`HumanDuration`); writes [`Status`] and [`Transition`](telemetry::Transition), with durations in seconds (`retry_after_seconds`); reads and writes [snapshots](snapshot) |
//! | `schemars` | JSON Schemas of [`BreakerConfig`] and `KeyedConfig` |
//! | `test-util` | the module [`test_util`]: circuits in a given state, a clock, and values, for tests of your own code |
//! | `llm` | with `track_body`: finds errors in the event streams of LLM APIs |
//! | `h2`, `hyper`, `hyper-util`, `reqwest`, `reqwest-middleware`, `tower`, `tower-http` | classifies the errors and responses of these crates: see [`fault_classify`]. `tower` also passes on `tower::load::Load` |
//!
//! # Platforms
//!
//! The crate needs 64-bit atomics, and a standard library with a clock: it does not run on
//! `wasm32-unknown-unknown`. The default clock is `CLOCK_MONOTONIC_COARSE` on Linux, which is cheap
//! and up to 10 ms behind. Elsewhere it is [`Instant`](std::time::Instant). [`Clock`] lists the
//! clocks.
//!
//! # Minimum Rust version
//!
//! Rust 1.88.
//!
//! [tower]: https://docs.rs/tower
//! [`tower-fault-classify`]: https://docs.rs/tower-fault-classify
//! [`tower-jitter-retry`]: https://docs.rs/tower-jitter-retry

#![cfg_attr(
    docsrs,
    feature(doc_cfg),
    doc(auto_cfg(hide(feature = "__internals-test-util", feature = "__internals-tokio")))
)]

pub mod body;
pub mod call;
mod circuit;
pub mod classifier;
mod config;
pub mod control;
mod error;
pub mod fallback;
mod future;
mod integrations;
#[cfg(feature = "keyed")]
pub mod keyed;
mod label;
mod layer;
mod listening;
mod machine;
mod readiness;
mod registry;
mod rng;
#[cfg(feature = "serde")]
mod serde;
mod service;
pub mod snapshot;
pub mod telemetry;
#[cfg(feature = "test-util")]
pub mod test_util;
mod timer;

/// How handles and permits refer to their circuit.
///
/// | item | |
/// |---|---|
/// | [`Static`](handle::Static) | the circuit of a layer, of a registry, or of its own: the default |
/// | [`Shared`](keyed::Shared) | one of the circuits of a [`KeyedBreakerLayer`](keyed::KeyedBreakerLayer) (feature `keyed`) |
/// | [`CircuitRef`](handle::CircuitRef) | the trait of the two, sealed |
/// | [`WeakCircuit`](handle::WeakCircuit) | a handle that does not keep its circuit alive |
/// | [`Acquire`](handle::Acquire), [`Ready`](handle::Ready) | the futures of [`Circuit::acquire`] and [`Circuit::ready`] (feature `tokio`) |
pub mod handle {
    #[cfg(feature = "tokio")]
    pub use crate::circuit::{Acquire, Ready};
    pub use crate::circuit::{CircuitRef, Static, WeakCircuit};
}

/// Keeps others from implementing the traits of this crate, so that the traits can change.
mod sealed {
    pub trait Sealed {}
}

pub use circuit::{Circuit, Permit, Status};
pub use config::{BreakerConfig, BreakerConfigBuilder, CancelledPolicy, Mode};
pub use error::{BreakerError, ControlError, Rejection, TimedOut};
pub use future::ResponseFuture;
pub use layer::{BreakerLayer, WithoutClone};
pub use machine::{CircuitState, Counts, HalfOpen, HealthReport, Reason};
pub use registry::CircuitRegistry;
pub use service::Breaker;
#[doc(inline)]
#[cfg(feature = "serde")]
pub use tower_fault_classify::__internals::settings::HumanDuration;
pub use tower_fault_classify::__internals::{Clock, ConfigError, ManualClock};
pub use tower_fault_classify::{self as fault_classify, Fault, Health, Kind, Verdict};

/// Runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
