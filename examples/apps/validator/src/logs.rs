//! Logs on standard error, above the progress bar.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

/// The level without `RUST_LOG`. The output has the results and the failed pushes in any case.
const DEFAULT_FILTER: &str = "warn,validator=error";

/// Prints the log events that `RUST_LOG` selects.
pub(crate) fn init(bars: &MultiProgress) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let bars = bars.clone();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .without_time()
        .with_ansi(io::stderr().is_terminal())
        // It would print the errors of standard error to standard error, and panic.
        .log_internal_errors(false)
        .with_writer(move || AboveBars(bars.clone()))
        .init();
}

/// Writes to standard error while the bar is hidden.
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
