//! The program `validator`.

mod cli;
mod demo;
mod logs;
mod output;
mod progress;
mod run;
mod settings;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use indicatif::MultiProgress;
use tokio::runtime::Runtime;
use tower_fault_classify::ErrorChain;

use crate::cli::{Cli, Command};

/// All checks passed.
const PASSED: u8 = 0;
/// A check failed.
const FAILED: u8 = 1;
/// The command line or the configuration is invalid. `clap` exits with this code, too.
const INVALID: u8 = 2;
/// No check failed, but a result or a push is missing.
const DEGRADED: u8 = 3;
/// The run was interrupted by a signal.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let bars = MultiProgress::new();
    logs::init(&bars);
    let code = execute(&cli, &bars).unwrap_or_else(|error| {
        // Standard error may be closed. The exit code remains.
        let _ = writeln!(io::stderr(), "error: {}", ErrorChain(error.as_ref()));
        INVALID
    });
    ExitCode::from(code)
}

fn execute(cli: &Cli, bars: &MultiProgress) -> Result<u8> {
    let runtime = Runtime::new().context("the threads cannot be started; check the limits of the system")?;
    let code = runtime.block_on(async {
        match cli.command {
            None => run::run(&cli.run, bars).await,
            Some(Command::Demo) => demo::run(bars).await,
        }
    });
    // After an interrupt, a thread may wait for the reader of the output.
    runtime.shutdown_background();
    code
}
