//! The fault that one call gets.

use std::fmt::{self, Write};
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::error::{BoxError, ClassifiedError};
use crate::fault::{Fault, Health, Kind, Origin, Retryable};
use crate::grpc;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The body of [`Kind::Quota`]: an error of OpenAI's API, as its reference documents the fields.
const QUOTA_BODY: &str = r#"{"error":{"message":"the quota is used up (injected)","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;

/// The fault that one call gets.
///
/// | constructor | the caller gets | the inner service is called |
/// |---|---|---|
/// | [`pass`](Self::pass) | the inner service's outcome | yes |
/// | [`status`](Self::status), [`grpc_status`](Self::grpc_status), [`response`](Self::response) | that response | no |
/// | [`error`](Self::error), [`io_error`](Self::io_error) | that error | no |
/// | [`kind`](Self::kind) | a response or an error that is classified as that kind | no |
/// | [`hang`](Self::hang) | nothing: the call never ends | no |
///
/// A delay and a fault of the response's body can be added to each of them:
///
/// | method | changes |
/// |---|---|
/// | [`delay`](Self::delay), [`delay_between`](Self::delay_between) | the time before the call is passed on, or before its outcome |
/// | [`retry_after`](Self::retry_after) | the delay that an injected response asks for |
/// | [`break_body`](Self::break_body) | the body fails after some bytes |
/// | [`truncate_body`](Self::truncate_body) | the body ends after some bytes |
/// | [`stall_body`](Self::stall_body) | the body stops after some bytes, and never ends |
/// | [`drip_body`](Self::drip_body) | the body arrives slowly |
///
/// Envoy's fault filter calls a response in place of the call an *abort*.
///
/// `E` is the error of the service. See [`FaultInjectionLayer::typed`].
///
/// [`FaultInjectionLayer::typed`]: super::FaultInjectionLayer::typed
pub struct Injection<E = BoxError> {
    pub(super) action: Action<E>,
    /// The shortest and the longest delay.
    pub(super) delay: (Duration, Duration),
    pub(super) body: Option<BodyFault>,
    retry_after: Option<Duration>,
}

/// What happens to the call.
pub(super) enum Action<E> {
    Pass,
    Respond(Arc<dyn Fn() -> Response<Bytes> + Send + Sync>),
    Fail(Arc<dyn Fn() -> E + Send + Sync>),
    Hang,
}

/// A fault of the response's body.
#[derive(Clone, Copy, Debug)]
pub(super) enum BodyFault {
    /// The number of bytes before the fault.
    Break(usize),
    Truncate(usize),
    Stall(usize),
    Drip {
        chunk: usize,
        every: Duration,
    },
}

impl<E> Injection<E> {
    const fn of(action: Action<E>) -> Self {
        Self { action, delay: (Duration::ZERO, Duration::ZERO), body: None, retry_after: None }
    }

    /// Creates an injection that passes the call on to the inner service.
    ///
    /// It is a step of a script that injects nothing, or the base of a delay or a body fault.
    pub const fn pass() -> Self {
        Self::of(Action::Pass)
    }

    /// Creates an injection that answers with an HTTP status and an empty body.
    ///
    /// # Panics
    ///
    /// Panics if `status` is not in 100..=999.
    pub fn status(status: u16) -> Self {
        let Ok(status) = StatusCode::from_u16(status) else {
            panic!("status {status} is not valid; use a status in 100..=999");
        };
        Self::response(move || {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            response
        })
    }

    /// Creates an injection that answers with a gRPC status, in a trailers-only response.
    ///
    /// `code` is the number of the status, such as 14 for `UNAVAILABLE`. `message` is
    /// percent-encoded, as the protocol "gRPC over HTTP/2" requires.
    pub fn grpc_status(code: u32, message: &str) -> Self {
        let message = percent_encoded(message);
        Self::response(move || {
            let mut response = Response::new(Bytes::new());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(&GRPC_STATUS, code.into());
            headers.insert(&GRPC_MESSAGE, message.clone());
            response
        })
    }

    /// Creates an injection that answers with the response that `make` returns.
    ///
    /// `make` is called once for each injected response.
    pub fn response<T: Into<Bytes>>(make: impl Fn() -> Response<T> + Send + Sync + 'static) -> Self {
        Self::of(Action::Respond(Arc::new(move || make().map(Into::into))))
    }

    /// Creates an injection that fails with the error that `make` returns.
    ///
    /// `make` is called once for each injected error.
    ///
    /// ```
    /// use tower_fault_classify::BoxError;
    /// use tower_fault_classify::test_util::Injection;
    ///
    /// let injection = Injection::<BoxError>::error(|| "the name cannot be resolved".into());
    /// ```
    pub fn error(make: impl Fn() -> E + Send + Sync + 'static) -> Self {
        Self::of(Action::Fail(Arc::new(make)))
    }

