//! Runs a program in a process group that ends with its future.
//!
//! [`Subprocess::run`] starts the program, writes its standard input, and reads standard output and
//! standard error at the same time. The program is the leader of a process group of its own.
//!
//! - If the future is dropped, every process of the group is killed with `SIGKILL`. tokio reaps the
//!   program later, when the runtime is notified of its end.
//! - If the program ends and leaves processes in its group, they are killed, too. A process in the
//!   background that holds a pipe open does not delay [`Subprocess::run`].
//! - A process that leaves the group, for example with `setsid`, is not killed.
//! - If this process itself ends by `SIGKILL`, it kills no group: the programs continue without it.
//! - The terminal sends Ctrl+C to the foreground group only. The caller waits for [`Interrupts`],
//!   and drops the future.
//!
//! On Windows, only the program itself is killed.
//!
//! The crate `process-wrap` has process groups, but a dropped child of it kills the program alone,
//! and its `wait_with_output` waits for processes in the background and reads without a limit.

mod capture;
mod error;
mod find;
mod interrupts;
#[cfg(not(unix))]
#[path = "other.rs"]
mod platform;
#[cfg(unix)]
#[path = "unix.rs"]
mod platform;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

pub use capture::Captured;
pub use error::SubprocessError;
pub use find::find_program;
pub use interrupts::Interrupts;

/// The default of [`Subprocess::output_limit`], in bytes.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024;

/// A program that is to be run once.
#[derive(Debug)]
pub struct Subprocess {
    command: Command,
    stdin: Vec<u8>,
    output_limit: usize,
}

/// The result of a program that has ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code or the signal. Its `Display` text names both.
    pub status: ExitStatus,
    /// The begin of standard output.
    pub stdout: Captured,
    /// The begin of standard error.
    pub stderr: Captured,
}

impl Subprocess {
    /// Prepares a program: a path, or a name that is searched in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        Self { command, stdin: Vec::new(), output_limit: OUTPUT_LIMIT }
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets what the program reads from standard input. By default, standard input is empty.
    ///
    /// A program that ends or closes standard input early is no error.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets an environment variable. The program inherits the other ones.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the directory that the program starts in. The default is the directory of this process.
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets how many bytes of each output are kept. The default is 16 MiB.
    ///
    /// The bytes after the limit are read, counted and discarded.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Runs the program until it ends, and returns its exit status and its output.
    ///
    /// An exit status other than zero is no error. If the future is dropped, the program and the
    /// other processes of its group are killed.
    ///
    /// # Errors
    ///
    /// Returns an error if the program cannot be started, or if its pipes cannot be read.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime that has I/O enabled.
    pub async fn run(self) -> Result<Output, SubprocessError> {
        let Self { mut command, stdin, output_limit } = self;
        let child = command.spawn().map_err(|error| SubprocessError::spawn(command.as_std(), error))?;
        platform::run(child, &stdin, output_limit)
            .await
            .map_err(|error| SubprocessError::pipe(command.as_std(), error))
    }
}
