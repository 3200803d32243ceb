//! The errors of a call of the LLM API.

use std::error::Error;
use std::fmt;

use tower::BoxError;

/// Why a call returned no reply.
#[derive(Debug)]
pub enum LlmError {
    /// The request can never succeed, for instance with an invalid key. It was sent once.
    Fatal(FatalLlmError),
    /// The quota of the account is used up. No other call can succeed either.
    Quota(FatalLlmError),
    /// The circuit of the model rejected the call. The item was not processed.
    CircuitOpen(CircuitOpenError),
    /// The last attempt failed.
    Failed(FailedLlmError),
}

impl fmt::Display for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fatal(error) | Self::Quota(error) => error.fmt(f),
            Self::CircuitOpen(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Error for LlmError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Fatal(error) | Self::Quota(error) => error.source(),
            Self::CircuitOpen(error) => error.source(),
            Self::Failed(error) => error.source(),
        }
    }
}

/// An error that every further attempt would repeat. Its text is `Type: message`.
#[derive(Clone, Debug)]
pub struct FatalLlmError {
    /// The name of the error in the SDKs of the APIs, such as `AuthenticationError`.
    pub error_type: &'static str,
    /// The message of the API.
    pub message: String,
}

impl FatalLlmError {
    /// Creates an error.
    pub fn new(error_type: &'static str, message: impl Into<String>) -> Self {
        Self { error_type, message: message.into() }
    }
}

impl fmt::Display for FatalLlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl Error for FatalLlmError {}

/// The circuit of a model admits no call.
#[derive(Clone, Debug)]
pub struct CircuitOpenError {
    /// The name of the model.
    pub model: String,
    /// The text of the last failure that the circuit recorded.
    pub last_failure: Option<String>,
}

impl fmt::Display for CircuitOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circuit of model `{}` is open", self.model)?;
        match &self.last_failure {
            Some(text) => write!(f, " after a failure: {text}"),
            None => Ok(()),
        }
    }
}

impl Error for CircuitOpenError {}

/// The error of the last attempt. Its text is `Type: message`.
#[derive(Debug)]
pub struct FailedLlmError {
    /// The name of the error in the SDKs of the APIs, such as `RateLimitError`.
    pub error_type: &'static str,
    /// The message of the API, or what went wrong.
    pub message: String,
    /// The number of requests that were sent.
    pub attempts: u32,
    /// The error of the client, if there was no response.
    pub source: Option<BoxError>,
}

impl FailedLlmError {
    /// Creates an error without a source.
    pub fn new(error_type: &'static str, message: impl Into<String>, attempts: u32) -> Self {
        Self { error_type, message: message.into(), attempts, source: None }
    }
}

impl fmt::Display for FailedLlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl Error for FailedLlmError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
