//! Appends each result to a file as soon as it is known.
//!
//! An item is finished when its line is in the file. A line is written with one call, and a line
//! without its end is cut. So a process that is killed at any point leaves only whole lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::JobFiles;
use crate::files::{self, FileError};
use crate::unit::{self, Unit};

/// Appends results to the results file of a job.
///
/// The file has one JSON object on each line. An item that was asked again has several lines, and
/// the latest one counts. Blank lines and lines that are no JSON object are skipped.
///
/// Only one writer of a job may exist at a time: hold a [`JobLock`](crate::checkpoint::JobLock).
#[derive(Debug)]
pub struct IncrementalWriter {
    path: PathBuf,
    failures_path: PathBuf,
    file: File,
    /// The length of the whole lines.
    len: u64,
    /// Whether a write has failed, so that a part of a line may follow the whole lines.
    is_torn: bool,
    /// The items with a line.
    completed: BTreeSet<usize>,
    /// The items whose latest line is a failure.
    failed: BTreeSet<usize>,
}

impl IncrementalWriter {
    /// Opens the results file of a job, or creates it.
    ///
    /// A last line without its end is removed: the process that wrote it was killed meanwhile.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened, read or shortened.
    pub fn open(job: &JobFiles) -> Result<Self, FileError> {
        let path = job.results();
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|source| FileError::new("open", &path, source))?;
        let mut writer = Self {
            failures_path: job.failures(),
            file,
            len: 0,
            is_torn: false,
            completed: BTreeSet::new(),
            failed: BTreeSet::new(),
            path,
        };
        writer.load()?;
        Ok(writer)
    }

    /// Returns the path of the results file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn load(&mut self) -> Result<(), FileError> {
        // `for_each_line` borrows the file, and `record` the rest.
        let mut results = Vec::new();
        let whole_lines = for_each_line(&self.file, &self.path, |result| {
            results.push((unit::index(&result), unit::is_failed(&result)));
        });
        self.len = whole_lines.map_err(|source| self.error("read", source))?;
        for (index, is_failed) in results {
            self.record(index, is_failed);
        }
        self.cut_torn_line()
    }

    fn record(&mut self, index: Option<usize>, is_failed: bool) {
        let Some(index) = index else { return };
        self.completed.insert(index);
        if is_failed {
            self.failed.insert(index);
        } else {
            self.failed.remove(&index);
        }
    }

    /// Appends a result. When this method returns, the result is in the file, and survives the end
    /// of the process. [`sync`](Self::sync) makes it survive a power failure.
    ///
    /// # Errors
    ///
    /// Returns an error if the line cannot be written as a whole, for example on a full disk. The
    /// part of the line is removed, and the item stays unfinished. A later write may succeed.
    pub fn write_result(&mut self, result: &Unit) -> Result<(), FileError> {
        let mut line = Vec::new();
        files::write_json_lines(&mut line, [result]).map_err(|source| self.error("append to", source))?;
        if self.is_torn {
            self.cut_torn_line()?;
        }
        if let Err(source) = self.file.write_all(&line) {
            self.is_torn = true;
            // The error of the write is the one to report. If the cut fails too, the next write or
            // the next start repeats it.
            let _ = self.cut_torn_line();
            return Err(self.error("append to", source));
        }
        self.len += line.len() as u64;
        self.record(unit::index(result), unit::is_failed(result));
        Ok(())
    }

    /// Waits until all results are on the disk.
    ///
    /// # Errors
    ///
    /// Returns an error if the system cannot write them.
    pub fn sync(&self) -> Result<(), FileError> {
        self.file.sync_data().map_err(|source| self.error("write", source))
    }

    /// Returns the items with a result, failed ones included.
    pub fn completed_indices(&self) -> &BTreeSet<usize> {
        &self.completed
    }

    /// Returns the items whose latest result has an `error` or a `parse_error`.
    pub fn failed_indices(&self) -> &BTreeSet<usize> {
        &self.failed
    }

    /// Reads the latest result of each item, in the order of the input. Results without an `_idx`
    /// follow, in the order of the file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read.
    pub fn read_all_results(&self) -> Result<Vec<Unit>, FileError> {
        let mut by_index = BTreeMap::new();
        let mut without_index = Vec::new();
        // Leaves out a torn line.
        let file = File::open(&self.path).map(|file| file.take(self.len));
        file.and_then(|file| {
            for_each_line(file, &self.path, |result| match unit::index(&result) {
                Some(index) => drop(by_index.insert(index, result)),
                None => without_index.push(result),
            })
        })
        .map_err(|source| self.error("read", source))?;
        Ok(by_index.into_values().chain(without_index).collect())
    }

    /// Writes the latest results that are failures to the failures file of the job, and returns
    /// its path. The file is replaced, also if there are no failures.
    ///
    /// # Errors
    ///
    /// Returns an error if the results cannot be read or the failures cannot be written.
    pub fn write_failures_file(&self) -> Result<PathBuf, FileError> {
        let results = self.read_all_results()?;
        let failures = results.iter().filter(|result| unit::is_failed(result));
        files::replace(&self.failures_path, |file| files::write_json_lines(file, failures))?;
        Ok(self.failures_path.clone())
    }

    /// Removes what follows the whole lines.
    fn cut_torn_line(&mut self) -> Result<(), FileError> {
        self.file.set_len(self.len).map_err(|source| self.error("repair", source))?;
        self.is_torn = false;
        Ok(())
    }

    fn error(&self, action: &'static str, source: io::Error) -> FileError {
        FileError::new(action, &self.path, source)
    }
}

/// Calls `visit` with the object on each line. Returns the length of the whole lines.
fn for_each_line(file: impl Read, path: &Path, mut visit: impl FnMut(Unit)) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let mut whole_lines = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            return Ok(whole_lines);
        }
        match serde_json::from_slice(&line) {
            Ok(result) => visit(result),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, offset = whole_lines, %error, "skipped a line that is no JSON object");
            }
        }
        whole_lines += line.len() as u64;
    }
}
