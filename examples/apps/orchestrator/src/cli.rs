//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use orchestrator::runner::DEFAULT_CONCURRENCY;

/// Runs the tasks of a plan in dependency order, and isolates their failures
///
/// Exit codes: 0 if all tasks are completed, 1 if a task failed or a command of `backends` is not
/// found, 2 if the plan or the command line is invalid, 130 if the run was interrupted.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the tasks of PLAN
    Run(RunArgs),
    /// Check PLAN without running it: its format, its dependencies, and its commands
    Validate(PlanArgs),
    /// List the backends of PLAN, and whether their commands are found
    Backends(PlanArgs),
    /// Show retries, open circuits and skipped tasks in 5 seconds, with agents that only pretend
    Demo,
    /// The backends of the demo.
    #[command(hide = true)]
    DemoAgent(DemoAgentArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    /// The plan: a file that ends in .json or .toml
    pub(crate) plan: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// How many tasks run at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_CONCURRENCY)]
    pub(crate) concurrency: NonZeroUsize,
    /// Print the events as JSON lines to standard output, with the whole answers
    #[arg(long)]
    pub(crate) json: bool,
}

/// What an agent of the demo does with a prompt.
#[derive(Args, Debug)]
pub(crate) struct DemoAgentArgs {
    /// The name in its answers
    pub(crate) name: String,
    /// The directory where it counts its calls
    #[arg(long)]
    pub(crate) state: PathBuf,
    /// How many calls fail before the first answer
    #[arg(long)]
    pub(crate) failures: u32,
    /// How long an answer takes
    #[arg(long)]
    pub(crate) milliseconds: u64,
}
