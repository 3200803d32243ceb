//! The replies of the gRPC server.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prost::Message;

use crate::Reason;

/// The message that the server sends.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// What [`Grpc`](super::Grpc) does with one call.
///
/// A reply has optional headers, optional messages, and an end.
///
/// | wanted | code |
/// |---|---|
/// | an answer | `Reply::ok("text")` |
/// | a failure before any message | `Reply::trailers_only(14)` |
/// | a failure after headers, after a message | `Reply::headers().status(14)`, `Reply::message("text").status(14)` |
/// | pushback, details | `.trailer("grpc-retry-pushback-ms", "20")`, `.binary_trailer("grpc-status-details-bin", bytes)` |
/// | an invalid status | `Reply::trailers_only("abc")`, `Reply::trailers_only(14).trailer("grpc-status", "0")` |
/// | no status | `Reply::headers()`, `Reply::message("text")` |
/// | the answer of a proxy | `Reply::http(503).header("retry-after", "1")` |
/// | a truncated message | `Reply::truncated_message("text")` and an end |
/// | `RST_STREAM` | `Reply::nothing().rst_stream(Reason::REFUSED_STREAM)`, `Reply::message("text").rst_stream(…)` |
/// | the server shuts down, and did not process this call | `Reply::nothing().go_away_below(Reason::NO_ERROR)` |
/// | the server shuts down, and answers this call first | `Reply::ok("text").go_away_gracefully()` |
/// | the server shuts down, and may have processed this call | `Reply::nothing().go_away_at_once(Reason::INTERNAL_ERROR)` |
/// | the connection ends | `Reply::nothing().close_connection()`, `.reset_connection()` |
/// | the server hangs | `Reply::nothing()`, `Reply::message("text").hang()` |
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) goes_away: bool,
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    pub(super) data: BytesMut,
    pub(super) end: End,
}

#[derive(Clone, Debug)]
pub(super) enum End {
    /// The last frame ends the stream.
    Stream,
    Trailers(HeaderMap),
    RstStream(Reason),
    GoAwayBelow(Reason),
    GoAwayAtOnce(Reason),
    CloseConnection,
    ResetConnection,
    Stall,
}

impl Reply {
    /// Sends nothing. If no other end is set, it waits until the client cancels.
    pub fn nothing() -> Self {
        Self { goes_away: false, head: None, data: BytesMut::new(), end: End::Stall }
    }

    /// Sends an HTTP status without a gRPC status, in one HEADERS frame that ends the stream.
    ///
    /// The `content-type` is `text/plain`.
    ///
    /// # Panics
    ///
    /// Panics if the status is not from 100 to 999.
    pub fn http(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("the status has three digits");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        Self { head: Some((status, headers)), end: End::Stream, ..Self::nothing() }
    }

    /// Sends the headers of an answer, and ends the stream without a status if none is set.
    pub fn headers() -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        Self { head: Some((StatusCode::OK, headers)), end: End::Stream, ..Self::nothing() }
    }

    /// Sends headers and a message, and ends the stream without a status if none is set.
    pub fn message(text: &str) -> Self {
        Self::headers().and_message(text)
    }

    /// Sends headers and half of a message, and ends the stream if no other end is set.
    pub fn truncated_message(text: &str) -> Self {
        let mut reply = Self::message(text);
        reply.data.truncate(5 + (reply.data.len() - 5) / 2);
        reply
    }

    /// Sends headers, a message and the status OK.
    pub fn ok(text: &str) -> Self {
        Self::message(text).status(0)
    }

    /// Sends a gRPC status in one HEADERS frame that ends the stream. The status can be any text.
    ///
    /// # Panics
    ///
    /// Panics if the status has a character that is not allowed in a header.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass literals")]
    pub fn trailers_only(status: impl ToString) -> Self {
        Self::headers().header("grpc-status", status.to_string())
    }

    /// Adds a message.
    pub fn and_message(mut self, text: &str) -> Self {
        let message = Text { text: text.to_owned() }.encode_to_vec();
        self.data.put_u8(0);
        self.data.put_u32(message.len() as u32);
        self.data.put_slice(&message);
        self
    }

    /// Ends the stream with trailers that have this gRPC status. The status can be any text.
    ///
    /// # Panics
    ///
    /// Panics if the status has a character that is not allowed in a header.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass literals")]
    pub fn status(self, status: impl ToString) -> Self {
        Self { end: End::Trailers(HeaderMap::new()), ..self }.trailer("grpc-status", status.to_string())
    }

    /// Adds the trailer `grpc-message` unchanged. The caller percent-encodes it.
    ///
    /// # Panics
    ///
    /// See [`trailer`](Self::trailer).
    pub fn grpc_message(self, message: &str) -> Self {
        self.trailer("grpc-message", message)
    }

    /// Appends a header. Headers with the same name stay.
    ///
    /// # Panics
    ///
    /// Panics if the reply has no headers, or if the name or the value is invalid.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (_, headers) = self.head.as_mut().expect("this reply has headers");
        append(headers, name, value.as_ref());
        self
    }

    /// Appends a trailer, or a header to a reply that has only headers.
    ///
    /// # Panics
    ///
    /// Panics if the stream ends without trailers, or if the name or the value is invalid.
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        match &mut self.end {
            End::Trailers(trailers) => append(trailers, name, value.as_ref()),
            End::Stream if self.data.is_empty() => return self.header(name, value),
            other => panic!("{other:?} has no trailers"),
        }
        self
    }

    /// Appends a trailer with bytes in Base64, as [`trailer`](Self::trailer) does.
    ///
    /// # Panics
    ///
    /// See [`trailer`](Self::trailer).
    pub fn binary_trailer(self, name: &str, value: &[u8]) -> Self {
        self.trailer(name, STANDARD_NO_PAD.encode(value))
    }

    /// Ends with `RST_STREAM`, after everything else has been sent.
    pub fn rst_stream(self, reason: Reason) -> Self {
        Self { end: End::RstStream(reason), ..self }
    }

    /// Ends with a `GOAWAY` whose last stream is before this one: the server did not process this
    /// call.
    ///
    /// The connection stays open until the client closes it.
    pub fn go_away_below(self, reason: Reason) -> Self {
        Self { end: End::GoAwayBelow(reason), ..self }
    }

    /// Ends with a `GOAWAY` whose last stream is this one, and closes the connection: the server
    /// may have processed this call.
    pub fn go_away_at_once(self, reason: Reason) -> Self {
        Self { end: End::GoAwayAtOnce(reason), ..self }
    }

    /// Sends `GOAWAY` before the reply.
    pub fn go_away_gracefully(self) -> Self {
        Self { goes_away: true, ..self }
    }

    /// Ends the connection with a FIN, after everything else has been sent.
    pub fn close_connection(self) -> Self {
        Self { end: End::CloseConnection, ..self }
    }

    /// Ends the connection with a RST, after everything else has been sent.
    pub fn reset_connection(self) -> Self {
        Self { end: End::ResetConnection, ..self }
    }

    /// Keeps the stream open until the client resets it.
    pub fn hang(self) -> Self {
        Self { end: End::Stall, ..self }
    }

    /// Returns the bytes of the messages, as one frame.
    pub(super) fn frame(&self) -> Bytes {
        self.data.clone().freeze()
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    let name = HeaderName::from_bytes(name.as_bytes()).expect("the name is valid");
    headers.append(name, HeaderValue::from_bytes(value).expect("the value is valid"));
}
