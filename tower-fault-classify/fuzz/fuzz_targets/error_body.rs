//! Fuzzes `LlmErrors` with any bytes as an error body.
//!
//! The rule must not panic. For valid JSON, it must return the verdict that a parsed tree gives.
//!
//!     cargo +nightly fuzz run error_body -- -dict=fuzz/dictionary

#![no_main]

use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_fault_classify::body::{BodyRule, ErrorBody, LlmErrors};
use tower_fault_classify::Verdict;

fuzz_target!(|body: &[u8]| {
    let verdict = verdict_of(body);
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && let Some(error) = value.get("error").filter(|error| error.is_object())
        && no_key_appears_twice(body)
    {
        // A body with the innermost code alone must have the same verdict.
        let code = |key| error.get(key).and_then(Value::as_str);
        let alone = |code: &str| verdict_of(serde_json::json!({ "error": code }).to_string().as_bytes());
        let inner = code("code").and_then(alone).or_else(|| code("type").and_then(alone));
        let outer = |key| value.get(key).is_some_and(Value::is_string);
        if !outer("code") && !outer("type") && value.get("response").is_none() {
            assert_eq!(verdict, inner);
        }
    }
});

fn verdict_of(body: &[u8]) -> Option<Verdict> {
    let headers = HeaderMap::new();
    LlmErrors::new().verdict(&ErrorBody::new(StatusCode::TOO_MANY_REQUESTS, &headers, body, true))
}

/// A tree keeps the last of two equal keys, whereas a streaming reader may keep the first.
fn no_key_appears_twice(body: &[u8]) -> bool {
    let count = |word: &str| String::from_utf8_lossy(body).matches(word).count();
    ["error", "code", "type"].iter().all(|key| count(key) <= 1) && !body.contains(&b'\\')
}
