//! The program in a directory of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Longer than any test takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Retry settings that do not slow a test down.
pub(crate) fn fast_retry() -> Value {
    json!({ "initial_backoff": "1ms", "max_backoff": "5ms" })
}

/// A backend that runs a shell script.
pub(crate) fn shell(script: &str) -> Value {
    json!({ "command": ["sh", "-c", script] })
}

/// A backend that ends when the file `go` exists.
pub(crate) fn waits_for_go() -> Value {
    shell("until [ -e go ]; do sleep 0.01; done")
}

/// The result of a run.
pub(crate) struct Ended {
    /// The exit code, or `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self { code: output.status.code(), stdout: String::from_utf8(output.stdout).unwrap(), stderr }
    }

    /// Returns the JSON lines of standard output.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Returns the last event of a task.
    pub(crate) fn result(&self, task: &str) -> Value {
        let mut events = self.events();
        events.retain(|event| event["event"] == "ended" && event["task"] == task);
        assert_eq!(events.len(), 1, "task `{task}` ends once: {}", self.stdout);
        events.remove(0)
    }
}

/// A directory for a plan and for the files of its backends.
pub(crate) struct Workspace {
    dir: TempDir,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<str>) {
        fs::write(self.path(name), content.as_ref()).unwrap();
    }

    /// Writes the file `plan.json`.
    pub(crate) fn write_plan(&self, plan: &Value) {
        self.write("plan.json", plan.to_string());
    }

    /// Returns the program with these arguments. It starts in the directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_through(&[], args)
    }

    /// Returns a program that replaces itself by the program with these arguments, such as `nohup`.
    pub(crate) fn command_through(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let line = [wrapper, &[env!("CARGO_BIN_EXE_orchestrator")], args].concat();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).current_dir(self.dir.path()).env_remove("RUST_LOG").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        end(self.command(args).spawn().unwrap()).await
    }

    /// Writes the plan, and runs it with JSON lines as its output.
    pub(crate) async fn run_plan(&self, plan: &Value) -> Ended {
        self.write_plan(plan);
        self.run(&["run", "plan.json", "--json"]).await
    }

    /// Runs the plan, and creates the file `go` when this time has passed since a task has failed.
    ///
    /// The end of the task is later than the opening of its circuit. If a probe could run earlier,
    /// the task could find a half-open circuit, and be sent again.
    pub(crate) async fn run_plan_until_failed(&self, plan: &Value, open_time: Duration) -> Ended {
        self.write_plan(plan);
        let mut child = self.command(&["run", "plan.json", "--json"]).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut events = String::new();
        while !events.contains("\"state\":\"failed\"") {
            let line = timeout(DEADLINE, stdout.read_line(&mut events)).await.expect("no task fails");
            assert!(line.unwrap() > 0, "{events}");
        }
        sleep(open_time).await;
        self.write("go", "");
        let (ended, rest) = tokio::join!(end(child), stdout.read_to_string(&mut events));
        rest.unwrap();
        Ended { stdout: events, ..ended }
    }

    /// Waits until a backend has written its process ID to a file.
    pub(crate) async fn pid(&self, name: &str) -> Pid {
        let file = self.path(name);
        wait_until(&format!("the file `{name}`"), || pid_in(&file).is_some()).await;
        pid_in(&file).unwrap()
    }
}

/// Waits until the program has ended, and reads its outputs meanwhile.
pub(crate) async fn end(child: Child) -> Ended {
    let output: io::Result<Output> =
        timeout(DEADLINE, child.wait_with_output()).await.expect("the program hangs");
    Ended::of(output.unwrap())
}

/// Sends a signal to the program.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits until the condition holds. The system does not notify of the end of foreign processes.
pub(crate) async fn wait_until(description: &str, condition: impl Fn() -> bool) {
    let polled = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, polled).await.unwrap_or_else(|_| panic!("missing: {description}"));
}

/// Returns whether the process runs. A zombie has ended: PID 1 of a container may not reap it.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

/// Returns the ID in the file, or `None` before the process has written all of it.
fn pid_in(file: &Path) -> Option<Pid> {
    let pid = fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()?;
    Pid::from_raw(pid)
}
