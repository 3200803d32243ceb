//! Signals end a run, and all its processes.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use test_servers::{Action, Http};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::{DEADLINE, Project, end, is_alive, send, shell, validators, wait_until};

/// A script whose processes ignore the signals that can be ignored, and never end.
const STUBBORN: &str = "trap '' INT TERM HUP; sleep 600 & echo $! >child; echo $$ >leader; wait; sleep 600";

/// Starts a program that does not ignore `SIGHUP`.
const DEFAULT_SIGHUP: [&str; 2] = ["env", "--default-signal=HUP"];

/// Waits until the program has printed a line to standard error that contains `text`.
async fn wait_for_line(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("the program has ended").contains(text) {}
}

async fn signal_keeps_finished_results_and_leaves_no_process(signal: Signal) {
    let checks = [shell("coverage", STUBBORN), shell("lint", "exit 1"), shell("visual", "touch ran")];
    let project = Project::with_config(&validators(checks));
    let args = ["--config", "config.json", "--json", "--jobs", "1"];
    // `nohup` may have started the tests.
    let mut child = project.command_through(&DEFAULT_SIGHUP, &args).spawn().unwrap();
    let pids = [project.pid("leader").await, project.pid("child").await];
    assert!(pids.into_iter().all(is_alive));
    send(&child, signal);
    wait_for_line(&mut child, "visual: Interrupted").await;
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    wait_until("the end of the command", || !pids.into_iter().any(is_alive)).await;
    assert!(!project.path("ran").exists());
    let report = ended.report();
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["results"].as_array().unwrap().len(), 3);
    assert_eq!(report["results"][0]["details"]["error"], "interrupted");
}

#[tokio::test]
async fn ctrl_c_ends_run_and_leaves_no_process() {
    signal_keeps_finished_results_and_leaves_no_process(Signal::INT).await;
}

#[tokio::test]
async fn sigterm_ends_run_and_leaves_no_process() {
    signal_keeps_finished_results_and_leaves_no_process(Signal::TERM).await;
}

#[tokio::test]
async fn sighup_ends_run_and_leaves_no_process() {
    signal_keeps_finished_results_and_leaves_no_process(Signal::HUP).await;
}

#[tokio::test]
async fn ctrl_c_prints_results_of_finished_validators() {
    let project = Project::with_config(&validators([shell("coverage", STUBBORN), shell("lint", "exit 1")]));
    let server = Http::start().await;
    let mut child = project.spawn(&["--config", "config.json", "--push", &server.url()]);
    wait_for_line(&mut child, "lint: `sh` failed").await;
    project.pid("leader").await;
    send(&child, Signal::INT);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stdout.contains("`sh` failed: exit code 1"), "{}", ended.stdout);
    assert!(ended.stdout.contains("0 passed, 1 failed, 1 without a verdict"), "{}", ended.stdout);
    assert!(ended.stdout.contains("the run was interrupted"), "{}", ended.stdout);
    // A report of half a run is not sent.
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn ctrl_c_ends_push_and_prints_report() {
    let project = Project::with_config(&validators([shell("lint", "true")]));
    let server = Http::start().await;
    server.set_default(Action::Hang);
    let child = project.spawn(&["--config", "config.json", "--json", "--push", &server.url()]);
    timeout(DEADLINE, server.wait_for_requests(1)).await.expect("no request");
    send(&child, Signal::INT);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    let report = ended.report();
    assert_eq!((&report["passed"], &report["interrupted"]), (&true.into(), &true.into()));
}

#[tokio::test]
async fn ctrl_c_ends_program_whose_output_is_not_read() {
    // Together, the outputs are longer than a pipe holds.
    let checks = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| shell(name, "yes | head -c 16000"));
    let project = Project::with_config(&validators(checks));
    let mut child = project.spawn(&["--config", "config.json", "--json", "--jobs", "1"]);
    wait_for_line(&mut child, "h: ").await;
    // The first signal may arrive before the program prints, and end only the run.
    let ended = async {
        loop {
            send(&child, Signal::INT);
            if let Ok(status) = timeout(Duration::from_millis(100), child.wait()).await {
                return status.unwrap();
            }
        }
    };
    let status = timeout(DEADLINE, ended).await.expect("the program hangs");
    assert_eq!(status.code(), Some(130));
}

#[tokio::test]
async fn unread_stderr_delays_neither_timeouts_nor_ctrl_c() {
    // The first line is longer than a pipe holds.
    let checks = [shell(&"x".repeat(100_000), "true"), shell("visual", STUBBORN), shell("lint", "sleep 600")];
    let mut config = validators(checks);
    config["timeouts"] = json!({ "visual": 3 });
    let project = Project::with_config(&config);
    let mut child = project.command(&["--config", "config.json", "--json"]).spawn().unwrap();
    // Keeps the pipe open.
    let _stderr = child.stderr.take();
    let pids = [project.pid("leader").await, project.pid("child").await];
    wait_until("the end of the command at its time limit", || !pids.into_iter().any(is_alive)).await;
    send(&child, Signal::INT);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130));
    assert_eq!(ended.errors()[1].1, "timeout");
}

#[tokio::test]
async fn ctrl_c_ends_demo_and_removes_its_folder() {
    let project = Project::new();
    let temporary = project.path("temporary");
    fs::create_dir(&temporary).unwrap();
    let child = project.command(&["demo"]).env("TMPDIR", &temporary).spawn().unwrap();
    let has_heartbeat = || {
        let mut dirs = fs::read_dir(&temporary).unwrap();
        dirs.any(|dir| dir.is_ok_and(|dir| dir.path().join("heartbeat").exists()))
    };
    wait_until("the validator that hangs", has_heartbeat).await;
    send(&child, Signal::INT);
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
