//! The layer. It owns the circuits.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use tower_fault_classify::body::NoInspector;
#[cfg(feature = "llm")]
use tower_fault_classify::body::{LlmErrors, LlmEvents};
use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst, TypedError};
use tower_fault_classify::{Fault, Health};
use tower_layer::Layer;

use super::key::{ByRef, ByValue, ExtensionFirst};
use super::lease::Recent;
use super::map::KeyedCircuits;
use super::service::KeyedBreaker;
use crate::body::OnBodyEnd;
use crate::classifier::HealthBy;
use crate::config::KeyedConfig;
use crate::error::Rejection;
use crate::fallback::{Fallback, FallbackAsync, GrpcUnavailable, Http503, ReturnError};
use crate::future::{OnHead, RecordMode};
use crate::telemetry::{Failure, KeepLastFailure, KeepLastFailureBy, Transition};

/// A circuit breaker with one circuit for each key: a host, route, gRPC method, tenant or model.
///
/// All services that a layer makes, and all clones of the layer, share its circuits. Each circuit
/// works like the circuit of a [`BreakerLayer`](crate::BreakerLayer), which documents the states.
///
/// | property | |
/// |---|---|
/// | number of circuits | at most [`max_keys`](crate::keyed::KeyedConfigBuilder::max_keys), by default 10,000; idle circuits are evicted first |
/// | new key when the map is full | [`Overflow`](crate::keyed::Overflow): by default, the call is sent without a circuit |
/// | memory | about 220 bytes per circuit with a `u64` key; about 1 KB more once the circuit has had a transition, or a slow, cancelled or half-open call, or a failure that is [kept](Self::keep_last_failure), or from the start with a [`seed`](crate::BreakerConfigBuilder::seed) |
/// | call with a known key | no allocation, unless the closure allocates; a service allocates about 50 bytes when it has called one key 16 times in a row |
/// | label of a key | its `Debug` text, without the surrounding quotes of a string; part of [`Status`](crate::Status), [`Transition`] and logs |
/// | hash | [foldhash](https://docs.rs/foldhash), with a random seed for each layer |
///
/// Each key is stored once, for as long as its circuit is kept. If remote clients choose the keys,
/// let the closure shorten or hash long keys.
///
/// No lock is held while a key is hashed, compared, formatted or dropped, so these operations may
/// use the circuits.
///
/// To name the type of the service in a struct, see [`KeyedBreaker`].
///
/// # Examples
///
/// The key is a part of the request:
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
///
/// fn host(request: &http::Request<()>) -> &str {
///     request.uri().host().unwrap_or_default()
/// }
///
/// let service = ServiceBuilder::new()
///     .layer(KeyedBreakerLayer::by_ref(KeyedConfig::default(), host))
///     .service(service_fn(async |_: http::Request<()>| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<http::Request<()>, _>(&service);
/// ```
///
/// The closure returns the key by value, with a configuration and an observer:
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_breaker::BreakerConfig;
/// use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
///
/// struct Job {
///     tenant: u64,
///     text: String,
/// }
///
/// let each = BreakerConfig::builder().name("tenants").consecutive_failures(3).build()?;
/// let config = KeyedConfig::builder(each).max_keys(1_000).build()?;
/// let layer = KeyedBreakerLayer::new(config, |job: &Job| job.tenant)
///     .on_transition(|transition| eprintln!("tenant {:?} is {}", transition.key, transition.to));
/// let circuits = layer.circuits();
/// let service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(async |job: Job| Ok::<_, std::io::Error>(job.text)));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<Job, _>(&service);
/// assert!(circuits.get(&7).is_none(), "there was no call with this key");
/// # Ok::<(), tower_breaker::ConfigError>(())
/// ```
pub struct KeyedBreakerLayer<F, K, C = Auto, R = ReturnError, B = OnHead> {
    key: F,
    circuits: KeyedCircuits<K>,
    classify: C,
    reject: R,
    record: B,
}

impl<F, K, KC, KR> KeyedBreakerLayer<ByValue<F>, K, Auto<KC>, ReturnError<KR>> {
    /// Creates a layer whose closure returns the key of a request.
    ///
    /// The closure runs in `call`, once for each request. If the key is a part of the request,
    /// [`by_ref`](Self::by_ref) avoids a copy of it. Outcomes are classified by [`Auto`].
    ///
    /// # Panics
    ///
    /// A panic of `key` propagates to the caller, from `call`. No circuit records it.
    pub fn new<Req>(config: KeyedConfig, key: F) -> Self
    where
        F: Fn(&Req) -> K,
        K: Eq + fmt::Debug + Hash,
    {
        Self::of(KeyedCircuits::new(config), ByValue(key))
    }

