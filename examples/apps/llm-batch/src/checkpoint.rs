//! The files of a job, and the checkpoint from which the job is resumed.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::config::JobConfig;
use crate::files::{self, FileError};
use crate::writer::IncrementalWriter;

/// The version of the checkpoint's format.
const VERSION: u32 = 1;

/// The files of a job, in the folder of the checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFiles {
    folder: PathBuf,
    job_id: String,
}

impl JobFiles {
    /// Names the files of a job. The folder need not exist yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the identifier is not allowed in a file's name.
    pub fn new(folder: &Path, job_id: &str) -> Result<Self, JobError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // A name with `-` in front would be a flag of `resume`.
        let has_valid_start = !job_id.starts_with(['.', '-']);
        if !job_id.chars().all(is_allowed) || !(1..=100).contains(&job_id.len()) || !has_valid_start {
            return Err(JobError::InvalidId { job_id: job_id.to_owned() });
        }
        Ok(Self { folder: folder.to_owned(), job_id: job_id.to_owned() })
    }

    /// Creates the folder if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the folder cannot be created.
    pub fn create_folder(&self) -> Result<(), FileError> {
        fs::create_dir_all(&self.folder).map_err(|source| FileError::new("create", &self.folder, source))
    }

    /// Returns the identifier of the job.
    pub fn job_id(&self) -> &str {
        &self.job_id
    }

    /// Returns the path of the results.
    pub fn results(&self) -> PathBuf {
        self.path("results.jsonl")
    }

    /// Returns the path of the failed results.
    pub fn failures(&self) -> PathBuf {
        self.path("failures.jsonl")
    }

    /// Returns the path of the checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.path("checkpoint.json")
    }

    /// Returns the path of the lock.
    pub fn lock(&self) -> PathBuf {
        self.path("lock")
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}.{suffix}", self.job_id))
    }
}

/// A job cannot be started or resumed.
#[derive(Debug)]
pub enum JobError {
    /// The identifier cannot be a part of a file's name.
    InvalidId {
        /// The identifier.
        job_id: String,
    },
    /// There is no checkpoint of the job.
    Unknown {
        /// The identifier.
        job_id: String,
        /// Where the checkpoint would be.
        path: PathBuf,
    },
    /// The checkpoint is malformed.
    Malformed {
        /// The checkpoint.
        path: PathBuf,
        /// The reason, with line and column.
        source: serde_json::Error,
    },
    /// The checkpoint was written by another version of this program.
    OtherVersion {
        /// The checkpoint.
        path: PathBuf,
        /// The version of its format.
        version: u32,
    },
    /// Another process runs the job.
    Locked {
        /// The identifier.
        job_id: String,
        /// The identifier of the process, if it is known.
        process: String,
    },
    /// A file cannot be used.
    File(FileError),
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidId { job_id } => write!(
                f,
                "`{job_id}` is not a valid job name; use 1 to 100 letters, digits, `_`, `-` and `.`, and no `-` or `.` in front"
            ),
            Self::Unknown { job_id, path } => write!(
                f,
                "there is no job `{job_id}`: `{}` does not exist; check the name and --checkpoint-dir",
                path.display()
            ),
            Self::Malformed { path, .. } => {
                write!(f, "the checkpoint `{}` is malformed; start the job again", path.display())
            }
            Self::OtherVersion { path, version } => write!(
                f,
                "the checkpoint `{}` has version {version}, but this program reads version {VERSION}; resume \
                 the job with the program that wrote it",
                path.display()
            ),
            Self::Locked { job_id, process } => {
                write!(f, "job `{job_id}` is already running in process {process}; wait until that ends")
            }
            Self::File(error) => error.fmt(f),
        }
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Malformed { source, .. } => Some(source),
            Self::File(error) => error.source(),
            _ => None,
        }
    }
}

impl From<FileError> for JobError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// The right to run a job. It ends when the value is dropped or the process ends.
#[derive(Debug)]
pub struct JobLock {
    _file: File,
}

impl JobLock {
    /// Locks a job.
    ///
    /// # Errors
    ///
    /// Returns an error if another process has locked the job, or if the lock cannot be created.
    pub fn acquire(job: &JobFiles) -> Result<Self, JobError> {
        let path = job.lock();
        let error = |source| JobError::File(FileError::new("lock", &path, source));
        // The holder's identifier stays in the file until the lock is acquired.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(JobError::Locked { job_id: job.job_id.clone(), process: read_holder(&mut file) });
            }
            Err(errno) => return Err(error(errno.into())),
        }
        write_holder(&mut file).map_err(error)?;
        Ok(Self { _file: file })
    }
}

