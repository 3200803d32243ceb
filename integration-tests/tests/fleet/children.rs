//! Processes of a fleet that a test can kill and stop: this program, started again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tower_breaker::{Circuit, CircuitState};
use tower_breaker_fleet::{FileStore, RedisStore};

use crate::processes::{Answer, CIRCUIT, DEADLINE, Process, agent, breaker, millis};
use crate::servers::Store;

/// What a child process does. It is an argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    /// The URL of Redis, or the path of a folder.
    pub(crate) store: String,
    pub(crate) instance: String,
    pub(crate) open_ms: u64,
}

/// What a child process prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Whether the first reply of the store was applied before the first call.
    pub(crate) ready: bool,
    /// Whether the first call was admitted.
    pub(crate) admitted: bool,
    pub(crate) state: String,
    pub(crate) remaining_ms: Option<u64>,
    pub(crate) epoch: u64,
    pub(crate) warming_up: bool,
    /// How often the circuit has opened.
    pub(crate) openings: usize,
}

const ROLE: &str = "FLEET_TEST_ROLE";
/// Begins each report, because the test program prints other lines.
const PREFIX: &str = "report: ";

#[tokio::test]
#[ignore = "the other tests start it as a process of its own"]
async fn child_process() {
    if let Ok(role) = std::env::var(ROLE) {
        run(&serde_json::from_str(&role).unwrap()).await;
    }
}

/// Reports first after `ready`, and then after each line of the input, which sets the answer of the
/// backend. Ends with the input.
async fn run(role: &Role) {
    let store = if role.store.starts_with("redis") {
        Store::Redis(RedisStore::open(&role.store).unwrap())
    } else {
        Store::File(FileStore::open(&role.store).unwrap())
    };
    let backend = Arc::new(watch::Sender::new(Answer::Success));
    let config = breaker().open_for(Duration::from_millis(role.open_ms)).build().unwrap();
    let agent = agent(&store, "children", &role.instance);
    let mut process = Process::silent(config, Some(agent), &backend);
    let ready = process.fleet().ready(DEADLINE).await;
    let admitted = first_call(&process.circuit);
    process.begin_calls();
    report(&process, ready, admitted);

    let (sender, mut answers) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            // An error: the process ends.
            let _ = sender.send(line);
        }
    });
    while let Some(answer) = answers.recv().await {
        match answer.as_str() {
            "success" => _ = backend.send_replace(Answer::Success),
            "failure" => _ = backend.send_replace(Answer::Failure),
            _ => {}
        }
        report(&process, ready, admitted);
    }
}

/// Returns whether a call is admitted. It is cancelled, which counts as nothing.
fn first_call(circuit: &Circuit) -> bool {
    circuit.try_acquire().is_ok()
}

fn report(process: &Process, ready: bool, admitted: bool) {
    let status = process.circuit.status();
    let shared = process.fleet().circuit_status(CIRCUIT);
    let openings = process.history().iter().filter(|step| step.to == CircuitState::Open).count();
    let report = Report {
        ready,
        admitted,
        state: status.state.to_string(),
        remaining_ms: status.retry_after.map(|remaining| remaining.as_millis() as u64),
        epoch: process.record().epoch,
        warming_up: shared.is_none_or(|shared| shared.warming_up),
        openings,
    };
    println!("\n{PREFIX}{}", serde_json::to_string(&report).unwrap());
}

/// A child process. Dropping it kills it.
pub(crate) struct Worker {
    role: Role,
    child: Child,
    input: ChildStdin,
    reports: mpsc::UnboundedReceiver<Report>,
    /// The first report after the start.
    pub(crate) first: Report,
}

impl Worker {
    pub(crate) async fn start(role: Role) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "children::child_process", "--ignored", "--nocapture"]);
        command.env(ROLE, serde_json::to_string(&role).unwrap());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, mut reports) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(report) = line.strip_prefix(PREFIX) {
                    // An error: the test has ended.
                    let _ = sender.send(serde_json::from_str(report).unwrap());
                }
            }
        });
        let first = next(&mut reports).await;
        Self { role, child, input, reports, first }
    }

    /// Sends a line, and returns the report that answers it.
    pub(crate) async fn send(&mut self, line: &str) -> Report {
        writeln!(self.input, "{line}").unwrap();
        next(&mut self.reports).await
    }

    /// Waits for a report with this property.
    pub(crate) async fn wait(&mut self, what: &str, is_met: impl Fn(&Report) -> bool) -> Report {
        let start = Instant::now();
        loop {
            let report = self.send("").await;
            if is_met(&report) {
                return report;
            }
            assert!(start.elapsed() < DEADLINE, "no {what}: {report:?}");
            sleep(millis(10)).await;
        }
    }

    /// Stops the process (SIGSTOP).
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Continues the process (SIGCONT).
    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Kills the process (SIGKILL), and returns its role for another start.
    pub(crate) fn kill(mut self) -> Role {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.role.clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Errors: the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn next(reports: &mut mpsc::UnboundedReceiver<Report>) -> Report {
    timeout(DEADLINE, reports.recv()).await.expect("a report in time").expect("the process runs")
}
