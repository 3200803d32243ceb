//! JSON lines, and outputs that are closed early.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Workspace, end, fast_retry, is_alive, shell, wait_until, waits_for_go};

/// Fails twice, and then answers.
const FLAKY: &str = "echo >>calls; [ $(wc -l <calls) -gt 2 ] && cat";

#[tokio::test]
async fn json_lines_contain_every_event() {
    let workspace = Workspace::new();
    let prompt = "a prompt\nof two lines";
    let ended = workspace
        .run_plan(&json!({
            "tasks": [{ "id": "task", "agent": "flaky", "prompt": prompt }],
            "backends": { "flaky": shell(FLAKY) },
            "retry": fast_retry(),
        }))
        .await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let events = ended.events();
    let names: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    let expected =
        ["started", "sent", "attempt_failed", "sent", "attempt_failed", "sent", "ended", "finished"];
    assert_eq!(names, expected);
    assert_eq!(events[4]["attempt"], 2);
    let result = ended.result("task");
    assert_eq!((&result["agent"], &result["state"]), (&json!("flaky"), &json!("completed")));
    // The answer is not cut.
    assert_eq!(result["response"], prompt);
    assert_eq!(result["attempts"], 3);
    assert!(result["duration_seconds"].is_f64());
    let finished = &events[7];
    let counts = ["completed", "failed", "skipped", "cancelled"].map(|state| finished[state].as_u64());
    assert_eq!(counts, [Some(1), Some(0), Some(0), Some(0)]);
    assert_eq!(finished["circuits"][0]["circuit"], "flaky");
    // Only the log is on standard error.
    assert_eq!(ended.stderr, "");
}

#[tokio::test]
async fn answer_in_table_is_cut_and_has_no_escape_sequence() {
    let workspace = Workspace::new();
    let prompt = format!("\u{1b}[2Jfirst\nsecond {}zzz", "x".repeat(100));
    workspace.write_plan(&json!({
        "tasks": [{ "id": "a", "agent": "cat", "prompt": prompt }],
        "backends": { "cat": shell("cat") },
    }));
    let ended = workspace.run(&["run", "plan.json"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("first second"), "{}", ended.stdout);
    assert!(ended.stdout.contains('…') && !ended.stdout.contains("zzz"), "{}", ended.stdout);
    assert!(!ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}

fn plan_with_running_task() -> Value {
    json!({
        "tasks": [
            { "id": "runs", "agent": "waits", "prompt": "" },
            // It ends when the test has closed the output, and causes a write.
            { "id": "ends", "agent": "ends", "prompt": "" },
        ],
        "backends": {
            "waits": shell("echo $$ >leader; sleep 600"),
            "ends": waits_for_go(),
        },
    })
}

#[tokio::test]
async fn stdout_closed_early_ends_run_and_leaves_no_child() {
    let workspace = Workspace::new();
    workspace.write_plan(&plan_with_running_task());
    let mut child = workspace.command(&["run", "plan.json", "--json"]).spawn().unwrap();
    let leader = workspace.pid("leader").await;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("started"));
    drop(lines);
    workspace.write("go", "");
    let ended = end(child).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("the output was closed"), "{}", ended.stderr);
    wait_until("the end of the backend", || !is_alive(leader)).await;
}

#[tokio::test]
async fn stderr_closed_early_ends_run_and_leaves_no_child() {
    let workspace = Workspace::new();
    workspace.write_plan(&plan_with_running_task());
    let mut child = workspace.command(&["run", "plan.json"]).spawn().unwrap();
    let leader = workspace.pid("leader").await;
    drop(child.stderr.take());
    workspace.write("go", "");
    let ended = end(child).await;
    assert_eq!(ended.code, Some(2));
    wait_until("the end of the backend", || !is_alive(leader)).await;
}

#[tokio::test]
async fn table_for_closed_stdout_is_an_error() {
    let workspace = Workspace::new();
    workspace.write_plan(&json!({
        "tasks": [{ "id": "a", "agent": "waits", "prompt": "" }],
        "backends": { "waits": waits_for_go() },
    }));
    let mut child = workspace.command(&["run", "plan.json"]).spawn().unwrap();
    drop(child.stdout.take());
    workspace.write("go", "");
    let ended = end(child).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("the results cannot be written"), "{}", ended.stderr);
}

#[tokio::test]
async fn listing_for_closed_stdout_is_no_error() {
    let workspace = Workspace::new();
    workspace.write_plan(&json!({ "tasks": [{ "id": "a", "agent": "cat", "prompt": "" }], "backends": { "cat": shell("cat") } }),
    );
    for command in ["validate", "backends"] {
        let mut child = workspace.command(&[command, "plan.json"]).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(end(child).await.code, Some(0));
    }
}
