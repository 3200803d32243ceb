//! Reads the code in a JSON error.
//!
//! | shape | used by |
//! |---|---|
//! | `{"error": {"code": "…", "type": "…"}}` | OpenAI |
//! | `{"type": "error", "error": {"type": "…"}}` | Anthropic |
//! | `{"type": "error", "code": "…"}`, `{"response": {"error": {"code": "…"}}}` | OpenAI's event streams |
//! | `{"error": {"code": 429}}`, `{"error": "…"}`, `[{"error": …}]` | gateways, vLLM, Google |
//!
//! JSON that is truncated, nested too deeply or otherwise malformed is read up to that point, and
//! what was found before it counts.

use std::fmt;

use http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::LlmErrors;
use crate::fault::Fault;
use crate::table;

/// The error that a JSON text describes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ParsedError {
    /// Whether the text describes an error at all.
    pub(super) error: bool,
    by_code: Option<Fault>,
    by_type: Option<Fault>,
    status: Option<u16>,
}

impl ParsedError {
    /// Returns the row of the code, or else of the type, which is less specific.
    pub(super) fn row(&self) -> Option<Fault> {
        self.by_code.or(self.by_type)
    }

    /// Returns the row of an HTTP status that is given in place of a code.
    pub(super) fn status_row(&self) -> Option<Fault> {
        let status = StatusCode::from_u16(self.status?).ok()?;
        table::http::classify(status, || None).fault().copied()
    }

    fn code(&mut self, code: &str, errors: &LlmErrors) {
        self.by_code = self.by_code.or_else(|| errors.fault(code));
        if let Ok(status) = code.parse() {
            self.status.get_or_insert(status);
        }
    }
}

/// Reads a JSON text, up to its first malformed part. `errors` has the row of each code.
pub(super) fn read(json: &[u8], errors: &LlmErrors) -> ParsedError {
    let mut found = ParsedError::default();
    let mut json = serde_json::Deserializer::from_slice(json);
    // An error of the parser is ignored: what was found before it counts.
    let _ = ValueSeed { found: &mut found, errors, path: JsonPath::Top }.deserialize(&mut json);
    found
}

/// Reads a value according to its path.
struct ValueSeed<'a> {
    found: &'a mut ParsedError,
    errors: &'a LlmErrors,
    path: JsonPath,
}

#[derive(Clone, Copy)]
enum JsonPath {
    /// The whole text, or an element of a list that is the whole text.
    Top,
    /// Under `response`.
    Response,
    /// Under `error`.
    Error,
    /// Under `code`.
    Code,
    /// Under `type`.
    Type,
    Elsewhere,
}

