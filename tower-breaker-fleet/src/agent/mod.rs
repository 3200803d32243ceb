//! The agent: one task in each process, between the circuits and the store.
//!
//! | file | content |
//! |---|---|
//! | `circuit.rs`, `probe.rs` | pure: what to do for one circuit |
//! | `ballot.rs` | pure: whether a process votes |
//! | `failures.rs` | pure: when the consecutive failures of a process happened |
//! | `known.rs` | pure: the last record, and how it ages |
//! | `pace.rs` | pure: the limit of messages, the delays between attempts to connect |
//! | `slot.rs` | one circuit with its state; executes commands |
//! | `mailbox.rs` | the events of the circuits |
//! | `target.rs` | a local circuit, whether it has a key or not |
//! | `keyed.rs`, `keyed/` | the circuits of keys that take part |
//! | `shared.rs` | the data that the handles read; registers circuits |
//! | `run.rs` | the loop: connect, then serve until the connection is lost |
//! | `send.rs` | the messages, and their replies |
//! | `telemetry.rs` | logs and metrics |

mod ballot;
mod circuit;
mod failures;
#[cfg_attr(not(feature = "keyed"), path = "keyed_noop.rs")]
mod keyed;
mod known;
mod mailbox;
mod pace;
mod probe;
mod run;
mod send;
mod shared;
mod slot;
mod target;
mod telemetry;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::quorum::Quorum;

use self::circuit::Tuning;
#[cfg(feature = "keyed")]
pub(crate) use self::keyed::{KeyText, key_name};
pub(crate) use self::run::Agent;
pub(crate) use self::shared::{Reply, Request, Shared, View, check_name};

/// A point in time: the time since the agent was built.
pub(crate) type Time = Duration;

/// How long the store keeps a record after its time is over.
///
/// A process that was away for longer can know an earlier record, and the store takes that record
/// for one that it has lost. So a released override would be in force again.
pub(crate) const GRACE: Duration = Duration::from_secs(3600);

/// The validated settings of a fleet.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) namespace: String,
    pub(crate) instance: String,
    pub(crate) quorum: Quorum,
    pub(crate) heartbeat: Duration,
    pub(crate) takeover: Duration,
    pub(crate) timeout: Duration,
    pub(crate) max_open: Duration,
}

impl Settings {
    /// How long a process counts as a member without another heartbeat.
    pub(crate) fn lifetime(&self) -> Duration {
        self.heartbeat.mul_f64(2.5)
    }

    /// The longest time of an attempt to connect, which needs several replies.
    pub(crate) fn connect_timeout(&self) -> Duration {
        4 * self.timeout
    }

    /// The longest time until a running agent has answered a request.
    pub(crate) fn longest_wait(&self) -> Duration {
        2 * self.connect_timeout() + Duration::from_secs(1)
    }

    fn tuning(&self, quorum: Quorum) -> Tuning {
        Tuning {
            silence: self.heartbeat.mul_f64(1.0 + HEARTBEAT_JITTER) + self.timeout,
            takeover: self.takeover,
            max_open: self.max_open,
            sums_failures: quorum.sums_failures(),
        }
    }
}

/// The largest deviation of a heartbeat, as a share, so that processes do not beat together.
const HEARTBEAT_JITTER: f64 = 0.2;
