//! Reads the items of a job from a JSON Lines file or a JSON array.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use tower::BoxError;

use crate::prompt::PromptTemplate;
use crate::unit::Unit;

/// The items of an input file.
#[derive(Debug)]
pub struct Input {
    /// The items in the order of the file.
    pub items: Vec<InputItem>,
    /// Differs if the content of the file differs.
    pub fingerprint: String,
    path: PathBuf,
}

/// An item and its place in the file.
#[derive(Debug, PartialEq)]
pub struct InputItem {
    /// The line on which the item begins, from 1.
    pub line: usize,
    /// The fields of the item.
    pub fields: Unit,
}

/// An input file cannot be used.
#[derive(Debug)]
pub struct InputError {
    path: PathBuf,
    /// The line, from 1.
    line: Option<usize>,
    /// The column, from 1.
    column: Option<usize>,
    reason: BoxError,
}

impl Input {
    /// Reads a file: a JSON array if its name ends in `.json`, else JSON Lines.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file, line, column and reason if
    ///
    /// - the file cannot be read, is not UTF-8, or is no valid JSON
    /// - an item is not an object
    /// - the file has no item
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let bytes = fs::read(path).map_err(|error| InputError::of_file(path, error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let place = place_after(&bytes[..error.valid_up_to()]);
            InputError::at(path, place, "the text is not UTF-8")
        })?;
        // Some editors write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let items = if is_json_array(path) { parse_array(text) } else { parse_lines(text) };
        let items = items.map_err(|(place, reason)| InputError::at(path, place, reason))?;
        if items.is_empty() {
            return Err(InputError::of_file(path, "the file has no item"));
        }
        Ok(Self { items, fingerprint: fingerprint(&bytes), path: path.to_owned() })
    }

    /// Checks that each item has the fields of the prompt.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file, the line and the field.
    pub fn check_fields(&self, template: &PromptTemplate) -> Result<(), InputError> {
        for item in &self.items {
            template.render(&item.fields).map_err(|error| InputError {
                line: Some(item.line),
                ..InputError::of_file(&self.path, error)
            })?;
        }
        Ok(())
    }
}

impl InputError {
    fn of_file(path: &Path, reason: impl Into<BoxError>) -> Self {
        Self { path: path.to_owned(), line: None, column: None, reason: reason.into() }
    }

    fn at(path: &Path, (line, column): (usize, usize), reason: impl Into<BoxError>) -> Self {
        Self { line: Some(line), column: Some(column), ..Self::of_file(path, reason) }
    }
}

/// Whether a file holds one JSON array rather than an object on each line.
pub fn is_json_array(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// The next step after a line that cannot be parsed.
const LINES_HINT: &str = "each line must be a JSON object; a file with a JSON array is named *.json";

/// The next step after an array that cannot be parsed.
const ARRAY_HINT: &str =
    "the file must be a JSON array of objects; a file with an object on each line is named *.jsonl";

type ParseError = ((usize, usize), String);

fn parse_lines(text: &str) -> Result<Vec<InputItem>, ParseError> {
    let lines = (1..).zip(text.split('\n'));
    lines
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(line, text)| match serde_json::from_str(text) {
            Ok(fields) => Ok(InputItem { line, fields }),
            Err(error) => Err(((line, error.column()), reason(&error, LINES_HINT))),
        })
        .collect()
}

fn parse_array(text: &str) -> Result<Vec<InputItem>, ParseError> {
    let parsed = parse_objects(text);
    let (objects, raw) =
        parsed.map_err(|error| ((error.line(), error.column()), reason(&error, ARRAY_HINT)))?;
    let mut items = Vec::with_capacity(objects.len());
    let (mut line, mut rest) = (1, text);
    for (fields, raw) in objects.into_iter().zip(raw) {
        // Only white space, `[` and `,` are before the object.
        let start = rest.find(raw.get()).unwrap_or_default();
        line += count_lines(&rest[..start]);
        items.push(InputItem { line, fields });
        line += count_lines(raw.get());
        rest = &rest[start + raw.get().len()..];
    }
    Ok(items)
}

type Objects<'a> = (Vec<Unit>, Vec<&'a RawValue>);

/// Parses the objects of an array, and finds their texts.
fn parse_objects(text: &str) -> serde_json::Result<Objects<'_>> {
    Ok((serde_json::from_str(text)?, serde_json::from_str(text)?))
}

/// Returns the text of an error and a hint.
///
/// The line and the column are removed from the text, because they are relative to the parsed text.
fn reason(error: &serde_json::Error, hint: &str) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let problem = text.strip_suffix(&place).unwrap_or(&text);
    format!("{problem}; {hint}")
}

/// Returns line and column of the byte after `bytes`.
fn place_after(bytes: &[u8]) -> (usize, usize) {
    let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    lines.last().map_or((1, 1), |(line, text)| (line, text.len() + 1))
}

