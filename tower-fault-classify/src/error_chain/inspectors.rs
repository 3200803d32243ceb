//! Inspects the error types of clients. Each inspector is behind the feature that is named after
//! its crate.
//!
//! An error contributes one or more of these to the [`ErrorFacts`]:
//!
//! - a verdict of its own;
//! - a fact: the connection was not open yet, nothing was written, a timeout ended the call, the
//!   response had begun;
//! - a fallback, which applies if no error of the chain has a verdict. A client reports it without
//!   knowing the cause, such as a code that replaces the cause.
//!
//! Each type that an inspector recognizes is also in the list of [`is_inspected`].

use std::error::Error;
use std::sync::Arc;

use super::ErrorFacts;
#[cfg(any(feature = "hyper", feature = "tonic"))]
use super::Phase;
#[cfg(feature = "hyper")]
use super::Text;
#[cfg(any(
    feature = "h2",
    feature = "hyper",
    feature = "reqwest",
    feature = "tonic",
    feature = "tower"
))]
use crate::table;
use crate::upload::UploadError;

/// A function that inspects one error of the chain for the types of one client's crate.
type Inspector = fn(&(dyn Error + 'static), &mut ErrorFacts);

/// The inspectors of the clients whose features are enabled.
pub(super) const INSPECTORS: &[Inspector] = &[
    #[cfg(feature = "h2")]
    h2,
    #[cfg(feature = "hyper")]
    hyper,
    #[cfg(feature = "hyper-util")]
    hyper_util,
    #[cfg(any(feature = "hyper-util", feature = "tonic"))]
    connector,
    #[cfg(feature = "reqwest")]
    reqwest,
    #[cfg(feature = "tokio")]
    tokio,
    #[cfg(feature = "tonic")]
    tonic,
    #[cfg(feature = "tower")]
    tower,
    #[cfg(feature = "tower-http")]
    tower_http,
];

/// Defines [`is_inspected`] by a list of types.
macro_rules! inspected_types {
    ($($(#[$cfg:meta])* $inspected:ty),+ $(,)?) => {
        /// Returns whether the walk or an inspector recognizes the type of the error. The error is
        /// neither an I/O error nor a `ClassifiedError`.
        ///
        /// From any other error, the walk takes nothing but the source. If the type of `error` is
        /// known, the compiler evaluates the function.
        ///
        /// Two inspectors read errors of any type. They do nothing unless an inspected type is
        /// around the error, or an I/O error with a payload is its source.
        #[inline]
        pub(super) fn is_inspected(error: &(dyn Error + 'static)) -> bool {
            $(
                $(#[$cfg])*
                if error.is::<$inspected>() {
                    return true;
                }
            )+
            false
        }
    };
}

inspected_types![
    UploadError,
    Arc<dyn Error + Send + Sync>,
    #[cfg(feature = "h2")]
    h2::Error,
    #[cfg(feature = "hyper")]
    hyper::Error,
    #[cfg(feature = "hyper-util")]
    hyper_util::client::legacy::Error,
    #[cfg(feature = "reqwest")]
    reqwest::Error,
    #[cfg(feature = "reqwest-middleware")]
    reqwest_middleware::Error,
    #[cfg(feature = "tokio")]
    tokio::time::error::Elapsed,
    #[cfg(feature = "tonic")]
    tonic::TimeoutExpired,
    #[cfg(feature = "tonic")]
    tonic::ConnectError,
    #[cfg(feature = "tonic")]
    tonic::Status,
    #[cfg(feature = "tower")]
    tower::timeout::error::Elapsed,
    #[cfg(feature = "tower")]
    tower::buffer::error::ServiceError,
    #[cfg(feature = "tower")]
    tower::buffer::error::Closed,
    #[cfg(feature = "tower")]
    tower::load_shed::error::Overloaded,
    #[cfg(feature = "tower-http")]
    tower_http::timeout::TimeoutError,
];

/// Inspects h2's error.
///
/// RFC 9113 §8.7: `REFUSED_STREAM`, and a stream above the last one of a GOAWAY, were not
/// processed.
#[cfg(feature = "h2")]
fn h2(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    let Some(error) = error.downcast_ref::<h2::Error>() else { return };
    if let Some(io) = error.get_io() {
        // `source()` does not return the I/O error, so the walk does not reach it.
        facts.io(io);
    } else if error.is_reset() && !error.is_remote() && !error.is_library() {
        // hyper itself resets a stream when the request's body fails. The error of the body is
        // lost.
        facts.finish(&table::REQUEST_BODY);
    } else if matches!(error.reason(), Some(h2::Reason::HTTP_1_1_REQUIRED | h2::Reason::INADEQUATE_SECURITY))
    {
        facts.set(&table::OTHER_CONNECTION_REQUIRED);
    } else if error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote())
    {
        facts.set(&table::REFUSED_STREAM);
    } else if error.is_library() || error.is_go_away() {
        facts.set(&table::io::MALFORMED);
    } else if error.is_reset() {
        facts.set(&table::io::BROKEN);
    }
}

#[cfg(feature = "hyper")]
fn hyper(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return };
    if error.is_timeout() {
        // hyper's client has no timeout for calls: the peer did not acknowledge a ping.
        facts.timed_out = true;
        facts.peer_lost = true;
    }
    facts.on_the_wire |= !error.is_user();
    let text = Text::of(error);
    if text.starts_with("error reading a body") {
        // Only the text distinguishes it: the same HTTP/2 error ends a stream before its head and
        // after it.
        facts.reached(Phase::Answered);
        // A deeper cause overrides this. There is none if the connection ended for another reason.
        facts.set(&table::io::BROKEN);
    }
    if text.starts_with("error from user's Body stream") || error.is_body_write_aborted() {
        // The source is the error of the request's body, which says nothing about the server.
        facts.finish(&table::REQUEST_BODY);
    } else if text.starts_with("dispatch task is gone") {
        // hyper reports this as a user error. The task that drives the connection ended while it
        // had the request: its runtime was shut down, or it panicked.
        facts.set(&table::CONNECTION_TASK_GONE);
    } else if error.is_user() {
        facts.set(&table::io::WRONG);
    } else if error.is_parse() {
        facts.set(&table::io::MALFORMED);
    } else if error.is_canceled() || error.is_closed() {
        // The connection ended before the request was written to it.
        facts.reached(Phase::Unsent);
        facts.set(&table::io::BROKEN);
    } else if error.is_incomplete_message() {
        facts.set(&table::io::BROKEN);
    }
}

#[cfg(feature = "hyper-util")]
fn hyper_util(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() else { return };
    if error.is_connect() {
        facts.reached(Phase::Connecting);
    } else if error.source().is_none() && Text::of(error).starts_with("client error (User") {
        // The client cannot send this request. Only the text distinguishes the error.
        facts.set(&table::io::WRONG);
    } else if error.connect_info().is_none() {
        // The request was not written to any connection.
        facts.reached(Phase::Unsent);
    }
}

/// Inspects the errors of connectors by their text, because most of their types are private.
#[cfg(any(feature = "hyper-util", feature = "tonic"))]
fn connector(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    // Outside of a failure to connect, any error may have the same text.
    if facts.reached == Phase::Connecting
        && let text = Text::of(error)
        && let Some(fault) =
            table::connector::classify(text.as_bytes()).or_else(|| table::tls::classify(text.as_bytes()))
    {
        facts.set(fault);
    }
}

#[cfg(feature = "reqwest")]
fn reqwest(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    let Some(error) = error.downcast_ref::<reqwest::Error>() else { return };
    // The URL of the error is that of the first hop, whichever hop failed.
    facts.maybe_redirected = true;
    facts.timed_out |= error.is_timeout();
    if error.is_connect() {
        facts.reached(Phase::Connecting);
    } else if error.is_body() || error.is_decode() {
        facts.reached(Phase::Answered);
    }
    if error.is_builder() {
        facts.set(&table::io::WRONG);
    } else if let Some(status) = error.status() {
        // `error_for_status` made a response an error.
        facts.peer_lost |= table::http::is_origin_unreachable(status);
        if let Some(fault) = table::http::row(status) {
            facts.set(fault);
        }
    } else if error.is_redirect() {
        facts.set(&table::REDIRECTS);
    } else if error.is_decode() {
        facts.fallback(table::io::MALFORMED);
    }
}

#[cfg(feature = "tokio")]
fn tokio(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    facts.timed_out |= error.is::<tokio::time::error::Elapsed>();
}

/// Inspects tonic's errors.
///
/// A status that the client created is a fallback, because it hides its cause: the client's timeout
/// has the code CANCELLED, and a transport error has the code UNKNOWN.
#[cfg(feature = "tonic")]
fn tonic(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    facts.timed_out |= error.is::<tonic::TimeoutExpired>();
    if error.is::<tonic::ConnectError>() || is_connect_timeout_of_tonic(error) {
        facts.reached(Phase::Connecting);
    }
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        // If the channel gets no response, the source is the channel's own error. If the response's
        // body fails, the source is the bare error of the body. gRFC A6: a call is committed once
        // headers have arrived.
        if status.source().is_some_and(|error| error.is::<hyper::Error>() || error.is::<h2::Error>()) {
            facts.reached(Phase::Committed);
        }
        let hint = crate::grpc::retry_hint(status.metadata().as_ref(), || {
            crate::hint::retry_info_in(status.details())
        });
        if let Some(fault) = table::grpc::classify(status.code() as u32, hint).fault() {
            facts.fallback(*fault);
        }
    }
}

/// Returns whether the error is the `connect_timeout` of an endpoint with a connector of its own.
///
/// That timeout is around tonic's `ConnectError`, so the source of tonic's `transport::Error` is a
/// bare I/O error. The error of an open connection has a `hyper::Error` in between. The type of
/// `transport::Error` exists only with other features of tonic, so its `Debug` text identifies it.
#[cfg(feature = "tonic")]
fn is_connect_timeout_of_tonic(error: &(dyn Error + 'static)) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut && io.get_ref().is_some())
        && Text::from_args(format_args!("{error:?}")).starts_with("tonic::transport::Error(")
}

#[cfg(feature = "tower")]
fn tower(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    facts.timed_out |= error.is::<tower::timeout::error::Elapsed>();
    facts.worker_ended |= error.is::<tower::buffer::error::ServiceError>();
    if error.is::<tower::load_shed::error::Overloaded>() {
        facts.set(&table::SHED);
    } else if error.is::<tower::buffer::error::Closed>() {
        facts.set(&table::WORKER_GONE);
    }
}

#[cfg(feature = "tower-http")]
fn tower_http(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    facts.timed_out |= error.is::<tower_http::timeout::TimeoutError>();
}
