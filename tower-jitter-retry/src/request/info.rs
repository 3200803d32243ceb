//! The information that a retry layer reads from a request and writes on it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use ::http::HeaderName;

use super::{Attempt, RetrySafety};

/// The retry settings and marks that a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notes {
    /// The request's own setting, which takes precedence over the policy's.
    pub safety: Option<RetrySafety>,
    /// The time limit of the call.
    pub deadline: Option<Deadline>,
    /// The mark of an outer retry layer that may send the request again.
    pub attempt: Option<Attempt>,
}

/// The mark that a retry layer writes on a request right before it is sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Mark<'a> {
    /// The number of the attempt.
    pub attempt: Attempt,
    /// The time that is left, if there is a deadline.
    pub remaining: Option<Duration>,
    /// Whether to write the number of the attempt.
    pub marker: bool,
    /// The header for the number of the attempt, if one is configured.
    pub header: Option<&'a HeaderName>,
}

/// The time limit of one call: an extension of its `http::Request` or `reqwest::Request`, or an
/// argument of [`RetryPolicy::deadline`](crate::RetryPolicy::deadline).
///
/// - No retry is sent after the deadline. If a delay would not end before it, no delay begins, and
///   the caller immediately gets the outcome of the last attempt.
/// - A retry that waits for the inner service's readiness stops waiting at the deadline, with the
///   same result.
/// - A running attempt is not cut short, so any attempt may end after the deadline. To stop it at
///   the deadline, limit each attempt to the time that is [remaining](Self::remaining).
/// - After a deadline that has passed already, or with a time of zero, the first attempt is sent
///   and no retry follows.
///
/// The timeout in `grpc-timeout` is a deadline as well. The earlier of the two applies. If the
/// request can be sent again, the `grpc-timeout` and the time of [`within`](Self::within) of each
/// attempt are shortened to the time that is left. An inner retry layer therefore has the same
/// deadline. A request without `grpc-timeout` gets none.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::Deadline;
/// use tower_jitter_retry::request::RequestExt;
///
/// let request = http::Request::new(()).with_extension(Deadline::within(Duration::from_millis(300)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(When);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Within(Duration),
    At(tokio::time::Instant),
}

impl Deadline {
    /// Creates a deadline at a time after the call began.
    ///
    /// A call begins when its request reaches the retry layer. A call of
    /// [`RetryPolicy::retry`](crate::RetryPolicy::retry) begins when its future is first polled.
    pub const fn within(time: Duration) -> Self {
        Self(When::Within(time))
    }

    /// Creates a deadline at a given moment, for example the deadline of an incoming request.
    ///
    /// The moment is compared with tokio's clock, which `tokio::time::pause` stops.
    pub fn at(moment: Instant) -> Self {
        Self(When::At(moment.into()))
    }

    /// Returns the time that is left until the deadline. It is zero after the deadline.
    ///
    /// Use it to limit an attempt, which a deadline does not cut short:
    ///
    /// | caller | limit of each attempt |
    /// |---|---|
    /// | a closure with a circuit of `tower-breaker` | `circuit.call_within(limit.min(deadline.remaining()), …)` |
    /// | any other closure | `tokio::time::timeout(deadline.remaining(), …)` |
    /// | a `reqwest::Request` | `*request.timeout_mut() = Some(deadline.remaining())` |
    ///
    /// A deadline of [`at`](Self::at) is compared with tokio's clock. A deadline of
    /// [`within`](Self::within) does not know when the call began. It returns its whole time, or,
    /// as the extension of a request below a retry layer, the time that was left when the attempt
    /// was sent. In a closure that is retried, therefore use [`at`](Self::at); see
    /// [`Retrier::deadline`](crate::retrier::Retrier::deadline).
    pub fn remaining(self) -> Duration {
        match self.0 {
            When::Within(time) => time,
            When::At(moment) => moment.saturating_duration_since(tokio::time::Instant::now()),
        }
    }

    /// Replaces a time from the beginning of the call by the time that is left. An inner layer, for
    /// which each attempt is a call, then has the same deadline.
    pub(crate) fn shorten(&mut self, remaining: Duration) {
        if let When::Within(time) = &mut self.0 {
            *time = remaining;
        }
    }
}

