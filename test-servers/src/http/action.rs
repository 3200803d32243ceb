//! What the HTTP/1.1 server does with a request.

use std::time::Duration;

use http::StatusCode;

/// What [`Http`](super::Http) does with one request, or with the connection in place of one.
///
/// An act is taken from the script when the first byte of a request comes, but those that end a
/// connection on accept are taken at once by a connection that opens while they are next.
///
/// | wanted | written |
/// |---|---|
/// | any answer | `Action::status(429).header("retry-after", "1").header("retry-after", "soon").body("…")` |
/// | a header that is not ASCII, or too large | `.header("x-name", b"\xff")`, `.header("x-large", "a".repeat(1 << 20))` |
/// | another answer before it | `.after_informational(103)` |
/// | a length that is shorter than the body | `.body("0123456789").content_length(4)` |
/// | a body that is cut | `.body("0123").content_length(10).then_close()`, `.body("0123").chunked_without_end().then_close()` |
/// | a body that stops coming | `.body("0123").content_length(10)` |
/// | a body that ends with the connection | `.body("0123").without_length().then_close()` |
/// | one byte at a time | `.drip(every)`, `.drip_body(every)` |
/// | the connection is gone after the answer | `.then_close()`, `.then_reset()`, `.then_half_close()` |
/// | anything else | `Action::raw(bytes)`, `Action::garbage()` |
#[derive(Clone, Debug)]
pub enum Action {
    /// Ends the connection with a RST as soon as it is accepted.
    ResetOnAccept,
    /// Ends the connection with a FIN as soon as it is accepted.
    CloseOnAccept,
    /// Leaves a request unread that has begun to come, and ends the connection with a RST. The
    /// request is not counted.
    ResetBeforeRequest,
    /// Reads the request, and ends the connection with a RST.
    ResetAfterRequest,
    /// Reads the request, and ends the connection with a FIN.
    CloseAfterRequest,
    /// Reads the request, and does nothing more until the client ends the connection.
    Hang,
    /// Reads the request, and answers 200 with its path, a line feed, and its body.
    Echo,
    /// Reads the request, and answers. Made by [`status`](Self::status) and [`raw`](Self::raw).
    Respond(Response),
}

/// The bytes of an answer, and what comes after them.
#[derive(Clone, Debug)]
pub struct Response {
    informational: Vec<u16>,
    head: Head,
    body: Vec<u8>,
    framing: Framing,
    pub(super) pace: Pace,
    pub(super) end: End,
}

#[derive(Clone, Debug)]
enum Head {
    /// Nothing: the body is all.
    Raw,
    Status(u16, Vec<(String, Vec<u8>)>),
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(Option<usize>),
    Chunked { ended: bool },
    None,
}

/// Which bytes of an answer go out one by one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    AtOnce,
    Drip(Duration),
    DripBody(Duration),
}

/// What happens to a connection after an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    KeepAlive,
    Stall,
    Close,
    Reset,
    HalfClose,
}

impl Action {
    /// Answers with a status, no headers but `content-length`, and no body, and keeps the
    /// connection. The status can be any number.
    pub fn status(status: u16) -> Self {
        Self::Respond(Response {
            informational: Vec::new(),
            head: Head::Status(status, Vec::new()),
            body: Vec::new(),
            framing: Framing::Length(None),
            pace: Pace::AtOnce,
            end: End::KeepAlive,
        })
    }

