//! The progress of a job on stderr: a bar on a terminal, else a line from time to time.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;
use tower_breaker::{CircuitState, Status};

use crate::checkpoint::Counts;
use crate::engine::TripStatus;

/// Shows the progress of a job.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    started: Instant,
    processed_before: usize,
}

impl Progress {
    /// Starts with the counts of the items that are already processed.
    pub fn new(counts: Counts) -> Self {
        let style = ProgressStyle::with_template("{bar:20} {wide_msg}");
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(Some(counts.total as u64), target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_position(counts.processed as u64);
        Self {
            bar,
            is_terminal: io::stderr().is_terminal(),
            started: Instant::now(),
            processed_before: counts.processed,
        }
    }

    /// Returns the time between two calls of [`show`](Self::show).
    pub fn interval(&self) -> Duration {
        if self.is_terminal { Duration::from_millis(250) } else { Duration::from_secs(5) }
    }

    /// Shows the counts and the states of the circuits.
    pub fn show(&self, counts: Counts, circuits: impl fmt::Display) {
        let line = self.line(counts, circuits);
        if self.is_terminal {
            self.bar.set_position(counts.processed as u64);
            self.bar.set_message(line);
        } else {
            // The reader may have closed the pipe. The job goes on without it.
            let _ = writeln!(io::stderr(), "progress: {line}");
        }
    }

    fn line(&self, counts: Counts, circuits: impl fmt::Display) -> String {
        let Counts { total, processed, failed } = counts;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = processed.saturating_sub(self.processed_before) as f64 / seconds;
        format!("{processed}/{total} | {rate:.1}/s | failed: {failed} | {circuits}")
    }
}

/// Removes the bar, so that other text can be written.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The states of the circuits of a job.
#[derive(Clone, Debug)]
pub struct Circuits {
    /// The job's circuit.
    pub job: TripStatus,
    /// The circuits of the models.
    pub models: Vec<Status>,
}

/// Names the models whose circuits are not closed, and why.
impl fmt::Display for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TripStatus { consecutive_failures, threshold, is_tripped, .. } = self.job;
        match (threshold, is_tripped) {
            (0, _) => f.write_str("job circuit: disabled")?,
            (_, true) => f.write_str("job circuit: open")?,
            (_, false) => write!(f, "job circuit: {consecutive_failures}/{threshold}")?,
        }
        let failing: Vec<_> =
            self.models.iter().filter(|status| status.state != CircuitState::Closed).collect();
        if failing.is_empty() {
            return f.write_str(" | models: closed");
        }
        for status in failing {
            write!(f, " | {}: {}", status.key.as_deref().unwrap_or("model"), status.state)?;
            if let Some(time) = status.retry_after {
                write!(f, ", retry in {} s", time.as_secs() + 1)?;
            }
            if let Some(failure) = status.last_failure.as_ref() {
                write!(f, ": {}", failure.message)?;
            }
        }
        Ok(())
    }
}