    /// Creates an injection that never answers. The caller needs a timeout.
    ///
    /// Use [`kind`](Self::kind) with [`Kind::Timeout`] for a gateway that reports a timeout (504).
    pub const fn hang() -> Self {
        Self::of(Action::Hang)
    }

    /// Sets a fixed delay.
    ///
    /// The delay is before the call is passed on, or before the injected response or error. It uses
    /// tokio's timer, so paused time skips it.
    ///
    /// **Default**: no delay.
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay: (delay, delay), ..self }
    }

    /// Sets a delay that is drawn for each call, with nanosecond resolution.
    ///
    /// The draw depends on the seed and on the number of the call. See
    /// [`FaultInjectionLayer::seed`](super::FaultInjectionLayer::seed).
    ///
    /// **Default**: no delay.
    ///
    /// # Panics
    ///
    /// Panics if the range is empty.
    pub fn delay_between(self, range: RangeInclusive<Duration>) -> Self {
        assert!(!range.is_empty(), "range {range:?} is empty; its start must not exceed its end");
        Self { delay: range.into_inner(), ..self }
    }

    /// Sets the delay that an injected response asks for.
    ///
    /// An HTTP response gets a `Retry-After` in seconds, rounded up. A gRPC response gets a
    /// `grpc-retry-pushback-ms`. The response of the inner service and errors are not changed.
    ///
    /// **Default**: no delay. The response of [`Kind::Throttled`] asks for 1 s.
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// Breaks the response's body with an error after a number of bytes.
    ///
    /// The error is an [`io::Error`] of the kind [`ConnectionReset`](io::ErrorKind::ConnectionReset).
    /// A body that has fewer bytes is not changed. The size that the body announces stays.
    ///
    /// **Default**: the body is not changed. This setting replaces another fault of the body.
    pub fn break_body(self, after_bytes: usize) -> Self {
        Self { body: Some(BodyFault::Break(after_bytes)), ..self }
    }

    /// Ends the response's body after a number of bytes, without trailers.
    ///
    /// The reader gets no error. A gRPC call then ends without a status. The body announces the
    /// smaller size, but a `Content-Length` in the headers is not changed.
    ///
    /// **Default**: the body is not changed. This setting replaces another fault of the body.
    pub fn truncate_body(self, after_bytes: usize) -> Self {
        Self { body: Some(BodyFault::Truncate(after_bytes)), ..self }
    }

    /// Stops the response's body after a number of bytes. It then never ends.
    ///
    /// A body that has fewer bytes is not changed.
    ///
    /// **Default**: the body is not changed. This setting replaces another fault of the body.
    pub fn stall_body(self, after_bytes: usize) -> Self {
        Self { body: Some(BodyFault::Stall(after_bytes)), ..self }
    }

    /// Delivers the response's body in chunks of at most `chunk` bytes, with a delay before each.
    ///
    /// No byte is lost, and trailers are passed on. It uses tokio's timer.
    ///
    /// **Default**: the body is not changed. This setting replaces another fault of the body.
    ///
    /// # Panics
    ///
    /// Panics if `chunk` is 0.
    pub fn drip_body(self, chunk: usize, every: Duration) -> Self {
        assert!(chunk > 0, "the chunk has no bytes; use at least 1");
        Self { body: Some(BodyFault::Drip { chunk, every }), ..self }
    }

    /// Returns whether the injection changes nothing.
    pub(super) const fn is_pass(&self) -> bool {
        matches!(self.action, Action::Pass) && self.body.is_none() && self.delay.1.is_zero()
    }

    /// Adds the delay that the response asks for to its headers.
    pub(super) fn ask_for_delay(&self, response: &mut Response<Bytes>) {
        let Some(delay) = self.retry_after else { return };
        let headers = response.headers_mut();
        if grpc::is_grpc(headers) {
            headers.insert(&PUSHBACK, grpc::pushback_value(Some(delay)));
        } else {
            let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
            headers.insert(RETRY_AFTER, seconds.into());
        }
    }
}

