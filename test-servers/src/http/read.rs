//! Reads requests from a connection, up to a maximum size.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::scripted::RecordedRequest;
use crate::tls::Stream;

const MAX_LINE: usize = 64 << 10;
const MAX_HEADERS: usize = 1000;
const MAX_BODY: usize = 64 << 20;
/// The maximum number of bytes that are discarded at the end of a connection.
const MAX_REST: usize = 1 << 20;

/// A connection, and the bytes that were read from it but not used yet.
pub(super) struct Reader {
    pub(super) stream: Stream,
    pub(super) connection: usize,
    ahead: BytesMut,
}

impl Reader {
    pub(super) fn new(stream: Stream, connection: usize) -> Self {
        Self { stream, connection, ahead: BytesMut::new() }
    }

    /// Returns the bytes that were read but not used yet.
    pub(super) fn take_ahead(&mut self) -> Bytes {
        self.ahead.split().freeze()
    }

    /// Waits for the first byte of a request. Returns false if the client ends the connection
    /// instead.
    pub(super) async fn begins(&mut self) -> bool {
        !self.ahead.is_empty() || self.more().await.is_ok()
    }

    /// Reads a request with its body.
    pub(super) async fn request(&mut self) -> io::Result<RecordedRequest> {
        let line = self.line().await?;
        let mut words = line.split(|byte| *byte == b' ');
        let method = words.next().and_then(|word| Method::from_bytes(word).ok()).ok_or_else(invalid)?;
        let path = words.next().map(|word| String::from_utf8_lossy(word).into_owned()).ok_or_else(invalid)?;
        let headers = self.headers().await?;
        let body = if headers.contains_key(TRANSFER_ENCODING) {
            self.chunks().await?
        } else {
            let length =
                headers.get(CONTENT_LENGTH).map_or(Some(0), |value| value.to_str().ok()?.parse().ok());
            self.exactly(length.ok_or_else(invalid)?).await?
        };
        Ok(RecordedRequest { connection: self.connection, method, path, headers, body })
    }

    async fn headers(&mut self) -> io::Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        for _ in 0..MAX_HEADERS {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(headers);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or_else(invalid)?;
            let name = HeaderName::from_bytes(&line[..colon]).map_err(io::Error::other)?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).map_err(io::Error::other)?;
            headers.append(name, value);
        }
        Err(invalid())
    }

    async fn chunks(&mut self) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let size = str::from_utf8(&line).ok().and_then(|line| line.split(';').next());
            let size =
                size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).ok_or_else(invalid)?;
            if size == 0 {
                // Trailers have the same form as headers.
                self.headers().await?;
                return Ok(body.freeze());
            }
            if size > MAX_BODY - body.len() {
                return Err(invalid());
            }
            body.extend(self.exactly(size).await?);
            self.line().await?;
        }
    }

    async fn line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|bytes| bytes == b"\r\n") {
                let line = self.ahead.split_to(end).freeze();
                self.ahead.advance(2);
                return Ok(line);
            }
            if self.ahead.len() > MAX_LINE {
                return Err(invalid());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Bytes> {
        if length > MAX_BODY {
            return Err(invalid());
        }
        while self.ahead.len() < length {
            self.more().await?;
        }
        Ok(self.ahead.split_to(length).freeze())
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.ahead).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Discards bytes until the client closes its side. A socket that is dropped with unread bytes
/// would send RST instead of FIN.
pub(crate) async fn drain(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 4096];
    let mut left = MAX_REST;
    while let Ok(count @ 1..) = stream.read(&mut rest).await {
        match left.checked_sub(count) {
            Some(less) => left = less,
            None => return,
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
