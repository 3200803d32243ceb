//! One attempt: reads a response to its end.
//!
//! The caller gets nothing before the reply is complete. So a reply that breaks at any point,
//! streamed or not, is an attempt that failed, and the retry layer sends the request again.

use std::error::Error;
use std::fmt;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use reqwest::Response;
use serde_json::Value;
use tower::BoxError;
use tower_fault_classify::body::{BodyRule, LlmErrors, StreamEvent};
use tower_fault_classify::{
    ClassifiedError, Fault, Health, Kind, Origin, Retryable, Verdict, classify_response,
};

use super::api::{Part, error_message};
use super::key::ApiKey;
use super::stream::Events;
use crate::config::Api;
use crate::text::excerpt;

/// A response that is not a reply.
#[derive(Debug)]
pub(super) struct ApiError {
    /// The name of the error in the SDKs.
    pub(super) error_type: &'static str,
    /// The status. `None`: the status is a success, and the body reports the error.
    pub(super) status: Option<StatusCode>,
    /// The message of the API, or a description of the response. The key is removed from it.
    pub(super) message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl Error for ApiError {}

/// Reads the text of a reply. An error does not contain the key, even if the response does.
pub(super) async fn read_reply(api: Api, key: &ApiKey, response: Response) -> Result<String, BoxError> {
    if let Verdict::Fault(fault) = classify_response(&response) {
        return Err(refusal(fault, key, response).await.into());
    }
    if !response.status().is_success() {
        return Err(unexpected_status(response.status()).into());
    }
    let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content_type.starts_with(b"text/event-stream") {
        return read_stream(api, key, response).await;
    }
    let body = response.bytes().await?;
    let reply: Value = serde_json::from_slice(&body).map_err(|_| garbage(key, &body))?;
    if let Some(error) = reported_error(key, b"", &body) {
        return Err(error.into());
    }
    api.text(&reply).ok_or_else(|| garbage(key, &body).into())
}

/// Reads the events of a streamed reply up to the last one.
async fn read_stream(api: Api, key: &ApiKey, mut response: Response) -> Result<String, BoxError> {
    let mut text = String::new();
    let mut events = Events::default();
    while let Some(chunk) = response.chunk().await? {
        for event in events.feed(&chunk) {
            if let Some(error) = reported_error(key, &event.name, &event.data) {
                return Err(error.into());
            }
            match api.part(&event).map_err(|_| garbage(key, &event.data))? {
                Part::Text(part) => text.push_str(&part),
                Part::Nothing => {}
                // The server may keep the connection open for longer.
                Part::End => return Ok(text),
            }
        }
    }
    Err(incomplete().into())
}

/// Returns the error of a response whose status is one.
async fn refusal(fault: Fault, key: &ApiKey, response: Response) -> ClassifiedError {
    let status = response.status();
    // The body is a detail of the message. The status and its fault are known.
    let body = response.bytes().await.unwrap_or_default();
    let message = match message_in(key, &body) {
        Some(message) => message,
        // The API itself would report an unknown model in JSON.
        None if status == StatusCode::NOT_FOUND => format!("the API answered {status}; check `base_url`"),
        None if body.is_empty() => format!("the API answered {status}"),
        None => format!("the API answered {status}: {}", excerpt_of(key, &body)),
    };
    let error_type = name_of_status(status);
    ClassifiedError::new(fault, ApiError { error_type, status: Some(status), message })
}

/// Returns the error that an event, or the body of a response with a status of success, reports.
fn reported_error(key: &ApiKey, name: &[u8], data: &[u8]) -> Option<ClassifiedError> {
    let Verdict::Fault(fault) = LlmErrors::new().first_event(&StreamEvent::new(name, data))? else {
        return None;
    };
    let message = message_in(key, data).unwrap_or_else(|| excerpt_of(key, data));
    let error_type = name_of_kind(fault.kind());
    Some(ClassifiedError::new(fault, ApiError { error_type, status: None, message }))
}

/// Returns the error of a body that is not a reply, such as the page of a proxy.
fn garbage(key: &ApiKey, body: &[u8]) -> ClassifiedError {
    let body = excerpt_of(key, body);
    let message = format!("the response is not a reply of the API: `{body}`; check `base_url` and `api`");
    final_error("APIResponseValidationError", message)
}

/// Returns the message of an error in JSON.
fn message_in(key: &ApiKey, body: &[u8]) -> Option<String> {
    let json: Value = serde_json::from_slice(body).ok()?;
    error_message(&json).map(|message| key.redact(message))
}

/// Returns the beginning of a body.
fn excerpt_of(key: &ApiKey, body: &[u8]) -> String {
    // A cut first could leave a part of the key.
    excerpt(&key.redact(&String::from_utf8_lossy(body)))
}

/// Returns the error of a redirect, which is not followed: the key would be sent to another server.
fn unexpected_status(status: StatusCode) -> ClassifiedError {
    final_error("APIStatusError", format!("the API answered {status}; check `base_url`"))
}

/// Returns an error that another attempt would repeat, and that is not an outage.
fn final_error(error_type: &'static str, message: String) -> ClassifiedError {
    let fault = Fault::new(Kind::Protocol, Retryable::Never, Health::Neutral, Origin::Remote);
    ClassifiedError::new(fault, ApiError { error_type, status: None, message })
}

/// Returns the error of a stream that ends before its last event.
fn incomplete() -> ClassifiedError {
    let fault = Fault::new(Kind::Transient, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
    let message = "the streamed reply ended before its last event".to_owned();
    ClassifiedError::new(fault, ApiError { error_type: "APIConnectionError", status: None, message })
}

/// Returns the name that the SDKs give to an error with this status.
fn name_of_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "BadRequestError",
        401 => "AuthenticationError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        409 => "ConflictError",
        413 => "RequestTooLargeError",
        422 => "UnprocessableEntityError",
        429 => "RateLimitError",
        529 => "OverloadedError",
        500.. => "InternalServerError",
        _ => "APIStatusError",
    }
}

/// Returns the name that the SDKs give to an error of this kind.
fn name_of_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Client => "BadRequestError",
        Kind::Auth => "AuthenticationError",
        Kind::Quota | Kind::Throttled => "RateLimitError",
        Kind::Timeout => "APITimeoutError",
        Kind::Overloaded => "OverloadedError",
        _ => "InternalServerError",
    }
}
