//! The layer, which owns the circuit.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use tower_fault_classify::body::NoInspector;
use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst, TypedError};
use tower_fault_classify::{Fault, Health};
use tower_layer::Layer;

use crate::body::OnBodyEnd;
use crate::circuit::Circuit;
use crate::classifier::{HealthBy, KeepLastFailure, LastFailureMode, NoLastFailure};
use crate::config::BreakerConfig;
use crate::error::Rejection;
use crate::fallback::{Fallback, FallbackAsync, GrpcUnavailable, Http503, ReturnError};
use crate::future::OnHead;
use crate::service::Breaker;
use crate::telemetry::Transition;

/// Stops sending requests to a service that fails, and finds out gently when it is back.
///
/// The circuit lives in the layer: every service that it makes, and every clone of it, shares the one circuit. Axum and tonic
/// call `layer()` again and again; the circuit still opens.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_breaker::fault_classify::{Origin, Retryable};
/// use tower_breaker::{BreakerConfig, BreakerLayer, Fault, Health, Kind};
///
/// // As it comes:
/// let service = ServiceBuilder::new()
///     .layer(BreakerLayer::new(BreakerConfig::default()))
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
///
/// // With limits, a rule and an observer of one's own:
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
/// If the compiler finds no `Service` in a stack and does not say why, ask it by a function, whose bound it explains:
///
/// ```
/// fn check<Request, S: tower::Service<Request>>(_: &S) {}
/// ```
#[derive(Clone, Debug)]
pub struct BreakerLayer<C = Auto, R = ReturnError, B = OnHead, L = NoLastFailure> {
    circuit: Circuit,
    not_ready: bool,
    classify: C,
    reject: R,
    record: B,
    last_failure: L,
}

impl<KC, KR> BreakerLayer<Auto<KC>, ReturnError<KR>> {
    /// A closed circuit, judging by [`Auto`].
    pub fn new(config: BreakerConfig) -> Self {
        Self::with_circuit(Circuit::new(config))
    }
}

impl<KC, KR> BreakerLayer<Auto<KC>, ReturnError<KR>> {
    /// Over a circuit that stands already: one of a [`CircuitRegistry`](crate::CircuitRegistry), or of another layer.
    pub fn with_circuit(circuit: Circuit) -> Self {
        let (classify, reject) = (Auto::new(), ReturnError::new());
        Self { circuit, not_ready: false, classify, reject, record: OnHead, last_failure: NoLastFailure }
    }
}

impl<R, B, L> BreakerLayer<Auto<TypedError>, R, B, L> {
    /// Judges by `classify` instead.
    pub fn classify<C>(self, classify: C) -> BreakerLayer<C, R, B, L> {
        let Self { circuit, not_ready, reject, record, last_failure, .. } = self;
        BreakerLayer { circuit, not_ready, classify, reject, record, last_failure }
    }
}

impl<K, R, B, L> BreakerLayer<Auto<K>, R, B, L> {
    /// Takes every response for a success, so that a response of any type will do.
    ///
    /// A response that is itself a `Result`, as `tokio::time::timeout` returns it, then counts as a
    /// success even if it is an `Err`. For those, leave `errors_only` off or use
    /// `.classify(NestedErrors::new())`.
    pub fn errors_only(self) -> BreakerLayer<ErrorsOnly<K>, R, B, L> {
        let Self { circuit, not_ready, reject, record, last_failure, .. } = self;
        BreakerLayer { circuit, not_ready, classify: ErrorsOnly::new(), reject, record, last_failure }
    }
}

impl<C, B, L> BreakerLayer<C, ReturnError<TypedError>, B, L> {
    /// Answers a rejected call with what `answer` makes of it, instead of an error. The error type is then the inner service's own. **Default**:
    /// an error.
    ///
    /// A panic of `answer` goes on to the caller; the circuit has no part in it.
    ///
    /// A layer above judges the answer as it judges a response of the server: a retry layer sends
    /// the request again after an answer of 503. To have it recognised as a rejection, leave the
    /// verdict on it, as [`http_fallback`](Self::http_fallback) does:
    /// [`CarriedVerdict::insert`](tower_fault_classify::CarriedVerdict::insert) with
    /// [`Rejection::fault`](crate::Rejection::fault).
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
    pub fn fallback<Req, Res, F>(self, answer: F) -> BreakerLayer<C, Fallback<F>, B, L>
    where
        F: Fn(Req, &Rejection) -> Res,
    {
        self.on_reject(Fallback::new(answer))
    }