fn read_holder(file: &mut File) -> String {
    let mut holder = String::new();
    match file.read_to_string(&mut holder) {
        Ok(_) if !holder.is_empty() => holder,
        _ => "(unknown)".to_owned(),
    }
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    write!(file, "{}", std::process::id())
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The items of the input.
    pub total: usize,
    /// The items with a result, failed ones included.
    pub processed: usize,
    /// The items whose latest result is a failure.
    pub failed: usize,
}

impl Counts {
    /// Returns the items without a result.
    pub const fn remaining(&self) -> usize {
        self.total.saturating_sub(self.processed)
    }

    /// Returns the percentage of the processed items that did not fail. It is 0 at the start.
    pub fn success_rate(&self) -> f64 {
        let succeeded = self.processed.saturating_sub(self.failed);
        100.0 * succeeded as f64 / self.processed.max(1) as f64
    }
}

/// The options and the progress of a job. It contains no API key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The identifier of the job.
    pub job_id: String,
    /// The file with the items.
    pub input: PathBuf,
    /// The fingerprint of the input's content.
    pub fingerprint: String,
    /// The file for the results.
    pub output: PathBuf,
    /// The text of the prompt's template.
    pub prompt: String,
    /// The configuration.
    pub config: JobConfig,
    /// The progress at the time of the checkpoint.
    pub counts: Counts,
}

/// The content of a checkpoint file.
#[derive(Serialize)]
struct CheckpointFile<'a> {
    version: u32,
    #[serde(flatten)]
    checkpoint: &'a Checkpoint,
}

/// The part of a checkpoint file that all versions have.
#[derive(Deserialize)]
struct FileVersion {
    version: u32,
}

impl Checkpoint {
    /// Reads the checkpoint of a job.
    ///
    /// # Errors
    ///
    /// Returns an error if there is none, if it cannot be read, or if another version of this
    /// program wrote it.
    pub fn read(job: &JobFiles) -> Result<Self, JobError> {
        let path = job.checkpoint();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JobError::Unknown { job_id: job.job_id.clone(), path });
            }
            Err(source) => return Err(FileError::new("read", &path, source).into()),
        };
        let malformed = |source| JobError::Malformed { path: path.clone(), source };
        let FileVersion { version } = serde_json::from_slice(&text).map_err(malformed)?;
        if version != VERSION {
            return Err(JobError::OtherVersion { path, version });
        }
        serde_json::from_slice(&text).map_err(malformed)
    }

    /// Replaces the checkpoint of the job.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be written. The previous checkpoint then remains.
    pub fn write(&self, job: &JobFiles) -> Result<(), FileError> {
        let content = CheckpointFile { version: VERSION, checkpoint: self };
        files::replace(&job.checkpoint(), |file| {
            serde_json::to_writer_pretty(&mut *file, &content)?;
            file.write_all(b"\n")
        })
    }
}

/// Tracks the progress of a job, and saves its checkpoints.
#[derive(Debug)]
pub struct ProgressTracker {
    job: JobFiles,
    checkpoint: Checkpoint,
}

impl ProgressTracker {
    /// Starts with the progress of a checkpoint.
    pub fn new(job: JobFiles, checkpoint: Checkpoint) -> Self {
        Self { job, checkpoint }
    }

    /// Returns the last progress that was [recorded](Self::update).
    pub fn counts(&self) -> Counts {
        self.checkpoint.counts
    }

    /// Returns the checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Records the results that the writer has written. A result of an item that the input does not
    /// have is not counted.
    pub fn update(&mut self, writer: &IncrementalWriter) {
        let items = ..self.checkpoint.counts.total;
        self.checkpoint.counts.processed = writer.completed_indices().range(items).count();
        self.checkpoint.counts.failed = writer.failed_indices().range(items).count();
    }

    /// Saves the results and the checkpoint to the disk.
    ///
    /// # Errors
    ///
    /// Returns an error if one of the files cannot be written.
    pub fn save(&mut self, writer: &IncrementalWriter) -> Result<(), FileError> {
        // First the results: a checkpoint never counts a result that is lost.
        writer.sync()?;
        self.update(writer);
        self.checkpoint.write(&self.job)
    }
}
