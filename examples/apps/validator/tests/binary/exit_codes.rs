//! Runs to the end, and their exit codes.

use serde_json::{Value, json};

use crate::support::{Project, shell, validators};

fn missing(dimension: &str) -> Value {
    json!({ "dimension": dimension, "command": ["no-such-tool", "check"] })
}

#[tokio::test]
async fn exit_codes_follow_results() {
    let (passes, fails) = (shell("lint", "true"), shell("security", "false"));
    let cases = [
        (vec![passes.clone()], 0),
        (vec![passes.clone(), fails.clone()], 1),
        (vec![passes.clone(), missing("coverage")], 3),
        // A failed check takes precedence over a missing result.
        (vec![passes, missing("coverage"), fails], 1),
    ];
    for (results, code) in cases {
        let ended = Project::with_config(&validators(results.clone())).run_config(&[]).await;
        assert_eq!(ended.code, Some(code), "{results:?}\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn timed_out_check_exits_with_3_and_leaves_no_process() {
    let script = "sleep 600 & echo $! >child; echo $$ >leader; wait";
    let project = Project::with_config(&validators([shell("coverage", script), shell("lint", "true")]));
    // The time limit is long enough for the start of a shell on a busy machine.
    let ended = project.run_config(&["--timeout", "coverage=2", "--json"]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_eq!(ended.errors(), [("coverage".to_owned(), "timeout".into()), ("lint".to_owned(), Value::Null)]);
    assert_eq!(ended.report()["results"][0]["message"], "Timeout after 2s");
    for name in ["leader", "child"] {
        let pid = project.pid(name).await;
        crate::support::wait_until("the end of the command", || !crate::support::is_alive(pid)).await;
    }
}

#[tokio::test]
async fn missing_command_is_a_result() {
    let project = Project::with_config(&validators([missing("security"), shell("lint", "true")]));
    let ended = project.run_config(&["--json"]).await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_eq!(
        ended.errors(),
        [("security".to_owned(), "not_found".into()), ("lint".to_owned(), Value::Null)]
    );
    let message = ended.report()["results"][0]["message"].to_string();
    assert!(message.contains("`no-such-tool` is not found in PATH; install it"), "{message}");
}

/// The validators run without the cargo feature `resilience`, whatever their results are.
#[cfg(not(feature = "resilience"))]
#[tokio::test]
async fn without_feature_all_validators_run() {
    let port = test_servers::RefusedPort::bind();
    let mut config = validators([
        json!({ "dimension": "behavioral", "tool": "check" }),
        missing("security"),
        shell("coverage", "false"),
        shell("visual", "sleep 600"),
        shell("lint", "true"),
    ]);
    config["timeouts"] = json!({ "visual": 0.1 });
    let ended = Project::with_config(&config).run_config(&["--mcp", &port.url(), "--json"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let errors: Vec<_> = ended.errors().into_iter().map(|(_, error)| error).collect();
    let expected = json!(["reqwest::error::Error", "not_found", null, "timeout", null]);
    assert_eq!(Value::from(errors), expected);
}
