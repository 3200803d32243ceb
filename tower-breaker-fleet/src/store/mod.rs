//! The stores, and the messages between an agent and a store.
//!
//! All four stores follow the same rules, which `rules` has as plain functions. The memory store
//! and the file store run these functions; the scripts of Redis and the functions of PostgreSQL
//! are transcriptions. The tests run the same scenarios, those of `scenarios`, on each store.
//!
//! All messages may be lost, repeated or late without harm: see each message.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::record::CircuitRecord;

#[cfg(all(feature = "file", unix))]
pub(crate) mod file;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(test)]
pub(crate) mod scenarios;

#[cfg(all(feature = "file", unix))]
pub use file::FileStore;
pub use memory::{Availability, Delivery, MemoryStore};
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "redis")]
pub use redis::RedisStore;

/// A future of a store. Dropping it cancels the wait; the store may still process the message.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store that the processes of a fleet share. Sealed: only the stores of this crate implement it.
pub trait FleetStore: Backend {}

impl<T: Backend> FleetStore for T {}

/// A store that an agent can connect to.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Connects, and subscribes to the updates of the namespace.
    ///
    /// Updates that the store publishes after this method has returned are not lost, unless the
    /// connection ends: the agent subscribes first and then synchronizes.
    fn connect<'a>(&'a self, namespace: &'a str) -> StoreFuture<'a, Box<dyn Session>>;
}

/// A connection to a store. One task owns it, and drops it after the first error.
pub trait Session: Send {
    /// Reports the state of the process, and returns what the process does not know yet.
    ///
    /// A ballot and the membership expire after [`SyncRequest::lifetime`]; a repeated message
    /// extends them.
    fn sync<'a>(&'a mut self, request: &'a SyncRequest) -> StoreFuture<'a, Vec<Synced>>;
    /// Asks for the lease of one probe, or extends it.
    fn lease<'a>(&'a mut self, request: &'a LeaseRequest) -> StoreFuture<'a, LeaseReply>;
    /// Reports the outcome of a probe, and gives the lease back. Without effect in a later epoch.
    fn complete<'a>(&'a mut self, probe: &'a CompletedProbe) -> StoreFuture<'a, CircuitRecord>;
    /// Applies a manual operation in the whole fleet.
    fn operate<'a>(&'a mut self, operation: &'a Operation) -> StoreFuture<'a, OperationReply>;
    /// Returns up to `limit` records, in the order of the names, after the name `after`.
    fn list<'a>(&'a mut self, after: Option<&'a str>, limit: usize) -> StoreFuture<'a, Vec<CircuitRecord>>;
    /// Waits for the next update. Cancellation-safe: no update is lost when the future is dropped.
    ///
    /// Updates may be lost, repeated or late; the next [`sync`](Self::sync) has what is missing.
    fn update(&mut self) -> StoreFuture<'_, Update>;
}

/// The message of a heartbeat: "this process is alive, and these are its ballots".
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The name of the process. Two processes with the same name count as one member.
    pub instance: String,
    /// How long the process counts as a member, and its ballot as valid, without another message.
    pub lifetime: Duration,
    /// How long the store keeps a record after its time is over.
    pub grace: Duration,
    pub circuits: Vec<SyncCircuit>,
}

/// One circuit of a heartbeat.
#[derive(Clone, Debug)]
pub struct SyncCircuit {
    pub name: String,
    /// Whether the process uses the circuit. `false`: it leaves, and takes its ballot back.
    pub member: bool,
    pub ballot: Ballot,
    pub quorum: QuorumRule,
    /// How long the circuit stays open if this message decides so. `None`: until it is reset.
    pub open_for: Option<Duration>,
    pub local: LocalOpen,
    /// The last record that the process has seen. If the store has an older one, it has lost data,
    /// and takes this one.
    pub known: Option<CircuitRecord>,
}

/// What a process says about a circuit. It is a state and no change, so it may be repeated.
///
/// Times are ages, which the store converts with its own clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    /// Whether the process votes to open the circuit.
    pub vote: bool,
    /// How long ago the last success was, or longer. `None`: not known.
    pub since_success: Option<Duration>,
    /// How long ago the latest of the current consecutive failures were. Empty if the fleet does
    /// not add them up.
    pub failure_ages: Vec<Duration>,
}

