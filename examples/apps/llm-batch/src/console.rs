//! What the program prints for people and for machines.

use std::fmt;
use std::io::{self, Write};

use crate::events::JobEvent;

/// Prints text for people, and events for machines with `--json`.
///
/// Errors of writes are ignored: the reader may have closed the pipe, and the job goes on without
/// it, because the results are in files.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    json: bool,
}

impl Console {
    /// Events are printed if `json` is true.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Returns the stream for people. With `--json`, stdout has only events.
    pub fn writer(self) -> Box<dyn Write> {
        if self.json { Box::new(io::stderr()) } else { Box::new(io::stdout()) }
    }

    /// Prints a line for people.
    pub fn line(self, text: impl fmt::Display) {
        let mut writer = self.writer();
        let _ = writeln!(writer, "{text}").and_then(|()| writer.flush());
    }

    /// Prints a warning on stderr.
    pub fn warning(self, text: impl fmt::Display) {
        let _ = writeln!(io::stderr(), "warning: {text}");
    }

    /// Prints an error on stderr.
    pub fn error(self, text: impl fmt::Display) {
        let _ = writeln!(io::stderr(), "error: {text}");
    }

    /// Prints an event for machines.
    pub fn event(self, event: &JobEvent<'_>) {
        if self.json {
            let _ = event.write_line(&mut io::stdout().lock());
        }
    }
}
