//! Processes that are killed while a circuit is open.

use std::time::Duration;

use anyhow::Result;

use super::outage::first_changes;
use crate::fleet_bench::Options;
use crate::fleet_bench::backend::Answer;
use crate::fleet_bench::clock::wall_ms;
use crate::fleet_bench::protocol::{Report, State, WorkerConfig};
use crate::fleet_bench::table::Row;
use crate::fleet_bench::workers::Workers;

/// How much the remaining open time may differ after the restart.
const TOLERANCE_MS: f64 = 100.0;

const LIMIT: Duration = Duration::from_secs(30);

/// The number of processes that stay closed while one opens by itself.
const OTHERS: usize = 5;

pub(super) async fn run(options: &Options) -> Result<Vec<Row>> {
    // A store within a process ends with it.
    if !options.store.is_shared() {
        return Ok(Vec::new());
    }
    Ok(vec![whole_fleet(options).await?, one_process(options).await?])
}

/// All processes are killed after the fleet has opened the circuit.
async fn whole_fleet(options: &Options) -> Result<Row> {
    let clients = options.processes.unwrap_or(if options.quick { 10 } else { 50 });
    let (_store, backend, config) = super::prepare(options, clients).await?;
    let config = WorkerConfig { open_for_ms: 20_000, ..config };
    let mut workers = Workers::start(&config, true)?;
    workers.wait_for_fleet().await?;
    backend.answer(Answer::Failure);
    let report = workers.wait_until("all circuits are open", LIMIT, |report| {
        report.clients.iter().all(|client| client.is_open() && client.fleet_open)
    });
    let epoch = report.await?.clients[0].epoch as f64;
    workers.kill().await?;
    let again = restart(&config).await?;
    let until = vec![epoch + config.open_for_ms as f64; clients];
    Ok(row(&format!("{clients} processes killed while the fleet is open"), options, &again, &until))
}

/// One process opens by its local evidence, and is killed.
async fn one_process(options: &Options) -> Result<Row> {
    let (_store, backend, config) = super::prepare(options, OTHERS).await?;
    let config = WorkerConfig { open_for_ms: 20_000, calling: false, ..config };
    let mut others = Workers::start(&config, true)?;
    let config = WorkerConfig { first: OTHERS, clients: 1, ..config };
    let mut one = Workers::start(&config, true)?;
    // All others are members, so that the vote of one process is a minority.
    let complete = others.wait_until("the fleet is complete", LIMIT, |report| {
        report.clients.iter().all(|client| client.members as usize == OTHERS + 1)
    });
    complete.await?;
    let began = wall_ms();
    backend.answer(Answer::Failure);
    one.call(true).await?;
    one.wait_until("the circuit is open", LIMIT, |report| report.clients[0].is_open()).await?;
    let opened = first_changes(&one.changes, began, |change| change.to == State::Open)[&OTHERS];
    // The store has the local open time when the next message is answered.
    let messages = one.report().await?.clients[0].messages;
    one.wait_until("the store is informed", LIMIT, |report| report.clients[0].messages > messages).await?;
    one.kill().await?;
    let again = restart(&config).await?;
    let until = [opened.at_ms + config.open_for_ms as f64];
    Ok(row("one process killed while it alone is open", options, &again, &until))
}

/// Starts the clients again, and returns their first decisions.
async fn restart(config: &WorkerConfig) -> Result<Report> {
    let mut workers = Workers::start(config, true)?;
    let has_decided = |report: &Report| report.clients.iter().all(|client| client.first_call.is_some());
    workers.wait_until("the first calls are decided", LIMIT, has_decided).await
}

fn row(case: &str, options: &Options, report: &Report, until_ms: &[f64]) -> Row {
    let calls = || report.clients.iter().filter_map(|client| client.first_call);
    let unready = calls().filter(|call| !call.ready).count();
    let admitted = calls().filter(|call| call.admitted).count();
    let errors = calls().zip(until_ms).map(|(call, until)| (call.open_until_ms - until).abs());
    let error = errors.fold(0.0, f64::max);
    let target = if options.quick { String::new() } else { format!(", open time ± {TOLERANCE_MS} ms") };
    Row::new(
        case,
        format!("open before the first call after `ready()`{target}"),
        format!("{admitted} first calls admitted, {unready} not ready, open time ± {error:.1} ms"),
        admitted == 0 && unready == 0 && (options.quick || error <= TOLERANCE_MS),
    )
}
