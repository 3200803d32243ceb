//! Logs on standard error, above the progress bars.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

/// The events that are printed unless `RUST_LOG` selects others: problems, and all transitions of
/// circuits.
const DEFAULT_FILTER: &str = "warn,tower_breaker=info";

/// Prints the log events of [`DEFAULT_FILTER`], or those that `RUST_LOG` selects.
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

/// Writes to standard error while the bars are hidden.
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
