//! The status of a fleet in one process.

use std::time::Duration;

use serde::Serialize;

use crate::record::CircuitRecord;
use crate::seconds;

/// The connection of this process to its fleet, from [`Fleet::status`](crate::Fleet::status).
///
/// Serialized durations are seconds, in fields whose names end in `_seconds`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct FleetStatus {
    /// The namespace of the fleet.
    pub namespace: String,
    /// The name of this process in the fleet.
    pub instance: String,
    /// Whether the store answers. `false`: each circuit decides for itself.
    pub attached: bool,
    /// The time since the last reply of the store. `None`: there was none.
    #[serde(rename = "since_last_reply_seconds", serialize_with = "seconds::optional")]
    pub since_last_reply: Option<Duration>,
    /// The last error of the store, with its causes. `None`: there was none.
    pub last_error: Option<String>,
    /// The circuits that this process shares.
    pub circuits: usize,
    /// The messages that the store has replied to.
    pub messages: u64,
    /// The updates that the store has sent.
    pub updates: u64,
    /// The errors of the store, also of attempts to connect.
    pub errors: u64,
}

/// The fleet's view of a circuit, from [`Fleet::circuit_status`](crate::Fleet::circuit_status).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct FleetCircuitStatus {
    /// The last record of the store. `None`: the store has none, and the circuit is closed.
    ///
    /// Its times are as of now.
    pub record: Option<CircuitRecord>,
    /// The processes that use the circuit.
    pub members: u32,
    /// The members that are open on their local evidence, as of the last heartbeat.
    ///
    /// 0 while the fleet has opened, half-opened or forced the circuit: its decision applies to all
    /// members. A half-open member does not count. A process that has ended without
    /// [`Fleet::leave`](crate::Fleet::leave) counts until its membership expires.
    pub open_members: u32,
    /// The processes that vote to open it.
    pub votes: u32,
    /// The votes that open it.
    pub votes_needed: u32,
    /// Whether this process votes to open it.
    pub voting: bool,
    /// Whether the store still waits for all members to report, and decides nothing by votes.
    pub warming_up: bool,
}
