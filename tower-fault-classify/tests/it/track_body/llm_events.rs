//! Errors in the event streams of LLM APIs, in any chunks.

use allocation_counter::measure;
use bytes::Bytes;
use http_body::Body;
use proptest::prelude::*;
use tower_fault_classify::body::LlmErrors;
use tower_fault_classify::{FaultClassifyLayer, Health, Kind, Retryable};

use super::{Log, Row, of_type, read_all, row};
use crate::support::bodies::{BodyHints, Script, Seen, Step, data, drip, frame, poll, through};
use crate::support::call::now;

const STREAM: &str = "text/event-stream";

/// The expected row of each code.
const CODES: [(&str, Row); 12] = [
    ("insufficient_quota", Some((Kind::Quota, Health::Neutral))),
    ("billing_hard_limit_reached", Some((Kind::Quota, Health::Neutral))),
    ("context_length_exceeded", Some((Kind::Client, Health::Healthy))),
    ("invalid_request_error", Some((Kind::Client, Health::Healthy))),
    ("rate_limit_exceeded", Some((Kind::Throttled, Health::Neutral))),
    ("rate_limit_error", Some((Kind::Throttled, Health::Neutral))),
    ("overloaded_error", Some((Kind::Overloaded, Health::Unhealthy))),
    ("invalid_api_key", Some((Kind::Auth, Health::Healthy))),
    ("authentication_error", Some((Kind::Auth, Health::Healthy))),
    ("permission_error", Some((Kind::Auth, Health::Healthy))),
    ("api_error", Some((Kind::Server, Health::Unhealthy))),
    ("server_error", Some((Kind::Server, Health::Unhealthy))),
];