fn count_lines(text: &str) -> usize {
    text.matches('\n').count()
}

/// Returns the length and the FNV-1a hash of the content.
fn fingerprint(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}-{hash:016x}", bytes.len())
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input `{}` cannot be used", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ": line {line}")?;
        }
        match self.column {
            Some(column) => write!(f, ", column {column}"),
            None => Ok(()),
        }
    }
}

impl Error for InputError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.reason)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use tower_fault_classify::ErrorChain;

    use super::*;

    fn read(name: &str, content: &[u8]) -> Result<Input, String> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        Input::read(&path).map_err(|error| {
            let text = ErrorChain(&error).to_string();
            text.replace(&*path.to_string_lossy(), name)
        })
    }

    fn lines(input: &Input) -> Vec<(usize, Value)> {
        input.items.iter().map(|item| (item.line, item.fields.clone().into())).collect()
    }

    #[test]
    fn json_lines_items_have_their_lines() {
        let input = read("in.jsonl", b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\":\"\xe2\x80\xa8\"}").unwrap();
        assert_eq!(lines(&input), [(1, json!({"a": 1})), (4, json!({"b": "\u{2028}"}))]);
    }

    #[test]
    fn json_array_items_have_their_lines() {
        let input = read("in.JSON", b"\n[{\"a\":\n1}, {\"a\": 1},\n\n{\"a\":1}]\n").unwrap();
        assert_eq!(lines(&input), [(2, json!({"a": 1})), (3, json!({"a": 1})), (5, json!({"a": 1}))]);
    }

    #[test]
    fn invalid_json_names_file_line_and_column() {
        let content = [b"{\"a\":1}\n".repeat(6), b"{\"a\":1,}\n".to_vec()].concat();
        let expected =
            format!("input `in.jsonl` cannot be used: line 7, column 8: trailing comma; {LINES_HINT}");
        assert_eq!(read("in.jsonl", &content).unwrap_err(), expected);
        let expected =
            format!("input `in.json` cannot be used: line 2, column 6: expected `:`; {ARRAY_HINT}");
        assert_eq!(read("in.json", b"[\n{\"a\" 1}]").unwrap_err(), expected);
    }

    #[test]
    fn item_that_is_no_object_names_its_line() {
        let place = "input `in.jsonl` cannot be used: line 2, column 1";
        let expected = format!("{place}: invalid type: integer `3`, expected a map; {LINES_HINT}");
        assert_eq!(read("in.jsonl", b"{}\n3").unwrap_err(), expected);
        let error = read("in.json", b"[{},\n\"x\"]").unwrap_err();
        assert!(error.contains("in.json") && error.contains("line 2, column"), "{error}");
        let error = read("in.json", b"{\"a\": 1}").unwrap_err();
        assert!(error.contains("line 1") && error.contains("expected a sequence"), "{error}");
    }

    #[test]
    fn text_that_is_not_utf8_names_its_line() {
        let expected = "input `in.jsonl` cannot be used: line 2, column 7: the text is not UTF-8";
        assert_eq!(read("in.jsonl", b"{}\n{\"a\":\"\xff\"}").unwrap_err(), expected);
    }

    #[test]
    fn file_without_items_is_an_error() {
        for (name, content) in [("in.jsonl", ""), ("in.jsonl", "\n \n"), ("in.json", "[]")] {
            let expected = format!("input `{name}` cannot be used: the file has no item");
            assert_eq!(read(name, content.as_bytes()).unwrap_err(), expected);
        }
    }

    #[test]
    fn missing_file_and_directory_are_named() {
        let folder = TempDir::new().unwrap();
        for path in [folder.path().join("missing.jsonl"), folder.path().to_owned()] {
            let error = Input::read(&path).unwrap_err();
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
            assert!(error.source().is_some());
        }
    }

    #[test]
    fn item_without_field_of_prompt_names_line_and_field() {
        let template = PromptTemplate::new("{a} {b}").unwrap();
        let input = read("in.jsonl", b"{\"a\":1,\"b\":2}\n\n{\"a\":1}").unwrap();
        let error = ErrorChain(&input.check_fields(&template).unwrap_err()).to_string();
        assert!(error.contains("in.jsonl` cannot be used: line 3") && error.contains("`b`"), "{error}");
    }

    #[test]
    fn fingerprint_differs_if_a_byte_differs() {
        let of = |content| read("in.jsonl", content).unwrap().fingerprint;
        assert_eq!(of(b"{\"a\":1}"), of(b"{\"a\":1}"));
        assert_ne!(of(b"{\"a\":1}"), of(b"{\"a\":2}"));
        assert_ne!(of(b"{\"a\":1}"), of(b"{\"a\":1}\n"));
    }
}
