//! The program `agents`. See the README for its commands.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use llm_batch::cli::Cli;
use llm_batch::commands;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

fn main() -> io::Result<ExitCode> {
    let cli = Cli::parse();
    // Logs are off unless `RUST_LOG` is set, because errors are printed in any case.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let runtime = Runtime::new()?;
    let exit_code = runtime.block_on(commands::run(cli.command));
    // A thread may wait for a line of stdin. It must not delay the end of the program.
    runtime.shutdown_background();
    Ok(ExitCode::from(exit_code))
}
