//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use validator::timeouts::Seconds;

/// Runs the checks of a project, and reports the results of all of them
///
/// A check that hangs, fails or cannot start does not affect the others.
///
/// Exit codes: 0 if all checks passed, 1 if a check failed, 2 if the command line or the
/// configuration is invalid, 3 if no check failed but a result or a push is missing, 130 if the run
/// was interrupted.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what happens to checks that hang and to services that are down, in 7 seconds
    Demo,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The folder of the project, in which the commands run
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The configuration: a file that ends in .toml or .json. Without validators, the checks of a
    /// Rust package run
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Run only the validators of this dimension. Commas separate several dimensions
    #[arg(long, value_name = "DIM", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Set the time limit of a dimension, in seconds
    #[arg(long = "timeout", value_name = "DIM=SECS", value_delimiter = ',', value_parser = parse_timeout)]
    pub(crate) timeouts: Vec<(String, Seconds)>,
    /// How many validators run at the same time [default: that of the configuration, or 4]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) services: ServiceArgs,
}

/// The external services. Each flag takes precedence over the configuration.
#[derive(Args, Debug)]
#[command(next_help_heading = "External services")]
pub(crate) struct ServiceArgs {
    /// Send the report to a Prometheus push gateway if ADDR is a URL, else to QuestDB. May be
    /// given for both
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["questdb", "prometheus"])]
    pub(crate) push: Vec<String>,
    /// Send the report to QuestDB (ILP over TCP), such as 127.0.0.1:9009
    #[arg(long, value_name = "ADDR")]
    pub(crate) questdb: Option<String>,
    /// Send the report to the Prometheus push gateway at this base URL
    #[arg(long, value_name = "URL")]
    pub(crate) prometheus: Option<String>,
    /// The endpoint of the MCP server of the validators that call a tool
    #[arg(long, value_name = "URL")]
    pub(crate) mcp: Option<String>,
    /// Add a validator that calls a tool of the MCP server, without arguments
    #[arg(long = "tool", value_name = "DIM=NAME", value_parser = parse_tool)]
    pub(crate) tools: Vec<(String, String)>,
}

fn parse_timeout(text: &str) -> Result<(String, Seconds), String> {
    let (dimension, seconds) = split(text).ok_or("write DIM=SECS, such as lint=30")?;
    let seconds = seconds.parse().map_err(|error| format!("{error}"))?;
    Ok((dimension, seconds))
}

fn parse_tool(text: &str) -> Result<(String, String), String> {
    let (dimension, tool) = split(text).ok_or("write DIM=NAME, such as visual=compare_screenshots")?;
    Ok((dimension, tool.to_owned()))
}

fn split(text: &str) -> Option<(String, &str)> {
    let (dimension, value) = text.split_once('=')?;
    if dimension.is_empty() || value.is_empty() { None } else { Some((dimension.to_owned(), value)) }
}
