//! The command line of the program `worker`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Options, StoreOptions};

/// Calls an LLM API through a circuit breaker that all workers share
///
/// A flag takes precedence over its environment variable, the variable over the file, and the file
/// over the default.
///
/// Exit codes: 0 if all calls have succeeded, 1 if one has failed or was rejected, 2 if the
/// arguments or the configuration cannot be used, 3 if the store does not answer (`status`,
/// `reset`), 130 if the program was interrupted.
#[derive(Debug, Parser)]
#[command(name = "worker", version, max_term_width = 100)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Call the API again and again, and print each outcome
    Run(RunArgs),
    /// Print the breakers in the store
    Status(StatusArgs),
    /// Close the circuit of all workers
    Reset(ResetArgs),
    /// Watch two workers share a circuit in 10 seconds; needs no Redis, no API and no key
    Demo,
}

/// What all commands but the demo have.
#[derive(Args, Debug)]
pub struct CommonArgs {
    /// The configuration in TOML or JSON
    #[arg(long, value_name = "FILE", env = "WORKER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print JSON on stdout, and logs in JSON on stderr
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The arguments of all commands.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The settings of the worker.
    #[command(flatten)]
    pub options: Box<Options>,
}

/// The arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// The arguments of all commands.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreOptions,
    /// Print only the breaker with this name
    #[arg(long)]
    pub name: Option<String>,
}

/// The arguments of `reset`.
#[derive(Args, Debug)]
pub struct ResetArgs {
    /// The arguments of all commands.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreOptions,
    /// The name of the breaker; required without --all
    #[arg(long, required_unless_present = "all")]
    pub name: Option<String>,
    /// Reset all breakers of the namespace
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
}

impl Command {
    /// Whether stdout has JSON.
    pub fn has_json(&self) -> bool {
        match self {
            Self::Run(RunArgs { common, .. })
            | Self::Status(StatusArgs { common, .. })
            | Self::Reset(ResetArgs { common, .. }) => common.json,
            Self::Demo => false,
        }
    }
}
