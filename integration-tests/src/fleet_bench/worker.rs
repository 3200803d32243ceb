//! A worker process: it runs many clients, and answers requests on its standard input.

use std::io::Write;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;
use tower_breaker_fleet::MemoryStore;

use crate::fleet_bench::client::{Client, lock};
use crate::fleet_bench::protocol::{Report, Request, WorkerConfig};

/// Runs the clients until standard input ends, which it also does when the benchmark is killed.
pub(crate) async fn run(config: &str) -> Result<()> {
    let config: WorkerConfig = serde_json::from_str(config).context("the configuration is invalid")?;
    raise_file_limit()?;
    let memory = MemoryStore::new();
    let (calling, receiver) = watch::channel(config.calling);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let numbers = config.first..config.first + config.clients;
    let clients: Result<Vec<_>> =
        numbers.map(|number| Client::start(number, &config, &memory, receiver.clone(), &changes)).collect();
    let clients = clients?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let mut report = Report::default();
        match serde_json::from_str(&line).context("the request is invalid")? {
            Request::Call(on) => drop(calling.send_replace(on)),
            Request::Report => {
                report.clients = clients.iter().map(Client::report).collect();
                report.transitions = std::mem::take(&mut lock(&changes));
            }
        }
        let mut output = std::io::stdout().lock();
        serde_json::to_writer(&mut output, &report)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

/// Raises the limit of open files to the largest that the system allows this process.
pub(crate) fn raise_file_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).context("the limit of open files cannot be raised")
}
