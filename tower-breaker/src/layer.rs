//! The layer. It owns the circuit.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use tower_fault_classify::body::NoInspector;
#[cfg(feature = "llm")]
use tower_fault_classify::body::{LlmErrors, LlmEvents};
use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst, TypedError};
use tower_fault_classify::{Fault, Health};
use tower_layer::Layer;

use crate::body::OnBodyEnd;
use crate::circuit::Circuit;
use crate::classifier::HealthBy;
use crate::config::BreakerConfig;
use crate::error::Rejection;
use crate::fallback::{Fallback, FallbackAsync, GrpcUnavailable, Http503, ReturnError};
use crate::future::{OnHead, RecordMode};
use crate::service::Breaker;
use crate::telemetry::{Failure, KeepLastFailure, KeepLastFailureBy, Transition};

/// A circuit breaker for a service: rejects calls while the service fails, and probes its recovery.
///
/// All services that a layer makes, and all clones of the layer, share one circuit. Axum and tonic
/// call `layer()` many times; the circuit still counts all calls. Create the layer once.
///
/// # States
///
/// - A **closed** circuit admits all calls. It opens when the first limit of its [`BreakerConfig`]
///   is reached. After it has closed again, a
///   [slow start](crate::BreakerConfigBuilder::slow_start) can admit only a share of the calls, or
///   [limit the concurrent calls](crate::BreakerConfigBuilder::slow_start_successes).
/// - An **open** circuit rejects all calls immediately, and the inner service is not polled.
/// - The circuit becomes **half-open** at the first call, or readiness poll, after
///   [`open_for`](crate::BreakerConfigBuilder::open_for). The circuit has no timer of its own:
///   without calls and readiness polls, it stays in the state `Open`.
/// - A half-open circuit admits one or a few probes. Enough successful probes close it. It opens
///   again after a failed probe, or after a slow probe if slow calls count. By default, it also
///   opens after ten cancelled probes since the last completed probe.
///
/// # Defaults
///
/// | method | without it |
/// |---|---|
/// | [`classify`](Self::classify), [`errors_only`](Self::errors_only) | [`Auto`] classifies responses and errors |
/// | [`rule`](Self::rule), [`health`](Self::health) | the classifier alone decides |
/// | [`fallback`](Self::fallback) and its variants | a rejected call returns an error: a [`BreakerError`](crate::BreakerError), or a boxed [`Rejection`] if the inner error is boxed |
/// | [`track_body`](Self::track_body) | the outcome is recorded when the response head arrives |
/// | [`keep_last_failure`](Self::keep_last_failure), [`keep_last_failure_by`](Self::keep_last_failure_by) | the last failure is not kept |
/// | `not_ready_when_open` (feature `tokio`) | services are ready while the circuit is open, and reject |
///
/// The type parameters are, in this order: the classifier, how a rejected call is answered, when
/// the outcome is recorded, and whether the last failure is kept. The compiler infers them from the
/// inner service. [`Breaker`] shows how to name the type of a stack.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_breaker::fault_classify::{Origin, Retryable};
/// use tower_breaker::{BreakerConfig, BreakerLayer, Fault, Health, Kind};
///
/// // With the defaults:
/// let service = ServiceBuilder::new()
///     .layer(BreakerLayer::new(BreakerConfig::default()))
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
///
/// // With a configuration, a rule and an observer:
/// let config = BreakerConfig::builder().name("search").open_for(Duration::from_secs(5)).build()?;
/// let broken = Fault::new(Kind::Auth, Retryable::Never, Health::Unhealthy, Origin::Remote);
/// let layer = BreakerLayer::new(config)
///     .rule(move |outcome: Result<&http::Response<()>, &std::io::Error>| match outcome {
///         Ok(response) if response.status() == 401 => Some(broken.into()),
///         _ => None,
///     })
///     .on_transition(|transition| eprintln!("{}: {}", transition.circuit, transition.to));
/// let circuit = layer.circuit();
/// let service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # check::<(), _>(&service);
/// assert_eq!(circuit.status().circuit, "search");
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
///
/// # Compile errors
///
/// If the compiler finds no `Service` in a stack and does not say why, pass the stack to a function
/// with that bound, and name the request type. The compiler then names the cause and the fix:
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_breaker::{BreakerConfig, BreakerLayer};
///
/// fn check<Request, S: tower::Service<Request>>(_: &S) {}
///
/// let service = ServiceBuilder::new()
///     .layer(BreakerLayer::new(BreakerConfig::default()))
///     .service(service_fn(async |id: u32| Ok::<_, std::io::Error>(format!("user {id}"))));
/// check::<u32, _>(&service);
/// ```
///
/// [Compile errors](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/compile-errors.md)
/// lists the compiler's messages with their causes and fixes.
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = Auto, R = ReturnError, B = OnHead> {
    circuit: Circuit,
    not_ready: bool,
    classify: C,
    reject: R,
    record: B,
}

