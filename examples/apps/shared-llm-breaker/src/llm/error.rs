//! The errors of a call.

use std::error::Error;
use std::fmt;

use tower::BoxError;
use tower_breaker::Verdict;
use tower_fault_classify::{ClassifiedError, ErrorChain, Fault, Health, Kind, Origin, Retryable};

use crate::error::CircuitBreakerError;

/// The fault of a rejection.
const REJECTED: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);

/// The error of a call to the API.
#[derive(Debug)]
#[non_exhaustive]
pub enum LlmError {
    /// The breaker rejected the call.
    Rejected(CircuitBreakerError),
    /// The last attempt failed.
    Failed(ClassifiedError),
}

impl LlmError {
    /// Returns the kind of the fault. `quota`: the account has no credit, and a wait does not help.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Rejected(_) => Kind::Rejected,
            Self::Failed(error) => error.fault().kind(),
        }
    }

    /// Returns how the error counts in the circuit.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            // The attempt runs inside of the breaker, so this is the rejection of another breaker.
            Self::Rejected(_) => REJECTED.into(),
            Self::Failed(error) => error.fault().into(),
        }
    }
}

impl From<CircuitBreakerError> for LlmError {
    fn from(error: CircuitBreakerError) -> Self {
        Self::Rejected(error)
    }
}

impl fmt::Display for LlmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(error) => error.fmt(f),
            Self::Failed(error) => match error.get_ref() {
                Some(error) => ErrorChain(error).fmt(f),
                None => error.fmt(f),
            },
        }
    }
}

impl Error for LlmError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(error) => Some(error),
            Self::Failed(error) => Some(error),
        }
    }
}

/// A client cannot be created.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The `base_url`, here without user, password and query, is not the address of an HTTP server.
    BaseUrl(String),
    /// Another setting is invalid.
    Invalid(BoxError),
}

impl ClientError {
    pub(super) fn invalid(source: impl Into<BoxError>) -> Self {
        Self::Invalid(source.into())
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseUrl(url) => write!(
                f,
                "`base_url` is `{url}`; it must be an address with http:// or https:// and without user and password, such as http://localhost:8000/v1"
            ),
            Self::Invalid(_) => f.write_str("the client of the API cannot be created"),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::BaseUrl(_) => None,
            Self::Invalid(source) => Some(&**source),
        }
    }
}
