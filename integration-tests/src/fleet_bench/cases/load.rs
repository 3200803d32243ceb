//! The messages of the processes to the store.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::fleet_bench::Options;
use crate::fleet_bench::backend::{Answer, Backend};
use crate::fleet_bench::protocol::{Report, WorkerConfig};
use crate::fleet_bench::stores::Store;
use crate::fleet_bench::table::Row;
use crate::fleet_bench::workers::Workers;

const STEADY_PER_HEARTBEAT: f64 = 1.1;
const FLAPPING_PER_SECOND: f64 = 10.0;

/// The time of each measurement.
const MEASURED: Duration = Duration::from_secs(20);

pub(super) async fn run(options: &Options) -> Result<Vec<Row>> {
    let clients = options.processes.unwrap_or(40);
    let (store, backend, config) = super::prepare(options, clients).await?;
    let config = WorkerConfig { calls_per_second: 20.0, open_for_ms: 200, ..config };
    let mut workers = Workers::start(&config, options.store.is_shared())?;
    workers.wait_for_fleet().await?;

    let heartbeats = MEASURED.as_secs_f64() * 1e3 / config.heartbeat_ms as f64;
    let steady = Counter::start(&store, &mut workers).await?;
    sleep(MEASURED).await;
    let [commands, most] = steady.per_process(&store, &mut workers).await?;
    let (commands, most) = (commands / heartbeats, most / heartbeats);
    let mut rows = vec![Row::new(
        format!("{clients} healthy processes: commands per process and heartbeat"),
        format!("at most {STEADY_PER_HEARTBEAT}"),
        format!("{commands:.2} on average; {most:.2} messages of the busiest"),
        commands <= STEADY_PER_HEARTBEAT,
    )];

    let flapping = Counter::start(&store, &mut workers).await?;
    flap(&backend).await;
    let [commands, most] = flapping.per_process(&store, &mut workers).await?;
    let (commands, most) = (commands / MEASURED.as_secs_f64(), most / MEASURED.as_secs_f64());
    rows.push(Row::new(
        format!("{clients} processes with a flapping backend: commands per process and second"),
        format!("at most {FLAPPING_PER_SECOND}"),
        format!("{commands:.2} on average; {most:.2} messages of the busiest"),
        // A token bucket admits a burst of one second's messages at the start.
        commands <= FLAPPING_PER_SECOND && most <= FLAPPING_PER_SECOND * (1.0 + 1.0 / MEASURED.as_secs_f64()),
    ));
    Ok(rows)
}

/// Lets the backend fail and recover all the time.
async fn flap(backend: &Backend) {
    let end = Instant::now() + MEASURED;
    while Instant::now() < end {
        for answer in [Answer::Failure, Answer::Success] {
            backend.answer(answer);
            sleep(Duration::from_millis(300)).await;
        }
    }
}

/// The counts at the start of a measurement.
struct Counter {
    commands: Option<u64>,
    messages: Vec<u64>,
}

impl Counter {
    async fn start(store: &Store, workers: &mut Workers) -> Result<Self> {
        Ok(Self { commands: store.commands(), messages: messages(&workers.report().await?) })
    }

    /// Returns the commands per process on average, and the messages of the busiest process.
    ///
    /// Where the store does not count commands, the messages that the agents count replace them.
    async fn per_process(self, store: &Store, workers: &mut Workers) -> Result<[f64; 2]> {
        let messages = messages(&workers.report().await?);
        let sent = messages.iter().zip(&self.messages).map(|(now, before)| now - before);
        let all = match (store.commands(), self.commands) {
            (Some(now), Some(before)) => now - before,
            _ => sent.clone().sum(),
        };
        Ok([all as f64 / messages.len() as f64, sent.max().unwrap_or_default() as f64])
    }
}

fn messages(report: &Report) -> Vec<u64> {
    report.clients.iter().map(|client| client.messages).collect()
}
