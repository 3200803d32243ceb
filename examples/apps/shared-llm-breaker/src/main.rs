//! The program `worker`. See the README for its commands.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use shared_llm_breaker::cli::Cli;
use shared_llm_breaker::commands;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

fn main() -> io::Result<ExitCode> {
    let cli = Cli::parse();
    log(cli.command.has_json());
    let runtime = Runtime::new()?;
    let exit_code = runtime.block_on(commands::run(cli));
    // A lookup of a host name may still run. It must not delay the end of the program.
    runtime.shutdown_background();
    Ok(ExitCode::from(exit_code))
}

/// Logs to stderr: the events of the breaker from `INFO`, and warnings of all crates.
fn log(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,shared_llm_breaker=info,tower_breaker_fleet=info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // If stderr is closed, its message about that would panic in the middle of a call.
        .log_internal_errors(false);
    if json {
        subscriber.json().init();
    } else {
        subscriber.init();
    }
}
