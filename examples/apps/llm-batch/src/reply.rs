//! Results from replies.

use std::error::Error;
use std::fmt;

use serde_json::{Deserializer, Map, Value};

use crate::config::ProcessingConfig;
use crate::text::excerpt;
use crate::unit::{PARSE_ERROR, RESERVED};

/// The field of a result with the value of the reply, if it is not merged.
pub const RESULT: &str = "result";
/// The field of a result with the text of the reply.
pub const RAW_RESULT: &str = "raw_result";

/// Makes the result of an item from the text of its reply.
///
/// | `post_process` | `merge_results` | the reply | added to the item |
/// |---|---|---|---|
/// | off | | any text | `result`: the text |
/// | on | off | contains JSON | `result`: the JSON value |
/// | on | on | contains a JSON object | the fields of the object, which replace those of the item |
/// | on | on | contains another JSON value, or an object with a field such as `_idx` or `error` | `result`: the JSON value |
///
/// With `include_raw_result`, the text of the reply is added as `raw_result`.
///
/// # Errors
///
/// Fails if post-processing is on and the reply contains no JSON.
pub fn result_of(
    unit: &Map<String, Value>,
    reply: &str,
    config: &ProcessingConfig,
) -> Result<Map<String, Value>, ParseError> {
    let mut result = unit.clone();
    match if config.post_process { extract_json(reply)? } else { Value::from(reply) } {
        Value::Object(fields) if config.post_process && config.merge_results && may_merge(&fields) => {
            result.extend(fields);
        }
        value => {
            result.insert(RESULT.to_owned(), value);
        }
    }
    if config.include_raw_result {
        result.insert(RAW_RESULT.to_owned(), reply.into());
    }
    Ok(result)
}

/// Makes the result of an item whose reply does not parse: its fields `parse_error` and
/// `raw_result` are set.
pub fn unparsed(unit: &Map<String, Value>, reply: &str, error: &ParseError) -> Map<String, Value> {
    let mut result = unit.clone();
    result.insert(PARSE_ERROR.to_owned(), error.to_string().into());
    result.insert(RAW_RESULT.to_owned(), reply.into());
    result
}

fn may_merge(fields: &Map<String, Value>) -> bool {
    !RESERVED.iter().any(|reserved| fields.contains_key(*reserved))
}

/// Returns the JSON value in a reply: the whole reply, else the first code block that is JSON, else
/// the longest object or array within the text.
///
/// # Errors
///
/// Fails if the reply contains none of them.
pub fn extract_json(reply: &str) -> Result<Value, ParseError> {
    serde_json::from_str(reply)
        .ok()
        .or_else(|| code_blocks(reply).find_map(|block| serde_json::from_str(block).ok()))
        .or_else(|| longest_value(reply))
        .ok_or_else(|| ParseError { reply: excerpt(reply) })
}

/// Returns the contents of the code blocks between lines of three backquotes.
fn code_blocks(text: &str) -> impl Iterator<Item = &str> {
    // Every second part is within a fence. Its first line may name a language.
    text.split("```").skip(1).step_by(2).map(|block| match block.split_once('\n') {
        Some((language, content)) if language.trim().chars().all(char::is_alphanumeric) => content,
        _ => block,
    })
}

/// Returns the longest object or array that begins at a bracket and is in no other one.
///
/// The parser stops at a depth of 128, which bounds the work for unclosed brackets.
fn longest_value(text: &str) -> Option<Value> {
    let mut longest = None;
    let mut length = 0;
    let mut rest = text;
    while let Some(start) = rest.find(['{', '[']) {
        rest = &rest[start..];
        let mut values = Deserializer::from_str(rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                let end = values.byte_offset();
                if end > length {
                    longest = Some(value);
                    length = end;
                }
                rest = &rest[end..];
            }
            _ => rest = &rest[1..],
        }
    }
    longest
}

/// A reply without JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The beginning of the reply.
    reply: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the reply contains no JSON: `{}`; ask for JSON or use --no-post-process", self.reply)
    }
}

impl Error for ParseError {}

#[cfg(test)]
mod tests;