    /// Creates a layer with existing circuits, whose closure returns the key of a request.
    ///
    /// The circuits come from [`KeyedCircuits::new`], or from another layer. All services and
    /// workers with these circuits share them. Otherwise it works like [`new`](Self::new).
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
    ///
    /// struct Job {
    ///     tenant: u64,
    /// }
    ///
    /// let circuits: KeyedCircuits<u64> = KeyedCircuits::new(KeyedConfig::default());
    /// let service = ServiceBuilder::new()
    ///     .layer(KeyedBreakerLayer::with_circuits(circuits.clone(), |job: &Job| job.tenant))
    ///     .service(service_fn(async |_: Job| Ok::<_, std::io::Error>(())));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<Job, _>(&service);
    ///
    /// circuits.circuit(&7).force_open()?;
    /// # Ok::<(), tower_breaker::ControlError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// A panic of `key` propagates to the caller, from `call`. No circuit records it.
    pub fn with_circuits<Req>(circuits: KeyedCircuits<K>, key: F) -> Self
    where
        F: Fn(&Req) -> K,
        K: Eq + Hash,
    {
        Self::of(circuits, ByValue(key))
    }
}

impl<F, Q, K, KC, KR> KeyedBreakerLayer<ByRef<F, Q>, K, Auto<KC>, ReturnError<KR>>
where
    Q: ?Sized,
{
    /// Creates a layer whose closure returns a reference to a part of the request as the key.
    ///
    /// A call with a known key then needs no allocation. A `str` is converted to a `String` only if
    /// the key has no circuit: when the circuit is created, and at each call for which the map has
    /// no space. The closure runs in `call`, once for each request. Outcomes are classified by
    /// [`Auto`].
    ///
    /// # Panics
    ///
    /// A panic of `key` propagates to the caller, from `call`. No circuit records it.
    pub fn by_ref<Req>(config: KeyedConfig, key: F) -> Self
    where
        F: for<'a> Fn(&'a Req) -> &'a Q,
        Q: Eq + Hash + ToOwned<Owned = K>,
        K: Borrow<Q> + Eq + fmt::Debug + Hash,
    {
        Self::of(KeyedCircuits::new(config), ByRef::new(key))
    }

    /// Creates a layer with existing circuits, whose closure returns a reference to the key.
    ///
    /// See [`with_circuits`](Self::with_circuits) for the circuits, and [`by_ref`](Self::by_ref)
    /// for the key.
    ///
    /// # Panics
    ///
    /// A panic of `key` propagates to the caller, from `call`. No circuit records it.
    pub fn with_circuits_by_ref<Req>(circuits: KeyedCircuits<K>, key: F) -> Self
    where
        F: for<'a> Fn(&'a Req) -> &'a Q,
        Q: Eq + Hash + ToOwned<Owned = K>,
        K: Borrow<Q> + Eq + Hash,
    {
        Self::of(circuits, ByRef::new(key))
    }
}

impl<F, K, KC, KR> KeyedBreakerLayer<F, K, Auto<KC>, ReturnError<KR>> {
    fn of(circuits: KeyedCircuits<K>, key: F) -> Self {
        let (classify, reject) = (Auto::new(), ReturnError::new());
        Self { key, circuits, classify, reject, record: OnHead::new() }
    }
}

impl<F, K, C, R, B> KeyedBreakerLayer<F, K, C, R, B> {
    /// Uses a key of one request in place of the closure's key.
    ///
    /// The key is an extension of the request, with the type of the layer's keys. A request without
    /// such an extension has the key that the closure returns. Use a key type of your own, so that
    /// no extension of another purpose has its type.
    ///
    /// The `Debug` text of the key is the label of its circuit, which selects the limits of a key
    /// in a [`KeyedConfig`](crate::keyed::KeyedConfig). A derived `Debug` contains the name of the
    /// type, as in `Upstream("reports")`. Write only the value, as the example does.
    ///
    /// The request is an `http::Request`, a `reqwest::Request` (feature `reqwest`), or a type of
    /// your own that implements [`RequestExt`](tower_fault_classify::request::RequestExt). A key is
    /// cloned for each call.
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_breaker::fault_classify::request::RequestExt;
    /// use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
    ///
    /// #[derive(Clone, PartialEq, Eq, Hash)]
    /// struct Upstream(String);
    ///
    /// impl std::fmt::Debug for Upstream {
    ///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    ///         f.write_str(&self.0)
    ///     }
    /// }
    ///
    /// fn host(request: &http::Request<()>) -> Upstream {
    ///     Upstream(request.uri().host().unwrap_or_default().to_owned())
    /// }
    ///
    /// let service = ServiceBuilder::new()
    ///     .layer(KeyedBreakerLayer::new(KeyedConfig::default(), host).key_from_extension())
    ///     .service(service_fn(async |_: http::Request<()>| Ok::<_, std::io::Error>(http::Response::new(()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<http::Request<()>, _>(&service);
    ///
    /// let request = http::Request::new(()).with_extension(Upstream("reports".to_owned()));
    /// ```
    pub fn key_from_extension(self) -> KeyedBreakerLayer<ExtensionFirst<F>, K, C, R, B> {
        let Self { key, circuits, classify, reject, record } = self;
        KeyedBreakerLayer { key: ExtensionFirst(key), circuits, classify, reject, record }
    }
}

