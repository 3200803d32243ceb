//! Checks the LLM API with a real client.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use test_servers::{Action, Llm, LlmFault, PromptCounts, random_faults};
use tokio::time::timeout;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Api {
    OpenAi,
    Anthropic,
}

use Api::{Anthropic, OpenAi};

fn client() -> Client {
    test_servers::install_ring();
    Client::builder().no_proxy().build().unwrap()
}

fn request(llm: &Llm, api: Api, body: &Value) -> RequestBuilder {
    let url = |path: &str| format!("{}{path}", llm.url());
    match api {
        OpenAi => client().post(url("/v1/chat/completions")).bearer_auth("key"),
        Anthropic => client()
            .post(url("/v1/messages"))
            .header("x-api-key", "key")
            .header("anthropic-version", "2023-06-01"),
    }
    .body(body.to_string())
}

fn body(prompt: &str, stream: bool) -> Value {
    json!({
        "model": "small", "max_tokens": 100, "stream": stream,
        "messages": [{ "role": "user", "content": prompt }],
    })
}

async fn ask(llm: &Llm, api: Api, stream: bool) -> reqwest::Result<Response> {
    request(llm, api, &body("Hello", stream)).send().await
}

/// Returns the status and the error body of an answer.
async fn error(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    (status, body["error"].clone())
}