/// When ballots open a circuit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuorumRule {
    /// The least number of votes.
    pub at_least: u32,
    /// The least share of the members that must vote, from 0 to 1.
    pub share: f64,
    /// The failures of all members since the last success of any member that open the circuit, too.
    /// 0: they do not count. It is set only for a quorum of one vote.
    pub consecutive_failures: u32,
    /// How long ago the first of these failures must be.
    pub consecutive_failures_span: Duration,
}

/// Whether the process is open on its local evidence. The store keeps this under the name of the
/// process, so that it outlives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalOpen {
    /// The process has just started. The reply says what was stored.
    Unknown,
    No,
    For(Duration),
    UntilReset,
}

/// The reply for one circuit of a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Synced {
    /// The processes that use the circuit.
    pub members: u32,
    /// The members that are open on their local evidence. 0 unless the fleet is closed without an
    /// override: otherwise its decision applies to all members.
    pub open_members: u32,
    /// The processes that vote to open it.
    pub votes: u32,
    /// The votes that open it.
    pub votes_needed: u32,
    /// Whether the store still waits for all members to report, and decides nothing by votes.
    pub warming_up: bool,
    /// What the store has for this process; [`LocalOpen::No`] if it has nothing. Meaningful after
    /// [`LocalOpen::Unknown`].
    pub local: LocalOpen,
    /// The record, if its epoch is larger than the known one.
    pub record: Option<CircuitRecord>,
}

/// A request for the lease of one probe.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    pub instance: String,
    pub circuit: String,
    /// How many probes may run at the same time in the fleet.
    pub probes: u32,
    /// How long the lease lasts.
    pub lease: Duration,
    /// How much of a probe slot the lease takes, above 0 up to 1: the probability that the process
    /// begins its probe within the lease. 1 once the probe has begun.
    pub weight: f64,
    pub grace: Duration,
}

/// The reply to a request for a lease.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseReply {
    pub granted: bool,
    /// When it is worth asking again, if the lease was not granted.
    pub retry_after: Duration,
    pub record: CircuitRecord,
}

/// The outcome of a leased probe.
#[derive(Clone, Debug)]
pub struct CompletedProbe {
    pub instance: String,
    pub circuit: String,
    /// The epoch of the lease.
    pub epoch: u64,
    pub outcome: ProbeOutcome,
    /// How long the circuit stays open if this outcome opens it. `None`: until it is reset.
    pub open_for: Option<Duration>,
    pub probes: u32,
    pub successes_to_close: u32,
    pub grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    Success,
    Failure,
    /// No probe was sent, or it shows nothing about the server.
    Neutral,
}

/// A manual operation in the whole fleet.
#[derive(Clone, Debug)]
pub struct Operation {
    pub circuit: String,
    pub action: Action,
    pub by: String,
    pub reason: String,
    /// The operation applies only in this epoch.
    pub expected_epoch: Option<u64>,
    /// How long the circuit stays open after [`Action::Trip`]. `None`: until it is reset.
    pub open_for: Option<Duration>,
    /// How long a manual override stays in force. `None`: until it is released.
    pub keep_for: Option<Duration>,
    pub grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Trip,
    Reset,
    ForceOpen,
    ForceClosed,
    Release,
}

/// The reply to a manual operation.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationReply {
    /// Whether it was applied. `false`: the epoch is another one, or an override is in force.
    pub applied: bool,
    pub record: CircuitRecord,
}

/// What a store publishes.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A new record, or a probe slot of this record that has become free.
    Record(CircuitRecord),
    /// All probe slots of the circuit are taken, for this long at least.
    SlotsTaken { circuit: String, epoch: u64, retry_after: Duration },
}

/// The failure of a store.
#[derive(Debug)]
pub struct StoreError {
    pub kind: StoreErrorKind,
    /// What failed and what to do, such as ``the user `app` has no permission for channel
    /// `tb1:{orders}`; allow it with `ACL SETUSER app &tb1:*` ``.
    pub message: String,
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// No answer: refused, cut off, too slow. It may pass by itself.
    Unreachable,
    /// The store answered, and does not let the agent work: wrong password, no permission,
    /// read-only, full, missing schema. It needs an operator.
    Refused,
    /// The answer makes no sense.
    Invalid,
}
