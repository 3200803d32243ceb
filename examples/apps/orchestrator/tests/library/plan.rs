//! Plan files, and the errors of invalid plans.

use std::fs;
use std::path::Path;
use std::time::Duration;

use orchestrator::plan::{Format, Plan, PlanError};
use tower_breaker::HumanDuration;
use tower_breaker::fault_classify::ErrorChain;

const JSON: &str = r#"{
    "tasks": [
        { "id": "design", "agent": "claude", "prompt": "design it" },
        { "id": "build", "agent": "codex", "prompt": "build {results.design}", "depends_on": ["design"] }
    ],
    "backends": {
        "claude": { "command": ["claude", "-p"], "permanent_exit_codes": [2], "timeout": "10m" },
        "codex": { "command": ["codex", "exec"] }
    },
    "retry": { "max_elapsed": "30s" },
    "circuit": { "consecutive_failures": 3 }
}"#;

const TOML: &str = r#"
[[tasks]]
id = "design"
agent = "claude"
prompt = "design it"

[[tasks]]
id = "build"
agent = "codex"
prompt = "build {results.design}"
depends_on = ["design"]

[backends]
claude = { command = ["claude", "-p"], permanent_exit_codes = [2], timeout = "10m" }
codex = { command = ["codex", "exec"] }

[retry]
max_elapsed = "30s"

[circuit]
consecutive_failures = 3
"#;

fn parse(text: &str) -> Result<Plan, PlanError> {
    Plan::parse("plan.json", text, Format::Json)
}

/// Asserts that [`JSON`] with a replacement is rejected with this text.
fn assert_rejected(from: &str, to: &str, expected: &str) {
    assert!(JSON.contains(from), "{from}");
    let error = parse(&JSON.replacen(from, to, 1)).unwrap_err();
    let text = ErrorChain(&error).to_string();
    assert!(text.starts_with(&format!("plan.json: {expected}")), "{text}");
}

#[test]
fn json_and_toml_contain_same_plan() {
    for (text, format) in [(JSON, Format::Json), (TOML, Format::Toml)] {
        let plan = Plan::parse("plan", text, format).unwrap();
        let [design, build] = plan.tasks() else { panic!("two tasks are expected: {plan:?}") };
        assert_eq!((design.id.as_str(), design.agent.as_str()), ("design", "claude"));
        assert!(design.depends_on.is_empty());
        assert_eq!(build.depends_on, ["design"]);
        assert_eq!(plan.backends()["claude"].command, ["claude", "-p"]);
        assert_eq!(plan.backends()["claude"].permanent_exit_codes, [2]);
        let timeout = Some(HumanDuration(Duration::from_secs(600)));
        assert_eq!((plan.backends()["claude"].timeout, plan.backends()["codex"].timeout), (timeout, None));
        let retry = plan.retry().policy().unwrap();
        assert_eq!(retry.max_elapsed(), Some(Duration::from_secs(30)));
        assert_eq!(retry.backoff().initial_backoff(), Duration::from_millis(100));
        assert_eq!(plan.circuit().consecutive_failures, 3);
        assert_eq!(Duration::from(plan.circuit().open_for), Duration::from_secs(30));
    }
}

