//! Templates of prompts.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value};

/// A prompt with `{field}` placeholders, which are replaced by the fields of an item.
///
/// `{{` and `}}` stand for single braces. Text is inserted as it is, and any other value as JSON.
///
/// ```
/// use llm_batch::prompt::PromptTemplate;
/// use serde_json::{Value, json};
///
/// let template = PromptTemplate::new("Name the capital of {country} as {{\"capital\": name}}.")?;
/// let Value::Object(unit) = json!({ "country": "Peru" }) else { unreachable!() };
/// assert_eq!(template.render(&unit)?, "Name the capital of Peru as {\"capital\": name}.");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

impl PromptTemplate {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// Fails if a brace has no partner, or if a placeholder is not a name of a field.
    pub fn new(template: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            text.push_str(&rest[..at]);
            let from_brace = &rest[at..];
            if from_brace.starts_with("{{") || from_brace.starts_with("}}") {
                text.push_str(&from_brace[..1]);
                rest = &from_brace[2..];
                continue;
            }
            let line = 1 + template[..template.len() - from_brace.len()].matches('\n').count();
            let (field, after) =
                placeholder(from_brace).map_err(|problem| TemplateError { line, problem })?;
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Field(field.to_owned()));
            rest = after;
        }
        text.push_str(rest);
        parts.push(Part::Text(text));
        Ok(Self { parts })
    }

    /// Returns the names of the fields, in the order of their placeholders.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some(field.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Replaces the placeholders by the fields of an item.
    ///
    /// # Errors
    ///
    /// Fails if the item lacks a field.
    pub fn render(&self, unit: &Map<String, Value>) -> Result<String, MissingField> {
        let mut prompt = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => prompt.push_str(text),
                Part::Field(field) => match unit.get(field) {
                    Some(Value::String(text)) => prompt.push_str(text),
                    Some(other) => prompt.push_str(&other.to_string()),
                    None => return Err(MissingField { field: field.clone() }),
                },
            }
        }
        Ok(prompt)
    }
}

/// Splits the text after a brace into the name of a field and the rest.
fn placeholder(from_brace: &str) -> Result<(&str, &str), Problem> {
    let inner = from_brace.strip_prefix('{').ok_or(Problem::Unopened)?;
    let end = inner.find(['{', '}']).ok_or(Problem::Unclosed)?;
    let Some(rest) = inner[end..].strip_prefix('}') else { return Err(Problem::Unclosed) };
    let field = &inner[..end];
    // JSON in a prompt looks like this. It is not the name of a field.
    let is_name = !field.trim().is_empty() && !field.contains(['"', '\n', '\r']);
    if is_name { Ok((field, rest)) } else { Err(Problem::NoName(field.to_owned())) }
}

/// A template that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    line: usize,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Unopened,
    Unclosed,
    NoName(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the prompt: ", self.line)?;
        match &self.problem {
            Problem::Unopened => f.write_str("`}` without `{`; write `}}` for a brace"),
            Problem::Unclosed => f.write_str("`{` without `}`; write `{{` for a brace"),
            Problem::NoName(text) => {
                write!(f, "`{{{text}}}` is not the name of a field; write `{{{{` and `}}}}` for braces")
            }
        }
    }
}

impl Error for TemplateError {}

/// An item that lacks a field of the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingField {
    /// The name of the field.
    pub field: String,
}

impl fmt::Display for MissingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the item has no field `{}`, which the prompt uses; add the field or write `{{{{` for a brace",
            self.field
        )
    }
}

impl Error for MissingField {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str, unit: &Value) -> String {
        let unit = unit.as_object().expect("the item is an object");
        PromptTemplate::new(template)
            .expect("the template is valid")
            .render(unit)
            .expect("no field is missing")
    }

    fn problem(template: &str) -> String {
        PromptTemplate::new(template).expect_err("the template is invalid").to_string()
    }

    #[test]
    fn prompt_fields_are_inserted() {
        let unit = json!({ "name": "Zoë {x}", "n": 1.5, "tags": ["a", "b"], "none": null, "dc:title": "T" });
        assert_eq!(render("{name}: {n}, {tags}, {none}", &unit), "Zoë {x}: 1.5, [\"a\",\"b\"], null");
        assert_eq!(render("{dc:title}{n}{n}", &unit), "T1.51.5");
        assert_eq!(render("no placeholder", &unit), "no placeholder");
        assert_eq!(render("", &unit), "");
    }

    #[test]
    fn prompt_doubled_braces_are_text() {
        let unit = json!({ "n": 1 });
        assert_eq!(render("{{n}} {{{n}}} }}{{", &unit), "{n} {1} }{");
    }

    #[test]
    fn prompt_fields_are_listed_in_order() {
        let template = PromptTemplate::new("{b} {{x}} {a} {b}").expect("the template is valid");
        assert_eq!(template.fields().collect::<Vec<_>>(), ["b", "a", "b"]);
    }

    #[test]
    fn prompt_missing_field_is_named() {
        let template = PromptTemplate::new("{title}").expect("the template is valid");
        let error = template.render(&Map::new()).expect_err("the field is missing");
        assert_eq!(error.field, "title");
        assert!(error.to_string().contains("no field `title`"), "{error}");
    }

    #[test]
    fn prompt_malformed_names_line_and_problem() {
        assert_eq!(problem("one\ntwo }"), "line 2 of the prompt: `}` without `{`; write `}}` for a brace");
        assert_eq!(problem("{open"), "line 1 of the prompt: `{` without `}`; write `{{` for a brace");
        assert_eq!(problem("{a{b}"), "line 1 of the prompt: `{` without `}`; write `{{` for a brace");
        assert_eq!(
            problem("like {\"a\": 1}"),
            "line 1 of the prompt: `{\"a\": 1}` is not the name of a field; write `{{` and `}}` for braces"
        );
        assert!(problem("{}").contains("`{}` is not the name of a field"));
    }
}
