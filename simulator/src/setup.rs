//! The settings of a run.

use crate::client::Guard;
use crate::server::ServerConfig;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed of all random numbers.
    pub seed: u64,
    /// The number of client processes. Each has a circuit, a policy and a budget of its own.
    pub processes: u32,
    /// What protects the calls of each process.
    pub guard: Guard,
    /// How calls begin.
    pub load: Load,
    /// How long an attempt waits for its answer, in nanoseconds.
    pub timeout: u64,
    /// The server.
    pub server: ServerConfig,
    /// When the last call begins, in nanoseconds. The run ends when all calls have ended.
    pub until: u64,
}

/// How calls begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Each arrival is one call, whether earlier calls have ended or not. Arrivals are a Poisson
    /// process over all processes.
    Open {
        /// Arrivals per second, in all.
        per_second: u32,
    },
    /// Each arrival is an item in the backlog of its process. The workers of the process take one
    /// item at a time. The item of a call that is not answered returns to the backlog.
    Backlog {
        /// Arrivals per second, in all.
        per_second: u32,
        /// Items of each process at the start.
        initial: u64,
        /// Workers of each process.
        workers: u32,
        /// How long a worker waits after a call that was not answered, in nanoseconds.
        pause: u64,
    },
}

impl Load {
    /// Returns the arrivals per second, in all.
    pub const fn per_second(self) -> u32 {
        match self {
            Self::Open { per_second } | Self::Backlog { per_second, .. } => per_second,
        }
    }
}
