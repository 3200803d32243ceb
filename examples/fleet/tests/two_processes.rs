//! Runs two processes that share a store.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use test_servers::{Postgres, Redis};

/// The longest wait for a line. A machine under load is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program, which ends with this value.
struct Process {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    fn start(instance: &str, store: &[&str], backend: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fleet-example"))
            .args(store)
            .args(["--instance", instance, "--backend"])
            .arg(backend)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin, lines }
    }

    fn send(&mut self, command: &str) {
        writeln!(self.stdin, "{command}").unwrap();
    }

    /// Waits for a line with this text, and returns the lines up to it.
    fn wait_for(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            lines.push(line.unwrap_or_else(|_| panic!("no line with `{text}`: {lines:#?}")));
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    /// Ends the program with SIGKILL, as a crash does.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns two processes that are members of one fleet, and their circuits closed.
fn start_two(store: &[&str], folder: &TempDir) -> (Process, Process) {
    let backend = folder.path().join("backend-is-down");
    let first = Process::start("first", store, &backend);
    let second = Process::start("second", store, &backend);
    second.wait_for("processes: 2");
    (first, second)
}

#[test]
fn circuit_opens_in_both_processes_and_survives_a_kill() {
    let folder = TempDir::new().unwrap();
    let store = ["--file", folder.path().to_str().unwrap()];
    let (mut first, mut second) = start_two(&store, &folder);
    first.send("down");
    first.wait_for("* search is open");
    second.wait_for("* search is open");

    second.kill();
    let backend = folder.path().join("backend-is-down");
    let second = Process::start("second", &store, &backend);
    // The first report of a process comes with its first call.
    let lines = second.wait_for("calls:");
    assert_eq!(lines[0], "* search is open: commanded_open", "{lines:#?}");
    assert!(lines.last().unwrap().contains("0 failed"), "{lines:#?}");

    first.send("up");
    first.wait_for("* search is closed");
    second.wait_for("* search is closed");
    first.send("quit");
    assert!(first.child.wait().unwrap().success());
}

#[test]
fn processes_decide_for_themselves_while_redis_is_killed() {
    let folder = TempDir::new().unwrap();
    let mut server = Redis::start();
    let url = server.url();
    let (mut first, second) = start_two(&["--redis", &url], &folder);
    server.kill();
    first.wait_for("decides for itself");
    second.wait_for("decides for itself");
    first.send("down");
    first.wait_for("* search is open: consecutive_failures");
    second.wait_for("* search is open: consecutive_failures");
    first.send("trip");
    first.wait_for("* the store");
    server.restart_with(&[]);
    first.wait_for("processes: 2");
}

#[test]
fn force_open_reaches_both_processes_through_postgres() {
    let folder = TempDir::new().unwrap();
    let server = Postgres::start();
    let (mut first, mut second) = start_two(&["--postgres", &server.url()], &folder);
    second.send("force-open");
    first.wait_for("* search is forced_open");
    second.wait_for("* search is forced_open");
    first.send("release");
    first.wait_for("* search is closed");
    second.wait_for("* search is closed");
}

#[test]
fn wrong_address_ends_the_program_with_a_clear_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_fleet-example"))
        .args(["--redis", "http://localhost"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("fleet-example: "), "{error}");
    assert!(error.contains("redis://"), "{error}");
}
