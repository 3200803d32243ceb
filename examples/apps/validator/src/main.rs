//! The program `validator`.

mod cli;
mod demo;
mod logs;
mod output;
mod progress;
mod run;
mod settings;
mod stderr;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::runtime::Runtime;
use tower_fault_classify::ErrorChain;

use crate::cli::{Cli, Command};
use crate::stderr::Stderr;

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

const NO_THREADS: &str = "the threads cannot be started; check the limits of the system";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = execute(&cli).unwrap_or_else(|error| {
        // Standard error may be closed. The exit code remains.
        let _ = writeln!(io::stderr(), "error: {}", ErrorChain(error.as_ref()));
        INVALID
    });
    ExitCode::from(code)
}

fn execute(cli: &Cli) -> Result<u8> {
    let stderr = Stderr::start().context(NO_THREADS)?;
    logs::init(&stderr);
    let runtime = Runtime::new().context(NO_THREADS)?;
    let code = runtime.block_on(async {
        let code = match cli.command {
            None => run::run(&cli.run, &stderr).await,
            Some(Command::Demo) => demo::run(&stderr).await,
        };
        stderr.written().await;
        code
    });
    // After an interrupt, a thread may wait for the reader of the output.
    runtime.shutdown_background();
    code
}
