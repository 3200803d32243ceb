//! The program, and the folder of a project.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// Longer than any test takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

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

    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{}\n{}", self.stdout, self.stderr))
    }

    /// Returns the dimension and `details.error` of each result of the JSON report.
    pub(crate) fn errors(&self) -> Vec<(String, Value)> {
        let report = self.report();
        let results = report["results"].as_array().unwrap();
        results
            .iter()
            .map(|result| {
                (result["dimension"].as_str().unwrap().to_owned(), result["details"]["error"].clone())
            })
            .collect()
    }
}

/// Returns a validator that runs a shell script.
pub(crate) fn shell(dimension: &str, script: &str) -> Value {
    json!({ "dimension": dimension, "command": ["sh", "-c", script] })
}

/// Returns a configuration with these validators.
pub(crate) fn validators(validators: impl IntoIterator<Item = Value>) -> Value {
    json!({ "validators": validators.into_iter().collect::<Value>() })
}

/// The folder of a project.
pub(crate) struct Project {
    dir: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Creates a project with the configuration `config.json`.
    pub(crate) fn with_config(config: &Value) -> Self {
        let project = Self::new();
        project.write("config.json", config.to_string());
        project
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<str>) {
        fs::write(self.path(name), content.as_ref()).unwrap();
    }

    /// Returns the program with these arguments. It starts in the folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_through(&[], args)
    }

    /// Returns a program that replaces itself by the program with these arguments, such as `nohup`.
    pub(crate) fn command_through(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let line = [wrapper, &[env!("CARGO_BIN_EXE_validator")], args].concat();
        let mut command = Command::new(line[0]);
        command.args(&line[1..]).current_dir(self.dir.path()).env_remove("RUST_LOG").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        end(self.spawn(args)).await
    }

    /// Runs the program with the configuration, and with further arguments.
    pub(crate) async fn run_config(&self, args: &[&str]) -> Ended {
        self.run(&[&["--config", "config.json"], args].concat()).await
    }

    /// Waits until a command has written its process ID to a file.
    pub(crate) async fn pid(&self, name: &str) -> Pid {
        let file = self.path(name);
        wait_until(&format!("the file `{name}`"), || pid_in(&file).is_some()).await;
        pid_in(&file).unwrap()
    }
}

/// Waits until the program has ended, and reads its outputs meanwhile.
pub(crate) async fn end(child: Child) -> Ended {
    let output = timeout(DEADLINE, child.wait_with_output()).await.expect("the program hangs");
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
