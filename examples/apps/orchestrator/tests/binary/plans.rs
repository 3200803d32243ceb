//! Plans that are invalid, and the commands `validate` and `backends`.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Ended, Workspace, fast_retry, shell};

fn task(id: &str, depends_on: &[&str]) -> Value {
    json!({ "id": id, "agent": "agent", "prompt": "", "depends_on": depends_on })
}

/// Returns the error of `validate`. The command `run` must end with the same one.
async fn error_of(workspace: &Workspace, plan: &str) -> String {
    let validated = workspace.run(&["validate", plan]).await;
    assert_eq!(validated.code, Some(2), "{}", validated.stdout);
    let run = workspace.run(&["run", plan]).await;
    assert_eq!((run.code, &run.stderr), (Some(2), &validated.stderr));
    validated.stderr
}

#[tokio::test]
async fn plan_with_cycle_names_cycle() {
    let workspace = Workspace::new();
    workspace.write_plan(&json!({
        "tasks": [task("start", &[]), task("a", &["start", "b"]), task("b", &["c"]), task("c", &["a"])],
        "backends": { "agent": shell("cat") },
    }));
    let error = error_of(&workspace, "plan.json").await;
    assert!(error.starts_with("error: plan.json: "), "{error}");
    assert!(error.contains("a -> b -> c -> a"), "{error}");
}

#[tokio::test]
async fn plan_with_unknown_names_names_task_and_field() {
    let workspace = Workspace::new();
    let backends = json!({ "agent": shell("cat") });
    workspace.write_plan(&json!({ "tasks": [task("a", &["nothing"])], "backends": backends }));
    let error = error_of(&workspace, "plan.json").await;
    for part in ["plan.json", "task `a`", "`depends_on`", "`nothing`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    workspace.write_plan(&json!({ "tasks": [task("a", &[])], "backends": {} }));
    let error = error_of(&workspace, "plan.json").await;
    for part in ["plan.json", "task `a`", "`agent`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn missing_file_is_named() {
    let error = error_of(&Workspace::new(), "missing.json").await;
    assert!(error.contains("missing.json") && error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn directory_is_named() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("dir.json")).unwrap();
    let error = error_of(&workspace, "dir.json").await;
    assert!(error.contains("dir.json") && error.contains("Is a directory"), "{error}");
}

#[tokio::test]
async fn malformed_plan_is_reported_with_line_and_column() {
    let workspace = Workspace::new();
    workspace.write("plan.json", "{\n  \"tasks\": [,]\n}");
    let error = error_of(&workspace, "plan.json").await;
    assert!(error.contains("plan.json") && error.contains("line 2 column 13"), "{error}");
    workspace.write("plan.toml", "[backends]\ntasks = ]");
    let error = error_of(&workspace, "plan.toml").await;
    assert!(error.contains("plan.toml") && error.contains("line 2, column 9"), "{error}");
}

#[tokio::test]
async fn unknown_field_is_named() {
    let workspace = Workspace::new();
    workspace.write("plan.json", r#"{ "tasks": [{ "id": "a", "agnet": "claude" }] }"#);
    let error = error_of(&workspace, "plan.json").await;
    assert!(error.contains("agnet"), "{error}");
}

fn plan_with_missing_command() -> Value {
    json!({
        "tasks": [task("fails", &[]), { "id": "works", "agent": "cat", "prompt": "" }],
        "backends": { "agent": { "command": ["no-such-agent", "-p"] }, "cat": { "command": ["cat"] } },
        "retry": fast_retry(),
    })
}

#[tokio::test]
async fn validate_names_missing_command() {
    let workspace = Workspace::new();
    workspace.write_plan(&plan_with_missing_command());
    let ended = workspace.run(&["validate", "plan.json"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stdout);
    for part in ["plan.json", "backend `agent`", "`no-such-agent`"] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn run_with_missing_command_fails_only_its_tasks() {
    let ended = Workspace::new().run_plan(&plan_with_missing_command()).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let failed = ended.result("fails");
    assert_eq!((&failed["state"], &failed["attempts"]), (&json!("failed"), &json!(1)));
    assert!(failed["error"].as_str().unwrap().contains("`no-such-agent`"), "{failed}");
    assert_eq!(ended.result("works")["state"], "completed");
}

#[tokio::test]
async fn run_warns_of_missing_command_before_start() {
    let workspace = Workspace::new();
    let mut plan = plan_with_missing_command();
    plan["backends"]["unused"] = json!({ "command": ["unused-agent"] });
    workspace.write_plan(&plan);
    let ended = workspace.run(&["run", "plan.json"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let (warning, events) = ended.stderr.split_once('\n').expect(&ended.stderr);
    for part in ["WARN", "backend=\"agent\"", "program=\"no-such-agent\"", "is not found"] {
        assert!(warning.contains(part), "{part}: {}", ended.stderr);
    }
    assert!(events.contains("fails: started") && events.contains("works: completed"), "{events}");
    assert!(!ended.stderr.contains("unused"), "{}", ended.stderr);
}

#[tokio::test]
async fn validate_accepts_valid_plan() {
    let workspace = Workspace::new();
    let backends = json!({ "agent": shell("cat") });
    workspace.write_plan(&json!({ "tasks": [task("a", &[]), task("b", &["a"])], "backends": backends }));
    let ended = workspace.run(&["validate", "plan.json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, "plan.json: valid, with 2 tasks and 1 backend\n");
}

#[tokio::test]
async fn backends_lists_found_and_missing_commands() {
    let row = |ended: &Ended, name: &str| {
        let row = ended.stdout.lines().find(|line| line.contains(name));
        row.unwrap_or_else(|| panic!("no row `{name}`: {}", ended.stdout)).to_owned()
    };
    let workspace = Workspace::new();
    workspace.write_plan(&plan_with_missing_command());
    let ended = workspace.run(&["backends", "plan.json"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(row(&ended, "no-such-agent -p").contains("not found"), "{}", ended.stdout);
    assert!(row(&ended, "/cat ").contains(" 1 "), "{}", ended.stdout);

    workspace.write_plan(&json!({ "tasks": [task("a", &[])], "backends": { "agent": shell("cat") } }));
    let ended = workspace.run(&["backends", "plan.json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
