//! Logs on standard error, above the progress bar.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::stderr::Stderr;

/// The level without `RUST_LOG`. The output has the results and the failed pushes in any case.
const DEFAULT_FILTER: &str = "warn,validator=error";

/// Prints the log events that `RUST_LOG` selects.
pub(crate) fn init(stderr: &Stderr) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let stderr = stderr.clone();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .without_time()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(move || stderr.clone())
        .init();
}
