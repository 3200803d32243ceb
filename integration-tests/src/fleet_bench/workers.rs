//! The worker processes, as the benchmark controls them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep};

use crate::fleet_bench::protocol::{Change, ClientReport, Report, Request, WorkerConfig};

/// The number of worker processes, among which the clients are divided.
const PROCESSES: usize = 4;

/// The time between two reports while the benchmark waits. Reports take time from the clients.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// A process of this program that answers each line with a line. Dropping it kills the process.
pub(crate) struct LineProcess {
    // Dropping it kills the process.
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl LineProcess {
    /// Starts this program with other arguments.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program is unknown")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("a worker process cannot be started")?;
        let input = child.stdin.take().context("standard input is piped")?;
        let output = child.stdout.take().context("standard output is piped")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    pub(crate) async fn send(&mut self, line: &str) -> Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await.context("a worker process has ended")
    }

    pub(crate) async fn receive(&mut self) -> Result<String> {
        self.output.next_line().await?.context("a worker process has ended")
    }

    /// Kills the process (SIGKILL), and waits for its end.
    async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("a worker process cannot be killed")
    }
}

/// The clients in all worker processes.
pub(crate) struct Workers {
    processes: Vec<LineProcess>,
    pub(crate) clients: usize,
    /// The transitions of all reports.
    pub(crate) changes: Vec<Change>,
}

impl Workers {
    /// Starts the clients. Without a store that processes can share, one process has all.
    pub(crate) fn start(config: &WorkerConfig, is_shared: bool) -> Result<Self> {
        let clients = config.clients;
        let count = if is_shared { PROCESSES.min(clients) } else { 1 };
        let processes: Result<_> = (0..count)
            .map(|index| {
                let (from, to) = (clients * index / count, clients * (index + 1) / count);
                let config =
                    WorkerConfig { first: config.first + from, clients: to - from, ..config.clone() };
                LineProcess::start(&["clients", &serde_json::to_string(&config)?])
            })
            .collect();
        Ok(Self { processes: processes?, clients, changes: Vec::new() })
    }

    pub(crate) async fn call(&mut self, on: bool) -> Result<()> {
        self.request(Request::Call(on)).await.map(drop)
    }

    /// Returns the state of all clients, and keeps their transitions.
    pub(crate) async fn report(&mut self) -> Result<Report> {
        let report = self.request(Request::Report).await?;
        self.changes.extend(&report.transitions);
        Ok(report)
    }

    async fn request(&mut self, request: Request) -> Result<Report> {
        let line = serde_json::to_string(&request)?;
        for process in &mut self.processes {
            process.send(&line).await?;
        }
        let mut all = Report::default();
        for process in &mut self.processes {
            let report: Report = serde_json::from_str(&process.receive().await?)?;
            all.clients.extend(report.clients);
            all.transitions.extend(report.transitions);
        }
        Ok(all)
    }

    /// Waits until the condition holds. `what` names it in the error.
    pub(crate) async fn wait_until(
        &mut self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Report) -> bool,
    ) -> Result<Report> {
        let deadline = Instant::now() + within;
        loop {
            let report = self.report().await?;
            if condition(&report) {
                return Ok(report);
            }
            if Instant::now() >= deadline {
                bail!("{what}: not within {within:?}: {}", summary(&report));
            }
            sleep(REPORT_EVERY).await;
        }
    }

    /// Waits until all clients are members of the fleet and the quorum warm-up is over.
    pub(crate) async fn wait_for_fleet(&mut self) -> Result<Report> {
        let clients = self.clients;
        self.wait_until("the fleet is complete", Duration::from_secs(60), |report| {
            let knows_all = |client: &ClientReport| {
                client.attached && !client.warming_up && client.members as usize == clients
            };
            report.clients.iter().all(knows_all)
        })
        .await
    }

    /// Kills all processes (SIGKILL), and waits for their end.
    pub(crate) async fn kill(self) -> Result<()> {
        for process in self.processes {
            process.kill().await?;
        }
        Ok(())
    }
}

fn summary(report: &Report) -> String {
    let count = |condition: fn(&ClientReport) -> bool| {
        report.clients.iter().filter(|client| condition(client)).count()
    };
    format!(
        "of {} clients, {} closed, {} open, {} attached, {} in the warm-up, {} with an open record",
        report.clients.len(),
        count(ClientReport::is_closed),
        count(ClientReport::is_open),
        count(|client| client.attached),
        count(|client| client.warming_up),
        count(|client| client.fleet_open),
    )
}
