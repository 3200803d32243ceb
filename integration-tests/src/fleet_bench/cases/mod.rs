//! The cases of the benchmark.

mod instructions;
mod load;
mod outage;
mod quiet;
mod restart;
mod store_failures;

use anyhow::Result;
use clap::ValueEnum;

use crate::fleet_bench::protocol::WorkerConfig;
use crate::fleet_bench::stores::Store;
use crate::fleet_bench::table::Row;
use crate::fleet_bench::{Options, backend::Backend};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// A backend that hangs: all circuits open, few probes run, all close.
    Outage,
    /// Calls while the store fails.
    StoreFailures,
    /// Instructions of a call on a closed circuit.
    Instructions,
    /// Messages to the store.
    Load,
    /// Processes that are killed while a circuit is open.
    Restart,
    /// An outage among processes that rarely call.
    Quiet,
}

impl Case {
    /// Whether a quick run has the case. The others measure only times, rates or instructions.
    pub(crate) fn is_quick(self) -> bool {
        matches!(self, Self::Outage | Self::StoreFailures | Self::Restart)
    }

    /// Runs the case. An error is a failed row.
    pub(crate) async fn run(self, options: &Options) -> Vec<Row> {
        let rows = match self {
            Self::Outage => outage::run(options).await,
            Self::StoreFailures => store_failures::run(options).await,
            Self::Instructions => instructions::run().await,
            Self::Load => load::run(options).await,
            Self::Restart => restart::run(options).await,
            Self::Quiet => quiet::run(options).await,
        };
        rows.unwrap_or_else(|error| {
            let name = self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            vec![Row::new(name, "the case completes", format!("{error:#}"), false)]
        })
    }
}

/// Starts an empty store and a backend, and returns the settings of clients that use both.
async fn prepare(options: &Options, clients: usize) -> Result<(Store, Backend, WorkerConfig)> {
    let (store, backend) = (Store::start(options.store).await?, Backend::start().await?);
    let config = WorkerConfig {
        store: Some(store.address()),
        backend: backend.address(),
        first: 0,
        clients,
        calls_per_second: 10.0,
        call_timeout_ms: 400,
        heartbeat_ms: if options.quick { 250 } else { 1000 },
        open_for_ms: if options.quick { 500 } else { 3000 },
        probes: 3,
        calling: true,
    };
    Ok((store, backend, config))
}
