//! The errors of a configuration.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use tower::BoxError;

/// Why a configuration cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file has an extension that is neither `toml` nor `json`.
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// The file is malformed, or has an unknown field or a value of a wrong type.
    Parse {
        /// The file.
        path: PathBuf,
        /// The reason, with the line or the field.
        source: BoxError,
    },
    /// A value is out of its range.
    Invalid {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// The allowed range.
        range: String,
    },
}

impl ConfigError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    /// Leaves out the text of the line, because it may have a password.
    pub(super) fn toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        Self::parse(path, format!("line {line}: {}", error.message()))
    }

    pub(super) fn parse(path: &Path, source: impl Into<BoxError>) -> Self {
        Self::Parse { path: path.to_owned(), source: source.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, .. } => write!(f, "cannot read the configuration `{}`", path.display()),
            Self::Extension { path } => {
                write!(f, "the configuration `{}` must be named *.toml or *.json", path.display())
            }
            Self::Parse { path, .. } => write!(f, "the configuration `{}` is invalid", path.display()),
            Self::Invalid { field, value, range } => write!(f, "`{field}` is {value}; allowed is {range}"),
        }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Parse { source, .. } => Some(&**source),
            Self::Extension { .. } | Self::Invalid { .. } => None,
        }
    }
}
