//! The JSON Schemas of configuration files: the files in `docs/schema` and the tables of
//! `docs/configuration.md` are made from them, and they accept what the crates read.
//!
//! With `UPDATE_CONFIGURATION=1`, the tests rewrite the files and the tables.

use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use proptest::prelude::*;
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tower_breaker::BreakerConfig;
use tower_breaker::keyed::KeyedConfig;
use tower_jitter_retry::{Budget, RetryPolicy};

use super::configuration::{blocks, page, section};

/// The absolute URL of the guides, with which the schemas refer to them.
const GUIDES: &str = "https://github.com/OWNER/tower-resilience-layers/blob/main/docs/";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn schema<T: JsonSchema>() -> Value {
    schema_for!(T).to_value()
}

/// Compares a file with its generated content, or rewrites it.
fn check_file(path: &str, generated: &str) {
    let path = docs().join(path);
    if std::env::var_os("UPDATE_CONFIGURATION").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, generated).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    let file = path.display();
    assert!(current == generated, "{file} is out of date: run this test with UPDATE_CONFIGURATION=1");
}

#[test]
fn schema_files_are_current() {
    for (file, schema) in [
        ("breaker", schema::<BreakerConfig>()),
        ("keyed-breaker", schema::<KeyedConfig>()),
        ("retry", schema::<RetryPolicy>()),
        ("budget", schema::<Budget>()),
    ] {
        let generated = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        check_file(&format!("schema/{file}.json"), &generated);
    }
}

/// Returns the properties of a table, also of one that can be turned off.
fn properties(schema: &Value) -> &Map<String, Value> {
    let kinds = schema["anyOf"].as_array().into_iter().flatten();
    let tables = std::iter::once(schema).chain(kinds).find_map(|kind| kind["properties"].as_object());
    tables.unwrap_or_else(|| panic!("no table: {schema}"))
}

/// Returns the settings of a table, without the name of the schema.
fn settings(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    properties(schema).iter().filter(|(name, _)| *name != "$schema")
}

/// Writes a value as TOML does in one line.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{name} = {}", toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        scalar => scalar.to_string(),
    }
}

/// Returns the row of a setting.
fn row(name: &str, setting: &Value) -> String {
    let default = match setting.get("default") {
        Some(default) => format!("`{}`", toml(default)),
        None => "not set".to_owned(),
    };
    let description = setting["description"].as_str().unwrap().replace(GUIDES, "");
    let (meaning, range) = description.split_once("\n\nAllowed: ").unwrap();
    let words = range.starts_with("a ") || range.starts_with("the ");
    let range = if words { range.to_owned() } else { format!("`{range}`") };
    format!("`{name}` | {default} | {range} | {} |\n", meaning.replace("](configuration.md#", "](#"))
}

fn rows(schema: &Value) -> String {
    settings(schema).map(|(name, setting)| "| ".to_owned() + &row(name, setting)).collect()
}

fn table_of_budgets() -> String {
    let budget = schema::<Budget>();
    let rows = settings(&budget).flat_map(|(kind, table)| {
        properties(table).iter().map(move |(name, setting)| format!("| `{kind}` | {}", row(name, setting)))
    });
    let head = "| kind | setting | default | range | meaning |\n|---|---|---|---|---|\n";
    head.to_owned() + &rows.collect::<String>()
}

#[test]
fn tables_of_settings_are_current() {
    let table = |schema: &Value| {
        format!("| setting | default | range | meaning |\n|---|---|---|---|\n{}", rows(schema))
    };
    let mut page = page();
    for (heading, table) in [
        ("Circuit breaker defaults", table(&schema::<BreakerConfig>())),
        ("Circuits by key", table(&schema::<KeyedConfig>())),
        ("Retry defaults", table(&schema::<RetryPolicy>())),
        ("Retry budgets", table_of_budgets()),
    ] {
        let old = section(&page, heading);
        let start = old.find("\n|").unwrap() + 1;
        let end = old[start..].find("\n\n").map_or(old.len(), |end| start + end + 1);
        let new = format!("{}{table}{}", &old[..start], &old[end..]);
        page = page.replace(old, &new);
    }
    check_file("configuration.md", &page);
}

/// What reads a file of one kind, and the schema of that file.
struct Format {
    read: fn(&Value) -> Result<(), String>,
    schema: Value,
    validator: Validator,
}

impl Format {
    fn new<T: DeserializeOwned + JsonSchema>() -> Self {
        let schema = schema::<T>();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let read = |file: &Value| {
            // From text, as a file is read.
            let read = serde_json::from_str::<T>(&file.to_string());
            read.map(drop).map_err(|error| error.to_string())
        };
        Self { read, schema, validator }
    }

    /// Checks that the reader and the schema agree on a file.
    fn check(&self, file: &Value) {
        let (read, valid) = ((self.read)(file), self.validator.is_valid(file));
        match read {
            Ok(()) => assert!(valid, "only the reader accepts {file}: {:?}", self.validator.validate(file)),
            Err(error) => {
                let beyond = BEYOND_SCHEMA.iter().any(|part| error.contains(part));
                assert!(!valid || beyond, "only the schema accepts {file}: {error}");
            }
        }
    }
}

/// Parts of the errors for what a schema cannot express.
const BEYOND_SCHEMA: [&str; 3] = [
    // The range of a duration, and of a seed in quotes.
    "such as \"1m 30s\"",
    "in quotes if it is above",
    // The range depends on another setting.
    "because `",
];

