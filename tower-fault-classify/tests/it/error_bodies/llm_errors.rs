//! The error bodies of LLM APIs: the row of each code, precedence, and malformed bodies.

use std::time::Duration;

use http::Response;
use proptest::prelude::*;
use tower_fault_classify::body::{ErrorBodies, LlmErrors, llm_fault};
use tower_fault_classify::{CarriedVerdict, Fault, FaultClassifyLayer, Health, Kind, Retryable};

use super::on_tokio;
use crate::support::bodies::{Script, Seen, Step, bytewise, drip, frame, read_to_end, through};
use crate::support::call::now;

type Row = (Kind, Retryable, Health);

const QUOTA: Row = (Kind::Quota, Retryable::Never, Health::Neutral);
const CLIENT: Row = (Kind::Client, Retryable::Never, Health::Healthy);
const THROTTLED: Row = (Kind::Throttled, Retryable::Refused, Health::Neutral);
const AUTH: Row = (Kind::Auth, Retryable::Never, Health::Healthy);
const SERVER: Row = (Kind::Server, Retryable::IfIdempotent, Health::Unhealthy);
const OVERLOADED: Row = (Kind::Overloaded, Retryable::Refused, Health::Unhealthy);

/// The expected row of each code.
const CODES: [(&str, Row); 14] = [
    ("insufficient_quota", QUOTA),
    ("billing_hard_limit_reached", QUOTA),
    ("billing_not_active", QUOTA),
    ("billing_error", QUOTA),
    ("context_length_exceeded", CLIENT),
    ("invalid_request_error", CLIENT),
    ("rate_limit_exceeded", THROTTLED),
    ("rate_limit_error", THROTTLED),
    ("overloaded_error", OVERLOADED),
    ("invalid_api_key", AUTH),
    ("authentication_error", AUTH),
    ("permission_error", AUTH),
    ("api_error", SERVER),
    ("server_error", SERVER),
];

fn openai(code: &str) -> String {
    format!(r#"{{"error": {{"message": "é", "type": "a_new_type", "param": null, "code": "{code}"}}}}"#)
}

fn anthropic(code: &str) -> String {
    format!(r#"{{"type": "error", "error": {{"type": "{code}", "message": "é"}}, "request_id": "req_1"}}"#)
}

fn fault(status: u16, headers: &[(&str, &str)], steps: Vec<Step>, limit: usize) -> Fault {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new()).limit(limit));
    let response = on_tokio(through(&layer, builder.body(Script::new(steps.clone())).unwrap()));
    let fault = *CarriedVerdict::get(&response).unwrap().fault().unwrap();
    let all = bytewise(now(read_to_end(&mut response.into_body())));
    assert_eq!(all, bytewise(now(read_to_end(&mut Script::new(steps)))));
    fault
}

/// Returns the axes of the fault of a response whose body is this text.
fn axes(status: u16, headers: &[(&str, &str)], text: impl Into<Vec<u8>>) -> Row {
    let fault = fault(status, headers, vec![frame(text.into())], 64 << 10);
    (fault.kind(), fault.retryable(), fault.health())
}

#[test]
fn llm_code_has_its_row_at_every_status() {
    for (code, row) in CODES {
        for status in [400, 402, 404, 429, 500, 503, 529] {
            assert_eq!(axes(status, &[], openai(code)), row, "{status} {code}");
            assert_eq!(axes(status, &[], anthropic(code)), row, "{status} {code}");
        }
    }
}

#[test]
fn should_retry_header_changes_only_retry_axis_of_llm_code() {
    let delays = [("retry-after", "7"), ("retry-after-ms", "250")];
    for (code, (kind, retryable, health)) in CODES {
        let raised = match retryable {
            Retryable::Never if kind != Kind::Quota => Retryable::IfIdempotent,
            retryable => retryable,
        };
        for (values, expected) in [
            (&["false"][..], Retryable::Never),
            (&["FALSE"], Retryable::Never),
            (&["true"], raised),
            (&["true", "true"], raised),
            (&["maybe"], retryable),
            (&["true", "false"], retryable),
            (&[], retryable),
        ] {
            let should_retry = values.iter().map(|value| ("x-should-retry", *value)).collect::<Vec<_>>();
            for (status, text) in [(400, openai(code)), (429, anthropic(code)), (529, openai(code))] {
                let with_delays = [&should_retry[..], &delays].concat();
                let fault = fault(status, &with_delays, vec![frame(text.clone())], 64 << 10);
                let delay = (expected != Retryable::Never).then(|| Duration::from_millis(250));
                assert_eq!(axes(status, &should_retry, text), (kind, expected, health), "{code} {values:?}");
                assert_eq!((fault.retryable(), fault.retry_after()), (expected, delay), "{code} {values:?}");
            }
        }
    }
}

#[test]
fn should_retry_header_decides_without_llm_code() {
    let should_retry = |value| [("x-should-retry", value)];
    for text in [openai("a_new_code"), String::new(), "<html>".to_owned(), "{}".to_owned()] {
        assert_eq!(
            axes(429, &should_retry("false"), &*text),
            (Kind::Throttled, Retryable::Never, Health::Neutral),
            "{text}"
        );
        assert_eq!(
            axes(503, &should_retry("true"), text),
            (Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy)
        );
    }
}

