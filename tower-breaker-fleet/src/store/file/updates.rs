//! The log of updates: the file that the sessions watch.
//!
//! It grows only when something is published. So a heartbeat, which replaces the files of circuits,
//! causes no work in other processes. A line names a circuit; the record is in the circuit's file.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::errors::io_error;
use super::folder::{Folder, Locked, open_options, open_regular};
use crate::rules::CircuitData;
use crate::store::{StoreError, Update};

/// The size from which the log is replaced by an empty one, in bytes.
const LARGEST: u64 = 256 << 10;
/// The most that a reader reads. Of a larger rest, which is not from this store, it reads the end.
const LARGEST_READ: u64 = 1 << 20;

/// A line of the log.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    circuit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slots_taken: Option<SlotsTaken>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SlotsTaken {
    epoch: u64,
    /// When the line was written.
    at_ms: u64,
    retry_after_ms: u64,
}

impl SlotsTaken {
    /// The rest of the time. A clock that was set back does not prolong it.
    fn retry_after(&self, now: u64) -> Duration {
        Duration::from_millis(self.retry_after_ms.saturating_sub(now.saturating_sub(self.at_ms)))
    }
}

impl Line {
    fn new(update: &Update, now: u64) -> Self {
        match update {
            Update::Record(record) => Self { circuit: record.circuit.clone(), slots_taken: None },
            Update::SlotsTaken { circuit, epoch, retry_after } => {
                let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                let slots_taken = SlotsTaken { epoch: *epoch, at_ms: now, retry_after_ms };
                Self { circuit: circuit.clone(), slots_taken: Some(slots_taken) }
            }
        }
    }

    fn update(self, folder: &Folder, now: u64) -> Result<Option<Update>, StoreError> {
        if let Some(taken) = self.slots_taken {
            let retry_after = taken.retry_after(now);
            return Ok(Some(Update::SlotsTaken { circuit: self.circuit, epoch: taken.epoch, retry_after }));
        }
        let record = folder.read::<CircuitData>(&self.circuit)?.record(&self.circuit, now);
        // The store has no record (any more): there is nothing to report.
        Ok((record.epoch > 0).then_some(Update::Record(record)))
    }
}

/// Appends updates to the log.
pub(super) fn publish(locked: &Locked<'_>, updates: &[Update], now: u64) -> Result<(), StoreError> {
    if updates.is_empty() {
        return Ok(());
    }
    let path = path(locked.folder);
    let mut lines = Vec::new();
    for update in updates {
        serde_json::to_writer(&mut lines, &Line::new(update, now))
            .map_err(|error| io_error("write", &path, error.into()))?;
        lines.push(b'\n');
    }
    append(locked, &path, lines).map_err(|error| io_error("write", &path, error))
}

/// Creates the log if it is missing, so that a reader has it before the first update.
pub(super) fn create(locked: &Locked<'_>) -> Result<(), StoreError> {
    let path = path(locked.folder);
    append(locked, &path, Vec::new()).map_err(|error| io_error("write", &path, error))
}

fn append(locked: &Locked<'_>, path: &Path, mut lines: Vec<u8>) -> std::io::Result<()> {
    let mut log = match open_regular(open_options().read(true).append(true), path) {
        Err(error) if error.kind() == ErrorKind::NotFound => locked.create_file(path)?,
        other => other?,
    };
    let length = log.metadata()?.len();
    if length > LARGEST {
        // Readers read the old file to its end first.
        fs::remove_file(path)?;
        log = locked.create_file(path)?;
    } else if length > 0 {
        let mut last = [0];
        log.read_exact_at(&mut last, length - 1)?;
        if last != *b"\n" {
            // A killed process has left a part of a line.
            lines.insert(0, b'\n');
        }
    }
    log.write_all(&lines)
}

fn path(folder: &Folder) -> PathBuf {
    folder.path().join("updates")
}

/// Reads the log from where it ended when the reader was created.
#[derive(Debug)]
pub(super) struct Reader {
    folder: Arc<Folder>,
    path: PathBuf,
    log: Option<Position>,
}

#[derive(Debug)]
struct Position {
    file: File,
    device: u64,
    inode: u64,
    offset: u64,
}

