//! The statistics of a circuit.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::serde::rfc3339;
use tower_breaker::CircuitState;
use utoipa::ToSchema;

/// The state of an agent's circuit, in short.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct AgentStatus {
    /// The agent.
    pub agent_id: String,
    /// The state of the circuit: `closed`, `open`, `half_open`; `forced_open` and `forced_closed`
    /// under a manual override.
    #[schema(value_type = String)]
    pub state: CircuitState,
    /// See `failed_requests` of `Counts`.
    pub failure_count: u64,
    /// See `successful_requests` of `Counts`.
    pub success_count: u64,
    /// See `failure_rate` of `Counts`.
    pub failure_rate: f64,
    /// See `consecutive_failures` of `Counts`.
    pub consecutive_failures: u64,
    /// When the circuit opened. `None`: it is closed.
    #[serde(with = "rfc3339::option")]
    pub opened_at: Option<OffsetDateTime>,
}

impl From<CircuitStats> for AgentStatus {
    fn from(stats: CircuitStats) -> Self {
        let CircuitStats { name, state, stats, opened_at, .. } = stats;
        Self {
            agent_id: name,
            state,
            failure_count: stats.failed_requests,
            success_count: stats.successful_requests,
            failure_rate: stats.failure_rate,
            consecutive_failures: stats.consecutive_failures,
            opened_at,
        }
    }
}

/// The state and the statistics of a circuit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct CircuitStats {
    /// The agent.
    pub name: String,
    /// The state of the circuit.
    #[schema(value_type = String)]
    pub state: CircuitState,
    /// The counts of calls.
    pub stats: Counts,
    /// When the circuit opened. `None`: it is closed.
    #[serde(with = "rfc3339::option")]
    pub opened_at: Option<OffsetDateTime>,
    /// When a call failed the last time.
    #[serde(with = "rfc3339::option")]
    pub last_failure_time: Option<OffsetDateTime>,
    /// When a call succeeded the last time.
    ///
    /// For a call through a layer, the time can be early by a fifteenth of the window.
    #[serde(with = "rfc3339::option")]
    pub last_success_time: Option<OffsetDateTime>,
}

/// The counts of calls through a circuit.
///
/// - While the circuit is closed, they are the counts of its window, which rolls.
/// - While it is open or half-open, they are the counts that opened it, and its probes since.
/// - When it closes, they start at 0.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct Counts {
    /// The calls that succeeded or failed.
    pub total_requests: u64,
    /// The calls that succeeded.
    pub successful_requests: u64,
    /// The calls that failed.
    pub failed_requests: u64,
    /// The share of failed calls, 0 to 1. Without calls it is 0.
    pub failure_rate: f64,
    /// The failures since the last success.
    pub consecutive_failures: u64,
    /// The successes since the last failure: those in the window, or those of the probes.
    pub consecutive_successes: u64,
}

impl Counts {
    /// Returns the counts of these numbers of calls, without a run of successes or failures.
    pub(crate) fn of(successful_requests: u64, failed_requests: u64) -> Self {
        let total_requests = successful_requests + failed_requests;
        let failure_rate =
            if total_requests == 0 { 0.0 } else { failed_requests as f64 / total_requests as f64 };
        Self { total_requests, successful_requests, failed_requests, failure_rate, ..Self::default() }
    }
}