    /// Answers with these bytes, and closes the connection with a FIN.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        let mut action = Self::status(0);
        let response = action.response();
        (response.head, response.body) = (Head::Raw, bytes.into());
        (response.framing, response.end) = (Framing::None, End::Close);
        action
    }

    /// Answers with a status line that is none, and closes the connection with a FIN.
    pub fn garbage() -> Self {
        Self::raw("BLAH/7 two hundred\r\n\r\n")
    }

    /// Adds a header, after those that are there: also one of the same name. Value and name go out
    /// as they are.
    ///
    /// # Panics
    ///
    /// If this is not made by [`status`](Self::status).
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        match &mut self.response().head {
            Head::Status(_, headers) => headers.push((name.into(), value.into())),
            Head::Raw => panic!("raw bytes have no headers"),
        }
        self
    }

    /// Sets the body.
    ///
    /// # Panics
    ///
    /// As all that follow, if this is not a [`Respond`](Self::Respond).
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.response().body = body.into();
        self
    }

    /// Says a `content-length` that need not be the body's.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn content_length(mut self, length: usize) -> Self {
        self.response().framing = Framing::Length(Some(length));
        self
    }

    /// Sends the body as one chunk.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn chunked(mut self) -> Self {
        self.response().framing = Framing::Chunked { ended: true };
        self
    }

    /// Sends the body as one chunk, and not the chunk that ends it.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn chunked_without_end(mut self) -> Self {
        self.response().framing = Framing::Chunked { ended: false };
        self
    }

    /// Says no length of the body.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn without_length(mut self) -> Self {
        self.response().framing = Framing::None;
        self
    }

    /// Sends an answer of this status (100, 103) ahead of this one.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn after_informational(mut self, status: u16) -> Self {
        self.response().informational.push(status);
        self
    }

    /// Sends one byte, waits, sends the next.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn drip(mut self, every: Duration) -> Self {
        self.response().pace = Pace::Drip(every);
        self
    }

    /// Sends all but the body at once, then one byte of the body, waits, sends the next.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn drip_body(mut self, every: Duration) -> Self {
        self.response().pace = Pace::DripBody(every);
        self
    }

    /// Closes the connection with a FIN after the answer, which does not announce it.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn then_close(mut self) -> Self {
        self.response().end = End::Close;
        self
    }

    /// Ends the connection with a RST after the answer. A client that is slow to read may lose what
    /// it has not read yet.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn then_reset(mut self) -> Self {
        self.response().end = End::Reset;
        self
    }

    /// Sends a FIN after the answer, and still reads and counts requests, without an answer and
    /// without taking from the script.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn then_half_close(mut self) -> Self {
        self.response().end = End::HalfClose;
        self
    }

    pub(super) fn is_on_accept(&self) -> bool {
        matches!(self, Self::ResetOnAccept | Self::CloseOnAccept)
    }

    fn response(&mut self) -> &mut Response {
        match self {
            Self::Respond(response) => response,
            other => panic!("{other:?} sends no response"),
        }
    }
}

impl Response {
    /// What goes out ahead of the body: informational answers, status line, headers.
    pub(super) fn head_bytes(&self) -> Vec<u8> {
        let Head::Status(status, headers) = &self.head else { return Vec::new() };
        let mut bytes = Vec::new();
        for status in &self.informational {
            bytes.extend(status_line(*status).into_bytes());
            bytes.extend(b"\r\n");
        }
        bytes.extend(status_line(*status).into_bytes());
        for (name, value) in headers {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        match self.framing {
            Framing::Length(None) if matches!(status, 204 | 304) => {}
            Framing::Length(said) => {
                let length = said.unwrap_or(self.body.len());
                bytes.extend(format!("content-length: {length}\r\n").into_bytes());
            }
            Framing::Chunked { .. } => bytes.extend(b"transfer-encoding: chunked\r\n"),
            Framing::None => {}
        }
        bytes.extend(b"\r\n");
        bytes
    }

    /// The body as it goes out, to a request that is not for the head alone.
    pub(super) fn body_bytes(&self) -> Vec<u8> {
        let Framing::Chunked { ended } = self.framing else { return self.body.clone() };
        let mut bytes = format!("{:x}\r\n", self.body.len()).into_bytes();
        bytes.extend(&self.body);
        bytes.extend(b"\r\n");
        if ended {
            bytes.extend(b"0\r\n\r\n");
        }
        bytes
    }
}

fn status_line(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or("Unknown"))
}
