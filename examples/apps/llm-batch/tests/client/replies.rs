//! Replies that are not streamed.

use std::time::Duration;

use llm_batch::config::Api;
use serde_json::json;
use test_servers::{Action, Http};

use crate::{APIS, call, error_of, failed, fatal, job, json_response, reply};

#[tokio::test(start_paused = true)]
async fn reply_text_is_returned() {
    for api in APIS {
        let server = Http::start().await;
        for text in ["4", "", "über\u{2028}\n{\"error\": {}}"] {
            server.script([reply(api, text)]);
            assert_eq!(call(&job(&server, api)).await.expect("the server replies"), text);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reply_without_content_is_empty() {
    let server = Http::start().await;
    for (api, body) in [
        (Api::OpenAi, json!({ "choices": [] })),
        (Api::OpenAi, json!({ "choices": [{ "message": { "content": null } }], "error": null })),
        (Api::OpenAi, json!({ "choices": [{ "message": {} }] })),
        (Api::Anthropic, json!({ "content": [] })),
        (Api::Anthropic, json!({ "content": [{ "type": "tool_use", "name": "f" }] })),
    ] {
        server.script([json_response(200, &body)]);
        assert_eq!(call(&job(&server, api)).await.expect("the server replies"), "", "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn reply_of_several_blocks_is_joined() {
    let server = Http::start().await;
    let text = |text: &str| json!({ "type": "text", "text": text });
    let thinking = json!({ "type": "thinking", "thinking": "hm" });
    server.script([json_response(200, &json!({ "content": [thinking, text("2 + 2"), text(" = 4")] }))]);
    assert_eq!(call(&job(&server, Api::Anthropic)).await.expect("the server replies"), "2 + 2 = 4");
}

#[tokio::test(start_paused = true)]
async fn body_that_is_no_reply_fails_with_its_beginning() {
    let page = format!("<html>\n<h1>Sign in{}", "!".repeat(200));
    for (body, shown) in [
        (page, format!("`<html> <h1>Sign in{}...`", "!".repeat(82))),
        ("{\"choices\": [".to_owned(), "`{\"choices\": [`".to_owned()),
        ("{\"ok\": true}".to_owned(), "`{\"ok\": true}`".to_owned()),
        (String::new(), "``".to_owned()),
        ("null".to_owned(), "`null`".to_owned()),
    ] {
        for api in APIS {
            let (error, requests) = error_of(Action::status(200).body(body.clone()), api).await;
            let error = failed(error);
            assert_eq!((error.error_type, requests), ("APIResponseValidationError", 1), "{body}");
            assert!(error.message.contains(&shown), "{}", error.message);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn body_that_breaks_is_retried() {
    let body = json!({ "choices": [{ "message": { "content": "4" } }] }).to_string();
    let half = &body[..20];
    for broken in [
        Action::status(200).body(half).content_length(body.len()).then_close(),
        Action::status(200).body(half).content_length(body.len()).then_reset(),
        Action::status(200).body(half).chunked_without_end().then_close(),
        Action::status(200).body(half).content_length(body.len()),
    ] {
        let server = Http::start().await;
        let mut config = job(&server, Api::OpenAi);
        config.llm.timeout = Duration::from_secs(60);
        server.script([broken.clone(), reply(Api::OpenAi, "4")]);
        assert_eq!(call(&config).await.expect("the second attempt succeeds"), "4", "{broken:?}");
        assert_eq!(server.requests().len(), 2);

        server.set_default(broken.clone());
        let error = failed(call(&config).await.expect_err("no attempt succeeds"));
        assert!(matches!(error.error_type, "APIConnectionError" | "APITimeoutError"), "{error}");
        assert_eq!((error.attempts, server.requests().len()), (3, 5), "{broken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn error_in_a_body_with_status_200_counts() {
    let error = |code: &str| json_response(200, &json!({ "error": { "code": code, "message": "no" } }));
    let (invalid, requests) = error_of(error("invalid_api_key"), Api::OpenAi).await;
    assert_eq!((fatal(invalid).error_type, requests), ("AuthenticationError", 1));
    let (busy, requests) = error_of(error("rate_limit_exceeded"), Api::OpenAi).await;
    assert_eq!((failed(busy).to_string(), requests), ("RateLimitError: no".to_owned(), 3));
    let (other, requests) = error_of(error("unknown_code"), Api::OpenAi).await;
    assert_eq!((failed(other).error_type, requests), ("InternalServerError", 3));
}
