//! An outage among many processes that rarely call.

use std::time::Duration;

use anyhow::Result;

use super::outage::{decided_at, first_changes};
use crate::fleet_bench::Options;
use crate::fleet_bench::backend::{Answer, Backend};
use crate::fleet_bench::clock::wall_ms;
use crate::fleet_bench::protocol::{ClientReport, Report, State, WorkerConfig};
use crate::fleet_bench::table::Row;
use crate::fleet_bench::workers::Workers;

/// The failures at which a circuit opens by its failure rate.
const MINIMUM_CALLS: u32 = 10;
/// How many more failures there may be.
const TOLERANCE: f64 = 1.01;
/// The limit from the recovery, or the end of the open time if that is later.
const CLOSED_WITHIN_S: f64 = 2.0;

const LIMIT: Duration = Duration::from_secs(60);

/// How long circuits without a fleet get to open.
const COMPARED: Duration = Duration::from_secs(15);

pub(super) async fn run(options: &Options) -> Result<Vec<Row>> {
    let clients = options.processes.unwrap_or(1000);
    let (_store, backend, config) = super::prepare(options, clients).await?;
    let config = WorkerConfig { calls_per_second: 0.1, ..config };
    let mut workers = Workers::start(&config, options.store.is_shared())?;
    let votes_needed = workers.wait_for_fleet().await?.clients[0].votes_needed;

    let began = wall_ms();
    let report = open(&backend, &mut workers, |report| {
        report.clients.iter().all(|client| !client.is_closed() && client.fleet_open)
    });
    let report = report.await?;
    let needed = votes_needed * MINIMUM_CALLS.div_ceil(votes_needed);
    let failed = failures(&report);
    let opened = first_changes(&workers.changes, began, |change| change.to == State::Open);
    let epoch = decided_at(&report, &opened, options);
    let mut rows = vec![Row::new(
        format!("{clients} processes with 0.1 calls/s: failed calls until all are open"),
        format!("at most {TOLERANCE} × {needed}, as {votes_needed} votes are needed"),
        format!("{failed}"),
        failed as f64 <= f64::from(needed) * TOLERANCE,
    )];

    let recovered = wall_ms().max(epoch + config.open_for_ms as f64);
    backend.answer(Answer::Success);
    let report = workers.wait_until("all circuits are closed", LIMIT, |report| {
        report.clients.iter().all(ClientReport::is_closed)
    });
    report.await?;
    let closed = first_changes(&workers.changes, epoch, |change| change.to == State::Closed);
    let last = closed.values().map(|change| change.at_ms).fold(0.0, f64::max);
    let took = (last - recovered) / 1e3;
    rows.push(Row::new(
        format!("{clients} processes with 0.1 calls/s: all closed after recovery and open time"),
        format!("within {CLOSED_WITHIN_S} s"),
        format!("{took:.2} s"),
        took <= CLOSED_WITHIN_S,
    ));
    workers.kill().await?;
    rows.push(without_fleet(&backend, &config).await?);
    Ok(rows)
}

/// Measures the same outage without a fleet, for comparison. It has no target.
async fn without_fleet(backend: &Backend, config: &WorkerConfig) -> Result<Row> {
    let config = WorkerConfig { store: None, ..config.clone() };
    let mut workers = Workers::start(&config, true)?;
    backend.answer(Answer::Failure);
    tokio::time::sleep(COMPARED).await;
    let report = workers.report().await?;
    let open = report.clients.iter().filter(|client| !client.is_closed()).count();
    Ok(Row::new(
        format!("{} processes with 0.1 calls/s, without a fleet", workers.clients),
        "for comparison",
        format!("{open} open after {COMPARED:?}, {} failed calls", failures(&report)),
        true,
    ))
}

/// Lets the backend fail until the condition holds.
async fn open(
    backend: &Backend,
    workers: &mut Workers,
    condition: impl Fn(&Report) -> bool,
) -> Result<Report> {
    backend.answer(Answer::Failure);
    workers.wait_until("all circuits are open", LIMIT, condition).await
}

fn failures(report: &Report) -> u64 {
    report.clients.iter().map(|client| client.failures).sum()
}
