//! The rule on error bodies, and the limits on reading them.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::fault::Verdict;

/// The beginning of the body of a response whose status is 400 or more.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ErrorBody<'a> {
    /// The response's status.
    pub status: StatusCode,
    /// The response's headers.
    pub headers: &'a HeaderMap,
    /// The bytes that were read, at most as many as [`ErrorBodies::limit`].
    pub bytes: &'a [u8],
    /// Whether these bytes are known to be the whole body.
    ///
    /// It is `false` for a body that failed. A body that was read up to the limit may be complete,
    /// although this is `false`.
    pub complete: bool,
}

impl<'a> ErrorBody<'a> {
    /// Creates an error body from the bytes that were read, to test a rule.
    pub const fn new(status: StatusCode, headers: &'a HeaderMap, bytes: &'a [u8], complete: bool) -> Self {
        Self { status, headers, bytes, complete }
    }
}

/// Classifies a response by the beginning of its body.
///
/// A closure that takes an [`ErrorBody`] and returns `Option<Verdict>` implements it. The verdict
/// takes precedence over the verdict on the response's head.
pub trait BodyRule {
    /// Returns the verdict on the call, or `None` to keep the verdict on the head.
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict>;
}

impl<F: Fn(&ErrorBody<'_>) -> Option<Verdict>> BodyRule for F {
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict> {
        self(body)
    }
}

/// A body mode that reads the beginning of error bodies and classifies them by a rule.
///
/// [`read_error_bodies`](crate::FaultClassifyLayer::read_error_bodies) accepts it. An error body is
/// the body of a response whose status is 400 or more. Other bodies are never read.
///
/// The caller gets every byte of the body, its trailers and its error, whatever was read.
///
/// | setting | **Default** |
/// |---|---|
/// | [`limit`](Self::limit) | 64 KiB |
/// | [`timeout`](Self::timeout) | 1 s |
///
/// The rule is called when the body ends or breaks, or when the limit or the timeout is reached.
/// Reading also stops after 1,024 frames without data.
///
/// ```
/// use std::time::Duration;
/// use tower_fault_classify::body::{ErrorBodies, ErrorBody};
/// use tower_fault_classify::{Fault, FaultClassifyLayer, Health, Kind, Origin, Retryable};
///
/// let sold_out = Fault::new(Kind::Conflict, Retryable::Never, Health::Healthy, Origin::Remote);
/// let rule = move |body: &ErrorBody<'_>| body.bytes.starts_with(b"sold out").then(|| sold_out.into());
/// let bodies = ErrorBodies::new(rule).limit(1024).timeout(Duration::from_millis(200));
/// let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
/// # type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
/// # let service = tower::ServiceBuilder::new().layer(layer)
/// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(Response::default())));
/// # fn check<R, S: tower::Service<R>>(_: &S) {}
/// # check::<(), _>(&service);
/// ```
#[derive(Clone, Copy)]
pub struct ErrorBodies<R> {
    pub(super) rule: R,
    pub(super) limit: usize,
    pub(super) timeout: Duration,
}

impl<R> ErrorBodies<R> {
    /// Creates the mode with `rule` and the default limits.
    pub const fn new(rule: R) -> Self {
        Self { rule, limit: 64 * 1024, timeout: Duration::from_secs(1) }
    }

    /// Sets how many bytes are read before the rule is called.
    ///
    /// As many bytes are kept in memory, plus one frame that may exceed the limit.
    ///
    /// **Default**: 64 KiB.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets how long the layer waits for the body before the rule is called with the bytes so far.
    ///
    /// The response is delayed by at most this time. A body that is available immediately is read
    /// without a timer. With zero, only the bytes that are available immediately are read.
    ///
    /// **Default**: 1 s.
    pub const fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }
}

impl<R> fmt::Debug for ErrorBodies<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, timeout, .. } = self;
        f.debug_struct("ErrorBodies").field("limit", limit).field("timeout", timeout).finish_non_exhaustive()
    }
}
