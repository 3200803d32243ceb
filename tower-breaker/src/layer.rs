//! The layer, which owns the circuit.

use std::borrow::Cow;

use tower_fault_classify::{Auto, ErrorsOnly, Fault, Health, RuleFirst, Typed};
use tower_layer::Layer;

use crate::circuit::Circuit;
use crate::config::BreakerConfig;
use crate::health::HealthBy;
use crate::observe::{KeepFailures, Transition};
use crate::reject::Errors;
use crate::service::Breaker;
use crate::settle::Head;

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
/// use tower_breaker::{BreakerConfig, BreakerLayer, Fault, Health, Kind, Origin, Retry};
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
/// let broken = Fault::new(Kind::Auth, Retry::Never, Health::Failure, Origin::Remote);
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
pub struct BreakerLayer<C = Auto, R = Errors, B = Head> {
    circuit: Circuit,
    classify: C,
    reject: R,
    settle: B,
}

impl<KC, KR> BreakerLayer<Auto<KC>, Errors<KR>> {
    /// A closed circuit, judging by [`Auto`].
    pub fn new(config: BreakerConfig) -> Self {
        Self { circuit: Circuit::new(config), classify: Auto::new(), reject: Errors::new(), settle: Head }
    }
}

impl<R, B> BreakerLayer<Auto<Typed>, R, B> {
    /// Judges by `classify` instead.
    pub fn classify<C>(self, classify: C) -> BreakerLayer<C, R, B> {
        let Self { circuit, reject, settle, .. } = self;
        BreakerLayer { circuit, classify, reject, settle }
    }
}

impl<K, R, B> BreakerLayer<Auto<K>, R, B> {
    /// Takes every response for a success, so that a response of any type will do.
    pub fn errors_only(self) -> BreakerLayer<ErrorsOnly<K>, R, B> {
        let Self { circuit, reject, settle, .. } = self;
        BreakerLayer { circuit, classify: ErrorsOnly::new(), reject, settle }
    }
}

impl<C, R, B> BreakerLayer<C, R, B> {
    /// Asks `rule` first. The rule that was added last is asked first.
    pub fn rule<N>(self, rule: N) -> BreakerLayer<RuleFirst<N, C>, R, B> {
        let Self { circuit, classify, reject, settle } = self;
        BreakerLayer { circuit, classify: RuleFirst::new(rule, classify), reject, settle }
    }

    /// Reads a fault's health by `health`, in place of its own axis: a batch job may want to stop on a 401.
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerLayer, Health, Kind};
    ///
    /// let layer = BreakerLayer::new(BreakerConfig::default()).health(|fault| match fault.kind() {
    ///     Kind::Auth | Kind::Quota => Health::Failure,
    ///     _ => fault.health(),
    /// });
    /// # let service = tower::ServiceBuilder::new().layer(layer)
    /// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    ///
    /// It stands around the rules that were added before it; a rule that is added later has its own word.
    pub fn health<F>(self, health: F) -> BreakerLayer<HealthBy<C, F>, R, B>
    where
        F: Fn(&Fault) -> Health,
    {
        let Self { circuit, classify, reject, settle } = self;
        BreakerLayer { circuit, classify: HealthBy::new(classify, health), reject, settle }
    }

    /// Keeps the last failure with its type and its message for [`Status::last_failure`](crate::Status::last_failure), under `label`: the
    /// name of the caller, of the route. **Default**: it is not kept.
    ///
    /// Each failure then costs the text of its error, with its allocations, and a lock.
    pub fn keep_last_failure<K>(
        self,
        label: impl Into<Cow<'static, str>>,
    ) -> BreakerLayer<KeepFailures<C, K>, R, B> {
        let Self { circuit, classify, reject, settle } = self;
        let classify = KeepFailures::new(classify, circuit.core(), label.into());
        BreakerLayer { circuit, classify, reject, settle }
    }

    /// Tells `observer` of every change of the circuit's state: see [`Circuit::on_transition`].
    pub fn on_transition(self, observer: impl Fn(&Transition) + Send + Sync + 'static) -> Self {
        self.circuit.on_transition(observer);
        self
    }

    /// A handle to the circuit that this layer's services share.
    pub fn circuit(&self) -> Circuit {
        self.circuit.clone()
    }

    /// The same layer for a service that is not `Clone`, such as `RateLimit`.
    ///
    /// A rejected call then cannot give back what the inner service reserved for it (a place in a `ConcurrencyLimit`); the
    /// reservation stays until the next call that is let through.
    pub fn over_uncloneable(self) -> UncloneableBreakerLayer<C, R, B> {
        UncloneableBreakerLayer(self)
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
        let Self { circuit, classify, reject, settle } = self.clone();
        Breaker::new(inner, Some(S::clone), circuit, classify, reject, settle)
    }
}

/// A [`BreakerLayer`] for services that are not `Clone`; see [`BreakerLayer::over_uncloneable`].
#[derive(Clone, Debug)]
pub struct UncloneableBreakerLayer<C = Auto, R = Errors, B = Head>(BreakerLayer<C, R, B>);

impl<S, C, R, B> Layer<S> for UncloneableBreakerLayer<C, R, B>
where
    C: Clone,
    R: Clone,
    B: Clone,
{
    type Service = Breaker<S, C, R, B>;

    fn layer(&self, inner: S) -> Self::Service {
        let BreakerLayer { circuit, classify, reject, settle } = self.0.clone();
        Breaker::new(inner, None, circuit, classify, reject, settle)
    }
}