fn formats() -> [Format; 4] {
    [
        Format::new::<BreakerConfig>(),
        Format::new::<KeyedConfig>(),
        Format::new::<RetryPolicy>(),
        Format::new::<Budget>(),
    ]
}

#[test]
fn files_on_page_match_schemas() {
    let page = page();
    let [breaker, keyed, retry, _] = formats();
    let mut checked = 0;
    for (heading, format) in
        [("Circuit breaker file", &breaker), ("Keyed circuits file", &keyed), ("Retry file", &retry)]
    {
        let toml = blocks(&page, heading, "toml").into_iter().map(|block| toml::from_str(&block).unwrap());
        let json = blocks(&page, heading, "json");
        for file in toml.chain(json.iter().map(|block| serde_json::from_str(block).unwrap())) {
            let errors: Vec<_> = format.validator.iter_errors(&file).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{file}: {errors:?}");
            checked += 1;
        }
    }
    assert!(checked >= 8, "{checked}");
}

/// Returns the values at and beyond the edges of what a property allows, and values of other kinds.
fn edges(property: &Value) -> Vec<Value> {
    let mut values =
        vec![json!("none"), json!(""), json!(true), json!(null), json!([]), json!({}), json!(-1)];
    // Far beyond every range, in case the schema has no edge.
    values.extend([json!(1e18), json!(-1e18), json!(u64::MAX), json!(i64::MIN)]);
    values.extend(["1s", "1m 30s", "0s", "5", "1.5 s", "366d", "0.5ns", "full", "9", "x y"].map(Value::from));
    values.extend(["a.B/C", "a.B/*", "a.B/C/D"].map(|method| json!([method])));
    let kinds = property["anyOf"].as_array().into_iter().flatten();
    for kind in std::iter::once(property).chain(kinds) {
        values.extend(kind["enum"].as_array().into_iter().flatten().cloned());
        for (end, beyond) in [("minimum", -1_i32), ("maximum", 1)] {
            let Some(end) = kind.get(end) else { continue };
            values.push(end.clone());
            // A whole number with a point, which some programs write.
            values.extend(end.as_i64().map(|end| json!(end as f64)));
            if end.is_f64() {
                values.extend(end.as_f64().map(|end| json!(end + f64::from(beyond) / 8.0)));
            }
            values.extend(end.as_i64().map(|end| json!(end + i64::from(beyond))));
        }
    }
    values
}

/// Returns a file with some of the settings of a table, with nested tables, or another value.
fn value(property: &Value, depth: u32) -> BoxedStrategy<Value> {
    let scalar = prop::sample::select(edges(property)).boxed();
    let kinds = property["anyOf"].as_array().cloned().unwrap_or_default();
    let table = kinds.iter().chain([property]).find_map(|kind| kind["properties"].as_object());
    match table {
        Some(settings) if depth > 0 => {
            let settings: Vec<_> = settings.clone().into_iter().collect();
            let most = settings.len().min(3);
            let setting = prop::sample::select(settings).prop_flat_map(move |(name, property)| {
                let name = prop_oneof![30 => Just(name), 1 => Just("other".to_owned())];
                (name, value(&property, depth - 1))
            });
            let table = prop::collection::vec(setting, 0..=most)
                .prop_map(|settings| Value::Object(settings.into_iter().collect()));
            prop_oneof![4 => table, 1 => scalar].boxed()
        }
        _ => scalar,
    }
}

fn check_any_file(format: &Format) {
    let config = ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() };
    let files = value(&format.schema, 3);
    proptest!(config, |(file in files)| format.check(&file));
}

#[test]
fn reader_and_schema_accept_same_breaker_files() {
    check_any_file(&formats()[0]);
}

#[test]
fn reader_and_schema_accept_same_keyed_files() {
    check_any_file(&formats()[1]);
}

#[test]
fn reader_and_schema_accept_same_retry_files() {
    check_any_file(&formats()[2]);
}

#[test]
fn reader_and_schema_accept_same_budget_files() {
    check_any_file(&formats()[3]);
}

/// Every setting alone, with each of its edges.
#[test]
fn reader_and_schema_accept_same_values_of_each_setting() {
    for format in formats() {
        for (name, property) in properties(&format.schema) {
            for value in edges(property) {
                format.check(&json!({ name: value }));
            }
        }
    }
}

#[test]
fn file_may_name_its_schema_in_outermost_table_only() {
    let [breaker, keyed, retry, budget] = formats();
    let schema = "https://example.com/settings.json";
    for (format, file) in [
        (&breaker, json!({ "$schema": schema, "probes": 2 })),
        (&keyed, json!({ "$schema": schema, "each": {} })),
        (&retry, json!({ "$schema": schema, "budget": { "tokens": {} } })),
        (&budget, json!({ "$schema": schema, "tokens": {} })),
    ] {
        assert_eq!((format.read)(&file), Ok(()), "{file}");
        format.check(&file);
    }
    for (format, file) in [
        (&breaker, json!({ "$schema": 5 })),
        (&keyed, json!({ "each": { "$schema": schema } })),
        (&retry, json!({ "budget": { "$schema": schema, "tokens": {} } })),
        (&budget, json!({ "$schema": schema })),
    ] {
        assert!((format.read)(&file).is_err() && !format.validator.is_valid(&file), "{file}");
    }
}