impl<KC, KR> BreakerLayer<Auto<KC>, ReturnError<KR>> {
    /// Creates a layer with a new, closed circuit. Outcomes are classified by [`Auto`].
    ///
    /// The compiler infers from the stack whether the inner errors are typed or boxed. If no stack
    /// uses the layer, it reports that type annotations are needed. Then write the type of the
    /// layer, or use the circuit without a layer:
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerLayer, Circuit};
    ///
    /// let layer: BreakerLayer = BreakerLayer::new(BreakerConfig::default());
    /// let circuit = layer.circuit();
    ///
    /// let circuit = Circuit::new(BreakerConfig::default());
    /// ```
    pub fn new(config: BreakerConfig) -> Self {
        Self::with_circuit(Circuit::new(config))
    }
}

impl<KC, KR> BreakerLayer<Auto<KC>, ReturnError<KR>> {
    /// Creates a layer with an existing circuit.
    ///
    /// The circuit comes from a [`CircuitRegistry`](crate::CircuitRegistry), from another layer, or
    /// from [`Circuit::new`]. All services with this circuit open and close together.
    pub fn with_circuit(circuit: Circuit) -> Self {
        let (classify, reject) = (Auto::new(), ReturnError::new());
        Self { circuit, not_ready: false, classify, reject, record: OnHead::new() }
    }
}

impl<R, B> BreakerLayer<Auto<TypedError>, R, B> {
    /// Sets the classifier, instead of [`Auto`].
    pub fn classify<C>(self, classify: C) -> BreakerLayer<C, R, B> {
        let Self { circuit, not_ready, reject, record, .. } = self;
        BreakerLayer { circuit, not_ready, classify, reject, record }
    }
}

impl<K, R, B> BreakerLayer<Auto<K>, R, B> {
    /// Classifies every response as a success, so that the response can have any type.
    ///
    /// Errors are classified as by [`Auto`].
    ///
    /// Caution: a response that is itself a `Result`, such as that of `tokio::time::timeout`, is
    /// then a success even if it is an `Err`. For such responses, do not call `errors_only`, or use
    /// `.classify(NestedErrors::new())` instead.
    pub fn errors_only(self) -> BreakerLayer<ErrorsOnly<K>, R, B> {
        let Self { circuit, not_ready, reject, record, .. } = self;
        BreakerLayer { circuit, not_ready, classify: ErrorsOnly::new(), reject, record }
    }
}