impl Reader {
    /// Returns a reader of later updates.
    pub(super) fn at_end(folder: Arc<Folder>) -> Result<Self, StoreError> {
        let path = path(&folder);
        let mut reader = Self { folder, path, log: None };
        reader.log = reader.open()?;
        if let Some(log) = &mut reader.log {
            log.offset = log.file.metadata().map_err(|error| io_error("read", &reader.path, error))?.len();
        }
        Ok(reader)
    }

    /// Returns the updates since the last call. Usually this is one look at the file's metadata.
    pub(super) fn read(&mut self, now: u64) -> Result<Vec<Update>, StoreError> {
        let (device, inode, length) = match fs::symlink_metadata(&self.path) {
            Ok(found) => (found.dev(), found.ino(), found.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => (0, 0, 0),
            Err(error) => return Err(io_error("read", &self.path, error)),
        };
        let is_same = self.log.as_ref().is_some_and(|log| (log.device, log.inode) == (device, inode));
        match &self.log {
            Some(log) if is_same && log.offset == length => return Ok(Vec::new()),
            None if inode == 0 => return Ok(Vec::new()),
            _ => {}
        }
        let mut lines = self.read_lines()?;
        if !is_same {
            self.log = self.open()?;
            lines.extend(self.read_lines()?);
        }
        self.updates(lines, now)
    }

    fn updates(&self, lines: Vec<Line>, now: u64) -> Result<Vec<Update>, StoreError> {
        // Two lines of one circuit lead to the same record: its file is read only for the last one.
        let mut circuits = HashSet::new();
        let mut updates = Vec::new();
        for line in lines.into_iter().rev() {
            if line.slots_taken.is_some() || circuits.insert(line.circuit.clone()) {
                updates.extend(line.update(&self.folder, now)?);
            }
        }
        updates.reverse();
        Ok(updates)
    }

    /// Opens the current log at its beginning.
    fn open(&self) -> Result<Option<Position>, StoreError> {
        let failed = |error| io_error("read", &self.path, error);
        match open_regular(open_options().read(true), &self.path) {
            Ok(file) => {
                let found = file.metadata().map_err(failed)?;
                Ok(Some(Position { file, device: found.dev(), inode: found.ino(), offset: 0 }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads the complete lines after the last position.
    fn read_lines(&mut self) -> Result<Vec<Line>, StoreError> {
        let Some(log) = &mut self.log else { return Ok(Vec::new()) };
        let read = log.read();
        let bytes = read.map_err(|error| io_error("read", &self.path, error))?;
        // Lines of a killed process, or of a later version, are skipped: updates may be lost.
        let lines = bytes.split(|&byte| byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

impl Position {
    /// Reads up to the last line end.
    fn read(&mut self) -> std::io::Result<Vec<u8>> {
        let length = self.file.metadata()?.len();
        // A truncated file begins again.
        let start = if length < self.offset { 0 } else { self.offset };
        let start = start.max(length.saturating_sub(LARGEST_READ));
        let mut bytes = vec![0; (length - start) as usize];
        self.file.read_exact_at(&mut bytes, start)?;
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        bytes.truncate(complete);
        self.offset = start + complete as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempfile;

    use super::*;

    #[test]
    fn clock_steps_do_not_prolong_the_time_of_taken_slots() {
        let taken = SlotsTaken { epoch: 1, at_ms: 10_000, retry_after_ms: 500 };
        let rest = [0, 10_000, 10_200, 10_500, u64::MAX].map(|now| taken.retry_after(now).as_millis());
        assert_eq!(rest, [500, 500, 300, 0, 0]);
    }

    #[test]
    fn reader_reads_only_the_end_of_a_large_rest() {
        let file = tempfile().unwrap();
        file.set_len(64 * LARGEST_READ).unwrap();
        file.write_all_at(b"\nlast\n", 64 * LARGEST_READ).unwrap();
        let mut position = Position { file, device: 0, inode: 0, offset: 0 };
        let bytes = position.read().unwrap();
        assert_eq!((bytes.len() as u64, &bytes[bytes.len() - 6..]), (LARGEST_READ, &b"\nlast\n"[..]));
        assert_eq!(position.read().unwrap(), b"");
    }
}
