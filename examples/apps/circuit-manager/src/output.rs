//! Standard output and errors.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use tower_fault_classify::ErrorChain;

/// Prints a line. A reader that has closed standard output does not want it.
pub(crate) fn print(line: impl Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output cannot be written; check the disk"),
    }
}

/// Prints an error with its causes.
pub(crate) fn print_error(error: &(dyn Error + 'static)) {
    // Standard error may be closed. The exit code remains.
    let _ = writeln!(io::stderr(), "error: {}", ErrorChain(error));
}
