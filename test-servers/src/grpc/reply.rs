//! What the gRPC server does with a call.

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
/// A reply is: headers or none, messages or none, and an end.
///
/// | wanted | written |
/// |---|---|
/// | an answer | `Reply::ok("text")` |
/// | a failure before anything was sent | `Reply::trailers_only(14)` |
/// | a failure after headers, after a message | `Reply::headers().status(14)`, `Reply::message("text").status(14)` |
/// | pushback, details | `.trailer("grpc-retry-pushback-ms", "20")`, `.binary_trailer("grpc-status-details-bin", bytes)` |
/// | a status that is garbled | `Reply::trailers_only("abc")`, `Reply::trailers_only(14).trailer("grpc-status", "0")` |
/// | no status | `Reply::headers()`, `Reply::message("text")` |
/// | what stands between answers | `Reply::http(503).header("retry-after", "1")` |
/// | a message that is cut | `Reply::truncated_message("text")` and an end |
/// | `RST_STREAM` | `Reply::nothing().rst_stream(Reason::REFUSED_STREAM)`, `Reply::message("text").rst_stream(…)` |
/// | the server goes, and did not see this call | `Reply::nothing().go_away_below(Reason::NO_ERROR)` |
/// | the server goes, and answers this call first | `Reply::ok("text").go_away_gracefully()` |
/// | the server goes, and this call may have been seen | `Reply::nothing().go_away_at_once(Reason::INTERNAL_ERROR)` |
/// | the connection is gone | `Reply::nothing().close_connection()`, `.reset_connection()` |
/// | nothing ever | `Reply::nothing()`, `Reply::message("text").hang()` |
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) goes_away: bool,
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    pub(super) data: BytesMut,
    pub(super) end: End,
}

#[derive(Clone, Debug)]
pub(super) enum End {
    /// The stream ends, on the last frame that there is to send.
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
    /// Sends nothing, and waits for the client to give up, if no other end is set.
    pub fn nothing() -> Self {
        Self { goes_away: false, head: None, data: BytesMut::new(), end: End::Stall }
    }

    /// An HTTP status without a gRPC status, in one frame of headers that ends the stream. Its
    /// `content-type` is `text/plain`.
    ///
    /// # Panics
    ///
    /// If it is not from 100 to 999.
    pub fn http(status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status of three digits");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        Self { head: Some((status, headers)), end: End::Stream, ..Self::nothing() }
    }

    /// The headers of an answer, and the end of the stream: there is no status if none is set.
    pub fn headers() -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        Self { head: Some((StatusCode::OK, headers)), end: End::Stream, ..Self::nothing() }
    }

    /// Headers, a message, and the end of the stream: there is no status if none is set.
    pub fn message(text: &str) -> Self {
        Self::headers().and_message(text)
    }

    /// Headers, half of a message, and the end of the stream, if no other end is set.
    pub fn truncated_message(text: &str) -> Self {
        let mut reply = Self::message(text);
        reply.data.truncate(5 + (reply.data.len() - 5) / 2);
        reply
    }

    /// Headers, a message, and the status OK.
    pub fn ok(text: &str) -> Self {
        Self::message(text).status(0)
    }

    /// A gRPC status in one frame of headers that ends the stream. It can be a word.
    ///
    /// # Panics
    ///
    /// If it has characters that no header may have.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and words are written in place")]
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

    /// Ends the stream with trailers that have this gRPC status. It can be a word.
    ///
    /// # Panics
    ///
    /// If it has characters that no header may have.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and words are written in place")]
    pub fn status(self, status: impl ToString) -> Self {
        Self { end: End::Trailers(HeaderMap::new()), ..self }.trailer("grpc-status", status.to_string())
    }

    /// Adds the trailer `grpc-message`, which goes out as it is: percent-encoding is up to the
    /// test.
    ///
    /// # Panics
    ///
    /// See [`trailer`](Self::trailer).
    pub fn grpc_message(self, message: &str) -> Self {
        self.trailer("grpc-message", message)
    }

    /// Adds a header, after those that are there: also one of the same name.
    ///
    /// # Panics
    ///
    /// If there are no headers, or the name or the value cannot be one.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (_, headers) = self.head.as_mut().expect("this reply has headers");
        append(headers, name, value.as_ref());
        self
    }

    /// Adds a trailer, or a header to a reply that is nothing but headers.
    ///
    /// # Panics
    ///
    /// If the stream ends without trailers, or the name or the value cannot be one.
    pub fn trailer(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        match &mut self.end {
            End::Trailers(trailers) => append(trailers, name, value.as_ref()),
            End::Stream if self.data.is_empty() => return self.header(name, value),
            other => panic!("{other:?} has no trailers"),
        }
        self
    }

    /// Adds a trailer as [`trailer`](Self::trailer) does, of bytes in Base64.
    ///
    /// # Panics
    ///
    /// See [`trailer`](Self::trailer).
    pub fn binary_trailer(self, name: &str, value: &[u8]) -> Self {
        self.trailer(name, STANDARD_NO_PAD.encode(value))
    }

    /// Ends with `RST_STREAM`, after all before it has been sent.
    pub fn rst_stream(self, reason: Reason) -> Self {
        Self { end: End::RstStream(reason), ..self }
    }

    /// Ends with a `GOAWAY` whose last stream is before this one: the server says that it did
    /// nothing about this call. The connection stays open, for the client to close.
    pub fn go_away_below(self, reason: Reason) -> Self {
        Self { end: End::GoAwayBelow(reason), ..self }
    }

    /// Ends with a `GOAWAY` whose last stream is this one, and closes the connection: the server
    /// may have done what was asked.
    pub fn go_away_at_once(self, reason: Reason) -> Self {
        Self { end: End::GoAwayAtOnce(reason), ..self }
    }

    /// Says `GOAWAY` ahead of the reply, and then replies as it would have.
    pub fn go_away_gracefully(self) -> Self {
        Self { goes_away: true, ..self }
    }

    /// Ends with a FIN of the connection, after all before it has been sent.
    pub fn close_connection(self) -> Self {
        Self { end: End::CloseConnection, ..self }
    }

    /// Ends with a RST of the connection, after all before it has been sent.
    pub fn reset_connection(self) -> Self {
        Self { end: End::ResetConnection, ..self }
    }

    /// Does not end until the client resets the stream.
    pub fn hang(self) -> Self {
        Self { end: End::Stall, ..self }
    }

    /// The bytes of the messages, as one frame.
    pub(super) fn frame(&self) -> Bytes {
        self.data.clone().freeze()
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    let name = HeaderName::from_bytes(name.as_bytes()).expect("a name of a header");
    headers.append(name, HeaderValue::from_bytes(value).expect("a value of a header"));
}