    /// Answers a rejected call with what the future of `answer` comes to: another server's answer, or an error of the inner service's type.
    ///
    /// Dropping the call drops that future. A panic of either goes on to the caller.
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
    pub fn fallback_async<Req, F, Fut>(self, answer: F) -> BreakerLayer<C, FallbackAsync<F>, B, L>
    where
        F: Fn(Req, Rejection) -> Fut,
        Fut: Future,
    {
        self.on_reject(FallbackAsync::new(answer))
    }

    /// Answers a rejected call with an empty 503 with `Retry-After`: whole seconds, rounded up, at least one; none if somebody has to act first.
    ///
    /// An axum stack stays infallible by it. The response carries the rejection's verdict, so that no layer above sends the request again.
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
    pub fn http_fallback(self) -> BreakerLayer<C, Http503, B, L> {
        self.on_reject(Http503)
    }

    /// Answers a rejected call with a trailers-only `UNAVAILABLE`, with the time to wait in `grpc-retry-pushback-ms`: -1 if somebody has to act
    /// first. It carries the rejection's verdict, as that of [`http_fallback`](Self::http_fallback) does.
    pub fn grpc_fallback(self) -> BreakerLayer<C, GrpcUnavailable, B, L> {
        self.on_reject(GrpcUnavailable)
    }

    fn on_reject<N>(self, reject: N) -> BreakerLayer<C, N, B, L> {
        let Self { circuit, not_ready, classify, record, last_failure, .. } = self;
        BreakerLayer { circuit, not_ready, classify, reject, record, last_failure }
    }
}

impl<C, R, L> BreakerLayer<C, R, OnHead, L> {
    /// A call is over when its response's body is, and counts for what the end says: gRPC's trailers, an error while it is read, a body that
    /// is dropped halfway. Its permit travels with the body. **Default**: a call is over when the response comes, its body unread.
    ///
    /// | the body | counts for |
    /// |---|---|
    /// | comes to its end, or fails | the verdict on its end |
    /// | is dropped before its end, after data has come | a cancelled call: see [`CancelledPolicy`](crate::CancelledPolicy). By default it is completed, and counts in no rate |
    /// | is dropped before its end and before any data; gRPC: also if never asked for anything | a cancelled call |
    /// | is dropped and was never asked for anything | its head, which was a success |
    /// | still comes [`healthy_after`](BreakerLayer::healthy_after) the head | a success, whatever follows |
    ///
    /// A slow call is one whose *head* was slow. The response's body becomes a [`TrackedBody`](tower_fault_classify::body::TrackedBody); a
    /// `reqwest::Response` stays one, its body is boxed.
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
    pub fn track_body<K>(self) -> BreakerLayer<C, R, OnBodyEnd<NoInspector, K>, L> {
        let Self { circuit, not_ready, classify, reject, last_failure, .. } = self;
        let record = OnBodyEnd::new(circuit.core().clock(), circuit.core().probe_lease());
        BreakerLayer { circuit, not_ready, classify, reject, record, last_failure }
    }
}

impl<C, R, W, K, L> BreakerLayer<C, R, OnBodyEnd<W, K>, L> {
    /// A stream whose data still comes so long after its head is a success: it does not keep a probe's place for hours. Zero: with its first
    /// data. **Default**: the [`probe_lease`](crate::BreakerConfigBuilder::probe_lease).
    pub fn healthy_after(self, time: Duration) -> Self {
        Self { record: self.record.healthy_after(time), ..self }
    }
}

#[cfg(feature = "llm")]
impl<C, R, K, L> BreakerLayer<C, R, OnBodyEnd<NoInspector, K>, L> {
    /// Also looks for the errors within event streams of LLM APIs; see [`LlmEvents`](tower_fault_classify::body::LlmEvents). A call is over when one
    /// is found.
    pub fn inspect_llm_events(
        self,
    ) -> BreakerLayer<C, R, OnBodyEnd<tower_fault_classify::body::LlmEvents, K>, L> {
        let Self { circuit, not_ready, classify, reject, record, last_failure } = self;
        BreakerLayer { circuit, not_ready, classify, reject, record: record.with_inspector(), last_failure }
    }
}

impl<C, R, B, L> BreakerLayer<C, R, B, L> {
    /// Asks `rule` first. The rule that was added last is asked first.
    pub fn rule<N>(self, rule: N) -> BreakerLayer<RuleFirst<N, C>, R, B, L> {
        let Self { circuit, not_ready, classify, reject, record, last_failure } = self;
        BreakerLayer {
            circuit,
            not_ready,
            classify: RuleFirst::new(rule, classify),
            reject,
            record,
            last_failure,
        }
    }

