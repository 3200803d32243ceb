//! Parses event streams (WHATWG HTML §9.2, "Server-sent events").

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use memchr::memchr2;

/// The maximum number of bytes kept of one line, of one event's name, and of its data.
///
/// The beginning of a longer one is kept.
pub(super) const MAX_BUFFERED: usize = 16 * 1024;

/// An event of an event stream.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StreamEvent<'a> {
    /// The value of the field `event`; empty if the event has none.
    pub name: &'a [u8],
    /// The values of the fields `data`, joined by line feeds: at most their first 16 KiB.
    pub data: &'a [u8],
}

impl<'a> StreamEvent<'a> {
    /// Creates an event, to test a rule.
    pub const fn new(name: &'a [u8], data: &'a [u8]) -> Self {
        Self { name, data }
    }
}

/// Returns whether the `content-type` is that of an event stream, and the stream is not compressed.
///
/// No event can be found in compressed data. Clients that decompress a body remove its
/// `content-encoding`.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = media_type.split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream") && !is_compressed(headers)
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        let coding = value.as_bytes().trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    })
}

/// The state of the parser between two chunks.
#[derive(Clone, Debug)]
pub(super) struct SseParser {
    /// No line is complete yet: the first one may begin with a byte order mark.
    first_line: bool,
    /// The last byte was a CR: an LF that follows is part of the same line end.
    after_cr: bool,
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
}

impl Default for SseParser {
    fn default() -> Self {
        let (line, name, data) = Default::default();
        Self { first_line: true, after_cr: false, line, name, data }
    }
}

impl SseParser {
    /// Reads a chunk of the stream, and passes each complete event to `read`, until `read` returns
    /// a value.
    ///
    /// An event without name and data is skipped.
    pub(super) fn feed<T>(
        &mut self,
        mut chunk: &[u8],
        mut read: impl FnMut(&StreamEvent<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
        }
        while let Some(end) = memchr2(b'\n', b'\r', chunk) {
            let found = if self.line.is_empty() {
                self.finish_line(&chunk[..end], &mut read)
            } else {
                append_limited(&mut self.line, &chunk[..end]);
                let mut line = std::mem::take(&mut self.line);
                let found = self.finish_line(&line, &mut read);
                line.clear();
                self.line = line;
                found
            };
            if found.is_some() {
                return found;
            }
            let cr = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            if cr {
                self.after_cr = chunk.is_empty();
                chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
            }
        }
        append_limited(&mut self.line, chunk);
        None
    }

    /// Called at the end of the stream: an incomplete event counts as complete.
    pub(super) fn finish<T>(&mut self, mut read: impl FnMut(&StreamEvent<'_>) -> Option<T>) -> Option<T> {
        let line = std::mem::take(&mut self.line);
        self.finish_line(&line, &mut read).or_else(|| self.dispatch(&mut read))
    }

    fn finish_line<T>(
        &mut self,
        mut line: &[u8],
        read: &mut impl FnMut(&StreamEvent<'_>) -> Option<T>,
    ) -> Option<T> {
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(read);
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => {
                self.name.clear();
                append_limited(&mut self.name, value);
            }
            b"data" => {
                if !self.data.is_empty() {
                    append_limited(&mut self.data, b"\n");
                }
                append_limited(&mut self.data, value);
            }
            _ => {}
        }
        None
    }

    /// Called when the event is complete; clears it for the next event.
    fn dispatch<T>(&mut self, read: &mut impl FnMut(&StreamEvent<'_>) -> Option<T>) -> Option<T> {
        if self.name.is_empty() && self.data.is_empty() {
            return None;
        }
        let found = read(&StreamEvent::new(&self.name, &self.data));
        self.name.clear();
        self.data.clear();
        found
    }
}

/// Appends as many bytes as the limit allows.
fn append_limited(kept: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_BUFFERED.saturating_sub(kept.len()).min(more.len());
    kept.extend_from_slice(&more[..room]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sse_endless_line_is_kept_up_to_limit() {
        let mut stream = SseParser::default();
        let mut feed = |chunk: &[u8]| {
            let data = stream.feed(chunk, |event| Some(event.data.to_vec()));
            assert!(stream.line.capacity() <= 2 * MAX_BUFFERED);
            data
        };
        assert_eq!(feed(b"data: begin"), None);
        for _ in 0..10_000 {
            assert_eq!(feed(&[b'a'; 1000]), None);
        }
        let data = feed(b"\n\n").unwrap();
        assert!(data.starts_with(b"begin") && data.len() < MAX_BUFFERED);
    }

    #[test]
    fn sse_endless_data_is_kept_up_to_limit() {
        let mut stream = SseParser::default();
        for _ in 0..100_000 {
            assert_eq!(stream.feed(b"data: 0123456789\n", |_| Some(())), None);
        }
        assert!(stream.data.capacity() <= 2 * MAX_BUFFERED);
    }
}
