//! The flags that select validators, and how they run.

use serde_json::{Value, json};

use crate::support::{Project, shell, validators};

fn dimensions(report: &Value) -> Vec<&str> {
    let results = report["results"].as_array().unwrap();
    results.iter().map(|result| result["dimension"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn only_selects_dimensions() {
    let names = ["lint", "security", "coverage", "lint", "visual"];
    let project = Project::with_config(&validators(names.map(|name| shell(name, "true"))));
    let report = project.run_config(&["--json", "--only", "coverage,lint"]).await.report();
    assert_eq!(dimensions(&report), ["lint", "coverage", "lint"]);
    let report = project.run_config(&["--json", "--only", "visual", "--only", "security"]).await.report();
    assert_eq!(dimensions(&report), ["security", "visual"]);
}

#[tokio::test]
async fn timeout_flag_takes_precedence_over_configuration() {
    let mut config = validators([shell("lint", "sleep 600"), shell("visual", "sleep 600")]);
    config["timeouts"] = json!({ "lint": 300, "visual": 0.2 });
    let project = Project::with_config(&config);
    let ended = project.run_config(&["--json", "--timeout", "lint=0.1"]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let report = ended.report();
    assert_eq!(report["results"][0]["message"], "Timeout after 0.1s");
    assert_eq!(report["results"][1]["message"], "Timeout after 0.2s");
}

/// Each command waits for the other one.
#[tokio::test]
async fn jobs_flag_takes_precedence_over_configuration() {
    let wait_for = |own: &str, other: &str| format!("touch {own}; until [ -e {other} ]; do sleep 0.01; done");
    let mut config = validators([shell("lint", &wait_for("a", "b")), shell("security", &wait_for("b", "a"))]);
    config["concurrency"] = 1.into();
    let ended = Project::with_config(&config).run_config(&["--jobs", "2"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn commands_run_in_folder() {
    let project = Project::with_config(&validators([shell("lint", "test -e marker")]));
    let checked = Project::new();
    checked.write("marker", "");
    let dir = checked.path("");
    let ended = project.run_config(&[dir.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(project.run_config(&[]).await.code, Some(1));
}

#[tokio::test]
async fn rust_package_needs_no_configuration() {
    let project = Project::new();
    project.write("Cargo.toml", "[package]\nname = \"checked\"\n[workspace]\n");
    let ended = project.run(&[".", "--only", "security", "--json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(dimensions(&ended.report()), ["security"]);
    // A token of GitHub, which must not be in this file.
    project.write("leak.env", ["ghp_", &"a".repeat(36)].concat());
    let ended = project.run(&[".", "--only", "security"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("./leak.env"), "{}", ended.stdout);
}