#[test]
fn plan_file_is_read_by_its_extension() {
    let dir = tempfile::tempdir().unwrap();
    let [json, toml, text] = ["plan.json", "plan.toml", "plan.txt"].map(|name| dir.path().join(name));
    fs::write(&json, JSON).unwrap();
    fs::write(&toml, TOML).unwrap();
    for path in [&json, &toml] {
        assert_eq!(Plan::load(path).unwrap().tasks().len(), 2);
    }
    let error = Plan::load(&text).unwrap_err().to_string();
    assert!(error.ends_with("plan.txt: the format is unknown; name the file .json or .toml"), "{error}");
    let error = Plan::load(Path::new("/missing/plan.json")).unwrap_err();
    let error = ErrorChain(&error).to_string();
    let expected = "/missing/plan.json: the plan cannot be read; check the path: No such file";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn error_names_task_and_field() {
    let rejected = assert_rejected;
    rejected(r#""id": "build""#, r#""id": """#, "task 2: `id` is empty; name the task");
    rejected(r#""agent": "codex""#, r#""agent": """#, "task 2: `agent` is empty; name a backend");
    rejected(r#""codex": {"#, r#""": {"#, "`backends` contains an empty name; name the backend");
    rejected(r#""build", "agent""#, r#""design", "agent""#, "two tasks have the `id` `design`; rename");
    rejected(
        r#"["design"]"#,
        r#"["desing"]"#,
        "task `build`: `depends_on` names the unknown task `desing`; add the task, or remove the name",
    );
    rejected(r#"["design"]"#, r#"["build"]"#, "task `build`: `depends_on` names the task itself; remove");
    rejected(
        r#""agent": "codex""#,
        r#""agent": "codec""#,
        "task `build`: `agent` names the unknown backend `codec`; add it to `backends`, or correct",
    );
}

#[test]
fn placeholder_without_dependency_names_allowed_ids() {
    assert_rejected(
        r#", "depends_on": ["design"]"#,
        "",
        "task `build`: `prompt` contains `{results.design}`; allowed is no ID, because `depends_on` is \
         empty; add `design` to `depends_on`",
    );
    for id in ["", "desing", "build"] {
        assert_rejected(
            "{results.design}",
            &format!("{{results.{id}}}"),
            &format!(
                "task `build`: `prompt` contains `{{results.{id}}}`; allowed is `design`; correct the ID"
            ),
        );
    }
}

#[test]
fn error_names_backend_setting_and_unknown_field() {
    assert_rejected(r#"["claude", "-p"]"#, "[]", "backend `claude`: `command` is empty; add the program");
    assert_rejected(
        r#""10m""#,
        r#""0s""#,
        "backend `claude`: `timeout` is 0s; set a longer time, or remove it for no limit",
    );
    let malformed = "the plan is malformed; correct the file: ";
    assert_rejected(r#""10m""#, r#""10 minutes""#, &format!("{malformed}invalid duration"));
    assert_rejected(
        r#""30s""#,
        r#""366d""#,
        "`retry`: `max_elapsed` is 31622400s; allowed is 0ns to 31536000s",
    );
    assert_rejected(
        r#""consecutive_failures": 3"#,
        r#""probes": 0"#,
        "`circuit`: `probes` is 0; allowed is 1 to 10000",
    );
    for (from, to, unknown) in [
        (r#""agent": "claude""#, r#""agnt": "claude""#, "unknown field `agnt`"),
        (r#""retry""#, r#""retries""#, "unknown field `retries`"),
        ("max_elapsed", "max_attempts", "unknown field `max_attempts`"),
        ("consecutive_failures", "failures", "unknown field `failures`"),
        ("permanent_exit_codes", "exit_codes", "unknown field `exit_codes`"),
    ] {
        assert_rejected(from, to, &format!("{malformed}{unknown}"));
    }
}

#[test]
fn plan_without_tasks_is_rejected() {
    let error = parse(r#"{ "tasks": [], "backends": {} }"#).unwrap_err();
    assert_eq!(error.to_string(), "plan.json: `tasks` is empty; add a task");
}

#[test]
fn cycle_is_named() {
    let error = parse(
        r#"{ "tasks": [
            { "id": "x", "agent": "sh", "prompt": "", "depends_on": ["b"] },
            { "id": "a", "agent": "sh", "prompt": "", "depends_on": ["b"] },
            { "id": "b", "agent": "sh", "prompt": "", "depends_on": ["free", "c"] },
            { "id": "c", "agent": "sh", "prompt": "", "depends_on": ["a"] },
            { "id": "free", "agent": "sh", "prompt": "" }
        ], "backends": { "sh": { "command": ["sh"] } } }"#,
    )
    .unwrap_err();
    let expected = "plan.json: task `b`: `depends_on` leads back to the task: b -> c -> a -> b; \
                    remove one of these dependencies";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn missing_command_is_named() {
    let plan = JSON.replace(r#""claude", "-p""#, r#""sh""#);
    let error = parse(&plan.replace(r#""codex", "exec""#, r#""/missing/codex""#)).unwrap();
    let error = error.check_commands().unwrap_err().to_string();
    let expected = "plan.json: backend `codex`: `command` names the program `/missing/codex`, which \
                    is not found or not executable; install it, or correct the path";
    assert_eq!(error, expected);
    let existing = parse(&plan.replace(r#""codex", "exec""#, r#""sh""#)).unwrap();
    existing.check_commands().unwrap();
}
