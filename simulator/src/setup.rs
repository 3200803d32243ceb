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
    /// How long an attempt or a call waits for its answer.
    pub timeout: Timeout,
    /// The server.
    pub server: ServerConfig,
    /// When the last call begins, in nanoseconds. The run ends when all calls have ended.
    pub until: u64,
}

/// How long clients wait for an answer, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Each attempt has a timeout inside of the breaker, which records a fault. The attempt may be
    /// sent again.
    Inside(u64),
    /// Each call has a timeout outside of all layers. It cancels the call: the breaker records a
    /// cancelled call, and nothing is sent again.
    Outside(u64),
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
