//! The audit: every attempt to change a circuit.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::auth::Role;

/// One attempt to change a circuit, applied or refused.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AuditEntry {
    /// The number of the entry. It grows by 1 with each.
    pub id: u64,
    /// When the attempt was decided.
    #[serde(serialize_with = "crate::view::time")]
    pub at: SystemTime,
    /// The name of the user. Empty: the request had no valid credential.
    pub user: String,
    /// The role of the user. `None`: the request had no valid credential.
    pub role: Option<Role>,
    /// The name of the circuit, as in the request.
    pub circuit: String,
    /// The label of the key, for a keyed circuit.
    pub key: Option<String>,
    /// The action, as in the request.
    pub action: String,
    /// `process` or `fleet`; empty: the request did not say.
    pub scope: String,
    /// The reason that the user gave.
    pub reason: String,
    /// How long the action lasts. `None`: the request did not say.
    #[serde(rename = "for_seconds", serialize_with = "crate::view::optional_seconds")]
    pub lasts_for: Option<Duration>,
    /// The HTTP status of the response.
    pub status: u16,
    /// Why the attempt was refused. `None`: it was applied.
    pub error: Option<String>,
    /// The epoch of the circuit before the action.
    pub epoch_before: Option<u64>,
    /// The epoch of the circuit after the action.
    pub epoch_after: Option<u64>,
}