#[test]
fn llm_delay_kept_only_if_retryable() {
    let delay = |status, headers: &[(&str, &str)], text: String| {
        fault(status, headers, vec![frame(text)], 64 << 10).retry_after()
    };
    let seconds = ("retry-after", "7");
    let both = [seconds, ("retry-after-ms", "250")];
    for (status, code) in [(429, "rate_limit_exceeded"), (529, "overloaded_error"), (500, "api_error")] {
        assert_eq!(delay(status, &[seconds], anthropic(code)), Some(Duration::from_secs(7)), "{code}");
        assert_eq!(delay(status, &both, anthropic(code)), Some(Duration::from_millis(250)), "{code}");
        assert_eq!(delay(status, &[], anthropic(code)), None, "{code}");
    }
    for code in ["insufficient_quota", "invalid_request_error", "invalid_api_key"] {
        assert_eq!(delay(429, &both, openai(code)), None, "{code}");
    }
    assert_eq!(delay(429, &[seconds], "no code".to_owned()), Some(Duration::from_secs(7)));
}

#[test]
fn llm_code_is_found_in_each_known_form() {
    for text in [
        r#"{"error": {"code": "insufficient_quota", "type": "server_error"}}"#,
        r#"{"error": {"type": "server_error", "code": "insufficient_quota"}}"#,
        r#"{"error": {"type": "insufficient_quota", "code": null}}"#,
        r#"{"error": {"type": "insufficient_quota", "code": "a_new_code"}}"#,
        r#"{"type": "error", "error": {"type": "insufficient_quota"}}"#,
        r#"{"type": "error", "code": "insufficient_quota"}"#,
        r#"[{"error": {"code": "insufficient_quota"}}]"#,
        "\n\t {\"other\": [1, {\"code\": \"server_error\"}], \"error\": {\"code\": \"insuff\\u0069cient_quota\"}}",
    ] {
        assert_eq!(axes(429, &[], text), QUOTA, "{text}");
    }
}

#[test]
fn llm_unknown_code_has_no_verdict() {
    for text in [
        "insufficient_quota",
        r#""insufficient_quota""#,
        r#"{"message": "insufficient_quota"}"#,
        r#"{"error": {"message": "insufficient_quota", "param": "insufficient_quota"}}"#,
        r#"{"error": {"code": "insufficient_quota_2"}}"#,
        r#"{"error": {"code": "INSUFFICIENT_QUOTA"}}"#,
        r#"{"choices": [{"error": {"code": "insufficient_quota"}}]}"#,
    ] {
        assert_eq!(axes(429, &[], text), THROTTLED, "{text}");
    }
}

#[test]
fn llm_changed_rows_apply_to_bodies_and_lookups() {
    let server = LlmErrors::row("server_error").with_retryable(Retryable::Refused);
    let loading = LlmErrors::row("overloaded_error").with_kind(Kind::Unavailable);
    let own_delay = LlmErrors::row("rate_limit_error").with_retry_after(Duration::from_secs(1));
    let errors = LlmErrors::new()
        .code("server_error", LlmErrors::row("insufficient_quota"))
        .code("model_loading", loading)
        .code("rate_limit_error", own_delay)
        .code("server_error", server);
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(errors.clone()));
    for (code, expected) in [
        ("server_error", server),
        ("model_loading", loading),
        ("rate_limit_error", own_delay),
        ("overloaded_error", LlmErrors::row("overloaded_error")),
    ] {
        assert_eq!(errors.fault(code), Some(expected), "{code}");
        for text in [openai(code), anthropic(code)] {
            let response = Response::builder().status(400).header("retry-after", "9");
            let response = response.body(Script::new([frame(text)])).unwrap();
            let response = now(through(&layer, response));
            let fault = *CarriedVerdict::get(&response).unwrap().fault().unwrap();
            let delay = expected.retry_after().unwrap_or(Duration::from_secs(9));
            assert_eq!(fault, expected.with_retry_after(delay), "{code}");
        }
    }
    assert_eq!(errors.fault("model_not_found"), None);
}

#[test]
fn llm_code_without_http_has_built_in_row() {
    for (code, row) in CODES {
        let fault = llm_fault(code).unwrap();
        assert_eq!((fault.kind(), fault.retryable(), fault.health()), row, "{code}");
        assert_eq!((LlmErrors::new().fault(code), LlmErrors::row(code)), (Some(fault), fault), "{code}");
    }
    assert_eq!(llm_fault("model_not_found"), None);
    assert_eq!(Some(LlmErrors::row("model_not_found")), llm_fault("server_error"));
}

#[test]
fn llm_402_is_quota_only_by_its_body() {
    assert_eq!(axes(402, &[], anthropic("billing_error")), QUOTA);
    assert_eq!(axes(402, &[], "pay"), CLIENT);
}

