//! The layer.

use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst, TypedError};
use tower_layer::Layer;

use crate::policy::{CachedPolicy, PolicyHandle, RetryPolicy};
use crate::request::{ByTrait, CloneRequests};
use crate::service::JitterRetry;

/// Retries failed requests if a retry can help and can do no harm.
///
/// The response type and the error type of the inner service do not change. The caller gets the
/// outcome of the last attempt that was sent. For example, it gets a 502, and not the rejection of
/// the circuit breaker below that the 502 opened. See [`ResponseFuture`](crate::ResponseFuture).
///
/// # Example
///
/// With the defaults:
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};
///
/// let service = ServiceBuilder::new()
///     .layer(JitterRetryLayer::new(RetryPolicy::default()))
///     .service(service_fn(async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<http::Request<String>, _>(&service);
/// ```
///
/// With other limits, and a request type of your own that is `Clone` and counts as idempotent:
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_jitter_retry::{JitterRetryLayer, RequestInfo, RetryPolicy};
///
/// #[derive(Clone)]
/// struct Query(String);
///
/// impl RequestInfo for Query {}
///
/// let policy = RetryPolicy::builder().max_attempts(5).max_elapsed(Duration::from_secs(20)).build()?;
/// let service = ServiceBuilder::new()
///     .layer(JitterRetryLayer::new(policy).clone_requests())
///     .service(service_fn(async |query: Query| Ok::<_, std::io::Error>(query.0)));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<Query, _>(&service);
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct JitterRetryLayer<C = Auto, Q = ByTrait> {
    policy: CachedPolicy,
    classify: C,
    resend: Q,
}

impl<K> JitterRetryLayer<Auto<K>> {
    /// Creates a layer that classifies outcomes with [`Auto`].
    pub fn new(policy: RetryPolicy) -> Self {
        Self::with_handle(PolicyHandle::new(policy))
    }

    /// Creates a layer that shares its policy with the other users of the handle.
    ///
    /// It classifies outcomes with [`Auto`].
    pub fn with_handle(handle: PolicyHandle) -> Self {
        Self { policy: CachedPolicy::new(handle), classify: Auto::new(), resend: ByTrait }
    }
}

impl<Q> JitterRetryLayer<Auto<TypedError>, Q> {
    /// Sets the classifier, in place of [`Auto`].
    pub fn classify<C>(self, classify: C) -> JitterRetryLayer<C, Q> {
        JitterRetryLayer { policy: self.policy, classify, resend: self.resend }
    }
}

impl<K, Q> JitterRetryLayer<Auto<K>, Q> {
    /// Classifies errors only: every response counts as a success and may have any type.
    ///
    /// A response that is itself a `Result`, such as that of `tokio::time::timeout`, then counts as
    /// a success even if it is an `Err`. For such responses, do not call `errors_only`, or use
    /// `.classify(NestedErrors::new())`.
    pub fn errors_only(self) -> JitterRetryLayer<ErrorsOnly<K>, Q> {
        JitterRetryLayer { policy: self.policy, classify: ErrorsOnly::new(), resend: self.resend }
    }
}

impl<C, Q> JitterRetryLayer<C, Q> {
    /// Adds a rule that is checked before the existing rules and the classifier.
    ///
    /// The rule that was added last is checked first.
    pub fn rule<N>(self, rule: N) -> JitterRetryLayer<RuleFirst<N, C>, Q> {
        let classify = RuleFirst::new(rule, self.classify);
        JitterRetryLayer { policy: self.policy, classify, resend: self.resend }
    }

    /// Copies requests by their `Clone` implementation.
    ///
    /// The body then need not be a [`RetryBody`](crate::replay::RetryBody), and a request type of
    /// your own need not be a [`RetryRequest`](crate::request::RetryRequest).
    ///
    /// Only the way to copy the request changes:
    ///
    /// - The request's [`RequestInfo`](crate::RequestInfo) has the same effect as without this
    ///   method: the method, `Idempotency-Key`, [`RetrySafety`](crate::RetrySafety),
    ///   [`Deadline`](crate::Deadline), gRPC method and marks of an `http::Request<B>`, for any `B`
    ///   that is `Clone`.
    /// - [`replay_limit`](crate::RetryPolicyBuilder::replay_limit) does not apply: the request is
    ///   cloned regardless of its size.
    pub fn clone_requests(self) -> JitterRetryLayer<C, CloneRequests> {
        JitterRetryLayer { policy: self.policy, classify: self.classify, resend: CloneRequests }
    }
}

impl<C, Q> JitterRetryLayer<C, Q> {
    /// Removes the marks of other retry layers from every request.
    ///
    /// It has the effect of
    /// [`RetryPolicyBuilder::remove_marker`](crate::RetryPolicyBuilder::remove_marker) for this
    /// layer, with every policy that the layer has later.
    pub fn remove_marker(self) -> Self {
        Self { policy: self.policy.remove_marker(), ..self }
    }

    /// Returns a handle to the policy, which can replace it while services use it.
    pub fn handle(&self) -> PolicyHandle {
        self.policy.handle()
    }
}

impl<S, C: Clone, Q: Clone> Layer<S> for JitterRetryLayer<C, Q> {
    type Service = JitterRetry<S, C, Q>;

    fn layer(&self, inner: S) -> Self::Service {
        JitterRetry::new(inner, self.policy.clone(), self.classify.clone(), self.resend.clone())
    }
}
