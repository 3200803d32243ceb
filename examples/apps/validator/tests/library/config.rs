//! Configuration files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tower_fault_classify::ErrorChain;
use validator::config::{Config, ConfigError};
use validator::external::{External, http_client};
use validator::resilience::Resilience;
use validator::timeouts::Seconds;

const TOML: &str = r#"
concurrency = 2

[timeouts]
lint = 5
coverage = 1.5

[resilience]
fail_max = 2
reset_timeout = 30

[external]
mcp = "http://127.0.0.1:1/mcp"
timeout = 3

[[validators]]
dimension = "lint"
command = ["ruff", "check", "."]
success_exit_codes = [0, 2]

[[validators]]
dimension = "behavioral"
tier = 3
tool = "spawn_agent"
arguments = { goal = "check" }
"#;

fn write(name: &str, text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    Config::read(&path)
}

fn external(config: &Config) -> External {
    External::new(
        config.external.clone(),
        http_client(&config.external).unwrap(),
        Resilience::new(&config.resilience),
    )
}

fn error_of(name: &str, text: &str) -> String {
    let config = write(name, text);
    let error = config.and_then(|config| config.orchestrator(Path::new("."), &external(&config)));
    ErrorChain(&error.unwrap_err()).to_string()
}

#[test]
fn toml_and_json_have_the_same_settings() {
    let config = write("config.toml", TOML).unwrap();
    let json = toml::from_str::<serde_json::Value>(TOML).unwrap().to_string();
    assert_eq!(write("config.json", &json).unwrap(), config);
    assert_eq!(config.concurrency.get(), 2);
    assert_eq!(config.resilience.fail_max.get(), 2);
    assert_eq!(config.resilience.reset_timeout, Seconds::new(30));
    assert_eq!(config.external.timeout, Seconds::new(3));
    assert_eq!(config.validators.len(), 2);
}

#[test]
fn empty_configuration_has_documented_defaults() {
    let config = write("config.toml", "").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.concurrency.get(), 4);
    assert_eq!(config.resilience.fail_max.get(), 5);
    assert_eq!(config.resilience.reset_timeout, Seconds::new(60));
    assert_eq!(config.resilience.retry_wait, Seconds::new(1));
    assert_eq!(config.external.timeout, Seconds::new(10));
    assert_eq!(config.external.max_attempts.get(), 3);
    let orchestrator = config.orchestrator(Path::new("."), &external(&config)).unwrap();
    let dimensions: Vec<_> =
        orchestrator.validators().iter().map(|validator| validator.dimension().to_owned()).collect();
    assert_eq!(dimensions, ["code_quality", "lint", "type_safety", "coverage", "security"]);
}

#[test]
fn config_timeouts_reach_validators() {
    let config = write("config.toml", TOML).unwrap();
    let orchestrator = config.orchestrator(Path::new("."), &external(&config)).unwrap();
    assert_eq!(orchestrator.get_validator_timeout("lint"), Duration::from_secs(5));
    assert_eq!(orchestrator.get_validator_timeout("coverage"), Duration::from_millis(1_500));
    assert_eq!(orchestrator.get_validator_timeout("behavioral"), Duration::from_secs(30));
}

#[cfg(unix)]
#[tokio::test]
async fn config_timeouts_end_commands() {
    let text = "timeouts = { lint = 0.01 }\n\
        [[validators]]\ndimension = \"lint\"\ncommand = [\"sleep\", \"600\"]\n\
        [[validators]]\ndimension = \"security\"\ntier = 2\ncommand = [\"true\"]\n";
    let config = write("config.toml", text).unwrap();
    let report = config.orchestrator(Path::new("."), &external(&config)).unwrap().run_graceful().await;
    assert_eq!(report.results[0].message, "Timeout after 0.01s");
    assert!(report.results[1].passed, "{report:?}");
    assert_eq!((report.results[0].tier, report.results[1].tier), (1, 2));
}

