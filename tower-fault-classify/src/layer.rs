//! The layer and its settings.

use std::borrow::Cow;
use std::marker::PhantomData;

use tower_layer::Layer;

use crate::body::{Head, NoInspector, TrackBody};
use crate::classifiers::{Auto, ErrorsOnly, RuleFirst};
use crate::error::TypedError;
use crate::error_mode::{KeepErrors, WrapErrors};
use crate::service::FaultClassify;
use crate::telemetry::Reporter;

/// A layer that classifies each outcome once, and passes the verdict to the layers above.
///
/// The layers above read the same verdict. They find it in the extensions of a response
/// ([`CarriedVerdict`]), or in the [`ClassifiedError`] that wraps an error. A verdict that the
/// response's status alone gives is not stored: the layers above read it from the status. An error
/// of the inner service's `poll_ready` is classified like the error of a call.
///
/// | outcome | what the layer does | allocations |
/// |---|---|---|
/// | a success, or a fault that the status alone gives | nothing | none |
/// | any other fault, or a success that the default classifier would classify as a fault | inserts a [`CarriedVerdict`] into its extensions | 3 if the extensions were empty, else 1 |
/// | an error | wraps it in a [`ClassifiedError`], unless it is one already | 2 for a typed error, 1 for a boxed error |
/// | an error, with [`keep_errors`](Self::keep_errors) | nothing: each layer above classifies the error again | none |
///
/// An error that a rule classifies as a success is wrapped too. Its fault has the kind `unknown`,
/// is healthy, and is never retried.
///
/// # Settings
///
/// | method | **Default** | changes |
/// |---|---|---|
/// | [`name`](Self::name) | `"classify"` | the name in metrics and logs |
/// | [`classify`](FaultClassifyLayer::classify) | [`Auto`] | the classifier |
/// | [`errors_only`](FaultClassifyLayer::errors_only) | off | whether responses are classified |
/// | [`rule`](Self::rule) | none | the verdict on some outcomes |
/// | [`keep_errors`](Self::keep_errors) | off: errors are wrapped | the error type of the service |
/// | `read_error_bodies` (feature `error-body`) | off | whether the body of an error response is read |
/// | [`track_body`](FaultClassifyLayer::track_body) | off | whether a hook is called at the end of each response's body |
/// | `idle_limit` (feature `tokio`) | no limit | when a tracked body that delivers nothing counts as stalled |
/// | `inspect_llm_events` (feature `llm`) | off | whether tracked event streams are searched for errors and for the last event |
///
/// Call `classify` or `errors_only` before `rule`, and `idle_limit` and `inspect_llm_events` after
/// `track_body`. The compiler rejects another order.
///
/// # Examples
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_fault_classify::{FaultClassifyLayer, Fault, Health, Kind, Origin, Retryable, rule_fn};
///
/// // The defaults:
/// let service = ServiceBuilder::new()
///     .layer(FaultClassifyLayer::new())
///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
///
/// // With a rule for a server that responds with 404 while it starts:
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
    reporter: Reporter,
}

impl<K> FaultClassifyLayer<Auto<K>> {
    /// Creates a layer that classifies by [`Auto`] and wraps errors.
    pub const fn new() -> Self {
        Self {
            classify: Auto::new(),
            errors: PhantomData,
            peek: Head,
            track: Head,
            reporter: Reporter::UNNAMED,
        }
    }
}

impl<M, P, B> FaultClassifyLayer<Auto<TypedError>, M, P, B> {
    /// Sets the classifier.
    ///
    /// **Default**: [`Auto`]. To change the verdict on some outcomes only, add a
    /// [`rule`](Self::rule) instead.
    pub fn classify<C>(self, classify: C) -> FaultClassifyLayer<C, M, P, B> {
        let Self { errors, peek, track, reporter, .. } = self;
        FaultClassifyLayer { classify, errors, peek, track, reporter }
    }
}