impl<E: From<io::Error> + 'static> Injection<E> {
    /// Creates an injection that fails with an I/O error of this kind.
    ///
    /// A refused connection (`ConnectionRefused`) is classified as unsent, and a broken one
    /// (`ConnectionReset`) as [`Kind::Transient`]. The [tables](crate::tables) have the others.
    pub fn io_error(kind: io::ErrorKind) -> Self {
        Self::error(move || injected_io_error(kind).into())
    }

    /// Creates an injection that is classified as this kind.
    ///
    /// | kind | outcome |
    /// |---|---|
    /// | `client` | 400 |
    /// | `auth` | 401 |
    /// | `quota` | 429 with the body `insufficient_quota` of an LLM API. The head alone is classified as `throttled` |
    /// | `conflict` | 409 |
    /// | `throttled` | 429 with `Retry-After: 1` |
    /// | `timeout` | 504 |
    /// | `transient` | an I/O error: the connection is reset |
    /// | `unavailable` | 503 |
    /// | `overloaded` | 529 |
    /// | `server` | 500 |
    /// | `protocol` | 501 |
    /// | `cancelled` | 499 |
    /// | `rejected` | an I/O error around a [`ClassifiedError`]: unsent, neutral, of local origin |
    /// | `local` | an I/O error: out of memory |
    /// | `unknown`, and kinds of later versions | an I/O error without a known cause |
    pub fn kind(kind: Kind) -> Self {
        match kind {
            Kind::Client => Self::status(400),
            Kind::Auth => Self::status(401),
            Kind::Quota => Self::response(quota_response),
            Kind::Conflict => Self::status(409),
            Kind::Throttled => Self::status(429).retry_after(Duration::from_secs(1)),
            Kind::Timeout => Self::status(504),
            Kind::Transient => Self::io_error(io::ErrorKind::ConnectionReset),
            Kind::Unavailable => Self::status(503),
            Kind::Overloaded => Self::status(529),
            Kind::Server => Self::status(500),
            Kind::Protocol => Self::status(501),
            Kind::Cancelled => Self::status(499),
            Kind::Rejected => Self::error(|| io::Error::other(rejection()).into()),
            Kind::Local => Self::io_error(io::ErrorKind::OutOfMemory),
            Kind::Unknown => Self::io_error(io::ErrorKind::Other),
        }
    }
}

pub(super) fn injected_io_error(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, format!("injected fault: {kind}"))
}

fn rejection() -> ClassifiedError {
    ClassifiedError::from_fault(Fault::new(Kind::Rejected, Retryable::Unsent, Health::Neutral, Origin::Local))
}

fn quota_response() -> Response<&'static str> {
    let mut response = Response::new(QUOTA_BODY);
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Encodes each byte that is not printable ASCII, and `%`.
fn percent_encoded(message: &str) -> HeaderValue {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(byte.into()),
            _ => {
                // Writing to a string does not fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    match text.try_into() {
        Ok(value) => value,
        Err(_) => unreachable!("the text is printable ASCII"),
    }
}

impl<E> Clone for Injection<E> {
    fn clone(&self) -> Self {
        let action = match &self.action {
            Action::Pass => Action::Pass,
            Action::Respond(make) => Action::Respond(Arc::clone(make)),
            Action::Fail(make) => Action::Fail(Arc::clone(make)),
            Action::Hang => Action::Hang,
        };
        Self { action, ..*self }
    }
}

impl<E> fmt::Debug for Injection<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Pass => "pass",
            Action::Respond(_) => "respond",
            Action::Fail(_) => "fail",
            Action::Hang => "hang",
        };
        f.debug_struct("Injection")
            .field("action", &action)
            .field("delay", &(self.delay.0..=self.delay.1))
            .field("body", &self.body)
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_message_is_percent_encoded() {
        assert_eq!(percent_encoded("50 % of ä\n"), "50 %25 of %C3%A4%0A");
    }

    #[test]
    fn retry_after_rounds_up_and_is_a_pushback_for_grpc() {
        let delay = Duration::from_millis(1_001);
        let respond = |injection: Injection| {
            let Action::Respond(make) = &injection.action else { panic!("a response") };
            let mut response = make();
            injection.ask_for_delay(&mut response);
            response
        };
        let http = respond(Injection::status(503).retry_after(delay));
        assert_eq!(http.headers()[RETRY_AFTER], "2");
        let grpc = respond(Injection::grpc_status(14, "").retry_after(delay));
        assert_eq!(grpc.headers()[&PUSHBACK], "1001");
        assert!(!grpc.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn pass_with_delay_or_body_fault_is_an_injection() {
        assert!(Injection::<BoxError>::pass().is_pass());
        assert!(!Injection::<BoxError>::pass().delay(Duration::from_nanos(1)).is_pass());
        assert!(!Injection::<BoxError>::pass().stall_body(0).is_pass());
        assert!(!Injection::<BoxError>::hang().is_pass());
    }

    #[test]
    #[should_panic(expected = "is empty")]
    fn delay_between_empty_range_panics() {
        let _ = Injection::<BoxError>::pass().delay_between(Duration::from_secs(2)..=Duration::from_secs(1));
    }
}