impl JsonPath {
    fn under(self, key: &str) -> Self {
        match (self, key) {
            (Self::Top | Self::Response, "error") => Self::Error,
            (Self::Top, "response") => Self::Response,
            (Self::Top | Self::Error, "code") => Self::Code,
            (Self::Top | Self::Error, "type") => Self::Type,
            _ => Self::Elsewhere,
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        match self.path {
            JsonPath::Elsewhere => value.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => value.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.found.error |= matches!(self.path, JsonPath::Error);
        while let Some(path) = map.next_key_seed(KeySeed(self.path))? {
            map.next_value_seed(ValueSeed { found: &mut *self.found, errors: self.errors, path })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let path = if matches!(self.path, JsonPath::Top) { JsonPath::Top } else { JsonPath::Elsewhere };
        while seq
            .next_element_seed(ValueSeed { found: &mut *self.found, errors: self.errors, path })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match self.path {
            JsonPath::Error => {
                self.found.error = true;
                self.found.code(text, self.errors);
            }
            JsonPath::Code => self.found.code(text, self.errors),
            JsonPath::Type => {
                self.found.error |= text == "error";
                self.found.by_type = self.found.by_type.or_else(|| self.errors.fault(text));
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        if matches!(self.path, JsonPath::Code) {
            self.found.status = self.found.status.or(u16::try_from(number).ok());
        }
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a key as the path of its value.
struct KeySeed(JsonPath);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = JsonPath;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<JsonPath, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = JsonPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<JsonPath, E> {
        Ok(self.0.under(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Kind;

    fn read(json: &[u8]) -> ParsedError {
        super::read(json, &LlmErrors::new())
    }

    fn kind(json: &str) -> Option<Kind> {
        read(json.as_bytes()).row().map(|fault| fault.kind())
    }

    #[test]
    fn error_code_is_found_in_every_shape() {
        for json in [
            r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
            r#"{"type":"error","error":{"type":"billing_error","message":"m"},"request_id":"r"}"#,
            r#"{"type":"error","code":"insufficient_quota","message":"m","param":null,"sequence_number":1}"#,
            r#"{"type":"response.failed","response":{"id":"r","error":{"code":"insufficient_quota"}}}"#,
            r#"{"error":"insufficient_quota"}"#,
            r#"[{"error":{"code":"insufficient_quota"}}]"#,
            " \n{ \"error\" : { \"code\" : \"insufficient_\\u0071uota\" } } ",
        ] {
            assert_eq!(kind(json), Some(Kind::Quota), "{json}");
            assert!(read(json.as_bytes()).error || json.starts_with('['), "{json}");
        }
    }

    #[test]
    fn error_code_takes_precedence_over_type() {
        let json = r#"{"error":{"type":"invalid_request_error","code":"invalid_api_key"}}"#;
        assert_eq!(kind(json), Some(Kind::Auth));
        let json = r#"{"error":{"type":"invalid_request_error","code":"model_not_found"}}"#;
        assert_eq!(kind(json), Some(Kind::Client));
        let json = r#"{"error":{"type":"requests","code":"rate_limit_exceeded"}}"#;
        assert_eq!(kind(json), Some(Kind::Throttled));
    }

    #[test]
    fn error_object_without_code_is_an_error() {
        let found = read(br#"{"error":{"message":"m","code":null}}"#);
        assert!(found.error);
        assert_eq!(found.row(), None);
        assert_eq!(read(br#"{"error":null,"choices":[]}"#), ParsedError::default());
        assert_eq!(read(br#"{"choices":[{"error":{"code":"server_error"}}]}"#), ParsedError::default());
    }

    #[test]
    fn error_code_http_status_is_read() {
        for json in [r#"{"error":{"code":429}}"#, r#"{"type":"error","code":"429"}"#] {
            let found = read(json.as_bytes());
            assert_eq!(found.row(), None);
            assert_eq!(found.status_row().unwrap().kind(), Kind::Throttled, "{json}");
        }
        for json in [r#"{"error":{"code":200}}"#, r#"{"error":{"code":-1}}"#, r#"{"error":{"code":1e99}}"#] {
            assert_eq!(read(json.as_bytes()).status_row(), None, "{json}");
        }
    }

    #[test]
    fn json_truncated_is_read_up_to_damage() {
        let cut = br#"{"error":{"type":"overloaded_error","message":"Ov"#;
        assert_eq!(read(cut).row().unwrap().kind(), Kind::Overloaded);
        let in_a_character = b"{\"error\":{\"code\":\"server_error\",\"message\":\"\xe2\x82";
        assert_eq!(read(in_a_character).row().unwrap().kind(), Kind::Server);
        for garbage in
            [&b""[..], b"<html>", b"{", b"{\"error\"", b"\xff\xfe", b"null", b"[", b"\"insufficient_quota\""]
        {
            assert_eq!(read(garbage).row(), None, "{garbage:?}");
        }
    }

    #[test]
    fn json_unbounded_is_read_within_limits() {
        let deep = "[".repeat(100_000);
        assert_eq!(read(deep.as_bytes()), ParsedError::default());
        let nested = format!(r#"{{"a":{}"#, "{\"a\":".repeat(100_000));
        assert_eq!(read(nested.as_bytes()), ParsedError::default());
        let after_deep = format!(r#"{{"error":{{"code":"server_error","x":{deep}"#);
        assert_eq!(kind(&after_deep), Some(Kind::Server));
        let keys = "\"key\":0,".repeat(1_000_000);
        let wide = format!(r#"{{{keys}"error":{{"type":"api_error"}}}}"#);
        assert_eq!(kind(&wide), Some(Kind::Server));
    }
}
