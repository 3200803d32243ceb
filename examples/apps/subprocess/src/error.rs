//! Why a program could not be run.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::find::is_executable;

/// Why a program could not be run.
#[derive(Debug)]
#[non_exhaustive]
pub enum SubprocessError {
    /// There is no such program.
    NotFound {
        /// The program.
        program: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The file exists and is no program.
    NotExecutable {
        /// The program.
        program: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The system does not permit to run the program.
    PermissionDenied {
        /// The program.
        program: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The directory that the program should start in cannot be entered.
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The arguments or the environment are too long, or contain a NUL byte.
    InvalidArguments {
        /// The program.
        program: String,
        /// The error of the system.
        source: io::Error,
    },
    /// Another error at the start, for example too many processes or open files.
    Start {
        /// The program.
        program: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A pipe to or from the program failed. The program was killed.
    Pipe {
        /// The program.
        program: String,
        /// The error of the system.
        source: io::Error,
    },
}

impl SubprocessError {
    /// Classifies an error of `spawn`.
    pub(crate) fn spawn(command: &Command, source: io::Error) -> Self {
        // The system reports a missing directory like a missing program.
        if let Some(dir) = command.get_current_dir()
            && !dir.is_dir()
        {
            return Self::Directory { dir: dir.to_owned(), source };
        }
        let path = path_of(command);
        let program = path.display().to_string();
        match source.kind() {
            ErrorKind::NotFound => Self::NotFound { program, source },
            ErrorKind::PermissionDenied if path.exists() && !is_executable(&path) => {
                Self::NotExecutable { program, source }
            }
            ErrorKind::PermissionDenied => Self::PermissionDenied { program, source },
            ErrorKind::InvalidInput | ErrorKind::ArgumentListTooLong => {
                Self::InvalidArguments { program, source }
            }
            _ if is_wrong_format(&source) => Self::NotExecutable { program, source },
            _ => Self::Start { program, source },
        }
    }

    pub(crate) fn pipe(command: &Command, source: io::Error) -> Self {
        Self::Pipe { program: path_of(command).display().to_string(), source }
    }

    fn io_error(&self) -> &io::Error {
        match self {
            Self::NotFound { source, .. }
            | Self::NotExecutable { source, .. }
            | Self::PermissionDenied { source, .. }
            | Self::Directory { source, .. }
            | Self::InvalidArguments { source, .. }
            | Self::Start { source, .. }
            | Self::Pipe { source, .. } => source,
        }
    }
}

impl fmt::Display for SubprocessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { program, .. } if is_path(program) && Path::new(program).exists() => {
                write!(f, "the interpreter of `{program}` is not found; correct its first line")
            }
            Self::NotFound { program, .. } if is_path(program) => {
                write!(f, "program `{program}` is not found; correct the path")
            }
            Self::NotFound { program, .. } => {
                write!(f, "program `{program}` is not found in PATH; install it or use its full path")
            }
            Self::NotExecutable { program, source } if is_wrong_format(source) => write!(
                f,
                "`{program}` has no format that the system runs; add a first line such as `#!/bin/sh`, \
                 or correct the path"
            ),
            Self::NotExecutable { program, .. } => {
                write!(f, "`{program}` is not an executable program; run `chmod +x` or correct the path")
            }
            Self::PermissionDenied { program, .. } => {
                write!(f, "no permission to run `{program}`; check the file and its directories")
            }
            Self::Directory { dir, .. } => {
                write!(f, "directory `{}` cannot be entered; correct the path", dir.display())
            }
            Self::InvalidArguments { program, .. } => write!(
                f,
                "the arguments or the environment of `{program}` are too long or contain a NUL byte; \
                 correct them"
            ),
            Self::Start { program, .. } => {
                write!(f, "program `{program}` cannot be started; check the limits of the system")
            }
            Self::Pipe { program, .. } => {
                write!(f, "the output of `{program}` cannot be read; run it again")
            }
        }
    }
}

impl Error for SubprocessError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.io_error())
    }
}

/// Returns the name of the program, or its path. A relative path starts in the program's directory.
fn path_of(command: &Command) -> PathBuf {
    let program = Path::new(command.get_program());
    match command.get_current_dir() {
        Some(dir) if is_path(program) => dir.join(program),
        _ => program.to_owned(),
    }
}

fn is_path(program: impl AsRef<Path>) -> bool {
    program.as_ref().components().count() > 1
}

#[cfg(unix)]
fn is_wrong_format(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error())
}

#[cfg(not(unix))]
fn is_wrong_format(_: &io::Error) -> bool {
    false
}
