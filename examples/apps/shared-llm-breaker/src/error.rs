//! The errors of a breaker.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tower_breaker::{ConfigError, ControlError, Rejection};
use tower_breaker_fleet::FleetError;

use crate::state::CircuitState;

/// The breaker rejected the call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CircuitBreakerError {
    /// The name of the breaker.
    pub breaker_name: String,
    /// The state in which it rejected the call: open, or half-open if all probes are running.
    pub state: CircuitState,
    /// The rejection. Its verdict prevents that a retry layer sends the request again.
    rejection: Box<Rejection>,
}

impl CircuitBreakerError {
    pub(crate) fn new(state: CircuitState, rejection: Rejection) -> Self {
        let breaker_name = rejection.circuit().to_owned();
        Self { breaker_name, state, rejection: Box::new(rejection) }
    }

    /// Returns the time after which a call can be admitted. `None`: it is not known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.rejection.retry_after()
    }
}

impl fmt::Display for CircuitBreakerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { breaker_name, state, .. } = self;
        write!(f, "Circuit breaker '{breaker_name}' is {state}. Service temporarily unavailable.")
    }
}

impl Error for CircuitBreakerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.rejection)
    }
}

/// A breaker cannot be created.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// A setting is out of its range.
    Settings(ConfigError),
    /// The address of the store or the name of the breaker is invalid.
    Store(FleetError),
    /// The process has a breaker with this name, and with another store or other settings.
    Exists {
        /// The name of the breaker.
        breaker_name: String,
    },
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Exists { breaker_name } => write!(
                f,
                "circuit breaker `{breaker_name}` exists with another store or other settings; close it first"
            ),
        }
    }
}

impl Error for SetupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Settings(error) => error.source(),
            Self::Store(error) => error.source(),
            Self::Exists { .. } => None,
        }
    }
}

impl From<ConfigError> for SetupError {
    fn from(error: ConfigError) -> Self {
        Self::Settings(error)
    }
}

impl From<FleetError> for SetupError {
    fn from(error: FleetError) -> Self {
        Self::Store(error)
    }
}

/// A reset was not completed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResetError {
    /// A manual override of this process is in force. The breaker of this process was not reset.
    Forced(ControlError),
    /// The breaker of this process was reset, and that of the other workers was not.
    Store(FleetError),
}

impl fmt::Display for ResetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forced(_) => f.write_str("the breaker of this process was not reset"),
            Self::Store(_) => f.write_str("only the breaker of this process was reset; reset it again later"),
        }
    }
}

impl Error for ResetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Forced(error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}
