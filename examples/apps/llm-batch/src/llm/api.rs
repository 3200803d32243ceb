//! What differs between the styles of APIs: requests, and the text of replies.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Ask;
use super::key::ApiKey;
use super::stream::Event;
use crate::config::{Api, LlmConfig};

/// The version of Anthropic's API that the bodies follow.
const ANTHROPIC_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"));

/// What an event adds to a streamed reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// The reply is complete.
    End,
    /// Nothing: the event has no text.
    Nothing,
}

impl Api {
    /// Returns the address without the path, if the configuration has none.
    pub(super) fn base_url(self) -> &'static str {
        match self {
            Self::OpenAi => "https://api.openai.com/v1",
            Self::Anthropic => "https://api.anthropic.com",
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/chat/completions",
            Self::Anthropic => "/v1/messages",
        }
    }

    /// Returns the headers of each request.
    pub(super) fn headers(self, key: &ApiKey) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let (name, prefix) = match self {
            Self::OpenAi => (http::header::AUTHORIZATION, "Bearer "),
            Self::Anthropic => (HeaderName::from_static("x-api-key"), ""),
        };
        headers.extend(key.header(prefix).map(|value| (name, value)));
        if self == Self::Anthropic {
            headers.extend([ANTHROPIC_VERSION]);
        }
        headers
    }

    /// Returns the text of a reply that is not streamed. `None`: the JSON is not a reply.
    pub(super) fn text(self, reply: &Value) -> Option<String> {
        match self {
            Self::OpenAi => {
                let choices = reply["choices"].as_array()?;
                let text = choices.first().and_then(|choice| choice["message"]["content"].as_str());
                Some(text.unwrap_or_default().to_owned())
            }
            Self::Anthropic => {
                let blocks = reply["content"].as_array()?;
                Some(blocks.iter().filter_map(|block| block["text"].as_str()).collect())
            }
        }
    }

    /// Returns what an event adds to a streamed reply.
    ///
    /// # Errors
    ///
    /// Fails if the data of the event is not JSON.
    pub(super) fn part(self, event: &Event) -> serde_json::Result<Part> {
        match self {
            Self::OpenAi if event.data.trim_ascii() == b"[DONE]" => Ok(Part::End),
            Self::OpenAi => {
                let data: Value = serde_json::from_slice(&event.data)?;
                Ok(text_part(&data["choices"][0]["delta"]["content"]))
            }
            Self::Anthropic => match event.name.as_slice() {
                b"message_stop" => Ok(Part::End),
                b"content_block_delta" => {
                    let data: Value = serde_json::from_slice(&event.data)?;
                    Ok(text_part(&data["delta"]["text"]))
                }
                _ => Ok(Part::Nothing),
            },
        }
    }
}

fn text_part(text: &Value) -> Part {
    text.as_str().map_or(Part::Nothing, |text| Part::Text(text.to_owned()))
}

/// Returns the body of a request. Both styles have the same fields.
pub(super) fn body(config: &LlmConfig, model: &str, ask: &Ask) -> Value {
    let mut body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": ask.prompt }],
        "temperature": ask.temperature.unwrap_or(config.temperature),
        "max_tokens": ask.max_tokens.unwrap_or(config.max_tokens),
    });
    if config.stream {
        body["stream"] = true.into();
    }
    body
}

/// Returns the message of an error in JSON. The styles, and compatible servers, have it in
/// different places.
pub(super) fn error_message(body: &Value) -> Option<&str> {
    let error = &body["error"];
    [&error["message"], error, &body["message"], &body["detail"]].into_iter().find_map(Value::as_str)
}
