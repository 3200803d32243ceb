//! A job and its files.

use std::collections::BTreeSet;

use super::error::CommandError;
use super::run::End;
use super::{output, resume_command};
use crate::checkpoint::{Checkpoint, Counts, JobFiles, JobLock, ProgressTracker};
use crate::cli::CommonArgs;
use crate::config::LlmConfig;
use crate::console::Console;
use crate::events::JobEvent;
use crate::files::FileError;
use crate::input::InputItem;
use crate::prompt::PromptTemplate;
use crate::text::items;
use crate::unit::{self, Unit};
use crate::writer::IncrementalWriter;

/// A job that is locked by this process.
#[derive(Debug)]
pub(super) struct Job {
    files: JobFiles,
    _lock: JobLock,
    tracker: ProgressTracker,
    writer: IncrementalWriter,
    items: Vec<InputItem>,
    pub(super) console: Console,
    /// The command that resumes the job.
    pub(super) resume_command: String,
}

impl Job {
    /// Opens the results of a job, and checks that its output can be written.
    pub(super) fn open(
        args: &CommonArgs,
        files: JobFiles,
        lock: JobLock,
        checkpoint: Checkpoint,
        items: Vec<InputItem>,
    ) -> Result<Self, FileError> {
        output::check(&checkpoint.output)?;
        let writer = IncrementalWriter::open(&files)?;
        let mut tracker = ProgressTracker::new(files.clone(), checkpoint);
        tracker.update(&writer);
        Ok(Self {
            resume_command: resume_command(&files, &args.checkpoint_dir),
            console: Console::new(args.json),
            files,
            _lock: lock,
            tracker,
            writer,
            items,
        })
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        self.tracker.checkpoint()
    }

    pub(super) fn counts(&mut self) -> Counts {
        self.tracker.update(&self.writer);
        self.tracker.counts()
    }

    /// Returns the items that have no result, and those that failed if they are to be retried.
    pub(super) fn pending(&self, retry_failures: bool) -> BTreeSet<usize> {
        let has_result = self.writer.completed_indices();
        let failed = self.writer.failed_indices();
        let is_pending =
            |index: &usize| !has_result.contains(index) || retry_failures && failed.contains(index);
        (0..self.items.len()).filter(is_pending).collect()
    }

    /// Returns copies of items with their indices.
    pub(super) fn units(&self, indices: &[usize]) -> Vec<(usize, Unit)> {
        indices.iter().map(|index| (*index, self.items[*index].fields.clone())).collect()
    }

    /// Appends a result to the results file.
    pub(super) fn record(&mut self, result: &Unit) -> Result<(), FileError> {
        self.writer.write_result(result)?;
        self.console.event(&JobEvent::Result { index: unit::index(result), error: failure(result) });
        Ok(())
    }

    /// Prints how many items are processed now.
    pub(super) fn report_start(&mut self, pending: &BTreeSet<usize>) {
        let Counts { total, .. } = self.counts();
        let (remaining, completed) = (pending.len(), total - pending.len());
        let job = self.files.job_id();
        self.console.line(format_args!("Job {job}: {}", items(total)));
        self.console.line(format_args!("Found {completed} completed, {remaining} remaining"));
        self.console.event(&JobEvent::Started { job, total, completed, remaining });
    }

    /// Warns of settings that make all items alike, which is seldom intended.
    pub(super) fn warn(&self, template: &PromptTemplate) {
        if self.items.len() > 1 && template.fields().next().is_none() {
            self.console.warning(
                "the prompt uses no field of the items, so all items are sent the same text; write {field} to insert one",
            );
        }
        let LlmConfig { model, model_field, .. } = &self.checkpoint().config.llm;
        let Some(field) = model_field else { return };
        if !self.items.iter().any(|item| item.fields.contains_key(field)) {
            self.console.warning(format_args!(
                "no item has the field `{field}`, so all items use the model `{model}`; correct --model-field"
            ));
        }
    }

    /// Saves the checkpoint.
    pub(super) fn save(&mut self) -> Result<Counts, FileError> {
        self.tracker.save(&self.writer)?;
        let counts = self.tracker.counts();
        let Counts { processed, failed, .. } = counts;
        self.console.event(&JobEvent::Checkpoint { processed, failed });
        Ok(counts)
    }

    /// Writes the output, prints how the job has ended, and returns the exit code of the program.
    pub(super) fn finish(&mut self, end: End) -> Result<u8, CommandError> {
        let Counts { total, processed, failed } = self.counts();
        let (console, resume) = (self.console, &self.resume_command);
        match end {
            End::Completed => {
                let job = self.files.job_id();
                console.line(format_args!("Job {job} is finished: {}, {failed} failed", items(total)));
            }
            End::Aborted => console.line(format_args!("Aborted. To resume later: {resume}")),
            End::Stopped => console.line(format_args!("Stopped. To resume later: {resume}")),
            End::QuotaExhausted => console.line(format_args!("To resume later: {resume}")),
            End::Interrupted => console.line(format_args!("Interrupted. To resume later: {resume}")),
        }
        // The failures of an earlier run are replaced, too.
        if failed > 0 || self.files.failures().exists() {
            self.writer.write_failures_file()?;
        }
        if failed > 0 {
            console.line(format_args!("Failed items saved to: {}", self.files.failures().display()));
            console.line(format_args!("To retry them: {resume} --retry-failures"));
        }
        self.write_output()?;
        let exit_code = end.exit_code(failed);
        console.event(&JobEvent::Ended { exit_code, total, processed, failed });
        Ok(exit_code)
    }

    fn write_output(&self) -> Result<(), FileError> {
        let output = &self.checkpoint().output;
        output::write(output, &self.writer.read_all_results()?).inspect_err(|_| {
            let results = self.writer.path().display();
            let resume = &self.resume_command;
            self.console.line(format_args!("The results are in: {results}"));
            self.console.line(format_args!("To write the output: {resume} --output FILE"));
        })
    }
}

/// Returns the text of a result whose item failed.
fn failure(result: &Unit) -> Option<&str> {
    [unit::ERROR, unit::PARSE_ERROR].iter().find_map(|name| result.get(*name)?.as_str())
}
