//! The layer, which owns the circuits.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use tower_fault_classify::body::NoInspector;
use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst, TypedError};
use tower_fault_classify::{Fault, Health};
use tower_layer::Layer;

use super::key::{ByRef, ByValue};
use super::map::KeyedCircuits;
use super::service::KeyedBreaker;
use crate::body::OnBodyEnd;
use crate::classifier::HealthBy;
use crate::config::KeyedConfig;
use crate::error::Rejection;
use crate::fallback::{Fallback, FallbackAsync, GrpcUnavailable, Http503, ReturnError};
use crate::future::OnHead;
use crate::telemetry::Transition;

/// A circuit for each key of a request: its host, its route, a gRPC method, a tenant, a model.
///
/// The circuits live in the layer: every service that it makes shares them. A key is kept once, for
/// as long as its circuit is. If remote clients choose the keys, let the closure cut or hash long
/// ones.
///
/// | | |
/// |---|---|
/// | memory | about 200 bytes a key with a `u64`, and 1 KB more of one that is or was in lazy |
/// | how many | [`max_keys`](crate::keyed::KeyedConfigBuilder::max_keys) |
/// | a call by a known key | no allocation, unless its closure makes one |
/// | its label | as the key is debugged, a text without its quotes: in [`Status`](crate::Status), [`Transition`], logs |
///
/// Keys are hashed by [foldhash](https://docs.rs/foldhash), with a seed drawn for each layer. No lock is held while a key is
/// hashed, compared, formatted or dropped, so that each may use the circuits.
///
/// # Example
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
/// use tower_breaker::BreakerConfig;
///
/// // By a part of the request:
/// fn host(request: &http::Request<()>) -> &str {
///     request.uri().host().unwrap_or_default()
/// }
///
/// let service = ServiceBuilder::new()
///     .layer(KeyedBreakerLayer::by_ref(KeyedConfig::default(), host))
///     .service(service_fn(async |_: http::Request<()>| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<http::Request<()>, _>(&service);
///
/// // By a key that is made of it, with limits of one's own:
/// let each = BreakerConfig::builder().name("tenants").consecutive_failures(3).build()?;
/// let layer = KeyedBreakerLayer::new(KeyedConfig::builder(each).max_keys(1_000).build()?, |request: &(u64, String)| request.0)
///     .on_transition(|transition| eprintln!("tenant {:?} is {}", transition.key, transition.to));
/// let circuits = layer.circuits();
/// let service = ServiceBuilder::new()
///     .layer(layer)
///     .service(service_fn(async |(_, text): (u64, String)| Ok::<_, std::io::Error>(text)));
/// # check::<(u64, String), _>(&service);
/// assert!(circuits.get(&7).is_none(), "nobody has called yet");
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
    /// Picks the circuit by the key that `key` makes of a request, judging by [`Auto`].
    ///
    /// A panic of `key` goes on to the caller, from `call`; no circuit has a part in it.
    pub fn new<Req>(config: KeyedConfig, key: F) -> Self
    where
        F: Fn(&Req) -> K,
        K: Eq + fmt::Debug + Hash,
    {
        Self::of(config, ByValue(key))
    }
}

impl<F, Q, K, KC, KR> KeyedBreakerLayer<ByRef<F, Q>, K, Auto<KC>, ReturnError<KR>>
where
    Q: ?Sized,
{
    /// Picks the circuit by a part of the request, judging by [`Auto`]. A known key then costs no allocation: a `str` becomes a `String` only when
    /// its circuit is made.
    ///
    /// A panic of `key` goes on to the caller, from `call`; no circuit has a part in it.
    pub fn by_ref<Req>(config: KeyedConfig, key: F) -> Self
    where
        F: for<'a> Fn(&'a Req) -> &'a Q,
        Q: Eq + Hash + ToOwned<Owned = K>,
        K: Borrow<Q> + Eq + fmt::Debug + Hash,
    {
        Self::of(config, ByRef::new(key))
    }
}

impl<F, K, KC, KR> KeyedBreakerLayer<F, K, Auto<KC>, ReturnError<KR>> {
    fn of(config: KeyedConfig, key: F) -> Self
    where
        K: Eq + fmt::Debug + Hash,
    {
        let (classify, reject) = (Auto::new(), ReturnError::new());
        Self { key, circuits: KeyedCircuits::new(config), classify, reject, record: OnHead }
    }
}

impl<F, K, R, B> KeyedBreakerLayer<F, K, Auto<TypedError>, R, B> {
    /// Judges by `classify` instead.
    pub fn classify<C>(self, classify: C) -> KeyedBreakerLayer<F, K, C, R, B> {
        self.map_classify(|_| classify)
    }
}

