//! The record of a circuit: what the fleet has decided.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

/// The state of a circuit in the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FleetState {
    /// The fleet admits calls. The local evidence of a process can still open its own circuit.
    #[default]
    Closed,
    /// The fleet rejects calls until the open time is over.
    Open,
    /// A few processes hold a lease, and send one probe each.
    HalfOpen,
}

impl FleetState {
    /// Returns the name in `snake_case`, as in serialized values.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl fmt::Display for FleetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A manual override of a circuit in the whole fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Override {
    /// All processes reject all calls.
    ForcedOpen,
    /// All processes admit all calls.
    ForcedClosed,
}

impl Override {
    /// Returns the name in `snake_case`, as in serialized values.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a fleet has decided about a circuit.
///
/// Times are relative to the moment at which the store answered. Serialized times are seconds, in
/// fields whose names end in `_seconds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CircuitRecord {
    /// The name of the circuit in the namespace.
    pub circuit: String,
    /// The number of the decision. It grows with each decision. 0: the store has no record.
    ///
    /// It is the larger of the last epoch plus 1 and the store's time in milliseconds. So it grows
    /// also if the store has lost its data.
    pub epoch: u64,
    /// The state of the circuit. With a manual override, it is open or closed as the override says,
    /// and [`manual`](Self::manual) is set.
    pub state: FleetState,
    /// How long the circuit stays open, or until the last lease of a probe ends if it is half-open.
    /// Zero: the time is over, the circuit is closed, or a manual override is in force. `None`: it
    /// stays open until it is reset.
    #[serde(
        default,
        rename = "remaining_seconds",
        serialize_with = "seconds::optional",
        deserialize_with = "seconds::read_optional"
    )]
    pub remaining: Option<Duration>,
    /// The manual override that is in force. `None`: there is none, and the fleet decides.
    pub manual: Option<Override>,
    /// How long the manual override stays in force. `None`: there is none, or it stays in force
    /// until it is released.
    #[serde(
        default,
        rename = "manual_remaining_seconds",
        serialize_with = "seconds::optional",
        deserialize_with = "seconds::read_optional"
    )]
    pub manual_remaining: Option<Duration>,
    /// The reason of the decision: `quorum`, `consecutive failures`, `open time over`,
    /// `probes succeeded`, `probes failed`, `override ended`, or the text of an operator.
    pub reason: String,
    /// The process that caused the decision, or the operator.
    pub by: String,
}

impl CircuitRecord {
    /// Returns the record as it is `age` later.
    pub(crate) fn aged(mut self, age: Duration) -> Self {
        self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(age));
        self.manual_remaining = self.manual_remaining.map(|remaining| remaining.saturating_sub(age));
        self
    }
}
