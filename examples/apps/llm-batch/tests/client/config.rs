//! Configuration files.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use llm_batch::config::{Api, JobConfig, Mode, ProcessingConfig};
use tempfile::TempDir;
use tower_fault_classify::ErrorChain;

/// Writes a file into a temporary folder, which is removed with the guard.
fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder can be created");
    let path = folder.path().join(name);
    fs::write(&path, text).expect("the file can be written");
    (folder, path)
}

fn read(name: &str, text: &str) -> Result<JobConfig, String> {
    let (_folder, path) = file(name, text);
    JobConfig::read(&path).map_err(|error| ErrorChain(&error).to_string())
}

#[test]
fn processing_config_circuit_breaker_threshold() {
    assert_eq!(ProcessingConfig::default().circuit_breaker_threshold, 5);
    for threshold in [0, 1, 10] {
        let text = format!("[processing]\ncircuit_breaker_threshold = {threshold}");
        let config = read("job.toml", &text).expect("the file is valid");
        assert_eq!(config.processing.circuit_breaker_threshold, threshold);
    }
}

#[test]
fn config_defaults() {
    let config = read("job.toml", "").expect("an empty file is valid");
    assert_eq!(config, JobConfig::default());
    let processing = config.processing;
    assert_eq!((processing.mode, processing.batch_size, processing.max_retries), (Mode::Async, 10, 3));
    assert_eq!((processing.retry_delay, processing.checkin_interval), (Duration::from_secs(1), None));
    assert_eq!((processing.max_wait, processing.parse_error_retries), (Duration::from_secs(3600), 2));
    assert!(processing.post_process && processing.merge_results && !processing.include_raw_result);
    let llm = config.llm;
    assert_eq!((llm.api, &*llm.model, llm.base_url), (Api::OpenAi, "gpt-4o-mini", None));
    assert_eq!((llm.temperature, llm.max_tokens, llm.stream), (0.7, 1500, false));
}

#[test]
fn config_toml_and_json_are_equal() {
    let toml = read(
        "job.toml",
        "processing = { mode = 'sequential', retry_delay = 0.5, checkin_interval = 7 }\n\
         llm = { api = 'anthropic', model = 'claude', timeout = 30, model_field = 'model' }",
    )
    .expect("the TOML is valid");
    let json = read(
        "job.JSON",
        r#"{ "processing": { "mode": "sequential", "retry_delay": 0.5, "checkin_interval": 7 },
             "llm": { "api": "anthropic", "model": "claude", "timeout": 30, "model_field": "model" } }"#,
    )
    .expect("the JSON is valid");
    assert_eq!(toml, json);
    assert_eq!((toml.processing.mode, toml.processing.checkin_interval), (Mode::Sequential, Some(7)));
    assert_eq!(
        (toml.processing.retry_delay, toml.llm.timeout),
        (Duration::from_millis(500), Duration::from_secs(30))
    );
    let written = serde_json::to_string(&toml).expect("the configuration can be written");
    assert_eq!(serde_json::from_str::<JobConfig>(&written).expect("it can be read again"), toml);
}

#[test]
fn config_error_names_file_line_and_field() {
    for (name, text, parts) in [
        ("job.toml", "[processing]\nbatch_sise = 3", vec!["job.toml", "line 2", "batch_sise", "batch_size"]),
        ("job.json", "{\n\"llm\": {\n\"modell\": 1 } }", vec!["job.json", "line 3", "modell", "model"]),
        ("job.toml", "[processing]\nmode = 'fast'", vec!["job.toml", "line 2", "fast", "async"]),
        ("job.toml", "[processing]\nretry_delay = -1", vec!["line 2", "-1 is not a time in seconds"]),
        ("job.toml", "[llm]\ntimeout = nan", vec!["line 2", "is not a time in seconds"]),
        ("job.json", "{", vec!["job.json", "line 1"]),
        ("job.yaml", "", vec!["job.yaml", "must be named *.toml or *.json"]),
    ] {
        let error = read(name, text).expect_err(text);
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

/// A line of the file may hold a secret.
#[test]
fn config_error_does_not_quote_the_line() {
    for name in ["job.toml", "job.json"] {
        let text = if name == "job.toml" {
            "[llm]\napi_key = 'sk-secret'"
        } else {
            "{\"llm\":\n{\"api_key\": \"sk-secret\"}}"
        };
        let error = read(name, text).expect_err(text);
        assert!(!error.contains("sk-secret"), "{error}");
        assert!(error.contains("line 2") && error.contains("unknown field `api_key`"), "{error}");
    }
}

#[test]
fn config_file_missing_is_named() {
    let (_folder, path) = file("job.toml", "");
    for path in [path.with_file_name("other.toml"), path.parent().expect("it has a folder").to_owned()] {
        let error = JobConfig::read(&path).expect_err("it is no file");
        let text = ErrorChain(&error).to_string();
        assert!(text.starts_with(&format!("cannot read the configuration `{}`: ", path.display())), "{text}");
    }
}

#[test]
fn config_value_out_of_range_names_field_and_range() {
    for (text, expected) in [
        ("[processing]\nbatch_size = 0", "`batch_size` is 0; allowed is 1 to 10000"),
        ("[processing]\nmax_retries = 0", "`max_retries` is 0; allowed is 1 to 1000"),
        ("[processing]\nmax_retries = 1001", "`max_retries` is 1001; allowed is 1 to 1000"),
        ("[processing]\nretry_delay = 61", "`retry_delay` is 61.0; allowed is 0 to 60"),
        ("[processing]\nmax_wait = 4e7", "`max_wait` is 40000000.0; allowed is 0 to 31536000"),
        ("[processing]\ncheckin_interval = 0", "`checkin_interval` is 0; allowed is 1 or more"),
        ("[processing]\nparse_error_retries = 101", "`parse_error_retries` is 101; allowed is 0 to 100"),
        ("[llm]\nmodel = ''", "`model` is \"\"; allowed is a name"),
        ("[llm]\ntemperature = 2.5", "`temperature` is 2.5; allowed is 0 to 2"),
        ("[llm]\ntemperature = nan", "`temperature` is NaN; allowed is 0 to 2"),
        ("[llm]\napi = 'anthropic'\ntemperature = 1.5", "`temperature` is 1.5; allowed is 0 to 1"),
        ("[llm]\nmax_tokens = 0", "`max_tokens` is 0; allowed is 1 to 4294967295"),
        ("[llm]\ntimeout = 0", "`timeout` is 0.0; allowed is 0.001 to 86400"),
    ] {
        let error = read("job.toml", text).expect_err(text);
        assert!(error.contains("job.toml` is invalid: ") && error.ends_with(expected), "{error}");
    }
}