#[test]
fn json_truncated_is_read_up_to_damage() {
    let code = &openai("insufficient_quota")[..];
    let prefix = r#"{"error": {"code": "insufficient_quota", "message": "#;
    for (text, row) in [
        // Truncated inside a character, before and after the code.
        (&code.as_bytes()[..=code.find('é').unwrap()], THROTTLED),
        (&[prefix.as_bytes(), b"\"\xc3"].concat(), QUOTA),
        (&[prefix.as_bytes(), b"\"\xff\xfe\", \"a\": 1}}"].concat(), QUOTA),
        (prefix.as_bytes(), QUOTA),
        (&[prefix, "nonsense}}"].concat().into_bytes(), QUOTA),
        (b"{\"error\": {\"code\": \"insufficient_quot", THROTTLED),
        // Compressed.
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", THROTTLED),
    ] {
        assert_eq!(axes(429, &[], text), row, "{}", String::from_utf8_lossy(text));
        assert_eq!(fault(429, &[], drip(text), 64 << 10).kind(), row.0);
    }
}

#[test]
fn llm_body_failed_or_over_limit_is_read_up_to_there() {
    let text = anthropic("overloaded_error");
    let place = text.find("overloaded_error").unwrap() + "overloaded_error\"".len();
    assert_eq!(fault(503, &[], vec![frame(text.clone())], place).kind(), Kind::Overloaded);
    assert_eq!(fault(503, &[], vec![frame(text.clone())], place - 2).kind(), Kind::Unavailable);
    let broken = |length: usize| {
        let steps = vec![frame(text[..length].to_owned()), Step::Fail(std::io::ErrorKind::ConnectionReset)];
        fault(503, &[], steps, 64 << 10).kind()
    };
    assert_eq!((broken(place), broken(place - 2)), (Kind::Overloaded, Kind::Unavailable));
}

#[test]
fn json_unbounded_is_read_within_limits() {
    const DEEP: usize = 100_000;
    const LARGE: usize = 64 << 20;
    let read = |text: String, limit| fault(429, &[], vec![frame(text)], limit).kind();
    for level in ["[", r#"{"a":"#, r#"{"error":"#, r#"[{"error":"#, r#"{"response":"#, r#"{"code":["#] {
        assert_eq!(read(level.repeat(DEEP), LARGE), Kind::Throttled, "{level}");
        let after = format!(r#"{{"error": {{"code": "insufficient_quota", "a": {}"#, level.repeat(DEEP));
        assert_eq!(read(after, LARGE), Kind::Quota, "{level}");
    }
    let keys = r#""a": {"b": [0]}, "#.repeat(1_000_000);
    let million = format!(r#"{{{keys}"error": {{{keys}"code": "insufficient_quota"}}}}"#);
    assert_eq!(read(million.clone(), LARGE), Kind::Quota);
    assert_eq!(read(million, 64 << 10), Kind::Throttled, "the code is past the limit");
}

#[tokio::test(start_paused = true)]
async fn llm_code_counts_while_body_is_incomplete() {
    let text = anthropic("overloaded_error");
    let steps = [drip(&text.as_bytes()[..text.len() - 9]), vec![Step::Stall]].concat();
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new()));
    let response = through(&layer, Response::builder().status(503).body(Script::new(steps)).unwrap()).await;
    assert_eq!(CarriedVerdict::get(&response).unwrap().fault().unwrap().kind(), Kind::Overloaded);
}

#[test]
fn llm_success_is_not_read() {
    let layer = FaultClassifyLayer::new().read_error_bodies(ErrorBodies::new(LlmErrors::new()));
    let response = now(through(&layer, Response::new(Script::new([frame(openai("insufficient_quota"))]))));
    assert_eq!(CarriedVerdict::get(&response), None);
}

/// Fragments of JSON in any order, and bytes that are not JSON.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "[\\[\\]{}:,\" \\\\]|\"(error|code|type|response)\":|\"[a-z_\\\\u0-9]{0,4}\"|insufficient_quota|-?[0-9.e]{1,5}|null|\\PC"
            .prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn llm_garbage_body_is_forwarded(text in garbage(), limit in 0..200_usize) {
        let fault = fault(429, &[], drip(&text), limit);
        prop_assert!(fault.retry_after().is_none());
    }

    #[test]
    fn llm_frame_boundaries_do_not_change_verdict(
        (code, row) in proptest::sample::select(&CODES[..]),
        of_anthropic: bool,
        parts in 1..20_usize,
        rest in garbage(),
    ) {
        let text = if of_anthropic { anthropic(code) } else { openai(code) }.into_bytes();
        let steps = |text: &[u8]| text.chunks(parts).map(|part| frame(part.to_vec())).collect::<Vec<_>>();
        prop_assert_eq!(fault(500, &[], steps(&text), 1_000).kind(), row.0);
        let steps = steps(&[text, rest].concat());
        prop_assert_eq!(fault(500, &[], steps, 1_000).kind(), row.0, "the rest is malformed");
    }
}

#[test]
fn llm_body_empty_has_no_verdict() {
    assert_eq!(axes(429, &[], ""), THROTTLED);
    assert_eq!(bytewise([Seen::Data("".into()), Seen::End]), [Seen::End]);
}
