//! Finds errors in an event stream (WHATWG HTML §9.2, "Server-sent events").

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memchr2;
use memchr::memmem::Finder;

use super::{LlmErrors, code};
use crate::body::tracked::DataInspector;
use crate::fault::{Retryable, Verdict};
use crate::table;

/// The maximum number of bytes kept of one line, and of one event's data.
///
/// The beginning of a longer one is read, because it contains the error code.
const MAX_BUFFERED: usize = 16 * 1024;

/// An inspector that finds errors in the event streams of LLM APIs.
///
/// | event | counts as an error |
/// |---|---|
/// | named `error` | always |
/// | any other name or none | if its data is JSON with an `error` or a `response.error` that is an object or a string, or with the `type` `error` |
///
/// It inspects responses whose `content-type` is `text/event-stream`. The boundaries of frames do
/// not matter. It keeps at most 16 KiB of a line and of an event's data.
///
/// The fault of such an event is that of its code in a table of [`LlmErrors`]. It is never retried,
/// because the response has begun.
#[derive(Clone, Debug, Default)]
pub struct LlmEvents {
    errors: LlmErrors,
    /// `None`: no event stream.
    stream: Option<Box<SseParser>>,
}

impl LlmEvents {
    /// Creates an inspector with the table of error codes.
    pub const fn new(errors: LlmErrors) -> Self {
        Self { errors, stream: None }
    }
}

impl DataInspector<Bytes> for LlmEvents {
    fn start(&self, headers: Option<&HeaderMap>) -> Self {
        let content_type = headers.and_then(|headers| headers.get(CONTENT_TYPE));
        let media_type = content_type.map_or(&b""[..], |value| value.as_bytes());
        let essence = media_type.split(|&byte| byte == b';').next().unwrap_or_default();
        if essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream") {
            Self { errors: self.errors.clone(), stream: Some(Box::default()) }
        } else {
            Self::default()
        }
    }

    #[inline]
    fn inspect(&mut self, data: &Bytes) -> Option<Verdict> {
        self.stream.as_mut()?.feed(data, &self.errors)
    }

    fn finish(&mut self) -> Option<Verdict> {
        self.stream.as_mut()?.finish(&self.errors)
    }
}

/// The state of the parser between two chunks.
#[derive(Clone, Debug)]
struct SseParser {
    /// No line is complete yet: the first one may begin with a byte order mark.
    first_line: bool,
    /// The last byte was a CR: an LF that follows is part of the same line end.
    after_cr: bool,
    /// The beginning of an incomplete line.
    line: Vec<u8>,
    event: Event,
    /// Searches for the key of an error.
    ///
    /// It is created once, because creating it takes longer than a search.
    error_key: Finder<'static>,
}

/// The event that is being read.
#[derive(Clone, Debug, Default)]
struct Event {
    named_error: bool,
    /// The beginning of the event's data.
    data: Vec<u8>,
}

impl Default for SseParser {
    fn default() -> Self {
        let (line, event) = Default::default();
        Self { first_line: true, after_cr: false, line, event, error_key: Finder::new(b"\"error\"") }
    }
}

