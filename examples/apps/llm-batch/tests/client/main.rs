//! Tests the client of the API against real HTTP servers.
//!
//! tokio's clock is paused. It advances when no task can run, so that no test waits for a delay.

mod circuits;
mod config;
mod delays;
mod failures;
mod fatal;
mod replies;
mod requests;
mod streams;

use std::time::Duration;

use llm_batch::config::{Api, JobConfig};
use llm_batch::errors::{FailedLlmError, FatalLlmError, LlmError};
use llm_batch::llm::{ApiKey, Ask, Complete, LlmClient};
use serde_json::{Value, json};
use test_servers::{Action, Http};

const KEY: &str = "sk-secret";

/// Both styles of APIs.
const APIS: [Api; 2] = [Api::OpenAi, Api::Anthropic];

/// Returns the settings for a server, with a time limit that no exchange over loopback reaches.
fn job(server: &Http, api: Api) -> JobConfig {
    let mut config = JobConfig::default();
    config.llm.api = api;
    config.llm.base_url = Some(server.url());
    config.llm.timeout = Duration::from_secs(3600);
    config
}

fn client(config: &JobConfig) -> LlmClient {
    let key = ApiKey::new(KEY).expect("the key is valid");
    LlmClient::new(config, key).expect("the settings are valid")
}

fn ask() -> Ask {
    Ask { prompt: "2 + 2?".to_owned(), ..Ask::default() }
}

/// Makes one call, and returns its outcome.
async fn call(config: &JobConfig) -> Result<String, LlmError> {
    client(config).complete(&ask()).await
}

/// Makes one call to a server that gives the same response to every request. Returns the error, and
/// the number of requests.
async fn error_of(response: Action, api: Api) -> (LlmError, usize) {
    let server = Http::start().await;
    server.set_default(response);
    let error = call(&job(&server, api)).await.expect_err("no response is a reply");
    (error, server.requests().len())
}

fn json_response(status: u16, body: &Value) -> Action {
    Action::status(status).header("content-type", "application/json").body(body.to_string())
}

/// Returns an error in the style of an API.
fn api_error(api: Api, status: u16, code: &str) -> Action {
    let body = match api {
        Api::OpenAi => json!({ "error": { "message": "no", "type": "t", "param": null, "code": code } }),
        Api::Anthropic => json!({ "type": "error", "error": { "type": code, "message": "no" } }),
    };
    json_response(status, &body)
}

fn reply(api: Api, text: &str) -> Action {
    let body = match api {
        Api::OpenAi => json!({ "choices": [{ "message": { "role": "assistant", "content": text } }] }),
        Api::Anthropic => json!({ "type": "message", "content": [{ "type": "text", "text": text }] }),
    };
    json_response(200, &body)
}

fn fatal(error: LlmError) -> FatalLlmError {
    match error {
        LlmError::Fatal(error) => error,
        other => panic!("{other:?} is not fatal"),
    }
}

fn failed(error: LlmError) -> FailedLlmError {
    match error {
        LlmError::Failed(error) => error,
        other => panic!("{other:?} is not the failure of the last attempt"),
    }
}