impl<F, K, R, B> KeyedBreakerLayer<F, K, Auto<TypedError>, R, B> {
    /// Sets the classifier, instead of [`Auto`].
    pub fn classify<C>(self, classify: C) -> KeyedBreakerLayer<F, K, C, R, B> {
        self.map_classify(|_| classify)
    }
}

impl<F, K, M, R, B> KeyedBreakerLayer<F, K, Auto<M>, R, B> {
    /// Classifies every response as a success, so that the response can have any type.
    ///
    /// See [`BreakerLayer::errors_only`](crate::BreakerLayer::errors_only), also for responses that
    /// are a `Result`.
    pub fn errors_only(self) -> KeyedBreakerLayer<F, K, ErrorsOnly<M>, R, B> {
        self.map_classify(|_| ErrorsOnly::new())
    }
}

impl<F, K, C, B> KeyedBreakerLayer<F, K, C, ReturnError<TypedError>, B> {
    /// Answers a rejected call with the closure's return value, instead of an error.
    ///
    /// See [`BreakerLayer::fallback`](crate::BreakerLayer::fallback).
    pub fn fallback<Req, Res, A>(self, answer: A) -> KeyedBreakerLayer<F, K, C, Fallback<A>, B>
    where
        A: Fn(Req, &Rejection) -> Res,
    {
        self.on_reject(Fallback::new(answer))
    }

    /// Answers a rejected call with the output of a future.
    ///
    /// See [`BreakerLayer::fallback_async`](crate::BreakerLayer::fallback_async).
    pub fn fallback_async<Req, A, Fut>(self, answer: A) -> KeyedBreakerLayer<F, K, C, FallbackAsync<A>, B>
    where
        A: Fn(Req, Rejection) -> Fut,
        Fut: Future,
    {
        self.on_reject(FallbackAsync::new(answer))
    }

    /// Answers a rejected call with an empty 503 response with `Retry-After`.
    ///
    /// See [`BreakerLayer::http_fallback`](crate::BreakerLayer::http_fallback).
    pub fn http_fallback(self) -> KeyedBreakerLayer<F, K, C, Http503, B> {
        self.on_reject(Http503)
    }

    /// Answers a rejected call with a trailers-only gRPC response with the status `UNAVAILABLE`.
    ///
    /// See [`BreakerLayer::grpc_fallback`](crate::BreakerLayer::grpc_fallback).
    pub fn grpc_fallback(self) -> KeyedBreakerLayer<F, K, C, GrpcUnavailable, B> {
        self.on_reject(GrpcUnavailable)
    }

    fn on_reject<N>(self, reject: N) -> KeyedBreakerLayer<F, K, C, N, B> {
        let Self { key, circuits, classify, record, .. } = self;
        KeyedBreakerLayer { key, circuits, classify, reject, record }
    }
}

impl<F, K, C, R, L> KeyedBreakerLayer<F, K, C, R, OnHead<L>> {
    /// Records the outcome of a call at the end of its response's body, instead of at its head.
    ///
    /// See [`BreakerLayer::track_body`](crate::BreakerLayer::track_body).
    pub fn track_body<M>(self) -> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<NoInspector, M, L>> {
        let common = self.circuits.common();
        let (clock, probe_lease) = (common.clock(), common.configs().each.recovery.probe_lease);
        self.map_record(|record| OnBodyEnd::new(clock, probe_lease, record.into_last_failure(), NoInspector))
    }
}

impl<F, K, C, R, W, M, L, I> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<W, M, L, I>> {
    /// Sets how long after its head a stream must still deliver data to be a success.
    ///
    /// See [`BreakerLayer::healthy_after`](crate::BreakerLayer::healthy_after).
    pub fn healthy_after(self, time: Duration) -> Self {
        self.map_record(|record| record.healthy_after(time))
    }
}

#[cfg(feature = "tokio")]
impl<F, K, C, R, W, M, L, I> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<W, M, L, I>> {
    /// Sets how long a response's body may be pending until the call is a failure.
    ///
    /// See [`BreakerLayer::idle_limit`](crate::BreakerLayer::idle_limit).
    pub fn idle_limit(
        self,
        limit: Duration,
    ) -> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<W, M, L, tower_fault_classify::body::IdleLimit>> {
        self.map_record(|record| record.idle_limit(limit))
    }
}

