//! A worker process.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::support::PATIENCE;

/// A running worker, which ends with this value.
pub(crate) struct Worker {
    child: Child,
    events: watch::Receiver<Vec<Value>>,
    log: JoinHandle<String>,
}

impl Worker {
    /// Starts a worker that prints JSON, and waits until its breaker is ready.
    pub(crate) async fn start(redis_url: &str, base_url: &str, arguments: &[&str]) -> Self {
        let mut child = command()
            .args(["run", "--json", "--redis", redis_url, "--base-url", base_url])
            .args(["--heartbeat", "0.25", "--ready-within", "60", "--max-attempts", "1"])
            .args(arguments)
            .spawn()
            .unwrap();
        let (sender, events) = watch::channel(Vec::new());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let event: Value = serde_json::from_str(&line).expect(&line);
                sender.send_modify(|events| events.push(event));
            }
        });
        let log = tokio::spawn(read_log(child.stderr.take().unwrap()));
        let worker = Self { child, events, log };
        worker.wait_for("started", |event| event["event"] == "started").await;
        worker
    }

    /// Waits for an event, also an earlier one, and returns it.
    pub(crate) async fn wait_for(&self, what: &str, mut is_wanted: impl FnMut(&Value) -> bool) -> Value {
        let mut events = self.events.clone();
        let mut found = None;
        let wait = events.wait_for(|events| {
            found = events.iter().find(|event| is_wanted(event)).cloned();
            found.is_some()
        });
        let waited = timeout(PATIENCE, wait).await.map(|waited| waited.is_ok());
        assert!(waited == Ok(true), "no event: {what}; {:#?}", self.events());
        found.unwrap()
    }

    /// Waits until the worker has reported a state with a call.
    pub(crate) async fn wait_for_state(&self, state: &str) -> Value {
        self.wait_for(state, |event| event["event"] == "call" && event["state"] == state).await
    }

    /// Waits for the outcome of a call.
    pub(crate) async fn wait_for_outcome(&self, outcome: &str) -> Value {
        self.wait_for(outcome, |event| event["outcome"] == outcome).await
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.events.borrow().clone()
    }

    /// Returns the number of the calls with this outcome.
    pub(crate) fn count(&self, outcome: &str) -> usize {
        self.events.borrow().iter().filter(|event| event["outcome"] == outcome).count()
    }

    /// Whether the calls from 1 to this number have ended.
    pub(crate) fn has_ended(&self, calls: u64) -> bool {
        let events = self.events.borrow();
        events.iter().filter(|event| event["number"].as_u64().is_some_and(|number| number <= calls)).count()
            >= usize::try_from(calls).unwrap()
    }

    /// Kills the worker as a crash does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGTERM, and waits for the end. Returns the exit code, the events and the log.
    pub(crate) async fn end(self) -> (Option<i32>, Vec<Value>, String) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        self.ended().await
    }

    /// Waits for the end. Returns the exit code, the events and the log.
    pub(crate) async fn ended(mut self) -> (Option<i32>, Vec<Value>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the worker does not end").unwrap();
        let mut events = self.events.clone();
        // The sender is dropped at the end of the output.
        while events.changed().await.is_ok() {}
        let log = self.log.await.unwrap();
        (status.code(), events.borrow().clone(), log)
    }
}

/// Returns the program without the variables that configure it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    let configures = |name: &str| {
        let prefixes = ["CIRCUIT_BREAKER_", "OPENAI_", "LLM_", "WORKER_", "REDIS_URL", "RUST_LOG"];
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    for name in std::env::vars().map(|(name, _)| name).filter(|name| configures(name)) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn read_log(mut stderr: ChildStderr) -> String {
    let mut log = String::new();
    // An error means that the log has no more text.
    let _ = stderr.read_to_string(&mut log).await;
    log
}