/// Returns the data of the events.
fn data(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

/// Returns the text of a stream.
fn streamed_text(stream: &str) -> String {
    let events = data(stream).into_iter().filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let text = |event: Value| {
        let text = event["choices"][0]["delta"]["content"].as_str().or(event["delta"]["text"].as_str());
        text.map(str::to_owned)
    };
    events.filter_map(text).collect()
}

#[tokio::test]
async fn http_handler_chooses_action_after_script() {
    let server = test_servers::Http::start().await;
    server.set_default(Action::ResetOnAccept);
    server.set_handler(|request| Action::status(200).body(request.body.to_vec()));
    server.script([Action::status(503)]);
    let post = || client().post(server.url()).body("echo").send();
    assert_eq!(post().await.unwrap().status(), 503);
    assert_eq!(post().await.unwrap().text().await.unwrap(), "echo");
    assert_eq!(server.requests().len(), 2);
    server.set_handler(|_| Action::CloseOnAccept);
    post().await.unwrap_err();
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn llm_answers_in_both_formats() {
    let llm = Llm::start().await;
    for (api, pointer) in [(OpenAi, "/choices/0/message/content"), (Anthropic, "/content/0/text")] {
        let text = ask(&llm, api, false).await.unwrap().text().await.unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body.pointer(pointer), Some(&json!(r#"{"echo":"Hello"}"#)), "{body}");
    }
    assert_eq!(llm.counts("Hello"), PromptCounts { requests: 2, answered: 2 });
    assert_eq!(llm.counts("other"), PromptCounts::default());
}

#[tokio::test]
async fn llm_streams_in_both_formats() {
    let llm = Llm::start().await;
    llm.set_reply(|prompt| format!("¡{prompt}, wörld!"));
    for api in [OpenAi, Anthropic] {
        let response = ask(&llm, api, true).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let stream = response.text().await.unwrap();
        assert_eq!(streamed_text(&stream), "¡Hello, wörld!");
        let end = if api == OpenAi { "[DONE]" } else { r#"{"type":"message_stop"}"# };
        assert_eq!(data(&stream).last(), Some(&end));
    }
}

#[tokio::test]
async fn llm_rejects_wrong_key_and_unknown_model() {
    let llm = Llm::start().await;
    llm.set_models(["small", "large"]);
    llm.set_keys(["other"]);
    // The script is for requests that are accepted.
    llm.script([Some(LlmFault::BadRequest)]);
    let (status, body) = error(ask(&llm, OpenAi, false).await.unwrap()).await;
    assert_eq!((status, &body["code"]), (401, &json!("invalid_api_key")));
    let (status, body) = error(ask(&llm, Anthropic, false).await.unwrap()).await;
    assert_eq!((status, &body["type"]), (401, &json!("authentication_error")));

    llm.set_keys(["key"]);
    llm.set_models(["large"]);
    let (status, body) = error(ask(&llm, OpenAi, false).await.unwrap()).await;
    assert_eq!((status, &body["code"]), (404, &json!("model_not_found")));
    assert!(body["message"].as_str().unwrap().contains("`small`"));
    let (status, body) = error(ask(&llm, Anthropic, true).await.unwrap()).await;
    assert_eq!((status, &body["type"]), (404, &json!("not_found_error")));
    llm.set_models(["small"]);
    assert_eq!(ask(&llm, OpenAi, false).await.unwrap().status(), 400);
    assert_eq!(llm.counts("Hello"), PromptCounts { requests: 5, answered: 0 });
}

#[tokio::test]
async fn llm_rejects_invalid_request() {
    let llm = Llm::start().await;
    let incomplete = [
        (OpenAi, json!({ "messages": [{ "content": "Hello" }] })),
        (OpenAi, json!({ "model": "small", "messages": [] })),
        (Anthropic, json!({ "model": "small", "messages": [{ "content": "Hello" }] })),
    ];
    for (api, body) in incomplete {
        let (status, error) = error(request(&llm, api, &body).send().await.unwrap()).await;
        assert_eq!((status, &error["type"]), (400, &json!("invalid_request_error")), "{body}");
    }
    let response = request(&llm, OpenAi, &json!(0)).body("{").send().await.unwrap();
    assert_eq!(response.status(), 400);
    let response = client().get(format!("{}/v1/models", llm.url())).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!((llm.http().requests().len(), llm.all_counts().len()), (5, 0));
}

#[tokio::test]
async fn error_fault_has_status_and_code_of_provider() {
    let faults = [
        (LlmFault::BadRequest, 400, Value::Null, "invalid_request_error"),
        (LlmFault::InvalidKey, 401, json!("invalid_api_key"), "authentication_error"),
        (LlmFault::Forbidden, 403, json!("unsupported_country_region_territory"), "permission_error"),
        (LlmFault::UnknownModel, 404, json!("model_not_found"), "not_found_error"),
        (LlmFault::RateLimit { retry_after: 7 }, 429, json!("rate_limit_exceeded"), "rate_limit_error"),
        (LlmFault::ServerError, 500, Value::Null, "api_error"),
        (LlmFault::Unavailable, 503, json!("server_is_overloaded"), "api_error"),
        (LlmFault::Overloaded, 529, Value::Null, "overloaded_error"),
    ];
    let llm = Llm::start().await;
    for (fault, status, openai_code, anthropic_type) in faults {
        llm.script([Some(fault), Some(fault)]);
        let response = ask(&llm, OpenAi, false).await.unwrap();
        let after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(after.as_deref(), (status == 429).then_some("7"));
        let (code, body) = error(response).await;
        assert_eq!((code, &body["code"]), (status, &openai_code), "{fault:?}");
        let (code, body) = error(ask(&llm, Anthropic, true).await.unwrap()).await;
        assert_eq!((code, &body["type"]), (status, &json!(anthropic_type)), "{fault:?}");
    }
    llm.script([Some(LlmFault::QuotaExhausted), Some(LlmFault::QuotaExhausted)]);
    let (status, body) = error(ask(&llm, OpenAi, false).await.unwrap()).await;
    assert_eq!((status, &body["code"]), (429, &json!("insufficient_quota")));
    let (status, body) = error(ask(&llm, Anthropic, false).await.unwrap()).await;
    assert_eq!((status, &body["type"]), (402, &json!("billing_error")));
}

#[tokio::test]
async fn connection_fault_breaks_answer() {
    let llm = Llm::start().await;
    for stream in [false, true] {
        llm.script([Some(LlmFault::Reset)]);
        ask(&llm, OpenAi, stream).await.unwrap_err();
        for fault in [LlmFault::ResetInBody, LlmFault::TruncatedBody] {
            llm.script([Some(fault)]);
            // The reset may also arrive before the client has read the head.
            if let Ok(response) = ask(&llm, OpenAi, stream).await {
                assert_eq!(response.status(), 200);
                response.text().await.unwrap_err();
            }
        }
    }
    llm.script([Some(LlmFault::StreamWithoutEnd)]);
    ask(&llm, OpenAi, false).await.unwrap().text().await.unwrap_err();
    assert_eq!(llm.counts("Hello"), PromptCounts { requests: 7, answered: 0 });
}

#[tokio::test]
async fn stalled_answer_never_ends() {
    let llm = Llm::start().await;
    for stream in [false, true] {
        llm.script([Some(LlmFault::StalledBody), Some(LlmFault::Hang)]);
        let response = ask(&llm, Anthropic, stream).await.unwrap();
        let mut body = Box::pin(response.text());
        let mut hanging = Box::pin(ask(&llm, Anthropic, stream));
        // The next request is answered. The stalled ones would have their answer by then.
        tokio::select! {
            biased;
            text = &mut body => panic!("{text:?}"),
            answer = &mut hanging => panic!("{answer:?}"),
            () = llm.http().wait_for_requests(if stream { 5 } else { 2 }) => {}
        }
        assert_eq!(ask(&llm, Anthropic, stream).await.unwrap().status(), 200);
        assert!(timeout(Duration::ZERO, &mut body).await.is_err());
        assert!(timeout(Duration::ZERO, &mut hanging).await.is_err());
    }
}

#[tokio::test]
async fn reply_fault_is_status_200_without_usable_reply() {
    let llm = Llm::start().await;
    for stream in [false, true] {
        llm.script([LlmFault::InvalidJson, LlmFault::HtmlPage, LlmFault::ReplyWithoutJson].map(Some));
        let mut texts = Vec::new();
        for _ in 0..3 {
            let response = ask(&llm, OpenAi, stream).await.unwrap();
            assert_eq!(response.status(), 200);
            texts.push(response.text().await.unwrap());
        }
        let invalid = if stream { data(&texts[0])[0] } else { &texts[0] };
        serde_json::from_str::<Value>(invalid).unwrap_err();
        assert!(texts[1].starts_with("<!DOCTYPE html>"));
        let apology =
            if stream { streamed_text(&texts[2]) } else { content(&texts[2]).as_str().unwrap().to_owned() };
        assert_eq!(apology, "I am sorry, but I cannot help with that.");
    }
    assert_eq!(llm.counts("Hello").answered, 0);
}

#[tokio::test]
async fn stream_fault_is_in_middle_of_stream() {
    let llm = Llm::start().await;
    for (api, error) in [(OpenAi, "server_error"), (Anthropic, "overloaded_error")] {
        llm.script([Some(LlmFault::StreamWithoutEnd), Some(LlmFault::ErrorInStream)]);
        let whole = ask(&llm, api, true).await.unwrap().text().await.unwrap();
        assert_eq!(streamed_text(&whole), r#"{"echo":"#);
        assert!(!whole.contains("[DONE]") && !whole.contains("message_stop"));
        let stream = ask(&llm, api, true).await.unwrap().text().await.unwrap();
        let last: Value = serde_json::from_str(data(&stream).last().unwrap()).unwrap();
        assert_eq!((streamed_text(&stream).len(), &last["error"]["type"]), (8, &json!(error)));
    }
    llm.script([Some(LlmFault::ErrorInStream)]);
    assert_eq!(ask(&llm, OpenAi, false).await.unwrap().status(), 500);
}

#[tokio::test]
async fn delayed_reply_is_complete() {
    let llm = Llm::start().await;
    llm.script([Some(LlmFault::Delay(Duration::from_millis(1)))]);
    let text = ask(&llm, OpenAi, false).await.unwrap().text().await.unwrap();
    assert_eq!(content(&text), json!(r#"{"echo":"Hello"}"#));
    assert_eq!(llm.counts("Hello"), PromptCounts { requests: 1, answered: 1 });
}

#[tokio::test]
async fn faults_of_function_follow_prompt_and_number() {
    let llm = Llm::start().await;
    llm.set_faults(|prompt, number| (prompt == "Hello" && number == 2).then_some(LlmFault::Unavailable));
    for status in [200, 503, 200] {
        assert_eq!(ask(&llm, OpenAi, false).await.unwrap().status(), status);
        let other = request(&llm, OpenAi, &body("other", false)).send().await.unwrap();
        assert_eq!(other.status(), 200);
    }
}

#[test]
fn random_faults_repeat_with_seed() {
    let faults = |seed| {
        let choose = random_faults(0.2, seed, LlmFault::TRANSIENT);
        (1..=10_000).map(|number| choose("Hello", number)).collect::<Vec<_>>()
    };
    let first = faults(1);
    assert_eq!(first, faults(1));
    assert_ne!(first, faults(2));
    let failed = first.iter().flatten().count();
    assert!((1_800..2_200).contains(&failed), "{failed}");
    let kinds: HashSet<String> = first.iter().flatten().map(|fault| format!("{fault:?}")).collect();
    assert_eq!(kinds.len(), LlmFault::TRANSIENT.len());
}

/// Returns the text of a reply in the format of OpenAI.
fn content(reply: &str) -> Value {
    serde_json::from_str::<Value>(reply).unwrap()["choices"][0]["message"]["content"].clone()
}