impl SseParser {
    fn feed(&mut self, mut chunk: &[u8], errors: &LlmErrors) -> Option<Verdict> {
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
        }
        while let Some(end) = memchr2(b'\n', b'\r', chunk) {
            let verdict = if self.line.is_empty() {
                self.finish_line(&chunk[..end], errors)
            } else {
                append_limited(&mut self.line, &chunk[..end]);
                let mut line = std::mem::take(&mut self.line);
                let verdict = self.finish_line(&line, errors);
                line.clear();
                self.line = line;
                verdict
            };
            if verdict.is_some() {
                return verdict;
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
    fn finish(&mut self, errors: &LlmErrors) -> Option<Verdict> {
        let line = std::mem::take(&mut self.line);
        self.finish_line(&line, errors).or_else(|| self.event.dispatch(&self.error_key, errors))
    }

    fn finish_line(&mut self, mut line: &[u8], errors: &LlmErrors) -> Option<Verdict> {
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            return self.event.dispatch(&self.error_key, errors);
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => self.event.named_error = value == b"error",
            b"data" => {
                if !self.event.data.is_empty() {
                    append_limited(&mut self.event.data, b"\n");
                }
                append_limited(&mut self.event.data, value);
            }
            _ => {}
        }
        None
    }
}

impl Event {
    /// Called when the event is complete; clears it for the next event.
    fn dispatch(&mut self, error_key: &Finder<'_>, errors: &LlmErrors) -> Option<Verdict> {
        let named_error = std::mem::take(&mut self.named_error);
        let verdict = if named_error || error_key.find(&self.data).is_some() {
            let found = code::read(&self.data, errors);
            (named_error || found.error).then(|| stream_verdict(&found))
        } else {
            None
        };
        self.data.clear();
        verdict
    }
}

/// Appends as many bytes as the limit allows.
fn append_limited(kept: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_BUFFERED.saturating_sub(kept.len()).min(more.len());
    kept.extend_from_slice(&more[..room]);
}

/// Returns the verdict on an error event. The stream has begun, so the call is not sent again.
fn stream_verdict(found: &code::ParsedError) -> Verdict {
    let fault = found.row().or_else(|| found.status_row()).unwrap_or(table::http::OTHER_5XX);
    fault.with_retryable(Retryable::Never).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Option<Verdict> {
        let mut stream = SseParser::default();
        chunks
            .into_iter()
            .find_map(|chunk| stream.feed(chunk, &LlmErrors::new()))
            .or_else(|| stream.finish(&LlmErrors::new()))
    }

    fn kind(stream: &str) -> Option<Kind> {
        run([stream.as_bytes()]).map(|verdict| verdict.fault().unwrap().kind())
    }

    const OVERLOADED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";

    #[test]
    fn sse_event_named_error_is_an_error() {
        let verdict = run([OVERLOADED.as_bytes()]).unwrap();
        let fault = verdict.fault().unwrap();
        assert_eq!(
            (fault.kind(), fault.retryable(), fault.health()),
            (Kind::Overloaded, Retryable::Never, Health::Unhealthy)
        );
        assert_eq!(
            kind("data: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}\nevent: error\n\n"),
            Some(Kind::Server)
        );
        assert_eq!(kind("event:error\ndata:?\n\n"), Some(Kind::Server), "its data is not JSON");
        assert_eq!(kind("event: error\n\n"), Some(Kind::Server), "it has no data");
    }

    #[test]
    fn sse_data_with_error_object_is_an_error() {
        assert_eq!(
            kind("data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\"}}\n\n"),
            Some(Kind::Server)
        );
        assert_eq!(kind("data: {\"error\":{\"code\":429}}\n\n"), Some(Kind::Throttled));
        let failed =
            "event: response.failed\ndata: {\"response\":{\"error\":{\"code\":\"rate_limit_exceeded\"}}}\n\n";
        assert_eq!(kind(failed), Some(Kind::Throttled));
    }

    #[test]
    fn sse_data_mentioning_errors_is_no_error() {
        for stream in [
            "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\": {}\"}}]}\n\n",
            "event: response.created\ndata: {\"response\":{\"error\":null}}\n\n",
            "event: errors\ndata: {}\n\n",
            "event: error\nevent: ping\ndata: {}\n\n",
            ": event: error\n\ndata: [DONE]\n\n",
            "id: error\nretry: 5\n\n",
            "",
        ] {
            assert_eq!(run([stream.as_bytes()]), None, "{stream:?}");
        }
    }

    #[test]
    fn sse_all_line_ends_and_byte_order_mark_are_accepted() {
        for end in ["\n", "\r\n", "\r"] {
            let stream =
                format!("\u{feff}event: error{end}data: {{\"error\":{{\"type\":\"api_error\"}}}}{end}{end}");
            assert_eq!(kind(&stream), Some(Kind::Server), "{end:?}");
            let two = format!("data: 1{end}{end}event: error{end}{end}");
            assert_eq!(kind(&two), Some(Kind::Server), "{end:?}");
        }
    }

    #[test]
    fn sse_data_lines_are_joined() {
        assert_eq!(
            kind("data: {\"error\":\ndata: {\"code\":\ndata: \"invalid_api_key\"}}\n\n"),
            Some(Kind::Auth)
        );
    }

    #[test]
    fn sse_event_truncated_by_end_of_body_counts() {
        assert_eq!(
            kind("event: error\ndata: {\"error\":{\"type\":\"overloaded_error\"}}"),
            Some(Kind::Overloaded)
        );
        assert_eq!(
            kind("event: error\ndata: {\"error\":{\"type\":\"overloaded_error\",\"me"),
            Some(Kind::Overloaded)
        );
    }

    #[test]
    fn sse_endless_line_is_kept_up_to_limit() {
        let mut stream = SseParser::default();
        assert_eq!(
            stream.feed(b"data: {\"error\":{\"type\":\"api_error\",\"message\":\"", &LlmErrors::new()),
            None
        );
        for _ in 0..10_000 {
            assert_eq!(stream.feed(&[b'a'; 1000], &LlmErrors::new()), None);
        }
        assert!(stream.line.capacity() <= 2 * MAX_BUFFERED);
        let verdict = stream.feed(b"\"}}\n\n", &LlmErrors::new()).unwrap();
        assert_eq!(verdict.fault().unwrap().kind(), Kind::Server);
    }

    #[test]
    fn sse_endless_data_is_kept_up_to_limit() {
        let mut stream = SseParser::default();
        for _ in 0..100_000 {
            assert_eq!(stream.feed(b"data: 0123456789\n", &LlmErrors::new()), None);
        }
        assert!(stream.event.data.capacity() <= 2 * MAX_BUFFERED);
    }

    /// A naive parser that follows the specification literally, over the whole stream at once.
    fn events_of(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
        let text: Vec<u8> = {
            let mut text = Vec::new();
            let mut bytes = stream.iter().copied().peekable();
            while let Some(byte) = bytes.next() {
                if byte == b'\r' {
                    bytes.next_if_eq(&b'\n');
                    text.push(b'\n');
                } else {
                    text.push(byte);
                }
            }
            text
        };
        let (mut events, mut name, mut data) = (Vec::new(), Vec::new(), Vec::new());
        // An event that the end of the stream truncates counts as a whole event.
        for line in text.split(|&byte| byte == b'\n').chain([&b""[..]]) {
            if line.is_empty() {
                events.push((std::mem::take(&mut name), std::mem::take(&mut data)));
                continue;
            }
            let mut parts = line.splitn(2, |&byte| byte == b':');
            let field = parts.next().unwrap();
            let value = parts.next().unwrap_or_default();
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match field {
                b"event" => name = value.to_vec(),
                b"data" => {
                    if !data.is_empty() {
                        data.push(b'\n');
                    }
                    data.extend(value);
                }
                _ => {}
            }
        }
        events
    }

    fn naive_verdict(stream: &[u8]) -> Option<Verdict> {
        events_of(stream).into_iter().find_map(|(name, data)| {
            let found = code::read(&data, &LlmErrors::new());
            let may_be_error = name == b"error" || String::from_utf8_lossy(&data).contains("\"error\"");
            (may_be_error && (name == b"error" || found.error)).then(|| stream_verdict(&found))
        })
    }

    proptest! {
        #[test]
        fn sse_chunk_boundaries_do_not_change_verdict(
            pieces in vec(select(vec![
                "event", "data", "error", ":", " ", "\n", "\r", "\r\n", "\n\n", "\u{feff}", "id: 1\n", ": comment\n",
                "event: error\n", "event: ping\n", "data: {\"error\":{\"code\":\"server_error\"}}\n",
                "data: {\"error\":\n", "data: {\"type\":\"overloaded_error\"}}\n", "data: [DONE]\n\n", "é",
            ]), 0..24),
            cuts in vec(any::<Index>(), 0..12),
        ) {
            let stream = pieces.concat().into_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
            prop_assert_eq!(run(chunks), naive_verdict(&stream));
        }
    }
}