impl<K, M, P, B> FaultClassifyLayer<Auto<K>, M, P, B> {
    /// Classifies errors only: every response is a success, and can have any type.
    ///
    /// A response that is itself a `Result`, as `tokio::time::timeout` returns it, then counts as a
    /// success even if it is an `Err`. For such responses, do not call `errors_only`, or use
    /// `.classify(NestedErrors::new())`.
    ///
    /// **Default**: responses are classified too.
    pub fn errors_only(self) -> FaultClassifyLayer<ErrorsOnly<K>, M, P, B> {
        let Self { errors, peek, track, reporter, .. } = self;
        FaultClassifyLayer { classify: ErrorsOnly::new(), errors, peek, track, reporter }
    }
}

impl<C, M, P, B> FaultClassifyLayer<C, M, P, B> {
    /// Sets the name of the layer: the label and the field `layer` in metrics and logs.
    ///
    /// Give each layer a name if a program has several. Without the features `metrics` and
    /// `tracing`, the name has no effect. A name that is built at run time is leaked: the program
    /// keeps one copy of each distinct name until it ends.
    ///
    /// **Default**: `"classify"`.
    pub fn name(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { reporter: Reporter::new(name.into()), ..self }
    }

    /// Adds a rule that is checked before the existing rules and the classifier.
    ///
    /// The first verdict decides. The rule that was added last is checked first.
    ///
    /// **Default**: no rules.
    pub fn rule<R>(self, rule: R) -> FaultClassifyLayer<RuleFirst<R, C>, M, P, B> {
        let Self { classify, errors, peek, track, reporter } = self;
        FaultClassifyLayer { classify: RuleFirst::new(rule, classify), errors, peek, track, reporter }
    }

    /// Returns each error unchanged, so that the service keeps the inner error type.
    ///
    /// Use it where the error type is fixed, such as `Infallible` under axum. Each layer above then
    /// classifies the error again. The fault is still reported to metrics and tracing.
    ///
    /// **Default**: errors are wrapped in [`ClassifiedError`](crate::ClassifiedError).
    pub fn keep_errors(self) -> FaultClassifyLayer<C, KeepErrors, P, B> {
        let Self { classify, peek, track, reporter, .. } = self;
        FaultClassifyLayer { classify, errors: PhantomData, peek, track, reporter }
    }
}

impl<C, M, B> FaultClassifyLayer<C, M, Head, B> {
    /// Reads the beginning of each error response's body, and classifies the response by a rule.
    ///
    /// An error response is one whose status is 400 or more. The [`BodyRule`] of `bodies` gets the
    /// bytes that were read. Its verdict takes precedence over the verdict on the head, and the
    /// response carries it.
    ///
    /// The body is forwarded byte for byte. Its type becomes [`PeekedBody`]; the type of a
    /// `reqwest::Response` does not change.
    ///
    /// A response whose body is read costs one allocation, and the allocations that join several
    /// frames into one. Other responses cost nothing.
    ///
    /// With [`first_event_timeout`], the layer also waits for the first event of each event stream,
    /// so that a retry layer above can send the request again if the stream breaks before it.
    ///
    /// **Default**: off, the head alone decides. [`ErrorBodies`] has the limits on size and time,
    /// and their defaults.
    ///
    /// # Cancellation
    ///
    /// Dropping the response future while it reads the body drops the response.
    ///
    /// # Panics
    ///
    /// The response future panics outside a tokio runtime with its timer enabled, if it has to wait
    /// for the body. It does not wait if the body is available immediately, or if the timeout of
    /// `bodies` is zero.
    ///
    /// [`BodyRule`]: crate::body::BodyRule
    /// [`ErrorBodies`]: crate::body::ErrorBodies
    /// [`first_event_timeout`]: crate::body::ErrorBodies::first_event_timeout
    /// [`PeekedBody`]: crate::body::PeekedBody
    #[cfg(feature = "error-body")]
    pub fn read_error_bodies<R, K>(
        self,
        bodies: crate::body::ErrorBodies<R>,
    ) -> FaultClassifyLayer<C, M, crate::body::ErrorBodies<R, K>, B> {
        let Self { classify, errors, track, reporter, .. } = self;
        FaultClassifyLayer { classify, errors, peek: bodies.of_kind(), track, reporter }
    }
}

