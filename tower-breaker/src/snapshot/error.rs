//! The results of a restore.

use std::error::Error;
use std::fmt;

/// The result of [`Circuit::restore`](crate::Circuit::restore).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restored {
    /// The snapshot was restored.
    Applied,
    /// The circuit has had a transition since it was created, and keeps its state.
    Superseded,
}

/// The result of a restore of several circuits.
///
/// [`CircuitRegistry::restore`](crate::CircuitRegistry::restore) and `KeyedCircuits::restore`
/// (feature `keyed`) return it. Each snapshot is counted once.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The snapshots that were restored.
    pub applied: usize,
    /// The snapshots that a registry keeps for circuits that do not exist yet.
    pub kept: usize,
    /// The snapshots of circuits that have had a transition, and keep their state.
    pub superseded: usize,
    /// The snapshots that would restore nothing in a circuit that does not exist.
    ///
    /// The circuit was closed or disabled, or the time of its state has been over for a day.
    pub stale: usize,
    /// The snapshots for which the map of keyed circuits, or the registry, has no space.
    pub dropped: usize,
    /// The errors of the snapshots that were not restored.
    pub errors: Vec<RestoreError>,
}

impl RestoreReport {
    /// Counts the result for a circuit that exists.
    pub(crate) fn add(&mut self, result: Result<Restored, RestoreError>) {
        match result {
            Ok(Restored::Applied) => self.applied += 1,
            Ok(Restored::Superseded) => self.superseded += 1,
            Err(error) => self.errors.push(error),
        }
    }
}

/// The error of a snapshot that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot has a version that this version of the crate does not read.
    #[non_exhaustive]
    Version {
        /// The name of the circuit in the snapshot.
        circuit: String,
        /// The version of the snapshot.
        version: u32,
        /// The version that this version of the crate reads.
        allowed: u32,
    },
    /// The snapshot is that of another circuit.
    #[non_exhaustive]
    OtherCircuit {
        /// The name of the circuit.
        circuit: &'static str,
        /// The name of the circuit in the snapshot.
        snapshot: String,
    },
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { circuit, version, allowed } => write!(
                f,
                "`version` of the snapshot of circuit breaker `{}` is {version}; allowed is {allowed}",
                circuit.escape_debug()
            ),
            Self::OtherCircuit { circuit, snapshot } => write!(
                f,
                "`circuit` of the snapshot is `{}`; allowed is `{circuit}`, the name of the circuit breaker",
                snapshot.escape_debug()
            ),
        }
    }
}

impl Error for RestoreError {}
