//! Requests and replies in the formats of the providers.

use serde_json::{Value, json};

use crate::http::Action;
use crate::scripted::RecordedRequest;

/// A valid request.
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) key: String,
    pub(super) model: String,
    pub(super) prompt: String,
    pub(super) stream: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    OpenAi,
    Anthropic,
}

/// An error in the words of both providers.
pub(super) struct ApiError {
    pub(super) status: u16,
    /// The `type` of OpenAI.
    pub(super) openai_type: &'static str,
    /// The `code` of OpenAI.
    pub(super) openai_code: Option<&'static str>,
    /// The `type` of Anthropic.
    pub(super) anthropic_type: &'static str,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            openai_type: "invalid_request_error",
            openai_code: None,
            anthropic_type: "invalid_request_error",
            message: message.into(),
        }
    }
}

impl Api {
    /// Returns the provider whose endpoint the request has.
    pub(super) fn of(request: &RecordedRequest) -> Option<Self> {
        let path = request.path.split('?').next().unwrap_or_default();
        match (request.method.as_str(), path) {
            ("POST", "/v1/chat/completions") => Some(Self::OpenAi),
            ("POST", "/v1/messages") => Some(Self::Anthropic),
            _ => None,
        }
    }

    pub(super) fn error_action(self, error: &ApiError) -> Action {
        json_action(error.status, &self.error_body(error))
    }

    pub(super) fn error_body(self, error: &ApiError) -> Value {
        let message = &error.message;
        match self {
            Self::OpenAi => json!({ "error": {
                "message": message, "type": error.openai_type, "param": null, "code": error.openai_code,
            } }),
            Self::Anthropic => json!({
                "type": "error", "error": { "type": error.anthropic_type, "message": message },
            }),
        }
    }

    fn key(self, request: &RecordedRequest) -> String {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let key = match self {
            Self::OpenAi => header("authorization").and_then(|value| value.strip_prefix("Bearer ")),
            Self::Anthropic => header("x-api-key"),
        };
        key.unwrap_or_default().to_owned()
    }
}

impl Call {
    /// Reads a request, and rejects an invalid one.
    pub(super) fn read(api: Api, request: &RecordedRequest) -> Result<Self, ApiError> {
        let body: Value = serde_json::from_slice(&request.body).map_err(|error| {
            ApiError::invalid_request(format!("could not parse the JSON body of your request: {error}"))
        })?;
        let Some(model) = body["model"].as_str() else {
            return Err(ApiError::invalid_request("you must provide a model parameter"));
        };
        if api == Api::Anthropic && body["max_tokens"].as_u64().is_none() {
            return Err(ApiError::invalid_request("max_tokens: field required"));
        }
        if api == Api::Anthropic && !request.headers.contains_key("anthropic-version") {
            return Err(ApiError::invalid_request("anthropic-version: header is required"));
        }
        let Some(prompt) = body["messages"].as_array().and_then(|messages| text(messages.last()?)) else {
            return Err(ApiError::invalid_request("messages: at least one message with a text is required"));
        };
        let stream = body["stream"].as_bool().unwrap_or(false);
        Ok(Self { api, key: api.key(request), model: model.to_owned(), prompt, stream })
    }

    /// Answers with the complete reply.
    pub(super) fn reply(&self, reply: &str) -> Action {
        if self.stream {
            events_action(&self.events(reply)).chunked()
        } else {
            json_action(200, &self.reply_body(reply))
        }
    }

    pub(super) fn reply_body(&self, reply: &str) -> Value {
        let model = &self.model;
        match self.api {
            Api::OpenAi => json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": model,
                "choices": [{
                    "index": 0,
                    "message": { "role": "assistant", "content": reply },
                    "finish_reason": "stop",
                }],
                "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
            }),
            Api::Anthropic => json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": model,
                "content": [{ "type": "text", "text": reply }],
                "stop_reason": "end_turn", "stop_sequence": null,
                "usage": { "input_tokens": 1, "output_tokens": 1 },
            }),
        }
    }

    /// Returns the events of a stream. The text is in two events in the middle.
    pub(super) fn events(&self, reply: &str) -> Vec<String> {
        let (start, rest) = reply.split_at(middle(reply));
        match self.api {
            Api::OpenAi => {
                let chunk = |delta: Value, reason: Option<&str>| {
                    let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
                    let chunk = json!({
                        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000,
                        "model": self.model, "choices": [choice],
                    });
                    format!("data: {chunk}\n\n")
                };
                vec![
                    chunk(json!({ "role": "assistant", "content": "" }), None),
                    chunk(json!({ "content": start }), None),
                    chunk(json!({ "content": rest }), None),
                    chunk(json!({}), Some("stop")),
                    "data: [DONE]\n\n".to_owned(),
                ]
            }
            Api::Anthropic => {
                let mut message = self.reply_body(reply);
                (message["content"], message["stop_reason"]) = (json!([]), Value::Null);
                let delta = |text: &str| {
                    let delta = json!({ "type": "text_delta", "text": text });
                    event(&json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
                };
                let block = json!({ "type": "text", "text": "" });
                let end = json!({ "stop_reason": "end_turn", "stop_sequence": null });
                vec![
                    event(&json!({ "type": "message_start", "message": message })),
                    event(&json!({ "type": "content_block_start", "index": 0, "content_block": block })),
                    delta(start),
                    delta(rest),
                    event(&json!({ "type": "content_block_stop", "index": 0 })),
                    event(&json!({ "type": "message_delta", "delta": end, "usage": { "output_tokens": 1 } })),
                    event(&json!({ "type": "message_stop" })),
                ]
            }
        }
    }

    /// Returns the event that reports an error.
    pub(super) fn error_event(&self, error: &ApiError) -> String {
        let body = self.api.error_body(error);
        match self.api {
            Api::OpenAi => format!("data: {body}\n\n"),
            Api::Anthropic => event(&body),
        }
    }
}

/// Answers 200 with these events. The framing of the body is not set.
pub(super) fn events_action(events: &[String]) -> Action {
    Action::status(200).header("content-type", "text/event-stream").body(events.concat())
}

fn json_action(status: u16, body: &Value) -> Action {
    Action::status(status).header("content-type", "application/json").body(body.to_string())
}

/// Returns an event of Anthropic, whose name is the type of its data.
fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default())
}

/// Returns the text of a message, whose content is a string or a list of blocks.
fn text(message: &Value) -> Option<String> {
    match &message["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(blocks) => blocks.iter().map(|block| block["text"].as_str()).collect(),
        _ => None,
    }
}

/// Returns an index near the middle of a text, at the boundary of a character.
fn middle(text: &str) -> usize {
    let half = text.len() / 2;
    (0..=half).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0)
}