impl<C, M, P> FaultClassifyLayer<C, M, P, Head> {
    /// Calls `hook` with the verdict on the whole call when the response's body ends.
    ///
    /// Each response's body is wrapped in a [`TrackedBody`], which calls the hook exactly once:
    ///
    /// - at the trailers of a gRPC call, or at the end of the body;
    /// - when an error breaks the body;
    /// - when an inspector finds an error or the last event in the data (`inspect_llm_events`);
    /// - when the body stalls (`idle_limit`);
    /// - when the body is dropped before its end, or after it panicked.
    ///
    /// `hook` is called before the response is returned in two cases: the head decides (a fault, or
    /// a trailers-only response of gRPC), or the body is empty and is not one of gRPC. It is not
    /// called for a call that returns an error instead of a response.
    ///
    /// Each response gets a clone of `hook`. With [`errors_only`](Self::errors_only), trailers are
    /// not classified.
    ///
    /// **Default**: bodies are not tracked, and the head alone decides.
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
        let Self { classify, errors, peek, reporter, .. } = self;
        FaultClassifyLayer { classify, errors, peek, track: TrackBody::new(hook, NoInspector), reporter }
    }
}

#[cfg(feature = "tokio")]
impl<C, M, P, H, W, K, I> FaultClassifyLayer<C, M, P, TrackBody<H, W, K, I>> {
    /// Sets how long a response's body may be pending until the stream counts as stalled.
    ///
    /// The hook of [`track_body`](FaultClassifyLayer::track_body) is then called with the verdict:
    /// kind `timeout`, a failure of the server, never retried. If the request's body waits for its
    /// source (see [`upload`](crate::upload)), the verdict is neutral. A rule can decide
    /// differently: [`EndReason::Stalled`](crate::body::EndReason::Stalled).
    ///
    /// - The time counts while the reader waits for the next frame: from a poll that is pending to
    ///   the next frame. A reader that has a frame and does not poll is not a stalled server.
    /// - The body does not end. Its reader continues to wait, and gets what still arrives. The hook
    ///   is not called again. A read timeout of the client, or tower-http's `ResponseBodyTimeout`,
    ///   ends the body with an error.
    ///
    /// The time is that of tokio's clock. Zero sets no limit.
    ///
    /// **Default**: no limit.
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
    /// use tower_fault_classify::{FaultClassifyLayer, Verdict};
    ///
    /// fn log(verdict: Verdict) {
    ///     if let Some(fault) = verdict.fault() {
    ///         eprintln!("response stream failed: {fault}");
    ///     }
    /// }
    ///
    /// let layer = FaultClassifyLayer::new().track_body(log).idle_limit(Duration::from_secs(30));
    /// let service = ServiceBuilder::new()
    ///     .layer(layer)
    ///     .service(service_fn(async |_: ()| Ok::<_, std::io::Error>(http::Response::new(String::new()))));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    pub fn idle_limit(
        self,
        limit: std::time::Duration,
    ) -> FaultClassifyLayer<C, M, P, TrackBody<H, W, K, crate::body::IdleLimit>> {
        let Self { classify, errors, peek, track, reporter } = self;
        FaultClassifyLayer { classify, errors, peek, track: track.idle_limit(limit), reporter }
    }
}

#[cfg(feature = "llm")]
impl<C, M, P, H, K, I> FaultClassifyLayer<C, M, P, TrackBody<H, NoInspector, K, I>> {
    /// Also searches the event streams of LLM APIs for errors, and for the last event.
    ///
    /// [`LlmEvents`](crate::body::LlmEvents) lists these events. `errors` is the table of the error
    /// codes; `LlmErrors::new()` is the built-in table.
    ///
    /// The hook of [`track_body`](FaultClassifyLayer::track_body) is called when such an event is
    /// found, before the body ends.
    ///
    /// **Default**: off.
    pub fn inspect_llm_events(
        self,
        errors: crate::body::LlmErrors,
    ) -> FaultClassifyLayer<C, M, P, TrackBody<H, crate::body::LlmEvents, K, I>> {
        let track = self.track.with_inspector(crate::body::LlmEvents::new(errors));
        let Self { classify, errors, peek, reporter, .. } = self;
        FaultClassifyLayer { classify, errors, peek, track, reporter }
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
        let Self { classify, peek, track, reporter, .. } = self;
        FaultClassify::new(inner, classify.clone(), peek.clone(), track.clone(), *reporter)
    }
}
