//! What a retry layer reads from a request and writes on it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use ::http::HeaderName;

use super::{Attempt, RetrySafety};

/// What is written down on a request for the retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notes {
    /// The user's word on this request, which takes precedence over the policy's.
    pub safety: Option<RetrySafety>,
    /// The time limit of the call.
    pub deadline: Option<Deadline>,
    /// The mark of a layer further out, which sends the request again.
    pub attempt: Option<Attempt>,
}

/// What is written on a request right before it is sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Mark<'a> {
    /// The number of the attempt.
    pub attempt: Attempt,
    /// The time that is left, if there is a deadline.
    pub remaining: Option<Duration>,
    /// Whether the number is to be written down at all.
    pub marker: bool,
    /// The header for the number, if there is to be one.
    pub header: Option<&'a HeaderName>,
}

/// The time by which one call must be done, as an extension of its `http::Request`.
///
/// No retry is sent after it. A delay that would not end before it is not begun: the caller gets
/// the outcome of the last attempt at once. A retry that waits for the inner service's readiness
/// stops waiting at the deadline, with the same result. The attempt that runs is not cut short;
/// that is what a timeout is for. A deadline that has passed already, or a time of zero, leaves the
/// first attempt and no retry.
///
/// gRPC's own `grpc-timeout` is a deadline as well, and the earlier of the two counts; each attempt carries the time that is left.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::Deadline;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Deadline::within(Duration::from_millis(300)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(When);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Within(Duration),
    At(tokio::time::Instant),
}

impl Deadline {
    /// So long after the call began, which is when it comes to the layer.
    pub const fn within(time: Duration) -> Self {
        Self(When::Within(time))
    }

    /// At a moment, which a request that came in may bring along. Under `tokio::time::pause` it is one of tokio's clock.
    pub fn at(moment: Instant) -> Self {
        Self(When::At(moment.into()))
    }

    /// How long there is, from now on.
    pub(crate) fn remaining(self) -> Duration {
        match self.0 {
            When::Within(time) => time,
            When::At(moment) => moment.saturating_duration_since(tokio::time::Instant::now()),
        }
    }
}

/// What a retry layer reads from a request, and the marks that it writes on it.
///
/// It is implemented for `http::Request` with a body of any type, for `reqwest::Request` (feature
/// `reqwest`), for strings, numbers and the like, and for an `Option` of these. Every method has a
/// default, so that a request type of your own that is `Clone` needs an empty implementation. It
/// then counts as idempotent:
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
/// If your request type wraps an HTTP request, forward the methods to it.
#[diagnostic::on_unimplemented(
    message = "a retry layer cannot see whether the request `{Self}` may be sent again",
    note = "for a type of your own, write `impl RequestInfo for {Self} {{}}`: the request then counts as idempotent",
    note = "`reqwest::Request` implements `RequestInfo` with the cargo feature `reqwest` of `tower-jitter-retry`"
)]
pub trait RequestInfo {
    /// Whether sending the request twice has the effect of sending it once, whatever its headers
    /// say. **Default**: yes.
    fn is_idempotent(&self) -> bool {
        true
    }

    /// Whether the request carries an idempotency key, by which a server recognizes a request that
    /// it has seen before. [`RetrySafety::ByMethod`] ignores it. **Default**: no.
    fn has_idempotency_key(&self) -> bool {
        false
    }

    /// The URL of the request, to tell responses after a redirect apart; see
    /// [`follows_redirects`](crate::RetryPolicyBuilder::follows_redirects). **Default**: not known.
    fn url(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// What is written down on the request for the retry. It may be taken off to be read, and is
    /// put back. **Default**: nothing.
    #[inline]
    fn notes(&mut self) -> Notes {
        Notes::default()
    }

    /// The method of gRPC that the request calls, `/package.Service/Method`, to be looked up among
    /// the policy's [`idempotent_methods`](crate::RetryPolicyBuilder::idempotent_methods).
    /// **Default**: none.
    fn grpc_method(&self) -> Option<&str> {
        None
    }

    /// Writes the number of the attempt and the time that is left on the request, right before it
    /// is sent. It is called only for requests that can be sent again. **Default**: does nothing.
    #[inline]
    fn mark(&mut self, mark: Mark<'_>) {
        let _ = mark;
    }

    /// Removes the marks of a layer further out, `header` among them: the policy's
    /// [`marker_header`](crate::RetryPolicyBuilder::marker_header). **Default**: does nothing.
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
        assert_eq!(Deadline::within(Duration::from_secs(3)).remaining(), Duration::from_secs(3));
    }
}
