//! The progress of a run, on standard error.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use validator::orchestrator::ValidationOrchestrator;
use validator::result::ValidationResult;

use crate::output::one_line;
use crate::stderr::Stderr;

/// Prints a line for each finished validator. On a terminal, a bar below shows the others.
pub(crate) struct Progress {
    stderr: Stderr,
    bar: Option<ProgressBar>,
    /// The dimensions of the validators that have not finished.
    unfinished: RefCell<Vec<String>>,
}

impl Progress {
    pub(crate) fn start(orchestrator: &ValidationOrchestrator, stderr: &Stderr) -> Self {
        let unfinished: Vec<_> =
            orchestrator.validators().iter().map(|validator| one_line(validator.dimension())).collect();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(unfinished.len() as u64).with_style(style());
            let bar = stderr.bars().add(bar.with_message(unfinished.join(", ")));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { stderr: stderr.clone(), bar, unfinished: RefCell::new(unfinished) }
    }

    /// Shows the result of a validator.
    pub(crate) fn finished(&self, result: &ValidationResult) {
        let dimension = one_line(&result.dimension);
        let line = format!("{dimension}: {}", one_line(&result.message));
        let mut unfinished = self.unfinished.borrow_mut();
        if let Some(index) = unfinished.iter().position(|other| *other == dimension) {
            unfinished.remove(index);
        }
        match &self.bar {
            Some(bar) => {
                bar.println(line);
                bar.inc(1);
                bar.set_message(unfinished.join(", "));
            }
            None => self.stderr.line(&line),
        }
    }

    /// Shows that the report is sent.
    pub(crate) fn pushing(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message("sending the report");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("[{elapsed}] {bar:30} {pos}/{len} {wide_msg}")
        .expect("the template is valid")
}