    /// Reads a fault's health by `health`, in place of its own axis: a batch job may want to stop on a 401.
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
    /// It stands around the rules that were added before it; a rule that is added later has its own word.
    pub fn health<F>(self, health: F) -> BreakerLayer<HealthBy<C, F>, R, B, L>
    where
        F: Fn(&Fault) -> Health,
    {
        let Self { circuit, not_ready, classify, reject, record, last_failure } = self;
        BreakerLayer {
            circuit,
            not_ready,
            classify: HealthBy::new(classify, health),
            reject,
            record,
            last_failure,
        }
    }

    /// Keeps the last failure for [`Status::last_failure`](crate::Status::last_failure), with the
    /// type of its cause, the text of the chain of its errors, and `label`: the name of the caller,
    /// of the route. **Default**: it is not kept.
    ///
    /// The failure is what the whole classifier says, so that rules may be added before or after
    /// this call. A call that panics counts as a failure, and is not kept.
    ///
    /// Each failure then costs the text of its errors, with its allocations, and a lock.
    pub fn keep_last_failure<K>(
        self,
        label: impl Into<Cow<'static, str>>,
    ) -> BreakerLayer<C, R, B, KeepLastFailure<K>> {
        let Self { circuit, not_ready, classify, reject, record, .. } = self;
        let last_failure = KeepLastFailure::new(label.into());
        BreakerLayer { circuit, not_ready, classify, reject, record, last_failure }
    }

    /// Tells `observer` of every change of the circuit's state: see [`Circuit::on_transition`].
    pub fn on_transition(self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.circuit.on_transition(observer);
        self
    }

    /// The services are not ready while the circuit refuses calls, so that a balancer (`tower::balance`, `ready_cache`) passes them by. **Default**:
    /// they are ready, and reject.
    ///
    /// A service that becomes ready holds a half-open circuit's place until it is called, it is dropped, or the lease ends. It goes on by itself
    /// when the open time is over, when a place is free, and when the circuit is released, reset or closed. A call is rejected all the same if
    /// the circuit opened after the service was ready. If all endpoints of a balancer are open, the balancer waits: with
    /// `load_shed` above it fails fast.
    ///
    /// # Panics
    ///
    /// Polling a service panics outside of a tokio runtime whose timer is enabled.
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

    /// A handle to the circuit that this layer's services share.
    pub fn circuit(&self) -> Circuit {
        self.circuit.clone()
    }

    /// The same layer for a service that is not `Clone`, such as `RateLimit`.
    ///
    /// A rejected call cannot give back what the inner service has reserved for it, because tower's
    /// only way to do that is to drop the service. A permit of a `ConcurrencyLimit` below, or a
    /// place in its queue, is kept until the next call that is let through, and others that share
    /// the limit wait meanwhile. To avoid that:
    ///
    /// - put the limit above the breaker, so that the limited service is the breaker itself;
    /// - or put a `Buffer` between the breaker and the inner service: a `Buffer` is `Clone`.
    pub fn without_clone(self) -> WithoutClone<C, R, B, L> {
        WithoutClone(self)
    }
}

impl<C, R, B, L> BreakerLayer<C, R, B, L>
where
    C: Clone,
    R: Clone,
    B: Clone,
    L: LastFailureMode,
{
    fn service<S>(&self, inner: S, renew: Option<fn(&S) -> S>) -> Breaker<S, L::Classify<C>, R, B> {
        let Self { circuit, not_ready, classify, reject, record, last_failure } = self.clone();
        let classify = last_failure.around(classify, &circuit);
        Breaker::new(inner, renew, circuit, classify, reject, record, not_ready)
    }
}

impl<S, C, R, B, L> Layer<S> for BreakerLayer<C, R, B, L>
where
    S: Clone,
    C: Clone,
    R: Clone,
    B: Clone,
    L: LastFailureMode,
{
    type Service = Breaker<S, L::Classify<C>, R, B>;

    fn layer(&self, inner: S) -> Self::Service {
        self.service(inner, Some(S::clone))
    }
}

/// A [`BreakerLayer`] for services that are not `Clone`; see [`BreakerLayer::without_clone`].
#[derive(Clone, Debug)]
pub struct WithoutClone<C = Auto, R = ReturnError, B = OnHead, L = NoLastFailure>(BreakerLayer<C, R, B, L>);

impl<S, C, R, B, L> Layer<S> for WithoutClone<C, R, B, L>
where
    C: Clone,
    R: Clone,
    B: Clone,
    L: LastFailureMode,
{
    type Service = Breaker<S, L::Classify<C>, R, B>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.service(inner, None)
    }
}
