//! Signals end a run, and all its processes.

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::support::{Workspace, end, is_alive, send, shell, wait_until};

/// A script whose processes ignore the signals that can be ignored, and never end.
const STUBBORN: &str = "trap '' INT TERM HUP; sleep 600 & echo $! >child; echo $$ >leader; wait; sleep 600";

/// Starts a program that does not ignore `SIGHUP`.
const DEFAULT_SIGHUP: [&str; 2] = ["env", "--default-signal=HUP"];

fn stubborn_plan() -> Value {
    json!({
        "tasks": [
            { "id": "runs", "agent": "stubborn", "prompt": "" },
            { "id": "waits", "agent": "stubborn", "prompt": "", "depends_on": ["runs"] },
        ],
        "backends": { "stubborn": shell(STUBBORN) },
    })
}

/// Starts the plan, and waits until its backend runs. Returns the processes of the backend.
async fn start(workspace: &Workspace, mut program: Command) -> (Child, [Pid; 2]) {
    workspace.write_plan(&stubborn_plan());
    let child = program.spawn().unwrap();
    let pids = [workspace.pid("leader").await, workspace.pid("child").await];
    assert!(pids.into_iter().all(is_alive));
    (child, pids)
}

async fn assert_ended(pids: [Pid; 2]) {
    wait_until("the end of the backend", || !pids.into_iter().any(is_alive)).await;
}

async fn signal_ends_run_and_leaves_no_process(signal: Signal) {
    let workspace = Workspace::new();
    // `nohup` may have started the tests.
    let program = workspace.command_through(&DEFAULT_SIGHUP, &["run", "plan.json", "--json"]);
    let (child, pids) = start(&workspace, program).await;
    send(&child, signal);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert_ended(pids).await;
    assert_eq!(ended.result("runs")["state"], "cancelled");
    assert_eq!(ended.result("waits")["state"], "cancelled");
    assert_eq!(ended.events().pop().unwrap()["cancelled"], 2);
}

#[tokio::test]
async fn ctrl_c_ends_within_a_second_and_leaves_no_child() {
    signal_ends_run_and_leaves_no_process(Signal::INT).await;
}

#[tokio::test]
async fn sigterm_ends_run_and_leaves_no_child() {
    signal_ends_run_and_leaves_no_process(Signal::TERM).await;
}

#[tokio::test]
async fn sighup_ends_run_and_leaves_no_child() {
    signal_ends_run_and_leaves_no_process(Signal::HUP).await;
}

#[tokio::test]
async fn ctrl_c_prints_table_of_cancelled_tasks() {
    let workspace = Workspace::new();
    let program = workspace.command(&["run", "plan.json"]);
    let (child, _) = start(&workspace, program).await;
    send(&child, Signal::INT);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert_eq!(ended.stdout.matches("cancelled").count(), 2, "{}", ended.stdout);
}

#[tokio::test]
async fn ctrl_c_ends_delay_between_attempts() {
    let workspace = Workspace::new();
    workspace.write_plan(&json!({
        "tasks": [{ "id": "fails", "agent": "dead", "prompt": "" }],
        "backends": { "dead": shell("echo $$ >sent; exit 1") },
        "retry": { "initial_backoff": "600s", "max_backoff": "600s", "max_elapsed": "2h" },
    }));
    let child = workspace.command(&["run", "plan.json", "--json"]).spawn().unwrap();
    let backend = workspace.pid("sent").await;
    wait_until("the end of the backend", || !is_alive(backend)).await;
    send(&child, Signal::INT);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert_eq!(ended.result("fails")["state"], "cancelled");
    assert_eq!(ended.result("fails")["attempts"], 1);
}

#[tokio::test]
async fn sighup_is_ignored_under_nohup() {
    let workspace = Workspace::new();
    workspace.write_plan(&json!({
        "tasks": [{ "id": "runs", "agent": "waits", "prompt": "" }],
        "backends": { "waits": shell("echo $$ >leader; until [ -e go ]; do sleep 0.01; done") },
    }));
    let mut nohup = workspace.command_through(&["nohup"], &["run", "plan.json", "--json"]);
    let child = nohup.spawn().unwrap();
    workspace.pid("leader").await;
    send(&child, Signal::HUP);
    workspace.write("go", "");
    let ended = end(child).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn ctrl_c_ends_run_whose_output_is_not_read() {
    let workspace = Workspace::new();
    workspace.write_plan(&json!({
        "tasks": [
            // More than a pipe holds.
            { "id": "large", "agent": "cat", "prompt": "x".repeat(500_000) },
            { "id": "runs", "agent": "stubborn", "prompt": "", "depends_on": ["large"] },
        ],
        "backends": { "cat": { "command": ["cat"] }, "stubborn": shell(STUBBORN) },
    }));
    let mut child = workspace.command(&["run", "plan.json", "--json"]).spawn().unwrap();
    // Keeps the pipe open.
    let _stdout = child.stdout.take();
    let pids = [workspace.pid("leader").await, workspace.pid("child").await];
    send(&child, Signal::INT);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("output"), "{}", ended.stderr);
    assert_ended(pids).await;
}

#[tokio::test]
async fn ctrl_c_after_last_task_ends_program_whose_output_is_not_read() {
    let workspace = Workspace::new();
    workspace.write_plan(&json!({
        // More than a pipe holds.
        "tasks": [{ "id": "large", "agent": "large", "prompt": "" }],
        "backends": { "large": shell("echo $$ >leader; head -c 500000 /dev/zero") },
    }));
    let mut child = workspace.command(&["run", "plan.json", "--json"]).spawn().unwrap();
    // Keeps the pipe open.
    let _stdout = child.stdout.take();
    let backend = workspace.pid("leader").await;
    wait_until("the end of the backend", || !is_alive(backend)).await;
    send(&child, Signal::INT);
    assert_eq!(end(child).await.code, Some(130));
}

#[tokio::test]
async fn ctrl_c_ends_run_whose_stderr_is_not_read() {
    let workspace = Workspace::new();
    // The name of the first task is more than a pipe holds.
    workspace.write_plan(&json!({
        "tasks": [
            { "id": "x".repeat(100_000), "agent": "fails", "prompt": "" },
            { "id": "runs", "agent": "stubborn", "prompt": "" },
        ],
        "backends": { "fails": shell("exit 1"), "stubborn": shell(STUBBORN) },
    }));
    let mut child = workspace.command(&["run", "plan.json"]).spawn().unwrap();
    // Keeps the pipe open.
    let _stderr = child.stderr.take();
    let pids = [workspace.pid("leader").await, workspace.pid("child").await];
    send(&child, Signal::INT);
    assert_eq!(end(child).await.code, Some(130));
    assert_ended(pids).await;
}