impl<C, B> BreakerLayer<C, ReturnError<TypedError>, B> {
    /// Answers a rejected call with the closure's return value, instead of an error.
    ///
    /// The error type of the service is then the inner service's error type. **Default**: a
    /// rejected call returns an error.
    ///
    /// A layer above classifies the answer like a response of the server: a retry layer sends the
    /// request again if the answer is a 503. To mark the answer as a rejection, attach the verdict
    /// of [`Rejection::fault`](crate::Rejection::fault) with
    /// [`CarriedVerdict::insert`](tower_fault_classify::CarriedVerdict::insert), as
    /// [`http_fallback`](Self::http_fallback) does.
    ///
    /// # Panics
    ///
    /// A panic of `answer` propagates to the caller. The circuit does not record it.
    ///
    /// # Example
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer, Rejection};
    ///
    /// let service = ServiceBuilder::new()
    ///     .layer(BreakerLayer::new(BreakerConfig::default()).fallback(|word: String, _: &Rejection| word))
    ///     .service(service_fn(async |word: String| Ok::<_, std::io::Error>(word.to_uppercase())));
    /// # fn check<R, S: tower::Service<R, Error = std::io::Error>>(_: &S) {}
    /// # check::<String, _>(&service);
    /// ```
    pub fn fallback<Req, Res, F>(self, answer: F) -> BreakerLayer<C, Fallback<F>, B>
    where
        F: Fn(Req, &Rejection) -> Res,
    {
        self.on_reject(Fallback::new(answer))
    }

    /// Answers a rejected call with the output of a future, such as another server's response.
    ///
    /// The future may also return an error of the inner service's type. **Default**: a rejected
    /// call returns an error.
    ///
    /// Dropping the call's future drops the fallback's future. A panic of `answer`, or of its
    /// future, propagates to the caller. The circuit records neither.
    ///
    /// # Example
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer, Rejection};
    ///
    /// let layer = BreakerLayer::new(BreakerConfig::default())
    ///     .fallback_async(async |key: u32, _: Rejection| Ok::<_, std::io::Error>(format!("the last known {key}")));
    /// let service = ServiceBuilder::new()
    ///     .layer(layer)
    ///     .service(service_fn(async |key: u32| Ok::<_, std::io::Error>(format!("the present {key}"))));
    /// # fn check<R, S: tower::Service<R, Error = std::io::Error>>(_: &S) {}
    /// # check::<u32, _>(&service);
    /// ```
    pub fn fallback_async<Req, F, Fut>(self, answer: F) -> BreakerLayer<C, FallbackAsync<F>, B>
    where
        F: Fn(Req, Rejection) -> Fut,
        Fut: Future,
    {
        self.on_reject(FallbackAsync::new(answer))
    }

    /// Answers a rejected call with an empty 503 response with `Retry-After`.
    ///
    /// The header contains whole seconds, rounded up, at least one. It is absent if the circuit
    /// does not admit calls by itself: while it is forced open, or open until it is reset.
    /// **Default**: a rejected call returns an error.
    ///
    /// The error type is the inner service's error type, so that an axum stack stays infallible.
    /// The response carries the rejection's verdict: no layer above sends the request again.
    ///
    /// The inner response is an `http::Response` with any body. The body's type becomes
    /// [`FallbackBody`](crate::fallback::FallbackBody), which contains the inner body, with
    /// [`track_body`](BreakerLayer::track_body) the tracked body. With the feature `reqwest`, the
    /// inner response can also be a `reqwest::Response`, which keeps its type. The `url()` of a
    /// rejection is then a placeholder.
    ///
    /// # Example
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer};
    ///
    /// let service = ServiceBuilder::new()
    ///     .layer(BreakerLayer::new(BreakerConfig::default()).http_fallback())
    ///     .service(service_fn(async |_: ()| Ok::<_, Infallible>(http::Response::new(String::new()))));
    /// # fn check<R, S: tower::Service<R, Error = Infallible>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    pub fn http_fallback(self) -> BreakerLayer<C, Http503, B> {
        self.on_reject(Http503)
    }

    /// Answers a rejected call with a trailers-only gRPC response with the status `UNAVAILABLE`.
    ///
    /// `grpc-retry-pushback-ms` contains the time to wait in milliseconds. It is -1 if the circuit
    /// does not admit calls by itself: while it is forced open, or open until it is reset. The
    /// response carries the rejection's verdict, and has the body type, as that of
    /// [`http_fallback`](Self::http_fallback) has. **Default**: a rejected call returns an error.
    ///
    /// The caller of a generated client gets a `Status` without a source, in which
    /// [`Rejection::of`](crate::Rejection::of) finds nothing.
    pub fn grpc_fallback(self) -> BreakerLayer<C, GrpcUnavailable, B> {
        self.on_reject(GrpcUnavailable)
    }

    fn on_reject<N>(self, reject: N) -> BreakerLayer<C, N, B> {
        let Self { circuit, not_ready, classify, record, .. } = self;
        BreakerLayer { circuit, not_ready, classify, reject, record }
    }
}

