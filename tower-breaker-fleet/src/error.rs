//! The errors of a fleet.

use std::error::Error;
use std::fmt;

use tower_breaker::ConfigError;

use crate::record::CircuitRecord;
use crate::store::{StoreError, StoreErrorKind};

type Source = Option<Box<dyn Error + Send + Sync>>;

/// The error of a fleet.
///
/// Its text names the problem and the next step; [`source`](Error::source) has the cause.
#[derive(Debug)]
#[non_exhaustive]
pub enum FleetError {
    /// This process already shares a circuit with this name. Use another name or another namespace.
    #[non_exhaustive]
    Shared {
        /// The name of the circuit.
        circuit: String,
    },
    /// A value is out of its range.
    Invalid(ConfigError),
    /// The store did not answer.
    ///
    /// If the store received the message before the timeout, it may have applied it, or apply it
    /// later: a server that was stopped continues with the messages that it has received.
    #[non_exhaustive]
    Unreachable {
        /// The problem and the next step.
        message: String,
        /// The cause.
        source: Source,
    },
    /// The store answered, and refused the message. An operator must act.
    #[non_exhaustive]
    Refused {
        /// The problem and the next step.
        message: String,
        /// The cause.
        source: Source,
    },
    /// The operation was not applied: the circuit has another epoch, or a manual override is in
    /// force.
    #[non_exhaustive]
    Conflict {
        /// The record in the store.
        record: Box<CircuitRecord>,
        /// The epoch that the operation expected.
        expected_epoch: Option<u64>,
    },
    /// The agent does not run: it was not spawned, was dropped, or has left the fleet.
    Stopped,
}

impl From<ConfigError> for FleetError {
    fn from(error: ConfigError) -> Self {
        Self::Invalid(error)
    }
}

impl From<StoreError> for FleetError {
    fn from(error: StoreError) -> Self {
        let StoreError { kind, message, source } = error;
        match kind {
            StoreErrorKind::Unreachable => Self::Unreachable { message, source },
            StoreErrorKind::Refused | StoreErrorKind::Invalid => Self::Refused { message, source },
        }
    }
}

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared { circuit } => write!(
                f,
                "circuit `{circuit}` is shared by this process already; use another name or namespace"
            ),
            Self::Invalid(error) => error.fmt(f),
            Self::Unreachable { message, .. } => {
                write!(f, "the store of the fleet is unreachable: {message}")
            }
            Self::Refused { message, .. } => write!(f, "the store of the fleet refused: {message}"),
            Self::Conflict { record, expected_epoch } => match expected_epoch {
                Some(expected) if *expected != record.epoch => write!(
                    f,
                    "circuit `{}` is in epoch {}, not in {expected}; read it again",
                    record.circuit, record.epoch
                ),
                _ => write!(f, "circuit `{}` has a manual override; release it first", record.circuit),
            },
            Self::Stopped => f.write_str("the agent of the fleet does not run; spawn it and keep it running"),
        }
    }
}

impl Error for FleetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } | Self::Refused { source, .. } => {
                source.as_deref().map(|source| source as &(dyn Error + 'static))
            }
            Self::Invalid(_) | Self::Shared { .. } | Self::Conflict { .. } | Self::Stopped => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Override;

    #[test]
    fn error_text_names_the_next_step() {
        let record = Box::new(CircuitRecord {
            circuit: "search".into(),
            epoch: 7,
            manual: Some(Override::ForcedOpen),
            ..CircuitRecord::default()
        });
        for (expected_epoch, text) in [
            (Some(5), "circuit `search` is in epoch 7, not in 5; read it again"),
            (Some(7), "circuit `search` has a manual override; release it first"),
            (None, "circuit `search` has a manual override; release it first"),
        ] {
            let conflict = FleetError::Conflict { record: record.clone(), expected_epoch };
            assert_eq!(conflict.to_string(), text);
        }
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = StoreError {
            kind: StoreErrorKind::Unreachable,
            message: "connecting to `a:1` failed; check the address".into(),
            source: Some(Box::new(cause)),
        };
        let error = FleetError::from(error);
        let expected = "the store of the fleet is unreachable: connecting to `a:1` failed; check the address";
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
    }
}
