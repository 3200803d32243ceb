//! One attempt: reads a response to its end.
//!
//! The caller gets nothing before the reply is complete. So a reply that breaks off at any point,
//! streamed or not, is an attempt that failed.

use std::error::Error;
use std::fmt;

use http::header::CONTENT_TYPE;
use reqwest::Response;
use serde_json::Value;
use tower::BoxError;
use tower_fault_classify::body::{BodyRule, LlmErrors, StreamEvent};
use tower_fault_classify::{
    ClassifiedError, Fault, Health, Kind, Origin, Retryable, Verdict, classify_response,
};

use super::address::without_query;
use super::key::ApiKey;
use super::stream::Events;

/// The longest part of a body in a message.
const EXCERPT: usize = 200;

/// The longest body in bytes. A server that sends without end must not fill the memory.
const LONGEST: usize = 64 << 20;

/// A response that is not a reply. Its text is the message of the API, or describes the response.
#[derive(Debug)]
struct ApiError(String);

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ApiError {}

/// Reads the text of a reply. An error does not contain the key, even if the response does.
pub(super) async fn read_reply(key: &ApiKey, response: Response) -> Result<String, BoxError> {
    let status = response.status();
    if let Verdict::Fault(fault) = classify_response(&response) {
        // The body is a detail of the message. The status and its fault are known.
        let body = read_body(response).await.unwrap_or_default();
        let message = message_in(key, &body).unwrap_or_else(|| excerpt(key, &body));
        let text = if message.is_empty() { status.to_string() } else { format!("{status}: {message}") };
        return Err(ClassifiedError::new(fault, ApiError(text)).into());
    }
    if !status.is_success() {
        // A redirect is not followed: the key would be sent to another server.
        return Err(not_a_reply(format!("the API answered {status}; check `base_url`")).into());
    }
    let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content_type.starts_with(b"text/event-stream") {
        return read_stream(key, response).await;
    }
    let body = read_body(response).await?;
    let reply: Value = serde_json::from_slice(&body).map_err(|_| garbage(key, &body))?;
    if let Some(error) = reported_error(key, &body) {
        return Err(error.into());
    }
    let choices = reply["choices"].as_array().ok_or_else(|| garbage(key, &body))?;
    let text = choices.first().and_then(|choice| choice["message"]["content"].as_str());
    Ok(text.unwrap_or_default().to_owned())
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, BoxError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(without_query)? {
        body.extend_from_slice(&chunk);
        check_length(body.len())?;
    }
    Ok(body)
}

fn check_length(length: usize) -> Result<(), ClassifiedError> {
    if length <= LONGEST {
        return Ok(());
    }
    let message = format!("the response is longer than {} MiB; check `base_url`", LONGEST >> 20);
    Err(not_a_reply(message))
}

/// Reads the events of a streamed reply up to the last one.
async fn read_stream(key: &ApiKey, mut response: Response) -> Result<String, BoxError> {
    let mut text = String::new();
    let mut events = Events::default();
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.map_err(without_query)? {
        length += chunk.len();
        check_length(length)?;
        for data in events.feed(&chunk) {
            // The server may keep the connection open for longer.
            if data.trim_ascii() == b"[DONE]" {
                return Ok(text);
            }
            if let Some(error) = reported_error(key, &data) {
                return Err(error.into());
            }
            let event: Value = serde_json::from_slice(&data).map_err(|_| garbage(key, &data))?;
            text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        }
    }
    let fault = Fault::new(Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
    let error = ApiError("the streamed reply ended before its last event".to_owned());
    Err(ClassifiedError::new(fault, error).into())
}

/// Returns the error that an event, or the body of a response with a status of success, reports.
fn reported_error(key: &ApiKey, data: &[u8]) -> Option<ClassifiedError> {
    let Verdict::Fault(fault) = LlmErrors::new().first_event(&StreamEvent::new(b"", data))? else {
        return None;
    };
    let message = message_in(key, data).unwrap_or_else(|| excerpt(key, data));
    Some(ClassifiedError::new(fault, ApiError(message)))
}

/// Returns the error of a body that is not a reply, such as the page of a proxy.
fn garbage(key: &ApiKey, body: &[u8]) -> ClassifiedError {
    let body = excerpt(key, body);
    not_a_reply(format!("the response is not a reply of the API: `{body}`; check `base_url`"))
}

/// Returns an error that another attempt would repeat, and that is not an outage.
fn not_a_reply(message: String) -> ClassifiedError {
    let fault = Fault::new(Kind::Protocol, Retryable::Never, Health::Neutral, Origin::Remote);
    ClassifiedError::new(fault, ApiError(message))
}

/// Returns the message of an error in JSON.
fn message_in(key: &ApiKey, body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let error = &json["error"];
    let message = [&error["message"], error, &json["message"], &json["detail"]];
    message.into_iter().find_map(Value::as_str).map(|message| key.redact(message))
}

/// Returns the beginning of a body.
fn excerpt(key: &ApiKey, body: &[u8]) -> String {
    // A cut first could leave a part of the key.
    let text = key.redact(String::from_utf8_lossy(body).trim());
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