/// The information that a retry layer reads from a request, and the marks that it writes on it.
///
/// It is implemented for:
///
/// - `http::Request` with a body of any type,
/// - `reqwest::Request` (feature `reqwest`),
/// - strings, numbers, `bool`, `char`, `()`, `Bytes`, and a `Vec` of these,
/// - an `Option` of any type that implements it.
///
/// Every method has a default. A request type of your own that is `Clone` therefore needs only an
/// empty implementation, and then counts as idempotent:
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use tower_jitter_retry::{JitterRetryLayer, RequestInfo, RetryPolicy};
///
/// #[derive(Clone)]
/// struct Query(String);
///
/// impl RequestInfo for Query {}
///
/// let service = ServiceBuilder::new()
///     .layer(JitterRetryLayer::new(RetryPolicy::default()).clone_requests())
///     .service(service_fn(async |query: Query| Ok::<_, std::io::Error>(query.0)));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<Query, _>(&service);
/// ```
///
/// If your request type wraps an HTTP request, forward the methods to the HTTP request.
#[diagnostic::on_unimplemented(
    message = "a retry layer cannot see whether the request `{Self}` may be sent again",
    note = "for a type of your own, write `impl RequestInfo for {Self} {{}}`: the request then counts as idempotent",
    note = "`reqwest::Request` implements `RequestInfo` with the cargo feature `reqwest` of `tower-jitter-retry`"
)]
pub trait RequestInfo {
    /// Returns whether sending the request twice has the same effect as sending it once.
    ///
    /// Its idempotency key is not considered; see
    /// [`has_idempotency_key`](Self::has_idempotency_key). **Default**: `true`.
    fn is_idempotent(&self) -> bool {
        true
    }

    /// Returns whether the request carries an idempotency key.
    ///
    /// By such a key, a server recognizes a request that it has seen before.
    /// [`RetrySafety::ByMethod`] ignores it. **Default**: `false`.
    fn has_idempotency_key(&self) -> bool {
        false
    }

    /// Returns the URL of the request, or `None` if it is not known.
    ///
    /// It is compared with the URL of the response to detect a followed redirect; see
    /// [`follows_redirects`](crate::RetryPolicyBuilder::follows_redirects). **Default**: `None`.
    fn url(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Returns the retry settings and marks that the request carries.
    ///
    /// The method may move parts of the request out to read them, but must put them back.
    /// **Default**: no notes.
    #[inline]
    fn notes(&mut self) -> Notes {
        Notes::default()
    }

    /// Returns the gRPC method that the request calls, as `/package.Service/Method`.
    ///
    /// The layer looks it up in the policy's
    /// [`idempotent_methods`](crate::RetryPolicyBuilder::idempotent_methods). **Default**: `None`.
    fn grpc_method(&self) -> Option<&str> {
        None
    }

    /// Writes the number of the attempt and the time that is left on the request.
    ///
    /// It is called right before the request is sent, and only for requests that can be sent again.
    /// **Default**: does nothing.
    #[inline]
    fn mark(&mut self, mark: Mark<'_>) {
        let _ = mark;
    }

    /// Removes the marks of an outer retry layer.
    ///
    /// `header` is the policy's [`marker_header`](crate::RetryPolicyBuilder::marker_header), which
    /// is removed too. **Default**: does nothing.
    fn unmark(&mut self, header: Option<&HeaderName>) {
        let _ = header;
    }
}

/// `None` counts as idempotent.
impl<T: RequestInfo> RequestInfo for Option<T> {
    fn is_idempotent(&self) -> bool {
        self.as_ref().is_none_or(T::is_idempotent)
    }

    fn has_idempotency_key(&self) -> bool {
        self.as_ref().is_some_and(T::has_idempotency_key)
    }

    fn url(&self) -> Option<Cow<'_, str>> {
        self.as_ref()?.url()
    }

    fn notes(&mut self) -> Notes {
        self.as_mut().map(T::notes).unwrap_or_default()
    }

    fn grpc_method(&self) -> Option<&str> {
        self.as_ref()?.grpc_method()
    }

    fn mark(&mut self, mark: Mark<'_>) {
        if let Some(request) = self {
            request.mark(mark);
        }
    }

    fn unmark(&mut self, header: Option<&HeaderName>) {
        if let Some(request) = self {
            request.unmark(header);
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passed_deadline_leaves_no_time() {
        let now = tokio::time::Instant::now().into_std();
        let (soon, late) = (Deadline::at(now + Duration::from_secs(3)), Deadline::at(now));
        assert_eq!((soon.remaining(), late.remaining()), (Duration::from_secs(3), Duration::ZERO));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((soon.remaining(), late.remaining()), (Duration::from_secs(1), Duration::ZERO));
        // A time from the beginning of a call: only a retry layer shortens it.
        assert_eq!(Deadline::within(Duration::from_secs(3)).remaining(), Duration::from_secs(3));
    }
}
