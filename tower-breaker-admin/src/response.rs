//! Responses of the API: JSON, errors, and the headers that all of them have.

use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;

use crate::body::AdminBody;

pub(crate) type Response = http::Response<AdminBody>;

/// The longest text of an error, in bytes.
const MAX_DETAIL_BYTES: usize = 500;

/// An error of the API, as RFC 9457 describes it.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
    pub(crate) header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl fmt::Display) -> Self {
        Self { status, detail: cut(detail.to_string(), MAX_DETAIL_BYTES), header: None }
    }

    pub(crate) fn bad_request(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn unauthorized() -> Self {
        let detail = "no valid credential; send `authorization: Bearer TOKEN`";
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub(crate) fn forbidden(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(crate) fn not_found(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(crate) fn conflict(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub(crate) fn unavailable(detail: impl fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(crate) fn method_not_allowed(method: &Method, allow: &'static str) -> Self {
        let detail = format_args!("method is {method}; allowed is {allow}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
            .with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    pub(crate) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    pub(crate) fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Written<'a> {
            r#type: &'static str,
            title: &'static str,
            status: u16,
            detail: &'a str,
        }

        let Self { status, detail, header } = self;
        let title = status.canonical_reason().unwrap_or_default();
        let written = Written { r#type: "about:blank", title, status: status.as_u16(), detail: &detail };
        // Strings and a number are always serialized.
        let bytes = serde_json::to_vec(&written).unwrap_or_default();
        let mut response = full(status, "application/problem+json", bytes.into());
        response.headers_mut().extend(header);
        response
    }
}

/// Returns a response with a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Response, Problem> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(full(StatusCode::OK, "application/json", bytes.into())),
        Err(error) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

pub(crate) fn full(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response {
    let mut response = Response::new(AdminBody::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Adds the headers that every response of the API has.
pub(crate) fn add_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Removes the body of the response to a `HEAD` request, and keeps its length.
pub(crate) fn without_body(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = http_body::Body::size_hint(&body).exact()
        && !parts.headers.contains_key(header::CONTENT_LENGTH)
    {
        parts.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, AdminBody::empty())
}

/// Cuts a text to a number of bytes, between two characters.
pub(crate) fn cut(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        let end = (0..=max_bytes).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_two_characters() {
        for (text, max_bytes, expected) in
            [("abc", 3, "abc"), ("abcd", 3, "abc"), ("aäb", 2, "a"), ("aäb", 3, "aä"), ("ä", 1, "")]
        {
            assert_eq!(cut(text.to_owned(), max_bytes), expected, "{text} {max_bytes}");
        }
    }
}
