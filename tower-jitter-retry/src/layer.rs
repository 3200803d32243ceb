//! The layer.

use tower_fault_classify::classifiers::{Auto, ErrorsOnly, RuleFirst, TypedError};
use tower_layer::Layer;

use crate::policy::RetryPolicy;
use crate::request::{ByTrait, CloneRequests};
use crate::service::JitterRetry;

/// Sends failed requests again where that can help and cannot harm.
///
/// The error type stays the inner one, and so does the response's. The caller gets the outcome of
/// the last attempt that was sent: a 502, and not the rejection of the circuit breaker beneath that
/// the 502 opened. See [`ResponseFuture`](crate::ResponseFuture).
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, service_fn};
/// use tower_jitter_retry::{JitterRetryLayer, RequestInfo, RetryPolicy};
///
/// // As it comes:
/// let service = ServiceBuilder::new()
///     .layer(JitterRetryLayer::new(RetryPolicy::default()))
///     .service(service_fn(async |_: http::Request<String>| Ok::<_, std::io::Error>(http::Response::new(()))));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<http::Request<String>, _>(&service);
///
/// // With limits of one's own, for a request type of one's own that is `Clone` and counts as idempotent:
/// #[derive(Clone)]
/// struct Query(String);
///
/// impl RequestInfo for Query {}
///
/// let policy = RetryPolicy::builder().max_attempts(5).max_elapsed(Duration::from_secs(20)).build()?;
/// let service = ServiceBuilder::new()
///     .layer(JitterRetryLayer::new(policy).clone_requests())
///     .service(service_fn(async |query: Query| Ok::<_, std::io::Error>(query.0)));
/// # check::<Query, _>(&service);
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct JitterRetryLayer<C = Auto, Q = ByTrait> {
    policy: RetryPolicy,
    classify: C,
    resend: Q,
}

impl<K> JitterRetryLayer<Auto<K>> {
    /// Judges by [`Auto`].
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, classify: Auto::new(), resend: ByTrait }
    }
}

impl<Q> JitterRetryLayer<Auto<TypedError>, Q> {
    /// Judges by `classify` instead.
    pub fn classify<C>(self, classify: C) -> JitterRetryLayer<C, Q> {
        JitterRetryLayer { policy: self.policy, classify, resend: self.resend }
    }
}

impl<K, Q> JitterRetryLayer<Auto<K>, Q> {
    /// Takes every response for a success, so that a response of any type will do.
    ///
    /// A response that is itself a `Result`, as `tokio::time::timeout` returns it, then counts as a
    /// success even if it is an `Err`. For those, leave `errors_only` off or use
    /// `.classify(NestedErrors::new())`.
    pub fn errors_only(self) -> JitterRetryLayer<ErrorsOnly<K>, Q> {
        JitterRetryLayer { policy: self.policy, classify: ErrorsOnly::new(), resend: self.resend }
    }
}

impl<C, Q> JitterRetryLayer<C, Q> {
    /// Asks `rule` first. The rule that was added last is asked first.
    pub fn rule<N>(self, rule: N) -> JitterRetryLayer<RuleFirst<N, C>, Q> {
        let classify = RuleFirst::new(rule, self.classify);
        JitterRetryLayer { policy: self.policy, classify, resend: self.resend }
    }

    /// Sends clones of the request again, so that its body need not be a
    /// [`RetryBody`](crate::replay::RetryBody) and a request type of your own need not be a
    /// [`RetryRequest`](crate::request::RetryRequest).
    ///
    /// Only the way to copy the request changes. Its [`RequestInfo`](crate::RequestInfo) counts as
    /// it does without: the method, `Idempotency-Key`, [`RetrySafety`](crate::RetrySafety),
    /// [`Deadline`](crate::Deadline), gRPC method and marks of an `http::Request<B>`, for any `B`
    /// that is `Clone`. [`replay_limit`](crate::RetryPolicyBuilder::replay_limit) does not apply: a
    /// clone is made whatever its size.
    pub fn clone_requests(self) -> JitterRetryLayer<C, CloneRequests> {
        JitterRetryLayer { policy: self.policy, classify: self.classify, resend: CloneRequests }
    }
}

impl<C, Q> JitterRetryLayer<C, Q> {
    /// Sets [`RetryPolicyBuilder::remove_marker`](crate::RetryPolicyBuilder::remove_marker) of this
    /// layer's policy.
    pub fn remove_marker(mut self) -> Self {
        self.policy.remove_marker = true;
        self
    }
}

impl<S, C: Clone, Q: Clone> Layer<S> for JitterRetryLayer<C, Q> {
    type Service = JitterRetry<S, C, Q>;

    fn layer(&self, inner: S) -> Self::Service {
        JitterRetry::new(inner, self.policy.clone(), self.classify.clone(), self.resend.clone())
    }
}
