//! What a rule reads of an error's body, and the limits of the reading.

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
    /// What was read of the body: at most as many bytes as the limit says.
    pub bytes: &'a [u8],
    /// Whether that is known to be all of it. A body that failed is not complete, and one that was read to the limit may be.
    pub complete: bool,
}

impl<'a> ErrorBody<'a> {
    /// A body of which `bytes` were read, to try a rule with.
    pub const fn new(status: StatusCode, headers: &'a HeaderMap, bytes: &'a [u8], complete: bool) -> Self {
        Self { status, headers, bytes, complete }
    }
}

/// Classifies a response by the beginning of its body.
///
/// A closure that takes an [`ErrorBody`] and returns `Option<Verdict>` is one. Its verdict goes before that of the response's head.
pub trait BodyRule {
    /// What the call came to, if this rule has a word on it.
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict>;
}

impl<F: Fn(&ErrorBody<'_>) -> Option<Verdict>> BodyRule for F {
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict> {
        self(body)
    }
}

/// Reads the beginning of the body of each response whose status is 400 or more, and shows it to a rule; see
/// [`read_error_bodies`](crate::FaultClassifyLayer::read_error_bodies).
///
/// Whatever comes of the reading, the body that goes on has every byte of the one that came, its trailers and its error too. The body of
/// a success is never read.
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
    /// Shows the bodies to `rule`.
    pub const fn new(rule: R) -> Self {
        Self { rule, limit: 64 * 1024, timeout: Duration::from_secs(1) }
    }

    /// How many bytes are read before the rule is called. **Default**: 64 KiB.
    ///
    /// So much is kept in memory as well, beside the one frame that passes the limit.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// How long a body is waited for before the rule is called with the bytes so far. **Default**: 1 s.
    ///
    /// The response is held up for so long at most. A body that is there already is read without a timer. Zero: only what is there.
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
