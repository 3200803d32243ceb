//! Finds errors, and the last event, in the event streams of LLM APIs.

use bytes::Bytes;
use http::HeaderMap;
use memchr::memmem::Finder;

use super::{LlmErrors, code};
use crate::body::sse::{SseParser, StreamEvent, is_event_stream};
use crate::body::tracked::DataInspector;
use crate::fault::{Fault, Retryable, Verdict};
use crate::table;

/// An inspector that finds errors, and the last event, in the event streams of LLM APIs.
///
/// | event | verdict |
/// |---|---|
/// | named `error` | an error |
/// | with any other name or none, whose data is JSON with an `error` or a `response.error` that is an object or a string, or with the `type` `error` | an error |
/// | with the data `[DONE]`, or named `message_stop`, `response.completed` or `response.incomplete` | a success: the answer is complete |
///
/// So a reader may stop at the last event, and drop the body before its end.
///
/// It inspects responses whose `content-type` is `text/event-stream`, unless they are compressed
/// (`content-encoding`). The boundaries of frames do not matter. It keeps at most 16 KiB of a line
/// and of an event's data.
///
/// The fault of such an event is that of its code in a table of [`LlmErrors`]. It is never retried,
/// because the response has begun. For an error in the first event of a stream, see
/// [`first_event_timeout`](crate::body::ErrorBodies::first_event_timeout).
#[derive(Clone, Debug, Default)]
pub struct LlmEvents {
    errors: LlmErrors,
    /// `None`: no event stream.
    stream: Option<Box<Stream>>,
}

#[derive(Clone, Debug)]
struct Stream {
    parser: SseParser,
    /// It is created once, because creating it takes longer than a search.
    error_key: Finder<'static>,
}

impl LlmEvents {
    /// Creates an inspector with the table of error codes.
    pub const fn new(errors: LlmErrors) -> Self {
        Self { errors, stream: None }
    }
}

impl DataInspector<Bytes> for LlmEvents {
    fn start(&self, headers: Option<&HeaderMap>) -> Self {
        if headers.is_some_and(is_event_stream) {
            let stream = Stream { parser: SseParser::default(), error_key: error_key() };
            Self { errors: self.errors.clone(), stream: Some(Box::new(stream)) }
        } else {
            Self::default()
        }
    }

    #[inline]
    fn inspect(&mut self, data: &Bytes) -> Option<Verdict> {
        let Stream { parser, error_key } = &mut **self.stream.as_mut()?;
        parser.feed(data, |event| late_verdict(event, error_key, &self.errors))
    }

    fn finish(&mut self) -> Option<Verdict> {
        let Stream { parser, error_key } = &mut **self.stream.as_mut()?;
        parser.finish(|event| late_verdict(event, error_key, &self.errors))
    }
}

/// Searches for the key that the data of an error has.
pub(super) fn error_key() -> Finder<'static> {
    Finder::new(b"\"error\"")
}

/// Returns the verdict on the last event, or on an error event. The stream has begun, so the call
/// is not sent again.
fn late_verdict(event: &StreamEvent<'_>, error_key: &Finder<'_>, errors: &LlmErrors) -> Option<Verdict> {
    if is_last(event) {
        return Some(Verdict::Success);
    }
    error_in(event, error_key, errors).map(|fault| fault.with_retryable(Retryable::Never).into())
}

/// Returns whether an answer is complete with this event: of OpenAI's chat completions, Anthropic's
/// messages, or OpenAI's responses.
fn is_last(event: &StreamEvent<'_>) -> bool {
    event.data.trim_ascii() == b"[DONE]"
        || matches!(event.name, b"message_stop" | b"response.completed" | b"response.incomplete")
}

/// Returns the fault of an error event, or `None` for another event.
pub(super) fn error_in(event: &StreamEvent<'_>, error_key: &Finder<'_>, errors: &LlmErrors) -> Option<Fault> {
    let named_error = event.name == b"error";
    if !named_error && error_key.find(event.data).is_none() {
        return None;
    }
    let found = code::read(event.data, errors);
    (named_error || found.error)
        .then(|| found.row().or_else(|| found.status_row()).unwrap_or(table::http::OTHER_5XX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind};
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    fn run<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Option<Verdict> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
        let mut events = DataInspector::<Bytes>::start(&LlmEvents::default(), Some(&headers));
        let verdict = chunks.into_iter().find_map(|chunk| events.inspect(&Bytes::copy_from_slice(chunk)));
        verdict.or_else(|| DataInspector::<Bytes>::finish(&mut events))
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
            ": event: error\n\ndata: 1\n\n",
            "id: error\nretry: 5\n\n",
            "",
        ] {
            assert_eq!(run([stream.as_bytes()]), None, "{stream:?}");
        }
    }

    #[test]
    fn sse_last_event_is_a_success() {
        let error = "event: error\ndata: gone\n\n";
        for last in [
            "data: [DONE]\n\n",
            "event: message_stop\ndata: {\"type\": \"message_stop\"}\n\n",
            "event: response.completed\ndata: {\"response\": {\"error\": null}}\n\n",
            "event: response.incomplete\ndata: {}\n\n",
        ] {
            assert_eq!(run([last.as_bytes()]), Some(Verdict::Success), "{last:?}");
            assert_eq!(run([[last, error].concat().as_bytes()]), Some(Verdict::Success), "{last:?}");
            assert_eq!(kind(&[error, last].concat()), Some(Kind::Server), "{last:?}");
        }
        assert_eq!(run(["data: \"[DONE]\"\n\n".as_bytes()]), None);
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
            if data == b"[DONE]" {
                return Some(Verdict::Success);
            }
            let found = code::read(&data, &LlmErrors::new());
            let may_be_error = name == b"error" || String::from_utf8_lossy(&data).contains("\"error\"");
            let row = found.row().or_else(|| found.status_row()).unwrap_or(table::http::OTHER_5XX);
            (may_be_error && (name == b"error" || found.error))
                .then(|| row.with_retryable(Retryable::Never).into())
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
