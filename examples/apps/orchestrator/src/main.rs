//! The program `orchestrator`.

mod cli;
mod demo;
mod demo_agent;
mod inspect;
mod interrupts;
mod logs;
mod progress;
mod run;
mod table;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::MultiProgress;
use tower_breaker::fault_classify::ErrorChain;

use crate::cli::{Cli, Command};

/// All tasks of the run are completed, or the plan is valid.
const SUCCESS: u8 = 0;
/// A task failed, or the command of a backend is not found.
const SOME_FAILED: u8 = 1;
/// The plan or the command line is invalid. `clap` exits with this code, too.
const INVALID: u8 = 2;
/// The run was interrupted by a signal.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let bars = MultiProgress::new();
    logs::init(&bars);
    let code = execute(cli.command, bars).await.unwrap_or_else(|error| {
        print_error(error.as_ref());
        INVALID
    });
    ExitCode::from(code)
}

async fn execute(command: Command, bars: MultiProgress) -> Result<u8> {
    match command {
        Command::Run(args) => run::run(&args, bars).await,
        Command::Validate(args) => inspect::validate(&args.plan),
        Command::Backends(args) => inspect::backends(&args.plan),
        Command::Demo => demo::run(bars).await,
        Command::DemoAgent(args) => demo_agent::answer(&args).await,
    }
}

/// Prints a line. A reader that has closed standard output does not want it.
fn print(line: impl Display) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output cannot be written; check the disk"),
    }
}

/// Prints an error with its causes.
fn print_error(error: &(dyn Error + 'static)) {
    // Standard error may be closed. The exit code remains.
    let _ = writeln!(io::stderr(), "error: {}", ErrorChain(error));
}
