//! The commands of the program, and its exit codes.

mod run;
mod store;

use std::error::Error;
use std::io::{self, Write};

use tower_fault_classify::ErrorChain;

use crate::cli::{Cli, Command};
use crate::demo;
use crate::output::Console;

/// All calls have succeeded.
pub(crate) const SUCCESS: u8 = 0;
/// A call has failed, or was rejected.
pub(crate) const FAILED: u8 = 1;
/// The arguments or the configuration cannot be used.
pub(crate) const USAGE: u8 = 2;
/// The store does not answer.
pub(crate) const STORE: u8 = 3;
/// A signal has interrupted the worker.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command has ended early.
#[derive(Debug)]
pub(crate) struct CommandError {
    exit_code: u8,
    source: Box<dyn Error + Send + Sync>,
}

impl CommandError {
    fn usage(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit_code: USAGE, source: source.into() }
    }

    fn store(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit_code: STORE, source: source.into() }
    }
}

/// Runs a command, and returns the exit code.
pub async fn run(cli: Cli) -> u8 {
    let console = Console::new(cli.command.has_json());
    let result = match cli.command {
        Command::Run(arguments) => run::run(arguments, console).await,
        Command::Status(arguments) => store::status(arguments, console).await,
        Command::Reset(arguments) => store::reset(arguments, console).await,
        Command::Demo => return demo::run().await,
    };
    result.unwrap_or_else(|CommandError { exit_code, source }| {
        let _ = writeln!(io::stderr(), "error: {}", ErrorChain(&*source));
        exit_code
    })
}
