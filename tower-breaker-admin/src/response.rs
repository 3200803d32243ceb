//! Responses of the API: JSON, errors, and the headers that all of them have.

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use serde::Serialize;

use crate::body::AdminBody;
use crate::problem::Problem;

pub(crate) type Response = http::Response<AdminBody>;

impl Problem {
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
