//! The rule on error bodies, and the limits on reading them.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::body::sse::StreamEvent;
use crate::error::TypedError;
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

    /// Returns the verdict on a call whose event stream begins with this event, or `None` if the
    /// event is not an error.
    ///
    /// It is called with [`first_event_timeout`](ErrorBodies::first_event_timeout) only, for each
    /// event up to the first one that counts.
    ///
    /// **Default**: `None`.
    fn first_event(&self, event: &StreamEvent<'_>) -> Option<Verdict> {
        let _ = event;
        None
    }
}

impl<F: Fn(&ErrorBody<'_>) -> Option<Verdict>> BodyRule for F {
    fn verdict(&self, body: &ErrorBody<'_>) -> Option<Verdict> {
        self(body)
    }
}

/// A body mode that reads the beginning of error bodies and classifies them by a rule.
///
/// [`read_error_bodies`](crate::FaultClassifyLayer::read_error_bodies) accepts it. An error body is
/// the body of a response whose status is 400 or more. Other bodies are not read, except for the
/// beginning of event streams with [`first_event_timeout`](Self::first_event_timeout).
///
/// The caller gets every byte of the body, its trailers and its error, whatever was read.
///
/// | setting | **Default** |
/// |---|---|
/// | [`limit`](Self::limit) | 64 KiB |
/// | [`timeout`](Self::timeout) | 1 s |
/// | [`first_event_timeout`](Self::first_event_timeout) | zero: off |
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
///
/// `K` is inferred by the layer: whether the errors of the bodies are typed or boxed.
#[derive(Clone, Copy)]
pub struct ErrorBodies<R, K = TypedError> {
    pub(super) rule: R,
    pub(super) limit: usize,
    pub(super) timeout: Duration,
    /// Zero: event streams are not read.
    pub(super) first_event_timeout: Duration,
    pub(super) kind: PhantomData<fn() -> K>,
}

impl<R> ErrorBodies<R> {
    /// Creates the mode with `rule` and the default limits.
    pub const fn new(rule: R) -> Self {
        Self {
            rule,
            limit: 64 * 1024,
            timeout: Duration::from_secs(1),
            first_event_timeout: Duration::ZERO,
            kind: PhantomData,
        }
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

    /// Also waits for the first event of each event stream, at most this long, before the layer
    /// returns the response.
    ///
    /// Until then the caller has received nothing, so a retry layer above can send the request
    /// again. It applies to a response that is a success, with status 200 and the `content-type`
    /// `text/event-stream`. It does not apply to a compressed stream (`content-encoding`), or to a
    /// response whose body has already ended, such as the response to a HEAD request.
    ///
    /// | what happens first | verdict |
    /// |---|---|
    /// | an event that [`first_event`](BodyRule::first_event) of the rule returns a verdict on | that verdict. An error of `LlmErrors` keeps the [`Retryable`](crate::Retryable) of its row |
    /// | another event | the head's: a success |
    /// | the body fails | that of the error, by the layer's classifier. The tables send the request again at most if it is idempotent |
    /// | the body ends without an event | kind `transient`, sent again if idempotent, unhealthy |
    /// | the time is over | kind `timeout`, sent again if idempotent, unhealthy |
    /// | [`limit`](Self::limit) bytes, or 1,024 frames without data, arrive without an event | the head's: a success |
    ///
    /// Comments, events without data, and events named `ping` do not count as the first event: an
    /// API sends them to keep the connection open. An event named `error` may have no data. An
    /// incomplete event at the end of the body counts. Any other event counts, also one without
    /// content, such as `message_start`. A later error is not retried.
    ///
    /// The body is forwarded byte for byte in each case. After a fault that is not retried, the
    /// caller gets the response with its body, and can continue to read it.
    ///
    /// The time begins when the layer first waits for the body. Choose a time that is longer than
    /// the API needs for its first event. For the layers above, the wait is part of the call: it
    /// counts in their timeouts, and in the slow calls of a breaker.
    ///
    /// **Default**: zero, which turns it off. Event streams are then returned at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_fault_classify::FaultClassifyLayer;
    /// use tower_fault_classify::body::{ErrorBodies, ErrorBody};
    ///
    /// let no_rule = |_: &ErrorBody<'_>| None;
    /// let bodies = ErrorBodies::new(no_rule).first_event_timeout(Duration::from_secs(20));
    /// let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
    /// # type Response = http::Response<http_body_util::Full<bytes::Bytes>>;
    /// # let service = tower::ServiceBuilder::new().layer(layer)
    /// #     .service(tower::service_fn(async |_: ()| Ok::<_, std::io::Error>(Response::default())));
    /// # fn check<R, S: tower::Service<R>>(_: &S) {}
    /// # check::<(), _>(&service);
    /// ```
    pub const fn first_event_timeout(mut self, time: Duration) -> Self {
        self.first_event_timeout = time;
        self
    }

    /// Sets the kind of the bodies' errors.
    pub(crate) fn of_kind<K>(self) -> ErrorBodies<R, K> {
        let Self { rule, limit, timeout, first_event_timeout, .. } = self;
        ErrorBodies { rule, limit, timeout, first_event_timeout, kind: PhantomData }
    }
}

impl<R, K> fmt::Debug for ErrorBodies<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, timeout, first_event_timeout, .. } = self;
        f.debug_struct("ErrorBodies")
            .field("limit", limit)
            .field("timeout", timeout)
            .field("first_event_timeout", first_event_timeout)
            .finish_non_exhaustive()
    }
}
