//! A process of the program.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Exited(i32),
}

pub(crate) struct Agents {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    results: usize,
    openings: usize,
    has_checkpoint: bool,
}

impl Agents {
    pub(crate) fn start(folder: &Path, arguments: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_agents"))
            .args(arguments)
            .arg("--json")
            .current_dir(folder)
            .env("OPENAI_API_KEY", "key")
            .env("ANTHROPIC_API_KEY", "key")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, events, results: 0, openings: 0, has_checkpoint: false }
    }

    /// Waits until the process ends, or kills it with SIGKILL after this number of results.
    pub(crate) async fn run(&mut self, kill_after: Option<usize>) -> End {
        while let Some(line) = self.events.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            match event["event"].as_str().unwrap() {
                "result" => self.results += 1,
                "checkpoint" => self.has_checkpoint = true,
                "model_circuit" if event["to"] == "open" => self.openings += 1,
                _ => {}
            }
            // Before its first checkpoint, a job cannot be resumed, and has no result.
            if self.has_checkpoint && kill_after.is_some_and(|count| self.results >= count) {
                self.child.kill().await.unwrap();
                return End::Killed;
            }
        }
        End::Exited(self.child.wait().await.unwrap().code().unwrap())
    }

    /// Returns the number of results.
    pub(crate) fn results(&self) -> usize {
        self.results
    }

    /// Returns how often the circuit of the model opened.
    pub(crate) fn openings(&self) -> usize {
        self.openings
    }
}
