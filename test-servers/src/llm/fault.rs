//! The ways in which the API fails.

use std::time::Duration;

use super::call::{Api, ApiError, Call, events_action};
use crate::http::Action;

/// How [`Llm`](super::Llm) fails a request.
///
/// The body of an error has the codes of the provider whose format the request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmFault {
    /// Status 400, `invalid_request_error`.
    BadRequest,
    /// Status 401: `invalid_api_key`, or `authentication_error`.
    InvalidKey,
    /// Status 403: `unsupported_country_region_territory`, or `permission_error`.
    Forbidden,
    /// Status 404: `model_not_found`, or `not_found_error`.
    UnknownModel,
    /// Status 429: `rate_limit_exceeded`, or `rate_limit_error`.
    RateLimit {
        /// The header `retry-after`, in seconds.
        retry_after: u32,
    },
    /// The quota is used up: status 429 and `insufficient_quota`, or status 402 and
    /// `billing_error`.
    QuotaExhausted,
    /// Status 500: `server_error`, or `api_error`.
    ServerError,
    /// Status 503: `server_is_overloaded`, or `api_error`.
    Unavailable,
    /// Status 529, `overloaded_error`.
    Overloaded,
    /// The connection ends with a RST before the answer.
    Reset,
    /// The connection ends with a RST in the middle of the body.
    ResetInBody,
    /// The connection ends with a FIN in the middle of the body.
    TruncatedBody,
    /// The body stops in its middle, and the connection stays open.
    StalledBody,
    /// The server never answers.
    Hang,
    /// The complete reply arrives after this time.
    Delay(Duration),
    /// Status 200 with the content type of JSON, or with an event whose data should be JSON. The
    /// body is no JSON.
    InvalidJson,
    /// Status 200 with an HTML page, as a proxy sends it.
    HtmlPage,
    /// A complete answer. Its text is an apology in prose, which contains no JSON.
    ReplyWithoutJson,
    /// The stream ends in its middle, although the response is complete.
    ///
    /// A reply that is not streamed fails as with [`TruncatedBody`](Self::TruncatedBody).
    StreamWithoutEnd,
    /// The stream carries an error event in its middle: `server_error`, or `overloaded_error`.
    ///
    /// A reply that is not streamed fails as with [`ServerError`](Self::ServerError).
    ErrorInStream,
}

impl LlmFault {
    /// The faults after which another attempt can succeed, and which need no time limit of the
    /// client to be noticed. The rate limit lasts for a second, and the delay for 100 ms.
    ///
    /// [`Hang`](Self::Hang) and [`StalledBody`](Self::StalledBody) are not among them.
    pub const TRANSIENT: &[Self] = &[
        Self::RateLimit { retry_after: 1 },
        Self::ServerError,
        Self::Unavailable,
        Self::Overloaded,
        Self::Reset,
        Self::ResetInBody,
        Self::TruncatedBody,
        Self::Delay(Duration::from_millis(100)),
        Self::InvalidJson,
        Self::HtmlPage,
        Self::ReplyWithoutJson,
        Self::StreamWithoutEnd,
        Self::ErrorInStream,
    ];

    /// Returns whether the client gets the complete reply.
    pub(super) fn sends_reply(self) -> bool {
        matches!(self, Self::Delay(_))
    }

    pub(super) fn action(self, call: &Call, reply: &str) -> Action {
        match self {
            Self::Reset => Action::ResetAfterRequest,
            Self::Hang => Action::Hang,
            Self::Delay(delay) => call.reply(reply).delay(delay),
            Self::ReplyWithoutJson => call.reply("I am sorry, but I cannot help with that."),
            Self::HtmlPage => Action::status(200)
                .header("content-type", "text/html")
                .body("<!DOCTYPE html>\n<html><body><h1>Sign in to the network</h1></body></html>\n"),
            Self::InvalidJson => invalid_json(call),
            Self::ResetInBody => half(call, reply).then_reset(),
            Self::StalledBody => half(call, reply),
            Self::StreamWithoutEnd if call.stream => events_action(&half_of_events(call, reply)).chunked(),
            Self::TruncatedBody | Self::StreamWithoutEnd => half(call, reply).then_close(),
            Self::ErrorInStream if call.stream => {
                let mut events = half_of_events(call, reply);
                events.push(call.error_event(&error_in_stream()));
                events_action(&events).chunked()
            }
            _ => self.error_action(call),
        }
    }

    fn error_action(self, call: &Call) -> Action {
        let action = call.api.error_action(&self.error(call));
        match self {
            Self::RateLimit { retry_after } => action.header("retry-after", retry_after.to_string()),
            _ => action,
        }
    }

    fn error(self, call: &Call) -> ApiError {
        let (status, openai_type, openai_code, anthropic_type, message) = match self {
            Self::BadRequest => return ApiError::invalid_request("the request cannot be processed"),
            Self::InvalidKey => (
                401,
                "invalid_request_error",
                Some("invalid_api_key"),
                "authentication_error",
                "Incorrect API key provided",
            ),
            Self::Forbidden => (
                403,
                "request_forbidden",
                Some("unsupported_country_region_territory"),
                "permission_error",
                "Country, region, or territory not supported",
            ),
            Self::UnknownModel => {
                return ApiError {
                    status: 404,
                    openai_code: Some("model_not_found"),
                    anthropic_type: "not_found_error",
                    ..ApiError::invalid_request(format!("The model `{}` does not exist", call.model))
                };
            }
            Self::RateLimit { .. } => {
                (429, "requests", Some("rate_limit_exceeded"), "rate_limit_error", "Rate limit reached")
            }
            Self::QuotaExhausted => (
                if call.api == Api::OpenAi { 429 } else { 402 },
                "insufficient_quota",
                Some("insufficient_quota"),
                "billing_error",
                "You exceeded your current quota, please check your plan and billing details",
            ),
            Self::Unavailable => (
                503,
                "service_unavailable_error",
                Some("server_is_overloaded"),
                "api_error",
                "The service is temporarily unavailable",
            ),
            Self::Overloaded => (529, "overloaded_error", None, "overloaded_error", "Overloaded"),
            _ => (500, "server_error", None, "api_error", "The server had an error"),
        };
        ApiError { status, openai_type, openai_code, anthropic_type, message: message.to_owned() }
    }
}

fn error_in_stream() -> ApiError {
    ApiError {
        status: 200,
        openai_type: "server_error",
        openai_code: Some("server_error"),
        anthropic_type: "overloaded_error",
        message: "The server had an error while it processed your request".to_owned(),
    }
}

/// Announces the complete reply, sends the first half, and keeps the connection open.
fn half(call: &Call, reply: &str) -> Action {
    if call.stream {
        return events_action(&half_of_events(call, reply)).chunked_without_end();
    }
    let body = call.reply_body(reply).to_string().into_bytes();
    Action::status(200)
        .header("content-type", "application/json")
        .body(&body[..body.len() / 2])
        .content_length(body.len())
}

fn half_of_events(call: &Call, reply: &str) -> Vec<String> {
    let mut events = call.events(reply);
    events.truncate(events.len() / 2);
    events
}

fn invalid_json(call: &Call) -> Action {
    let garbage = r#"{"choices": [{"mess"#;
    if call.stream {
        return events_action(&[format!("data: {garbage}\n\n")]).chunked();
    }
    Action::status(200).header("content-type", "application/json").body(garbage)
}
