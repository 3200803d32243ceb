//! A backend that hangs and recovers: how fast all circuits follow the fleet, and how many probes
//! run at the same time.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::fleet_bench::Options;
use crate::fleet_bench::backend::{Answer, Backend};
use crate::fleet_bench::clock::wall_ms;
use crate::fleet_bench::protocol::{Change, Report, State};
use crate::fleet_bench::table::{Row, percentile};
use crate::fleet_bench::workers::Workers;

/// The limit for the slowest of 99 % of the circuits.
const OPEN_WITHIN_MS: f64 = 100.0;

const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(options: &Options) -> Result<Vec<Row>> {
    let sizes = match (options.processes, options.quick) {
        (Some(processes), _) => vec![processes],
        (None, true) => vec![20],
        (None, false) => vec![200, 1000],
    };
    let mut rows = Vec::new();
    for clients in sizes {
        rows.extend(outage(options, clients).await?);
    }
    Ok(rows)
}

async fn outage(options: &Options, clients: usize) -> Result<Vec<Row>> {
    let (_store, backend, mut config) = super::prepare(options, clients).await?;
    // All clients together call 2,000 to 4,000 times a second, which two cores can do.
    config.calls_per_second = if clients > 400 {
        4.0
    } else if options.quick {
        20.0
    } else {
        10.0
    };
    config.call_timeout_ms = if clients > 400 || options.quick { 200 } else { 400 };
    let call_timeout = Duration::from_millis(config.call_timeout_ms);
    let probes = config.probes as usize;
    let mut workers = Workers::start(&config, options.store.is_shared())?;
    workers.wait_for_fleet().await?;

    let mut rows = vec![open_all(&backend, &mut workers, options).await?];

    // The calls of the time before the opening end first.
    sleep(2 * call_timeout).await;
    backend.reset();
    sleep(Duration::from_secs(if options.quick { 2 } else { 10 })).await;
    let (most, total) = backend.counted();
    rows.push(Row::new(
        format!("{clients} processes: probes at once, counted by the backend"),
        format!("1 to {probes}"),
        format!("{most} ({total} in all)"),
        (1..=probes).contains(&most),
    ));
    rows.push(close_all(&backend, &mut workers, options).await?);
    Ok(rows)
}

/// Makes the backend hang, and measures the time from the fleet's decision to each transition.
async fn open_all(backend: &Backend, workers: &mut Workers, options: &Options) -> Result<Row> {
    let began = wall_ms();
    backend.answer(Answer::Hang);
    let report = workers.wait_until("all circuits are open", LIMIT, |report| {
        report.clients.iter().all(|client| !client.is_closed() && client.fleet_open)
    });
    let report = report.await?;
    let opened = first_changes(&workers.changes, began, |change| change.to == State::Open);
    let epoch = decided_at(&report, &opened, options);
    let own = opened.values().filter(|change| !change.commanded).count();
    let mut delays: Vec<_> = opened.values().map(|change| (change.at_ms - epoch).max(0.0)).collect();
    let failures: u64 = report.clients.iter().map(|client| client.failures).sum();
    let (p99, most) = (percentile(&mut delays, 99), percentile(&mut delays, 100));
    Ok(Row::new(
        format!("{} processes: 99 % open after the deciding vote", workers.clients),
        if options.quick { "all open".to_owned() } else { format!("within {OPEN_WITHIN_MS} ms") },
        format!(
            "p99 {p99:.1} ms, last {most:.1} ms; decided after {:.2} s; {own} opened by local evidence; \
             {failures} failed calls",
            (epoch - began) / 1e3
        ),
        delays.len() == workers.clients && (options.quick || p99 <= OPEN_WITHIN_MS),
    ))
}

/// Lets the backend recover, and measures the same for the closing.
async fn close_all(backend: &Backend, workers: &mut Workers, options: &Options) -> Result<Row> {
    workers.report().await?;
    let began = wall_ms();
    backend.answer(Answer::Success);
    let report = workers.wait_until("all circuits are closed", LIMIT, |report| {
        report.clients.iter().all(|client| client.is_closed() && !client.fleet_open)
    });
    let report = report.await?;
    let closed = first_changes(&workers.changes, began, |change| change.to == State::Closed);
    let epoch = decided_at(&report, &closed, options);
    let mut delays: Vec<_> = closed.values().map(|change| (change.at_ms - epoch).max(0.0)).collect();
    let (p99, most) = (percentile(&mut delays, 99), percentile(&mut delays, 100));
    Ok(Row::new(
        format!("{} processes: 99 % closed after the deciding probe", workers.clients),
        if options.quick { "all closed".to_owned() } else { format!("within {OPEN_WITHIN_MS} ms") },
        format!("p99 {p99:.1} ms, last {most:.1} ms; decided {:.2} s after recovery", (epoch - began) / 1e3),
        delays.len() == workers.clients && (options.quick || p99 <= OPEN_WITHIN_MS),
    ))
}

/// Returns the wall-clock time of the fleet's decision in milliseconds: the epoch of its record.
///
/// The clock of the memory store is not the wall clock. There, it is the first command.
pub(super) fn decided_at(report: &Report, changes: &HashMap<usize, Change>, options: &Options) -> f64 {
    if options.store.is_shared() {
        return report.clients.iter().map(|client| client.epoch).max().unwrap_or_default() as f64;
    }
    let commanded = changes.values().filter(|change| change.commanded);
    commanded.map(|change| change.at_ms).fold(f64::INFINITY, f64::min)
}

/// Returns the first fitting transition of each client since a time.
pub(super) fn first_changes(
    changes: &[Change],
    since_ms: f64,
    fits: impl Fn(&Change) -> bool,
) -> HashMap<usize, Change> {
    let mut first = HashMap::new();
    for change in changes.iter().filter(|change| change.at_ms >= since_ms && fits(change)) {
        first.entry(change.client).or_insert(*change);
    }
    first
}
