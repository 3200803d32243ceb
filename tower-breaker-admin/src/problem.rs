//! The errors of the API.

use std::fmt;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

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