impl<F, K, M, R, B> KeyedBreakerLayer<F, K, Auto<M>, R, B> {
    /// Takes every response for a success, so that a response of any type will do.
    ///
    /// A response that is itself a `Result`, as `tokio::time::timeout` returns it, then counts as a
    /// success even if it is an `Err`. For those, leave `errors_only` off or use
    /// `.classify(NestedErrors::new())`.
    pub fn errors_only(self) -> KeyedBreakerLayer<F, K, ErrorsOnly<M>, R, B> {
        self.map_classify(|_| ErrorsOnly::new())
    }
}

impl<F, K, C, B> KeyedBreakerLayer<F, K, C, ReturnError<TypedError>, B> {
    /// Answers a rejected call instead of an error; see [`BreakerLayer::fallback`](crate::BreakerLayer::fallback).
    pub fn fallback<Req, Res, A>(self, answer: A) -> KeyedBreakerLayer<F, K, C, Fallback<A>, B>
    where
        A: Fn(Req, &Rejection) -> Res,
    {
        self.on_reject(Fallback::new(answer))
    }

    /// Answers a rejected call with a future's output; see
    /// [`BreakerLayer::fallback_async`](crate::BreakerLayer::fallback_async).
    pub fn fallback_async<Req, A, Fut>(self, answer: A) -> KeyedBreakerLayer<F, K, C, FallbackAsync<A>, B>
    where
        A: Fn(Req, Rejection) -> Fut,
        Fut: Future,
    {
        self.on_reject(FallbackAsync::new(answer))
    }

    /// Answers a rejected call with a 503; see [`BreakerLayer::http_fallback`](crate::BreakerLayer::http_fallback).
    pub fn http_fallback(self) -> KeyedBreakerLayer<F, K, C, Http503, B> {
        self.on_reject(Http503)
    }

    /// Answers a rejected call with an `UNAVAILABLE`; see [`BreakerLayer::grpc_fallback`](crate::BreakerLayer::grpc_fallback).
    pub fn grpc_fallback(self) -> KeyedBreakerLayer<F, K, C, GrpcUnavailable, B> {
        self.on_reject(GrpcUnavailable)
    }

    fn on_reject<N>(self, reject: N) -> KeyedBreakerLayer<F, K, C, N, B> {
        let Self { key, circuits, classify, record, .. } = self;
        KeyedBreakerLayer { key, circuits, classify, reject, record }
    }
}

impl<F, K, C, R> KeyedBreakerLayer<F, K, C, R, OnHead> {
    /// A call is over when its response's body is; see [`BreakerLayer::track_body`](crate::BreakerLayer::track_body).
    pub fn track_body<M>(self) -> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<NoInspector, M>> {
        let common = self.circuits.common();
        let record = OnBodyEnd::new(common.clock(), common.config().recovery.probe_lease);
        self.map_record(|_| record)
    }
}

impl<F, K, C, R, W, M> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<W, M>> {
    /// A stream whose data still comes so long after its head is a success; see
    /// [`BreakerLayer::healthy_after`](crate::BreakerLayer::healthy_after).
    pub fn healthy_after(self, time: Duration) -> Self {
        self.map_record(|record| record.healthy_after(time))
    }
}

#[cfg(feature = "llm")]
impl<F, K, C, R, M> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<NoInspector, M>> {
    /// Also looks for the errors within event streams of LLM APIs; see
    /// [`BreakerLayer::inspect_llm_events`](crate::BreakerLayer::inspect_llm_events).
    pub fn inspect_llm_events(
        self,
    ) -> KeyedBreakerLayer<F, K, C, R, OnBodyEnd<tower_fault_classify::body::LlmEvents, M>> {
        self.map_record(OnBodyEnd::with_inspector)
    }
}

impl<F, K, C, R, B> KeyedBreakerLayer<F, K, C, R, B> {
    /// Asks `rule` first. The rule that was added last is asked first.
    pub fn rule<N>(self, rule: N) -> KeyedBreakerLayer<F, K, RuleFirst<N, C>, R, B> {
        self.map_classify(|classify| RuleFirst::new(rule, classify))
    }

    /// Reads a fault's health by `health`; see [`BreakerLayer::health`](crate::BreakerLayer::health).
    pub fn health<H>(self, health: H) -> KeyedBreakerLayer<F, K, HealthBy<C, H>, R, B>
    where
        H: Fn(&Fault) -> Health,
    {
        self.map_classify(|classify| HealthBy::new(classify, health))
    }

    /// Tells `observer` of every change of a circuit's state: see [`KeyedCircuits::on_transition`].
    pub fn on_transition(self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.circuits.on_transition(observer);
        self
    }

    /// A handle to the circuits that this layer's services share.
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
        KeyedBreaker { inner, key, circuits, classify, reject, record }
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
