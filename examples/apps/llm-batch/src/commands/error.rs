//! The errors of the commands.

use std::error::Error;
use std::fmt;

use tower::BoxError;

use crate::checkpoint::JobError;
use crate::config::ConfigError;
use crate::files::FileError;
use crate::input::InputError;
use crate::llm::{ClientError, InvalidKey};
use crate::prompt::TemplateError;

/// Why a command has ended early.
#[derive(Debug)]
pub enum CommandError {
    /// The arguments, the configuration or the input cannot be used.
    Usage(BoxError),
    /// A file cannot be written.
    File(FileError),
}

impl CommandError {
    /// Creates an error of the arguments.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into().into())
    }

    /// Returns the exit code of the program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::File(_) => 5,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::File(error) => error.fmt(f),
        }
    }
}

impl Error for CommandError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Usage(error) => error.source(),
            Self::File(error) => error.source(),
        }
    }
}

impl From<FileError> for CommandError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<JobError> for CommandError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::File(error) => Self::File(error),
            other => Self::Usage(other.into()),
        }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<InputError> for CommandError {
    fn from(error: InputError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<InvalidKey> for CommandError {
    fn from(error: InvalidKey) -> Self {
        Self::Usage(error.into())
    }
}

impl From<TemplateError> for CommandError {
    fn from(error: TemplateError) -> Self {
        Self::Usage(error.into())
    }
}