fn anthropic(code: &str) -> String {
    let inner = format!(r#"{{"type": "error", "error": {{"type": "{code}", "message": "é \n\n"}}}}"#);
    format!("event: error\ndata: {inner}\n\n")
}

fn openai(code: &str) -> String {
    format!(
        "data: {{\"error\": {{\"message\": \"é\", \"type\": \"server_error\", \"code\": \"{code}\"}}}}\n\n"
    )
}

const BEGINNING: &str =
    ": hello\n\nevent: content_block_delta\ndata: {\"delta\": {\"text\": \"event: error\"}}\n\n";
const END: &str = "event: message_stop\ndata: {\"type\": \"message_stop\"}\n\ndata: [DONE]\n\n";

/// Returns an inspected stream and the log of its hook.
fn inspected(content: &str, steps: Vec<Step>) -> (impl StreamBody, Log) {
    let log = Log::default();
    let layer = FaultClassifyLayer::new().track_body(log.clone()).inspect_llm_events(LlmErrors::new());
    (now(through(&layer, of_type(content, Script::new(steps)))).into_body(), log)
}

trait StreamBody: Body<Data = Bytes, Error = std::io::Error> + Unpin {}
impl<B: Body<Data = Bytes, Error = std::io::Error> + Unpin> StreamBody for B {}

/// Returns the row that the hook gets for a whole stream.
fn reported_row(stream: &str) -> Row {
    let (body, log) = inspected(STREAM, vec![frame(stream.to_owned())]);
    read_all(body);
    assert!(
        log.only().fault().is_none_or(|fault| fault.retryable() == Retryable::Never),
        "the stream has begun"
    );
    row(log.only())
}

#[test]
fn llm_events_code_has_its_row_and_is_never_retried() {
    for (code, expected) in CODES {
        assert_eq!(reported_row(&anthropic(code)), expected, "{code}");
        assert_eq!(reported_row(&openai(code)), expected, "{code}");
        assert_eq!(reported_row(&[BEGINNING, &anthropic(code), END].concat()), expected, "{code}");
    }
}

#[test]
fn llm_events_changed_rows_apply() {
    let errors = LlmErrors::new()
        .code("server_error", LlmErrors::row("insufficient_quota"))
        .code("model_loading", LlmErrors::row("overloaded_error"));
    for (code, expected) in [
        ("server_error", Some((Kind::Quota, Health::Neutral))),
        ("model_loading", Some((Kind::Overloaded, Health::Unhealthy))),
        ("invalid_api_key", Some((Kind::Auth, Health::Healthy))),
    ] {
        for stream in [anthropic(code), openai(code)] {
            let log = Log::default();
            let layer = FaultClassifyLayer::new().track_body(log.clone()).inspect_llm_events(errors.clone());
            let response = of_type(STREAM, Script::new(drip(stream.as_bytes())));
            read_all(now(through(&layer, response)).into_body());
            assert_eq!(row(log.only()), expected, "{stream}");
            assert_eq!(log.only().fault().unwrap().retryable(), Retryable::Never);
        }
    }
}

#[test]
fn llm_events_error_with_unknown_code_is_a_fault() {
    for stream in [anthropic("new_error"), "event: error\ndata: gone\n\n".to_owned(), openai("new_code")] {
        assert!(reported_row(&stream).is_some(), "{stream}");
    }
}

#[test]
fn llm_events_mentioning_errors_is_a_success() {
    for stream in [
        [BEGINNING, END].concat(),
        "data: {\"choices\": [{\"text\": \"{\\\"error\\\": {\\\"code\\\": \\\"insufficient_quota\\\"}}\"}]}\n\n".to_owned(),
        "event: errors\ndata: {\"a\": \"overloaded_error\"}\n\n".to_owned(),
        "data: {\"error\": null}\n\n".to_owned(),
        ": event: error\n\n: data: {\"error\": {\"code\": \"server_error\"}}\n\n".to_owned(),
    ] {
        assert_eq!(reported_row(&stream), None, "{stream}");
    }
}

#[test]
fn llm_events_error_reported_once_at_last_byte() {
    let first = [BEGINNING, &anthropic("overloaded_error")].concat();
    let rest = [&*anthropic("insufficient_quota"), END].concat();
    let (mut body, log) = inspected(STREAM, drip([&*first, &rest].concat().as_bytes()));
    for _ in 1..first.len() {
        poll(&mut body);
        assert_eq!(log.count(), 0);
    }
    poll(&mut body);
    assert_eq!(row(log.only()), Some((Kind::Overloaded, Health::Unhealthy)));
    read_all(body);
    assert_eq!(log.count(), 1, "neither the second error nor the end is reported");
}

#[test]
fn llm_events_body_dropped_after_last_event_is_a_success() {
    for end in ["data: [DONE]\n\n", "event: message_stop\ndata: {}\n\n"] {
        let text = [BEGINNING, end].concat();
        let (mut body, log) = inspected(STREAM, vec![frame(text.clone()), Step::Wait]);
        assert_eq!(poll(&mut body), Seen::Data(text.into()));
        drop(body);
        assert_eq!(row(log.only()), None, "{end}");
    }
    // Without the last event, the reader has cancelled the call.
    let (mut body, log) = inspected(STREAM, vec![frame(BEGINNING), Step::Wait]);
    poll(&mut body);
    drop(body);
    assert_eq!(row(log.only()), Some((Kind::Cancelled, Health::Neutral)));
}

#[test]
fn sse_event_truncated_by_end_of_body_counts() {
    assert_eq!(
        reported_row(anthropic("overloaded_error").trim_end()),
        Some((Kind::Overloaded, Health::Unhealthy))
    );
}

/// An HTTP/2 stream may end between two polls. Its reader sees the end without another poll.
#[test]
fn llm_events_event_truncated_by_unread_end_counts() {
    let truncated = anthropic("overloaded_error").trim_end().to_owned();
    let log = Log::default();
    let layer = FaultClassifyLayer::new().track_body(log.clone()).inspect_llm_events(LlmErrors::new());
    let script = Script::new([frame(truncated.clone()), Step::Wait]).body_hints(BodyHints::Correct);
    let mut body = now(through(&layer, of_type(STREAM, script))).into_body();
    assert_eq!(poll(&mut body), Seen::Data(truncated.into()));
    assert_eq!((poll(&mut body), body.is_end_stream()), (Seen::Pending, true));
    drop(body);
    assert_eq!(row(log.only()), Some((Kind::Overloaded, Health::Unhealthy)));
}

#[test]
fn llm_events_error_is_found_in_each_known_form() {
    let quota = Some((Kind::Quota, Health::Neutral));
    for (data, expected) in [
        (r#"{"type": "error", "code": "insufficient_quota"}"#, quota),
        (r#"{"type": "response.failed", "response": {"error": {"code": "insufficient_quota"}}}"#, quota),
        (r#"[{"error": {"code": "insufficient_quota"}}]"#, quota),
        (r#"{"error": "insufficient_quota"}"#, quota),
        (r#"{"error": {"code": 429}}"#, Some((Kind::Throttled, Health::Neutral))),
        (r#"{"error": {"code": "503"}}"#, Some((Kind::Unavailable, Health::Unhealthy))),
    ] {
        assert_eq!(reported_row(&format!("data: {data}\n\n")), expected, "{data}");
        assert_eq!(reported_row(&format!("\u{feff}event:error\ndata:{data}\n\n")), expected, "{data}");
        assert_eq!(reported_row(&format!("data: {}\n\n", data.replace(' ', "\ndata: "))), expected, "{data}");
    }
}

#[test]
fn llm_events_other_content_types_are_not_inspected() {
    let inspected_row = |content| {
        let (body, log) = inspected(content, vec![frame(anthropic("overloaded_error"))]);
        read_all(body);
        row(log.only())
    };
    assert!(inspected_row("text/event-stream; charset=utf-8").is_some());
    assert!(inspected_row("Text/Event-Stream").is_some(), "media types are case-insensitive");
    for other in ["text/plain", "application/json", "text/event-stream-2"] {
        assert_eq!(inspected_row(other), None, "{other}");
    }
}

#[test]
fn llm_events_endless_line_is_forwarded_in_bounded_memory() {
    static PART: [u8; 1 << 16] = [b'['; 1 << 16];
    for beginning in ["data: ", "event: error\ndata: {\"error\": ", "data: {\"a\": \"", ": ", "event: "] {
        let steps = std::iter::once(frame(beginning));
        let steps = steps.chain(std::iter::repeat_n(frame(Bytes::from_static(&PART)), 1 << 10));
        let (mut body, log) = inspected(STREAM, steps.collect());
        let mut count = 0;
        let mut read = || loop {
            match poll(&mut body) {
                Seen::Data(data) => count += data.len(),
                Seen::End => break,
                other => panic!("{other:?}"),
            }
        };
        let memory = measure(&mut read);
        assert!(memory.bytes_max < 1 << 20, "{beginning}: {memory:?}");
        assert_eq!(count, beginning.len() + (PART.len() << 10));
        assert_eq!(log.count(), 1);
    }
}

/// Splits a text into chunks at any bytes.
fn chunks(text: &str, at: &[proptest::sample::Index]) -> Vec<Step> {
    let mut cuts = at.iter().map(|at| at.index(text.len() + 1)).collect::<Vec<_>>();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| frame(text.as_bytes()[ends[0]..ends[1]].to_vec())).collect()
}

proptest! {
    #[test]
    fn llm_events_chunks_and_line_ends_do_not_matter(
        (code, expected) in proptest::sample::select(&CODES[..]),
        of_anthropic: bool,
        before in 0..3_usize,
        line_end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
        at in proptest::collection::vec(any::<proptest::sample::Index>(), 0..40),
    ) {
        let error = if of_anthropic { anthropic(code) } else { openai(code) };
        let text = [&*BEGINNING.repeat(before), &error, END].concat().replace('\n', line_end);
        let steps = chunks(&text, &at);
        let (mut body, log) = inspected(STREAM, steps.clone());
        for step in &steps {
            let Step::Data(data) = step else { unreachable!() };
            prop_assert_eq!(&poll(&mut body), &Seen::Data(data.clone()));
        }
        prop_assert_eq!(poll(&mut body), Seen::End);
        prop_assert_eq!(data(&steps), text.into_bytes());
        prop_assert_eq!(row(log.only()), expected);
        prop_assert_eq!(log.only().fault().unwrap().retryable(), Retryable::Never);
    }

    #[test]
    fn llm_events_garbage_never_panics(
        lines in proptest::collection::vec(
            prop_oneof![
                "(data|event|id|retry|x)?:? ?(error|\\{\"error\":|\"code\"|[\\[\\]{}:,]|\u{feff}|\\PC){0,6}".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..20),
            ],
            0..10,
        ),
        line_end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let (body, log) = inspected(STREAM, drip(&lines.join(line_end.as_bytes())));
        read_all(body);
        prop_assert_eq!(log.count(), 1);
    }
}
