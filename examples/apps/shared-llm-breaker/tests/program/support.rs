//! Runs the program.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use test_servers::{Llm, LlmFault};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A generous limit: a test that exceeds it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a program has printed.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A folder for files and for the store, and an API that fails all requests.
pub(crate) struct Setup {
    pub(crate) folder: TempDir,
    pub(crate) llm: Llm,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        let (folder, llm) = (TempDir::new().unwrap(), Llm::start().await);
        llm.set_faults(|_, _| Some(LlmFault::Unavailable));
        Self { folder, llm }
    }

    /// Returns the path of a file in the folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self.path(name)
    }

    /// Returns the address of a store in a subfolder.
    pub(crate) fn store(&self, name: &str) -> String {
        format!("file:{}", self.path(name))
    }

    pub(crate) fn base_url(&self) -> String {
        format!("{}/v1", self.llm.url())
    }

    /// Runs `worker run` with one attempt for each call and without pauses.
    pub(crate) async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        let base_url = self.base_url();
        let words = ["run", "--base-url", &base_url, "--max-attempts", "1", "--interval", "0"];
        run(&[&words[..], arguments].concat(), variables).await
    }

    /// Runs `worker run` with arguments that it cannot use.
    pub(crate) async fn refused(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        let finished = run(&[&["run", "--calls", "1"], arguments].concat(), variables).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(self.llm.all_counts().is_empty());
        finished
    }
}

/// Returns the program with only these of the variables that configure it.
pub(crate) fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    let prefixes = ["CIRCUIT_BREAKER_", "OPENAI_", "LLM_", "WORKER_", "REDIS_URL", "RUST_LOG"];
    for (name, _) in std::env::vars() {
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Sends SIGTERM, and waits for the end. Returns the exit code: `None` if the signal ended the
/// process without its handler.
pub(crate) async fn terminate(mut child: Child) -> Option<i32> {
    let id = i32::try_from(child.id().unwrap()).unwrap();
    let process = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    timeout(PATIENCE, child.wait()).await.expect("the program hangs").unwrap().code()
}

/// Runs the program to its end.
pub(crate) async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = command(arguments, variables);
    let output = timeout(PATIENCE, command.output()).await.expect("the program hangs").unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
