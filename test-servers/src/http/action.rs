//! The actions of the HTTP/1.1 server.

use std::time::Duration;

use http::StatusCode;

/// What [`Http`](super::Http) does with one request, or with a connection before its request.
///
/// An action is taken from the script when the first byte of a request arrives. An action that ends
/// a connection on accept is taken by the next connection immediately, if it is the next step.
///
/// | wanted | code |
/// |---|---|
/// | any answer | `Action::status(429).header("retry-after", "1").header("retry-after", "soon").body("…")` |
/// | a header that is not ASCII, or too large | `.header("x-name", b"\xff")`, `.header("x-large", "a".repeat(1 << 20))` |
/// | an informational response first | `.after_informational(103)` |
/// | a length below that of the body | `.body("0123456789").content_length(4)` |
/// | a truncated body | `.body("0123").content_length(10).then_close()`, `.body("0123").chunked_without_end().then_close()` |
/// | a body that stalls | `.body("0123").content_length(10)` |
/// | a body that ends with the connection | `.body("0123").without_length().then_close()` |
/// | a late answer | `.delay(delay)` |
/// | one byte at a time | `.drip(every)`, `.drip_body(every)` |
/// | the connection ends after the answer | `.then_close()`, `.then_reset()`, `.then_half_close()` |
/// | a proxy's tunnel, also one that ends early | `Action::tunnel()`, `Action::Tunnel { limit: 0 }` |
/// | anything else | `Action::raw(bytes)`, `Action::garbage()` |
#[derive(Clone, Debug)]
pub enum Action {
    /// Ends the connection with a RST as soon as it is accepted.
    ResetOnAccept,
    /// Ends the connection with a FIN as soon as it is accepted.
    CloseOnAccept,
    /// Ends the connection with a RST when a request begins, without reading it. The request is not
    /// recorded.
    ResetBeforeRequest,
    /// Reads the request, and ends the connection with a RST.
    ResetAfterRequest,
    /// Reads the request, and ends the connection with a FIN.
    CloseAfterRequest,
    /// Reads the request, and then does nothing until the client ends the connection.
    Hang,
    /// Reads the request, and answers 200 with its path, a line feed, and its body.
    Echo,
    /// Reads a `CONNECT` request, connects to its target, and answers 200. Then forwards bytes in
    /// both directions until one side closes. Answers 502 if it cannot connect.
    Tunnel {
        /// The number of bytes that the client can send through the tunnel. After them the tunnel
        /// ends with a FIN to the client.
        limit: u64,
    },
    /// Reads the request, and answers. See [`status`](Self::status) and [`raw`](Self::raw).
    Respond(Response),
}

/// The bytes of an answer, and what happens after them.
#[derive(Clone, Debug)]
pub struct Response {
    informational: Vec<u16>,
    head: Head,
    body: Vec<u8>,
    framing: Framing,
    pub(super) delay: Duration,
    pub(super) pace: Pace,
    pub(super) end: End,
}

#[derive(Clone, Debug)]
enum Head {
    /// No head: the body has all bytes.
    Raw,
    Status(u16, Vec<(String, Vec<u8>)>),
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(Option<usize>),
    Chunked { ended: bool },
    None,
}

/// Which bytes of an answer are sent one by one.
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
    /// Answers with a status, the header `content-length` and no body, and keeps the connection.
    ///
    /// The status can be any number.
    pub fn status(status: u16) -> Self {
        Self::Respond(Response {
            informational: Vec::new(),
            head: Head::Status(status, Vec::new()),
            body: Vec::new(),
            framing: Framing::Length(None),
            delay: Duration::ZERO,
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

    /// Answers with an invalid status line, and closes the connection with a FIN.
    pub fn garbage() -> Self {
        Self::raw("BLAH/7 two hundred\r\n\r\n")
    }

    /// Opens a tunnel without a limit. See [`Tunnel`](Self::Tunnel).
    pub fn tunnel() -> Self {
        Self::Tunnel { limit: u64::MAX }
    }

    /// Appends a header without checking name or value. Headers with the same name stay.
    ///
    /// # Panics
    ///
    /// Panics if the action was not created by [`status`](Self::status).
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
    /// Panics if the action is not a [`Respond`](Self::Respond).
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.response().body = body.into();
        self
    }

    /// Sets `content-length`, which may differ from the length of the body.
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

    /// Sends the body as one chunk, without the chunk that ends it.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn chunked_without_end(mut self) -> Self {
        self.response().framing = Framing::Chunked { ended: false };
        self
    }

    /// Sends the body without a length.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn without_length(mut self) -> Self {
        self.response().framing = Framing::None;
        self
    }

    /// Sends an informational response (100, 103) before this answer.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn after_informational(mut self, status: u16) -> Self {
        self.response().informational.push(status);
        self
    }

    /// Waits between the request and the answer.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn delay(mut self, delay: Duration) -> Self {
        self.response().delay = delay;
        self
    }

    /// Sends the answer byte by byte, with a pause between two bytes.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn drip(mut self, every: Duration) -> Self {
        self.response().pace = Pace::Drip(every);
        self
    }

    /// Sends the head immediately, and the body byte by byte, with a pause between two bytes.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn drip_body(mut self, every: Duration) -> Self {
        self.response().pace = Pace::DripBody(every);
        self
    }

    /// Closes the connection with a FIN after the answer, without a `connection: close` header.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn then_close(mut self) -> Self {
        self.response().end = End::Close;
        self
    }

    /// Ends the connection with a RST after the answer.
    ///
    /// A slow client may lose the part that it has not read yet.
    ///
    /// # Panics
    ///
    /// See [`body`](Self::body).
    pub fn then_reset(mut self) -> Self {
        self.response().end = End::Reset;
        self
    }

    /// Sends a FIN after the answer, but still reads and records requests.
    ///
    /// Those requests get no answer and take no step of the script.
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
    /// Returns the bytes before the body: informational responses, status line, headers.
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
            Framing::Length(given) => {
                let length = given.unwrap_or(self.body.len());
                bytes.extend(format!("content-length: {length}\r\n").into_bytes());
            }
            Framing::Chunked { .. } => bytes.extend(b"transfer-encoding: chunked\r\n"),
            Framing::None => {}
        }
        bytes.extend(b"\r\n");
        bytes
    }

    /// Returns the bytes of the body with its framing, for a request that is not HEAD.
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
