//! The messages between the benchmark and its worker processes: one line of JSON each.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tower_breaker::CircuitState;

/// The store of a fleet, as a worker process opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum StoreAddress {
    /// A store within the worker process.
    Memory,
    File(PathBuf),
    Redis(String),
    Postgres {
        url: String,
        /// The URL of the server itself, for `LISTEN`.
        listen_at: String,
    },
}

/// The clients of one worker process. Each simulates a process of a fleet: it has a circuit, an
/// agent and connections of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerConfig {
    /// `None`: circuits without a fleet.
    pub(crate) store: Option<StoreAddress>,
    pub(crate) backend: SocketAddr,
    /// The number of the first client.
    pub(crate) first: usize,
    pub(crate) clients: usize,
    pub(crate) calls_per_second: f64,
    /// A call fails after this time.
    pub(crate) call_timeout_ms: u64,
    pub(crate) heartbeat_ms: u64,
    pub(crate) open_for_ms: u64,
    pub(crate) probes: u32,
    /// Whether the clients call from the start. They wait for the fleet first.
    pub(crate) calling: bool,
}

/// A request of the benchmark.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Starts or stops the calls.
    Call(bool),
    /// Asks for the state, and clears the list of transitions.
    Report,
}

/// The reply to each request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) clients: Vec<ClientReport>,
    pub(crate) transitions: Vec<Change>,
}

/// The state of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    #[default]
    Closed,
    Open,
    /// Half-open; the benchmark uses no overrides.
    Other,
}

impl From<CircuitState> for State {
    fn from(state: CircuitState) -> Self {
        match state {
            CircuitState::Closed => Self::Closed,
            CircuitState::Open => Self::Open,
            _ => Self::Other,
        }
    }
}

impl ClientReport {
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open
    }
}

/// The state of one client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ClientReport {
    pub(crate) state: State,
    /// The calls that reached the backend, and those of them that failed.
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) attached: bool,
    pub(crate) members: u32,
    pub(crate) votes_needed: u32,
    pub(crate) warming_up: bool,
    /// The epoch of the last record, and whether the record is open.
    pub(crate) epoch: u64,
    pub(crate) fleet_open: bool,
    /// The messages to the store.
    pub(crate) messages: u64,
    pub(crate) first_call: Option<FirstCall>,
}

/// The first decision of a circuit after the start of a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FirstCall {
    pub(crate) ready: bool,
    pub(crate) admitted: bool,
    /// The wall-clock time at which the circuit ends to reject calls, in milliseconds.
    pub(crate) open_until_ms: f64,
}

/// A transition of a client's circuit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) client: usize,
    pub(crate) to: State,
    /// Whether the fleet commanded it. If not, the circuit had its own evidence.
    pub(crate) commanded: bool,
    /// The wall-clock time in milliseconds.
    pub(crate) at_ms: f64,
}
