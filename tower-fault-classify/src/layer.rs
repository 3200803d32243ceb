//! The layer.

use tower_layer::Layer;

use crate::classify::{Auto, ErrorsOnly, RuleFirst, Typed};
use crate::service::FaultClassify;

/// Judges every outcome once and passes the verdict on.
///
/// The layers above read it instead of judging again: on a response it stands in the extensions ([`Carried`]), an error is
/// wrapped into [`Judged`], which holds the original.
///
/// | what the call came to | what is done | allocations |
/// |---|---|---|
/// | a success | nothing | none |
/// | a response that is a fault, or a status ≥ 400 that a rule calls a success | [`Carried`] is put into its extensions | 3 if they were empty, else 1 |
/// | an error | [`Judged`] goes around it | 1 for a typed error, none for a boxed one |
/// | an error, with [`keep_errors`](Self::keep_errors) | nothing: each layer above judges it anew | none |
///
/// # Example
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_fault_classify::{FaultClassifyLayer, Fault, Health, Kind, Origin, Retry, rule_fn};
///
/// // As it comes:
/// let service = ServiceBuilder::new()
///     .layer(FaultClassifyLayer::new())
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
///
/// // With a rule of one's own for a server that says 404 while it starts:
/// let starting = Fault::new(Kind::Unavailable, Retry::Always, Health::Failure, Origin::Remote);
/// let service = ServiceBuilder::new()
///     .layer(FaultClassifyLayer::new().rule(rule_fn(
///         move |outcome: Result<&http::Response<()>, &std::io::Error>| match outcome {
///             Ok(response) if response.status() == 404 => Some(starting.into()),
///             _ => None,
///         },
///     )))
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # check::<(), _>(&service);
/// ```
///
/// [`Carried`]: crate::Carried
/// [`Judged`]: crate::Judged
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultClassifyLayer<C = Auto, M = WrapErrors> {
    classify: C,
    errors: M,
}

/// Wraps each error into [`Judged`](crate::Judged).
#[derive(Clone, Copy, Debug, Default)]
pub struct WrapErrors;

/// Leaves each error as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepErrors;

impl<K> FaultClassifyLayer<Auto<K>> {
    /// Judges by [`Auto`].
    pub const fn new() -> Self {
        Self { classify: Auto::new(), errors: WrapErrors }
    }
}

impl<M> FaultClassifyLayer<Auto<Typed>, M> {
    /// Judges by `classify` instead.
    pub fn classify<C>(self, classify: C) -> FaultClassifyLayer<C, M> {
        FaultClassifyLayer { classify, errors: self.errors }
    }
}

impl<K, M> FaultClassifyLayer<Auto<K>, M> {
    /// Takes every response for a success, so that a response of any type will do.
    pub fn errors_only(self) -> FaultClassifyLayer<ErrorsOnly<K>, M> {
        FaultClassifyLayer { classify: ErrorsOnly::new(), errors: self.errors }
    }
}

impl<C, M> FaultClassifyLayer<C, M> {
    /// Asks `rule` first. The rule that was added last is asked first.
    pub fn rule<R>(self, rule: R) -> FaultClassifyLayer<RuleFirst<R, C>, M> {
        FaultClassifyLayer { classify: RuleFirst::new(rule, self.classify), errors: self.errors }
    }

    /// Leaves errors as they are, so that the error type stays (`Infallible` under axum).
    pub fn keep_errors(self) -> FaultClassifyLayer<C, KeepErrors> {
        FaultClassifyLayer { classify: self.classify, errors: KeepErrors }
    }
}

impl<S, C: Clone, M> Layer<S> for FaultClassifyLayer<C, M> {
    type Service = FaultClassify<S, C, M>;

    fn layer(&self, inner: S) -> Self::Service {
        FaultClassify::new(inner, self.classify.clone())
    }
}