impl<C, R, L> BreakerLayer<C, R, OnHead<L>> {
    /// Records the outcome of a call at the end of its response's body, instead of at its head.
    ///
    /// The end decides: a complete body, gRPC's trailers, an error of the body, or a drop before
    /// the end. The permit is held until then. **Default**: the outcome is recorded when the
    /// response head arrives.
    ///
    /// | body | the call counts as |
    /// |---|---|
    /// | ends, or fails | the verdict on its end |
    /// | is dropped before its end, after it has delivered data | cancelled after an answer, see [`CancelledPolicy`](crate::CancelledPolicy): by default a completed call that counts in no rate |
    /// | is dropped before its end, without data; with gRPC, also if it was never polled | cancelled |
    /// | is dropped without having been polled (not gRPC) | its head, which was a success |
    /// | is pending for longer than the time of `idle_limit` (feature `tokio`) | a failure, regardless of what follows |
    /// | delivers data when the time of [`healthy_after`](BreakerLayer::healthy_after) is over | a success, regardless of what follows |
    ///
    /// Whether a call is slow depends on the time to its *head* only.
    ///
    /// The response's body becomes a [`TrackedBody`](tower_fault_classify::body::TrackedBody). A
    /// `reqwest::Response` keeps its type; its body is boxed.
    ///
    /// # Example
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer};
    ///
    /// let service = ServiceBuilder::new()
    ///     .layer(BreakerLayer::new(BreakerConfig::default()).track_body())
    ///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(String::new()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    pub fn track_body<K>(self) -> BreakerLayer<C, R, OnBodyEnd<NoInspector, K, L>> {
        let Self { circuit, not_ready, classify, reject, record } = self;
        let (clock, probe_lease) = (circuit.core().clock(), circuit.core().probe_lease());
        let record = OnBodyEnd::new(clock, probe_lease, record.into_last_failure(), NoInspector);
        BreakerLayer { circuit, not_ready, classify, reject, record }
    }
}

impl<C, R, W, K, L, I> BreakerLayer<C, R, OnBodyEnd<W, K, L, I>> {
    /// Sets how long after its head a stream must still deliver data to be a success.
    ///
    /// The first data after this time records the success. A long stream therefore does not hold a
    /// probe slot for hours. Zero: the first data records the success.
    ///
    /// **Default**: the circuit's [`probe_lease`](crate::BreakerConfigBuilder::probe_lease) when
    /// [`track_body`](Self::track_body) is called.
    pub fn healthy_after(self, time: Duration) -> Self {
        Self { record: self.record.healthy_after(time), ..self }
    }
}

#[cfg(feature = "tokio")]
impl<C, R, W, K, L, I> BreakerLayer<C, R, OnBodyEnd<W, K, L, I>> {
    /// Sets how long a response's body may be pending until the call is a failure.
    ///
    /// A stream that stalls then ends the call: a failure of the kind `timeout`. If the request's
    /// body waits for its source (see [`upload`](tower_fault_classify::upload)), the outcome is
    /// neutral. A rule can decide differently, by
    /// [`EndReason::Stalled`](tower_fault_classify::body::EndReason::Stalled).
    ///
    /// - The time counts while the reader waits for the next frame: from a poll that is pending to
    ///   the next frame. A reader that has a frame and does not poll is not a stalled server.
    /// - The body does not end. Its reader continues to wait, and gets what still arrives. A read
    ///   timeout of the client, or tower-http's `ResponseBodyTimeout`, ends the body with an error.
    /// - A stream that [`healthy_after`](BreakerLayer::healthy_after) has made a success stays one.
    ///
    /// The time is that of tokio's clock, and not of the configured
    /// [`Clock`](crate::Clock). Zero sets no limit. **Default**: no limit.
    ///
    /// # Costs
    ///
    /// A body is 32 bytes larger, and allocates its timer when it is pending for the first time.
    /// Bodies without a limit, and data that is available immediately, cost nothing more.
    ///
    /// # Panics
    ///
    /// Polling a pending body panics outside of a tokio runtime with an enabled timer.
    ///
    /// # Example
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer};
    ///
    /// let layer = BreakerLayer::new(BreakerConfig::default())
    ///     .track_body()
    ///     .idle_limit(Duration::from_secs(30));
    /// let service = ServiceBuilder::new()
    ///     .layer(layer)
    ///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(String::new()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    pub fn idle_limit(
        self,
        limit: Duration,
    ) -> BreakerLayer<C, R, OnBodyEnd<W, K, L, tower_fault_classify::body::IdleLimit>> {
        let Self { circuit, not_ready, classify, reject, record } = self;
        BreakerLayer { circuit, not_ready, classify, reject, record: record.idle_limit(limit) }
    }
}

#[cfg(feature = "llm")]
impl<C, R, K, L, I> BreakerLayer<C, R, OnBodyEnd<NoInspector, K, L, I>> {
    /// Also detects errors, and the last event, inside event streams of LLM APIs.
    ///
    /// The call ends when such an event is found. [`LlmEvents`] lists these events. `errors` is the
    /// table of the error codes; `LlmErrors::new()` is the built-in table.
    pub fn inspect_llm_events(self, errors: LlmErrors) -> BreakerLayer<C, R, OnBodyEnd<LlmEvents, K, L, I>> {
        let Self { circuit, not_ready, classify, reject, record } = self;
        let record = record.with_inspector(LlmEvents::new(errors));
        BreakerLayer { circuit, not_ready, classify, reject, record }
    }
}