#[test]
fn syntax_error_has_line_and_column() {
    let error = error_of("config.toml", "concurrency = 2\n[timeouts]\nlint = \"long\"\n");
    assert!(error.contains("config.toml` is not valid") && error.contains("line 3"), "{error}");
    let error = error_of("config.json", "{\n  \"timeout\": {}\n}");
    assert!(error.contains("unknown field `timeout`") && error.contains("line 2 column"), "{error}");
    let error = error_of("config.toml", "timeouts = { lint = 0 }");
    assert!(error.contains("0.001 to 31536000"), "{error}");
}

#[test]
fn unreadable_file_is_named() {
    let error = ErrorChain(&Config::read(Path::new("/no/such.toml")).unwrap_err()).to_string();
    assert!(error.starts_with("configuration `/no/such.toml` cannot be read; check the path: "), "{error}");
    let error = error_of("config.yaml", "");
    assert!(error.ends_with("config.yaml` has no known format; use `.toml` or `.json`"), "{error}");
}

#[test]
fn invalid_validator_is_named_with_problem() {
    let cases = [
        ("", "it has no check; set `command` or `tool`"),
        ("command = [\"true\"]\ntool = \"check\"", "it has two checks; remove `command` or `tool`"),
        ("command = []", "its `command` is empty; name a program"),
        ("command = [\"\", \"check\"]", "its `command` is empty; name a program"),
        ("command = [\"true\"]\nsuccess_exit_codes = []", "its `success_exit_codes` are empty; list a code"),
        ("tool = \"check\"", "`mcp` has no address; set `mcp` in `[external]`"),
        ("command = [\"true\"]\narguments = {}", "it has `arguments` without `tool`; remove it"),
        ("tool = \"t\"\nsuccess_exit_codes = []", "it has `success_exit_codes` without `command`; remove it"),
    ];
    for (check, problem) in cases {
        let valid = "[[validators]]\ndimension = \"lint\"\ncommand = [\"true\"]\n";
        let error =
            error_of("config.toml", &format!("{valid}[[validators]]\ndimension = \"visual\"\n{check}"));
        assert_eq!(error, format!("validator 2 (`visual`) is not valid: {problem}"));
    }
}

#[test]
fn empty_dimension_is_named() {
    let error = error_of("config.toml", "[[validators]]\ndimension = \"\"\ncommand = [\"true\"]");
    assert_eq!(error, "validator 1 (``) is not valid: its `dimension` is empty; name what it checks");
}

#[test]
fn json_error_names_field() {
    let cases = [
        (r#"{"validators":[{"dimension":"lint","tier":300}]}"#, "validators[0].tier: invalid value"),
        (r#"{"external":{"timeout":0}}"#, "external.timeout: the time is not valid"),
        (r#"{"timeouts":{"lint":"1"}}"#, "timeouts.lint: invalid type"),
        (r#"{"timeouts":{}} }"#, "trailing characters at line 1 column 17"),
    ];
    for (text, problem) in cases {
        let error = error_of("config.json", text);
        assert!(error.contains(problem) && error.contains("line 1 column"), "{error}");
    }
}

#[test]
fn invalid_address_is_named_with_expected_form() {
    let cases = [
        ("questdb = \"localhost\"", "`questdb` is `localhost`; write HOST:PORT"),
        ("questdb = \":9009\"", "`questdb` is `:9009`; write HOST:PORT"),
        ("questdb = \"localhost:70000\"", "`questdb` is `localhost:70000`; write HOST:PORT"),
        ("mcp = \"localhost:1\"", "`mcp` is `localhost:1`; write a URL that begins with http:// or https://"),
        ("prometheus = \"\"", "`prometheus` is ``; write a URL that begins with http:// or https://"),
        ("max_attempts = 1001", "`max_attempts` is `1001`; write a number from 1 to 1000"),
    ];
    for (setting, problem) in cases {
        let error = error_of("config.toml", &format!("[external]\n{setting}"));
        assert_eq!(error, format!("the settings of the external services are not valid: {problem}"));
    }
    let valid = "[external]\nquestdb = \"[::1]:9009\"\nprometheus = \"https://gateway\"\nmax_attempts = 1000";
    write("config.toml", valid).unwrap().external.check().unwrap();
}
