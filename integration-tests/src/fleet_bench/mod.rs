//! The command line of the benchmark.

mod backend;
mod calls;
mod cases;
mod client;
mod clock;
mod protocol;
mod stores;
mod table;
mod worker;
mod workers;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::runtime;

use crate::fleet_bench::cases::Case;
use crate::fleet_bench::stores::StoreKind;

/// Measures circuits that processes share.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    worker: Option<Worker>,
}

#[derive(Clone, Debug, clap::Args)]
struct Options {
    /// The number of processes. Default: that of each case.
    #[arg(long)]
    processes: Option<usize>,
    #[arg(long, value_enum, default_value = "redis")]
    store: StoreKind,
    /// Only these cases. Default: all.
    #[arg(long, value_enum)]
    case: Vec<Case>,
    /// A few seconds with few processes, and without targets for times.
    #[arg(long)]
    quick: bool,
}

/// The processes that the benchmark starts. Their arguments are JSON.
#[derive(Debug, Subcommand)]
enum Worker {
    /// Runs clients.
    #[command(hide = true)]
    Clients { config: String },
    /// Measures calls.
    #[command(hide = true)]
    Calls { store: String },
    /// Runs calls whose instructions are counted.
    #[command(hide = true)]
    CountedCalls { calls: u64, agent: Agent },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Agent {
    With,
    Without,
}

pub(crate) fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.worker {
        None => measure(&cli.options),
        Some(worker) => run(worker).map(|()| ExitCode::SUCCESS),
    }
}

fn run(worker: Worker) -> Result<()> {
    match worker {
        Worker::Clients { config } => {
            // The workers share the cores, so that more threads would only wait for them.
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(worker::run(&config))
        }
        Worker::Calls { store } => calls::run(&store),
        Worker::CountedCalls { calls, agent } => calls::run_counted(calls, agent == Agent::With),
    }
}

fn measure(options: &Options) -> Result<ExitCode> {
    worker::raise_file_limit()?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for case in Case::value_variants() {
        let is_chosen = options.case.is_empty() || options.case.contains(case);
        if is_chosen && (!options.quick || case.is_quick()) {
            rows.extend(runtime.block_on(case.run(options)));
        }
    }
    print!("{}", table::markdown(&rows));
    Ok(if rows.iter().all(|row| row.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