impl<C, R, B> BreakerLayer<C, R, B> {
    /// Adds a rule that is checked before the classifier and the existing rules.
    ///
    /// A rule classifies an outcome, or returns `None` to leave it to the rules that were added
    /// before it, and then to the classifier.
    pub fn rule<N>(self, rule: N) -> BreakerLayer<RuleFirst<N, C>, R, B> {
        let Self { circuit, not_ready, classify, reject, record } = self;
        BreakerLayer { circuit, not_ready, classify: RuleFirst::new(rule, classify), reject, record }
    }

    /// Sets how the health of a fault is derived, instead of the fault's own health axis.
    ///
    /// For example, a batch job may want to stop on a 401:
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerLayer, Health, Kind};
    ///
    /// let layer = BreakerLayer::new(BreakerConfig::default()).health(|fault| match fault.kind() {
    ///     Kind::Auth | Kind::Quota => Health::Unhealthy,
    ///     _ => fault.health(),
    /// });
    /// # let service = tower::ServiceBuilder::new().layer(layer)
    /// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    ///
    /// It applies to the classifier and to the rules that were added before it. The faults of a
    /// rule that is added later keep their own health.
    pub fn health<F>(self, health: F) -> BreakerLayer<HealthBy<C, F>, R, B>
    where
        F: Fn(&Fault) -> Health,
    {
        let Self { circuit, not_ready, classify, reject, record } = self;
        BreakerLayer { circuit, not_ready, classify: HealthBy::new(classify, health), reject, record }
    }

    /// Keeps the last failure for [`Status::last_failure`](crate::Status::last_failure).
    ///
    /// It contains the fault, the type and the text of its error, the time, and `subject`: for
    /// example the name of the caller or of the route. See
    /// [`LastFailure`](crate::telemetry::LastFailure). **Default**: the last failure is not kept.
    ///
    /// The verdict is that of the whole classifier, so rules may be added before or after this
    /// call. Each layer of a circuit can have its own subject.
    ///
    /// # Costs
    ///
    /// A failure costs a lock, and the text of its errors with the allocations for it. Other calls
    /// cost nothing more, if `subject` is a `&'static str`. A `String` costs each call a reference
    /// count that all calls share.
    pub fn keep_last_failure<K>(
        self,
        subject: impl Into<Cow<'static, str>>,
    ) -> BreakerLayer<C, R, B::With<KeepLastFailure<K>>>
    where
        B: RecordMode,
    {
        self.with_last_failure(KeepLastFailure::new(subject.into()))
    }

    /// Keeps the last failure with a subject that is made from the request.
    ///
    /// It works like [`keep_last_failure`](Self::keep_last_failure). The subject of an error of the
    /// inner service's `poll_ready` is `(readiness)`, because there is no request yet.
    ///
    /// ```
    /// use http::Request;
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer};
    ///
    /// let layer = BreakerLayer::new(BreakerConfig::default())
    ///     .keep_last_failure_by(|request: &Request<String>| request.uri().clone());
    /// let service = ServiceBuilder::new()
    ///     .layer(layer)
    ///     .service(service_fn(async |_: Request<String>| Ok::<_, std::io::Error>(http::Response::new(()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<Request<String>, _>(&service);
    /// ```
    ///
    /// # Costs
    ///
    /// The closure runs once for each call that the circuit admits, because the request is gone
    /// when the call fails. The call carries the closure's return value. Its text is made only if
    /// the call fails. So return a value that is cheap to make:
    ///
    /// | return value | costs each call |
    /// |---|---|
    /// | a `&'static str`, a number, an `http::Method` | nothing |
    /// | an `http::Uri`, an `Arc<str>` | a reference count |
    /// | a `String`, the output of `format!` | an allocation |
    ///
    /// # Panics
    ///
    /// A panic of the closure propagates to the caller, from `call`. It counts as a cancelled call.
    /// A panic of the value's `Display` is caught.
    pub fn keep_last_failure_by<Req, F, T, K>(
        self,
        subject: F,
    ) -> BreakerLayer<C, R, B::With<KeepLastFailureBy<F, K>>>
    where
        B: RecordMode,
        F: Fn(&Req) -> T,
        T: fmt::Display,
    {
        self.with_last_failure(KeepLastFailureBy::new(subject))
    }

    fn with_last_failure<L>(self, last_failure: L) -> BreakerLayer<C, R, B::With<L>>
    where
        B: RecordMode,
    {
        let Self { circuit, not_ready, classify, reject, record } = self;
        let record = record.with_last_failure(last_failure);
        BreakerLayer { circuit, not_ready, classify, reject, record }
    }

    /// Adds an observer of the circuit's transitions: see [`Circuit::on_transition`].
    pub fn on_transition(self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.circuit.on_transition(observer);
        self
    }

    /// Adds an observer of the calls that the circuit counts as failures: see
    /// [`Circuit::on_failure`].
    pub fn on_failure(self, observer: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        self.circuit.on_failure(observer);
        self
    }

    /// Makes the services not ready while the circuit rejects calls, for load balancers.
    ///
    /// A balancer (`tower::balance`, `ready_cache`) then sends calls to other endpoints.
    /// **Default**: the services are ready, and reject calls.
    ///
    /// A service becomes ready again without further action:
    ///
    /// - when the open duration or a manual override is over, by a timer of the waiting service;
    /// - when a probe slot is free;
    /// - when the circuit is released, reset or closed.
    ///
    /// While the circuit is half-open, a ready service holds a probe slot. The slot is free again
    /// when the service is dropped, when its call ends, or when the lease ends. A call is still
    /// rejected if the circuit opened after the service became ready.
    ///
    /// If the circuits of all endpoints are open, the balancer waits. Put `load_shed` above the
    /// balancer to fail fast instead.
    ///
    /// # Panics
    ///
    /// Polling a service panics outside of a tokio runtime with an enabled timer.
    ///
    /// # Example
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::{BreakerConfig, BreakerLayer};
    ///
    /// let endpoint = ServiceBuilder::new()
    ///     .layer(BreakerLayer::new(BreakerConfig::default()).not_ready_when_open())
    ///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&endpoint);
    /// ```
    #[cfg(feature = "tokio")]
    pub fn not_ready_when_open(self) -> Self {
        Self { not_ready: true, ..self }
    }

    /// Returns a handle to the circuit that this layer's services share.
    pub fn circuit(&self) -> Circuit {
        self.circuit.clone()
    }

    /// Converts the layer for inner services that are not `Clone`, such as `RateLimit`.
    ///
    /// A rejected call then cannot release what the inner service has reserved for it: the only way
    /// to do that in tower is to drop the service. A permit of a `ConcurrencyLimit` below, or a
    /// place in its queue, is held until the next admitted call. Other services that share the
    /// limit wait meanwhile. To avoid that, do one of these:
    ///
    /// - Put the limit above the breaker, so that it limits the breaker itself.
    /// - Put a `Buffer` between the breaker and the inner service: a `Buffer` is `Clone`.
    pub fn without_clone(self) -> WithoutClone<C, R, B> {
        WithoutClone(self)
    }
}

