//! JSON Schemas of tables of settings.

use schemars::Schema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::kind::{Described, Kind, TableKind};
use super::read::SCHEMA;
use super::table::{Table, describe};

/// The JSON Schema of a table.
#[derive(Debug)]
pub struct TableSchema(Value);

impl TableSchema {
    /// Returns the schema of a table, without defaults.
    pub fn new<T: Table>(table: &T, description: &str) -> Self {
        let mut schema = of_root(&describe(table));
        schema["description"] = description.into();
        Self(schema)
    }

    /// Returns the schema of a table that contains exactly one of its settings, without defaults.
    pub fn one_of<T: Table>(table: &T, description: &str) -> Self {
        let mut schema = of_root(&TableKind { exactly_one: true, ..describe(table) });
        schema["description"] = description.into();
        Self(schema)
    }

    /// Adds the values of a configuration as the defaults of the settings.
    #[must_use]
    pub fn with_defaults(mut self, defaults: &impl Serialize) -> Self {
        if let Ok(defaults) = serde_json::to_value(defaults) {
            add_defaults(&mut self.0, &defaults);
        }
        self
    }

    /// Adds defaults to the settings in the table of the property `name`.
    #[must_use]
    pub fn with_defaults_in(mut self, name: &str, defaults: &impl Serialize) -> Self {
        if let Ok(defaults) = serde_json::to_value(defaults) {
            add_defaults(&mut self.0["properties"][name], &defaults);
        }
        self
    }
}

impl From<TableSchema> for Schema {
    fn from(TableSchema(schema): TableSchema) -> Self {
        Self::try_from(schema).unwrap_or_default()
    }
}

/// Adds defaults to the properties of every table in `schema`.
fn add_defaults(schema: &mut Value, defaults: &Value) {
    let kinds = schema.get_mut("anyOf").and_then(Value::as_array_mut);
    for kind in kinds.into_iter().flatten() {
        add_defaults(kind, defaults);
    }
    // A table with exactly one setting has no default for it.
    let chooses = schema.get("oneOf").is_some();
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, default) in defaults.as_object().into_iter().flatten() {
        let Some(property) = properties.get_mut(name) else { continue };
        add_defaults(property, default);
        // The defaults of a plain table are those of its settings.
        if !chooses && property.get("properties").is_none() {
            property["default"] = default.clone();
        }
    }
}

/// Returns the schema of the outermost table of a file.
fn of_root(table: &TableKind) -> Value {
    let mut schema = of_table(table);
    let description = "the JSON Schema of the file, for editors. It is not read\n\nAllowed: a string";
    schema["properties"][SCHEMA] = json!({ "type": "string", "description": description });
    schema
}

fn of_table(table: &TableKind) -> Value {
    let TableKind { settings, exclusive, forbidden, not_both_none, exactly_one } = table;
    let properties: Map<_, _> =
        settings.iter().map(|setting| (setting.name.to_owned(), of_setting(setting))).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required: Vec<_> =
        settings.iter().filter(|setting| setting.required).map(|setting| setting.name).collect();
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    let not_both = exclusive.iter().map(|pair| json!({ "not": { "required": pair } }));
    let not_set = forbidden.iter().map(|name| json!({ "not": { "required": [name] } }));
    let not_off = not_both_none.iter().map(|pair| {
        let properties: Map<_, _> =
            pair.iter().map(|name| ((*name).to_owned(), json!({ "const": "none" }))).collect();
        json!({ "not": { "required": pair, "properties": properties } })
    });
    let rules: Vec<_> = not_both.chain(not_set).chain(not_off).collect();
    if !rules.is_empty() {
        schema["allOf"] = rules.into();
    }
    if *exactly_one {
        let names = settings.iter().map(|setting| json!({ "required": [setting.name] }));
        schema["oneOf"] = names.collect();
    }
    schema
}

fn of_setting(setting: &Described) -> Value {
    let mut schema = of_kind(&setting.kind);
    // A schema has no range of durations, so the range is a part of the text.
    schema["description"] = format!("{}\n\nAllowed: {}", setting.meaning, setting.range).into();
    schema
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text { pattern: None } => json!({ "type": "string" }),
        Kind::Text { pattern: Some(pattern) } => json!({ "type": "string", "pattern": pattern }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Float(range) => json!({ "type": "number", "minimum": range.start(), "maximum": range.end() }),
        Kind::Integer(range) => {
            json!({ "type": "integer", "minimum": integer(*range.start()), "maximum": integer(*range.end()) })
        }
        Kind::Words(words) => json!({ "type": "string", "enum": words }),
        Kind::List(item) => json!({ "type": "array", "items": of_kind(item) }),
        Kind::Table(table) => of_table(table),
        Kind::Map(value) => json!({ "type": "object", "additionalProperties": of_kind(value) }),
        Kind::Any(kinds) => json!({ "anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>() }),
    }
}

/// Returns the end of a range of integers, all of which are in the range of `i64` or `u64`.
fn integer(end: i128) -> Value {
    u64::try_from(end).map_or_else(|_| i64::try_from(end).ok().into(), Value::from)
}
