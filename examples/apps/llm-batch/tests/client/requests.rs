//! The requests that a server receives.

use llm_batch::config::{Api, JobConfig};
use llm_batch::llm::{ApiKey, Ask, Complete, LlmClient};
use serde_json::{Value, json};
use test_servers::{Http, RecordedRequest};

use crate::{client, job, reply};

/// Sends a question, and returns the request and its body.
async fn request_of(api: Api, ask: &Ask, edit: impl FnOnce(&mut JobConfig)) -> (RecordedRequest, Value) {
    let server = Http::start().await;
    server.set_default(reply(api, "4"));
    let mut config = job(&server, api);
    edit(&mut config);
    client(&config).complete(ask).await.expect("the server replies");
    let request = server.requests().remove(0);
    let body = serde_json::from_slice(&request.body).expect("the body is JSON");
    (request, body)
}

fn ask() -> Ask {
    Ask { prompt: "2 + 2?".to_owned(), ..Ask::default() }
}

#[tokio::test(start_paused = true)]
async fn openai_request_has_defaults() {
    let (request, body) = request_of(Api::OpenAi, &ask(), |_| ()).await;
    assert_eq!((request.method.as_str(), &*request.path), ("POST", "/chat/completions"));
    assert_eq!(request.headers["authorization"], "Bearer sk-secret");
    assert_eq!(request.headers["content-type"], "application/json");
    let messages = json!([{ "role": "user", "content": "2 + 2?" }]);
    assert_eq!(
        body,
        json!({ "model": "gpt-4o-mini", "messages": messages, "temperature": 0.7, "max_tokens": 1500 })
    );
}

#[tokio::test(start_paused = true)]
async fn anthropic_request_has_defaults() {
    let (request, body) =
        request_of(Api::Anthropic, &ask(), |config| config.llm.model = "claude-haiku-4-5".to_owned()).await;
    assert_eq!((request.method.as_str(), &*request.path), ("POST", "/v1/messages"));
    assert_eq!(request.headers["x-api-key"], "sk-secret");
    assert_eq!(request.headers["anthropic-version"], "2023-06-01");
    assert!(!request.headers.contains_key("authorization"));
    let messages = json!([{ "role": "user", "content": "2 + 2?" }]);
    assert_eq!(
        body,
        json!({ "model": "claude-haiku-4-5", "messages": messages, "temperature": 0.7, "max_tokens": 1500 })
    );
}

#[tokio::test(start_paused = true)]
async fn request_overrides_take_precedence() {
    let ask = Ask {
        prompt: "über\u{2028}".to_owned(),
        model: Some("other".to_owned()),
        temperature: Some(0.0),
        max_tokens: Some(1),
    };
    let (_, body) = request_of(Api::OpenAi, &ask, |_| ()).await;
    assert_eq!(body["messages"][0]["content"], "über\u{2028}");
    assert_eq!(
        (&body["model"], &body["temperature"], &body["max_tokens"]),
        (&json!("other"), &json!(0.0), &json!(1))
    );
}

#[tokio::test(start_paused = true)]
async fn base_url_may_end_with_a_slash() {
    let (request, _) = request_of(Api::OpenAi, &ask(), |config| {
        config.llm.base_url = config.llm.base_url.take().map(|url| url + "/v1/");
    })
    .await;
    assert_eq!(request.path, "/v1/chat/completions");
}

#[tokio::test(start_paused = true)]
async fn base_url_query_stays_behind_the_path() {
    let (request, _) = request_of(Api::OpenAi, &ask(), |config| {
        config.llm.base_url = config.llm.base_url.take().map(|url| url + "/v1/?version=1#part");
    })
    .await;
    assert_eq!(request.path, "/v1/chat/completions?version=1");
}

#[tokio::test]
async fn base_url_invalid_is_named() {
    for url in ["localhost:8000", "", "ftp://host", "http://user:password@host", "http://:password@host"] {
        let mut config = JobConfig::default();
        config.llm.base_url = Some(url.to_owned());
        let key = ApiKey::new("").expect("no key is valid");
        let error = LlmClient::new(&config, key).expect_err(url).to_string();
        assert!(error.starts_with(&format!("`base_url` is `{url}`; it must be an address")), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn key_is_in_no_debug_output() {
    let server = Http::start().await;
    let client = client(&job(&server, Api::Anthropic));
    assert!(!format!("{client:?}").contains("secret"), "{client:?}");
}

#[tokio::test(start_paused = true)]
async fn key_that_is_empty_is_not_sent() {
    let server = Http::start().await;
    server.set_default(reply(Api::OpenAi, "4"));
    let key = ApiKey::new("").expect("no key is valid");
    let client = LlmClient::new(&job(&server, Api::OpenAi), key).expect("the settings are valid");
    client.complete(&ask()).await.expect("the server replies");
    assert!(!server.requests()[0].headers.contains_key("authorization"));
}
