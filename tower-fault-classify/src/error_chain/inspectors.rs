//! What the errors of the clients say, each behind the feature that names its crate.
//!
//! An error may have a verdict of its own, or know a fact: that a connection was still missing, that nothing was written, that the
//! time ran out, that the answer had begun. What a
//! client reports without knowing the cause (a code that stands in for it) is a fallback: it applies if no error has a verdict.

use std::error::Error;

use super::ErrorFacts;
#[cfg(any(feature = "hyper", feature = "tonic"))]
use super::Phase;
#[cfg(any(
    feature = "h2",
    feature = "hyper",
    feature = "reqwest",
    feature = "tonic",
    feature = "tower"
))]
use crate::table;

/// A look at one error of the chain, by one client's crate.
type Inspector = fn(&(dyn Error + 'static), &mut ErrorFacts);

/// The clients that the user has named.
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

/// RFC 9113 §8.7: `REFUSED_STREAM`, and a stream above the last one of a GOAWAY, were not processed.
#[cfg(feature = "h2")]
fn h2(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    let Some(error) = error.downcast_ref::<h2::Error>() else { return };
    if let Some(io) = error.get_io() {
        // It is no source of the error, so that the walk does not come by it.
        facts.io(io);
    } else if error.is_reset() && !error.is_remote() && !error.is_library() {
        // hyper resets a stream itself when the request's body fails. The body's own error is lost.
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
        // hyper's client limits no call: this is a ping that the peer did not acknowledge.
        facts.timed_out = true;
        facts.peer_lost = true;
    }
    facts.on_the_wire |= !error.is_user();
    let text = Text::of(error);
    if text.starts_with("error reading a body") {
        // The one thing that tells it: the same HTTP/2 error ends a stream before its head and after.
        facts.reached(Phase::Answered);
        // Unless a cause is known. There is none if the connection ended for another reason.
        facts.set(&table::io::BROKEN);
    }
    if text.starts_with("error from user's Body stream") || error.is_body_write_aborted() {
        // The source is the error of the request's body: it says nothing about the server.
        facts.finish(&table::REQUEST_BODY);
    } else if text.starts_with("dispatch task is gone") {
        // hyper counts this as a mistake of the user. The task that drives the connection ended
        // with the request in its hands: its runtime was shut down, or it panicked.
        facts.set(&table::CONNECTION_TASK_GONE);
    } else if error.is_user() {
        facts.set(&table::io::WRONG);
    } else if error.is_parse() {
        facts.set(&table::io::MALFORMED);
    } else if error.is_canceled() || error.is_closed() {
        // The connection ended before it took the request.
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
        // A request that this client cannot send. Nothing else tells it.
        facts.set(&table::io::WRONG);
    } else if error.connect_info().is_none() {
        // No connection took the request.
        facts.reached(Phase::Unsent);
    }
}

/// Connectors keep most of their error types private, so that only the text tells what happened.
#[cfg(any(feature = "hyper-util", feature = "tonic"))]
fn connector(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    // Elsewhere the same words may be anybody's.
    if facts.reached == Phase::Connecting
        && let Some(fault) = table::connector::classify(Text::of(error).as_bytes())
    {
        facts.set(fault);
    }
}

/// The beginning of an error's text, without an allocation.
#[cfg(feature = "hyper")]
struct Text {
    bytes: [u8; 64],
    len: usize,
}

#[cfg(feature = "hyper")]
impl Text {
    fn of(error: &(impl Error + ?Sized)) -> Self {
        use std::fmt::Write;

        let mut text = Self { bytes: [0; 64], len: 0 };
        // An error means that the text is longer than the buffer.
        let _ = write!(text, "{error}");
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn starts_with(&self, start: &str) -> bool {
        self.as_bytes().starts_with(start.as_bytes())
    }
}

#[cfg(feature = "hyper")]
impl std::fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let taken = part.len().min(room.len());
        room[..taken].copy_from_slice(&part.as_bytes()[..taken]);
        self.len += taken;
        if taken == part.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}

#[cfg(feature = "reqwest")]
fn reqwest(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    let Some(error) = error.downcast_ref::<reqwest::Error>() else { return };
    // Its URL is the one of the first hop, whichever hop failed.
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
        // A response that its caller made an error of.
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

/// A status that a client made hides its cause: its own timeout appears as CANCELLED, a transport error as UNKNOWN.
#[cfg(feature = "tonic")]
fn tonic(error: &(dyn Error + 'static), facts: &mut ErrorFacts) {
    facts.timed_out |= error.is::<tonic::TimeoutExpired>();
    if error.is::<tonic::ConnectError>() {
        facts.reached(Phase::Connecting);
    }
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        // Under a channel's failure to get an answer stands the channel's own error; the error of an answer's body stands there bare.
        // gRFC A6: a call is committed once headers have come.
        if status.source().is_some_and(|error| error.is::<hyper::Error>() || error.is::<h2::Error>()) {
            facts.reached(Phase::Committed);
        }
        let asked = crate::grpc::retry_hint(status.metadata().as_ref(), || {
            crate::hint::retry_info_in(status.details())
        });
        if let Some(fault) = table::grpc::classify(status.code() as u32, asked).fault() {
            facts.fallback(*fault);
        }
    }
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
