//! The worker processes of the demo.

use std::env;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use test_servers::Llm;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tower::BoxError;

use crate::output::line;

/// The processes, and the events that they print.
pub(super) struct Workers {
    store: String,
    base_url: String,
    processes: Vec<Process>,
    /// Events, with the number of the process.
    sender: mpsc::UnboundedSender<(u32, Value)>,
    events: mpsc::UnboundedReceiver<(u32, Value)>,
    /// The calls that have succeeded, failed and were rejected.
    outcomes: [u32; 3],
}

/// A process, which ends with this value.
struct Process {
    /// The number that the system has given it.
    number: u32,
    name: &'static str,
    child: Child,
    state: String,
    /// The rejected calls since the last other outcome.
    rejected: u32,
}

impl Workers {
    pub(super) fn new(folder: &TempDir, llm: &Llm) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let store = format!("file:{}", folder.path().display());
        let base_url = format!("{}/v1", llm.url());
        Self { store, base_url, processes: Vec::new(), sender, events, outcomes: [0; 3] }
    }

    /// Starts a process, and prints its command line.
    pub(super) fn start(&mut self, name: &'static str) -> Result<(), BoxError> {
        if self.processes.iter().any(|process| process.name == name) {
            return Err(format!("the worker {name} still runs").into());
        }
        let words = ["run", "--instance", name, "--reset-timeout", "6", "--interval", "0.4"];
        line(format_args!("   $ worker {} --max-attempts 1 …", words.join(" ")));
        let mut child = Command::new(env::current_exe()?)
            .args(words)
            // If the demo itself is killed, its workers end after two minutes.
            .args(["--calls", "300"])
            .args(["--max-attempts", "1", "--json", "--redis", &self.store, "--base-url", &self.base_url])
            // A key of the user is not for this API.
            .env_remove("OPENAI_API_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the output of a worker is not piped")?;
        let number = child.id().ok_or("a worker has ended at once")?;
        tokio::spawn(read_events(number, stdout, self.sender.clone()));
        self.processes.push(Process { number, name, child, state: "closed".to_owned(), rejected: 0 });
        Ok(())
    }

    /// Kills a process as a crash does.
    pub(super) async fn kill(&mut self, name: &'static str) -> Result<(), BoxError> {
        for process in self.processes.iter_mut().filter(|process| process.name == name) {
            process.child.kill().await?;
        }
        self.processes.retain(|process| process.name != name);
        Ok(())
    }

    /// Waits until this number of further calls have this outcome.
    pub(super) async fn wait_for_calls(&mut self, outcome: &str, count: u32) -> Result<(), BoxError> {
        let mut found = 0;
        while found < count {
            found += u32::from(self.next_event().await?["outcome"] == outcome);
        }
        Ok(())
    }

    /// Waits until all processes show this state.
    pub(super) async fn wait_for_state(&mut self, state: &str) -> Result<(), BoxError> {
        while self.processes.iter().any(|process| process.state != state) {
            self.next_event().await?;
        }
        Ok(())
    }

    /// Waits until a process that has just started has had two calls rejected.
    pub(super) async fn wait_for_rejections(&mut self, name: &'static str) -> Result<(), BoxError> {
        while self.processes.iter().any(|process| process.name == name && process.rejected < 2) {
            self.next_event().await?;
        }
        Ok(())
    }

    /// Ends all processes.
    pub(super) async fn stop(&mut self) -> Result<(), BoxError> {
        for process in &mut self.processes {
            process.child.kill().await?;
        }
        Ok(())
    }

    /// Returns the number of calls that have succeeded, failed and were rejected.
    pub(super) fn outcomes(&self) -> [u32; 3] {
        self.outcomes
    }

    /// Waits for the next event, prints it, and keeps its state.
    async fn next_event(&mut self) -> Result<Value, BoxError> {
        let (number, event) = self.events.recv().await.ok_or("all workers have ended")?;
        // A process that was killed may have left events.
        let process = self.processes.iter_mut().find(|process| process.number == number);
        let Some(process) = process else { return Ok(Value::Null) };
        let name = process.name;
        let state = event["state"].as_str().unwrap_or_default();
        state.clone_into(&mut process.state);
        let text = event["text"].as_str().unwrap_or_default();
        match (event["event"].as_str(), event["outcome"].as_str()) {
            (Some("started"), _) => {
                let left = event["retry_after_seconds"].as_f64();
                let left = left.map_or_else(String::new, |left| format!(" for {left:.1} s"));
                line(format_args!("   {name:6}  started    {state}{left}"));
            }
            (Some("call"), Some(outcome)) => {
                let index = ["succeeded", "failed", "rejected"].iter().position(|known| *known == outcome);
                self.outcomes[index.ok_or("a worker has printed an unknown outcome")?] += 1;
                process.rejected = if outcome == "rejected" { process.rejected + 1 } else { 0 };
                // The next ones are the same.
                if process.rejected <= 1 {
                    line(format_args!("   {name:6}  {outcome:9}  {state:9}  {text}"));
                }
            }
            _ => {}
        }
        Ok(event)
    }
}

async fn read_events(number: u32, stdout: ChildStdout, events: mpsc::UnboundedSender<(u32, Value)>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str(&line) else { continue };
        if events.send((number, event)).is_err() {
            return;
        }
    }
}