impl<C, R, B> BreakerLayer<C, R, B>
where
    C: Clone,
    R: Clone,
    B: Clone,
{
    fn service<S>(&self, inner: S, renew: Option<fn(&S) -> S>) -> Breaker<S, C, R, B> {
        let Self { circuit, not_ready, classify, reject, record } = self;
        let (classify, reject, record) = (classify.clone(), reject.clone(), record.clone());
        Breaker::new(inner, renew, circuit.root(), classify, reject, record, *not_ready)
    }
}

impl<S, C, R, B> Layer<S> for BreakerLayer<C, R, B>
where
    S: Clone,
    C: Clone,
    R: Clone,
    B: Clone,
{
    type Service = Breaker<S, C, R, B>;

    fn layer(&self, inner: S) -> Self::Service {
        self.service(inner, Some(S::clone))
    }
}

/// A [`BreakerLayer`] for services that are not `Clone`; see [`BreakerLayer::without_clone`].
#[derive(Clone, Debug)]
pub struct WithoutClone<C = Auto, R = ReturnError, B = OnHead>(BreakerLayer<C, R, B>);

impl<S, C, R, B> Layer<S> for WithoutClone<C, R, B>
where
    C: Clone,
    R: Clone,
    B: Clone,
{
    type Service = Breaker<S, C, R, B>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.service(inner, None)
    }
}