#[cfg(feature = "llm")]
impl<F, K, C, R, M, L, I> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<NoInspector, M, L, I>> {
    /// Also detects errors, and the last event, inside event streams of LLM APIs.
    ///
    /// See [`BreakerLayer::inspect_llm_events`](crate::BreakerLayer::inspect_llm_events).
    pub fn inspect_llm_events(
        self,
        errors: LlmErrors,
    ) -> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<LlmEvents, M, L, I>> {
        self.map_record(|record| record.with_inspector(LlmEvents::new(errors)))
    }
}

impl<F, K, C, R, B> KeyedBreakerLayer<F, K, C, R, B> {
    /// Adds a rule that is checked before the classifier and the existing rules.
    ///
    /// See [`BreakerLayer::rule`](crate::BreakerLayer::rule).
    pub fn rule<N>(self, rule: N) -> KeyedBreakerLayer<F, K, RuleFirst<N, C>, R, B> {
        self.map_classify(|classify| RuleFirst::new(rule, classify))
    }

    /// Sets how the health of a fault is derived, instead of the fault's own health axis.
    ///
    /// See [`BreakerLayer::health`](crate::BreakerLayer::health).
    pub fn health<H>(self, health: H) -> KeyedBreakerLayer<F, K, HealthBy<C, H>, R, B>
    where
        H: Fn(&Fault) -> Health,
    {
        self.map_classify(|classify| HealthBy::new(classify, health))
    }

    /// Keeps the last failure of each circuit, for [`Status::last_failure`](crate::Status::last_failure).
    ///
    /// See [`BreakerLayer::keep_last_failure`](crate::BreakerLayer::keep_last_failure). A circuit
    /// allocates the memory for its last failure at its first failure.
    pub fn keep_last_failure<M>(
        self,
        subject: impl Into<Cow<'static, str>>,
    ) -> KeyedBreakerLayer<F, K, C, R, B::With<KeepLastFailure<M>>>
    where
        B: RecordMode,
    {
        self.map_record(|record| record.with_last_failure(KeepLastFailure::new(subject.into())))
    }

    /// Keeps the last failure of each circuit, with a subject that is made from the request.
    ///
    /// See [`BreakerLayer::keep_last_failure_by`](crate::BreakerLayer::keep_last_failure_by), also
    /// for the costs.
    ///
    /// # Panics
    ///
    /// A panic of `subject` propagates to the caller, from `call`. It counts as a cancelled call.
    pub fn keep_last_failure_by<Req, S, T, M>(
        self,
        subject: S,
    ) -> KeyedBreakerLayer<F, K, C, R, B::With<KeepLastFailureBy<S, M>>>
    where
        B: RecordMode,
        S: Fn(&Req) -> T,
        T: fmt::Display,
    {
        self.map_record(|record| record.with_last_failure(KeepLastFailureBy::new(subject)))
    }

    /// Adds an observer of the transitions of all circuits: see [`KeyedCircuits::on_transition`].
    pub fn on_transition(self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.circuits.on_transition(observer);
        self
    }

    /// Adds an observer of the failures of all circuits: see [`KeyedCircuits::on_failure`].
    pub fn on_failure(self, observer: impl Fn(&Failure) + Send + Sync + 'static) -> Self {
        self.circuits.on_failure(observer);
        self
    }

    /// Returns a handle to the circuits that this layer's services share.
    pub fn circuits(&self) -> KeyedCircuits<K> {
        self.circuits.clone()
    }

    fn map_classify<N>(self, map: impl FnOnce(C) -> N) -> KeyedBreakerLayer<F, K, N, R, B> {
        let Self { key, circuits, classify, reject, record } = self;
        KeyedBreakerLayer { key, circuits, classify: map(classify), reject, record }
    }

    fn map_record<N>(self, map: impl FnOnce(B) -> N) -> KeyedBreakerLayer<F, K, C, R, N> {
        let Self { key, circuits, classify, reject, record } = self;
        KeyedBreakerLayer { key, circuits, classify, reject, record: map(record) }
    }
}

impl<S, F, K, C, R, B> Layer<S> for KeyedBreakerLayer<F, K, C, R, B>
where
    F: Clone,
    C: Clone,
    R: Clone,
    B: Clone,
{
    type Service = KeyedBreaker<S, F, K, C, R, B>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { key, circuits, classify, reject, record } = self.clone();
        KeyedBreaker { inner, key, circuits, recent: Recent::new(), classify, reject, record }
    }
}

impl<F: Clone, K, C: Clone, R: Clone, B: Clone> Clone for KeyedBreakerLayer<F, K, C, R, B> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            circuits: self.circuits.clone(),
            classify: self.classify.clone(),
            reject: self.reject.clone(),
            record: self.record.clone(),
        }
    }
}

impl<F, K, C, R, B> fmt::Debug for KeyedBreakerLayer<F, K, C, R, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBreakerLayer").field("circuits", &self.circuits).finish_non_exhaustive()
    }
}
