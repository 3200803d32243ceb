//! The layer.

use std::marker::PhantomData;

use tower_layer::Layer;

use crate::body::{Head, NoInspector, TrackBody};
use crate::classifiers::{Auto, ErrorsOnly, RuleFirst};
use crate::error::TypedError;
use crate::error_mode::{KeepErrors, WrapErrors};
use crate::service::FaultClassify;

/// Judges every outcome once and passes the verdict on.
///
/// The layers above read it instead of judging again: on a response it stands in the extensions ([`CarriedVerdict`]), an error is
/// wrapped into [`ClassifiedError`], which holds the original.
///
/// | what the call came to | what is done | allocations |
/// |---|---|---|
/// | a success | nothing | none |
/// | a response that is a fault, or a status ≥ 400 that a rule calls a success | [`CarriedVerdict`] is put into its extensions | 3 if they were empty, else 1 |
/// | an error | [`ClassifiedError`] goes around it | 1 for a typed error, none for a boxed one |
/// | an error, with [`keep_errors`](Self::keep_errors) | nothing: each layer above judges it anew | none |
///
/// # Example
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_fault_classify::{FaultClassifyLayer, Fault, Health, Kind, Origin, Retryable, rule_fn};
///
/// // As it comes:
/// let service = ServiceBuilder::new()
///     .layer(FaultClassifyLayer::new())
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
///
/// // With a rule of one's own for a server that says 404 while it starts:
/// let starting = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);
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
/// [`CarriedVerdict`]: crate::CarriedVerdict
/// [`ClassifiedError`]: crate::ClassifiedError
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultClassifyLayer<C = Auto, M = WrapErrors, P = Head, B = Head> {
    classify: C,
    errors: PhantomData<fn() -> M>,
    peek: P,
    track: B,
}

impl<K> FaultClassifyLayer<Auto<K>> {
    /// Judges by [`Auto`].
    pub const fn new() -> Self {
        Self { classify: Auto::new(), errors: PhantomData, peek: Head, track: Head }
    }
}

impl<M, P, B> FaultClassifyLayer<Auto<TypedError>, M, P, B> {
    /// Judges by `classify` instead.
    pub fn classify<C>(self, classify: C) -> FaultClassifyLayer<C, M, P, B> {
        let Self { errors, peek, track, .. } = self;
        FaultClassifyLayer { classify, errors, peek, track }
    }
}

impl<K, M, P, B> FaultClassifyLayer<Auto<K>, M, P, B> {
    /// Takes every response for a success, so that a response of any type will do.
    ///
    /// A response that is itself a `Result`, as `tokio::time::timeout` returns it, then counts as a
    /// success even if it is an `Err`. For those, leave `errors_only` off or use
    /// `.classify(NestedErrors::new())`.
    pub fn errors_only(self) -> FaultClassifyLayer<ErrorsOnly<K>, M, P, B> {
        let Self { errors, peek, track, .. } = self;
        FaultClassifyLayer { classify: ErrorsOnly::new(), errors, peek, track }
    }
}

impl<C, M, P, B> FaultClassifyLayer<C, M, P, B> {
    /// Asks `rule` first. The rule that was added last is asked first.
    pub fn rule<R>(self, rule: R) -> FaultClassifyLayer<RuleFirst<R, C>, M, P, B> {
        let Self { classify, errors, peek, track } = self;
        FaultClassifyLayer { classify: RuleFirst::new(rule, classify), errors, peek, track }
    }

    /// Leaves errors as they are, so that the error type stays (`Infallible` under axum).
    pub fn keep_errors(self) -> FaultClassifyLayer<C, KeepErrors, P, B> {
        let Self { classify, peek, track, .. } = self;
        FaultClassifyLayer { classify, errors: PhantomData, peek, track }
    }
}

impl<C, M, B> FaultClassifyLayer<C, M, Head, B> {
    /// Reads the beginning of each body whose status is 400 or more, and shows it to the rule of `bodies`. Its verdict goes before that of
    /// the head and is carried by the response. The body that goes on is the same, byte for byte; its type is [`PeekedBody`], and
    /// `reqwest::Response` stays what it is.
    ///
    /// A response whose body was read costs a box, and what it takes to join several frames into one; one below 400 costs nothing.
    ///
    /// # Panics
    ///
    /// The call panics outside a tokio runtime with its timer enabled, if such a body is not there at once.
    ///
    /// [`PeekedBody`]: crate::body::PeekedBody
    #[cfg(feature = "error-body")]
    pub fn read_error_bodies<R>(
        self,
        bodies: crate::body::ErrorBodies<R>,
    ) -> FaultClassifyLayer<C, M, crate::body::ErrorBodies<R>, B> {
        let Self { classify, errors, track, .. } = self;
        FaultClassifyLayer { classify, errors, peek: bodies, track }
    }
}

impl<C, M, P> FaultClassifyLayer<C, M, P, Head> {
    /// Puts a [`TrackedBody`] around each response's body, which tells `hook` exactly once what the call came to: gRPC's trailers, an error
    /// that breaks the stream, a reader who wants no more. If the head has the last word (a fault, a trailers-only answer), `hook` is
    /// told with the response.
    ///
    /// It is not told of calls that end in an error in place of a response. Each response gets a clone of `hook`. Under
    /// [`errors_only`](Self::errors_only) trailers say nothing.
    ///
    /// ```
    /// use tower::{ServiceBuilder, service_fn};
    /// use tower_fault_classify::{FaultClassifyLayer, Verdict};
    ///
    /// let service = ServiceBuilder::new()
    ///     .layer(FaultClassifyLayer::new().track_body(|verdict: Verdict| {
    ///         if let Some(fault) = verdict.fault() {
    ///             eprintln!("response stream failed: {fault}");
    ///         }
    ///     }))
    ///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(String::new()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    ///
    /// [`TrackedBody`]: crate::body::TrackedBody
    pub fn track_body<H, K>(self, hook: H) -> FaultClassifyLayer<C, M, P, TrackBody<H, NoInspector, K>> {
        let Self { classify, errors, peek, .. } = self;
        FaultClassifyLayer { classify, errors, peek, track: TrackBody::new(hook) }
    }
}

#[cfg(feature = "llm")]
impl<C, M, P, H, K> FaultClassifyLayer<C, M, P, TrackBody<H, NoInspector, K>> {
    /// Also looks for the errors within event streams of LLM APIs; see [`LlmEvents`](crate::body::LlmEvents). The hook is told when one is found.
    pub fn inspect_llm_events(self) -> FaultClassifyLayer<C, M, P, TrackBody<H, crate::body::LlmEvents, K>> {
        let Self { classify, errors, peek, track } = self;
        FaultClassifyLayer { classify, errors, peek, track: track.with_inspector() }
    }
}

impl<S, C, M, P, B> Layer<S> for FaultClassifyLayer<C, M, P, B>
where
    C: Clone,
    P: Clone,
    B: Clone,
{
    type Service = FaultClassify<S, C, M, P, B>;

    fn layer(&self, inner: S) -> Self::Service {
        FaultClassify::new(inner, self.classify.clone(), self.peek.clone(), self.track.clone())
    }
}
