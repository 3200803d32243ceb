//! The messages as the functions of PostgreSQL read and write them: JSON, times in milliseconds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{CircuitRecord, FleetState, Override};
use crate::rules::{LONGEST, MAX_EPOCH, clean_text, milliseconds};
use crate::store::{
    Action, CompletedProbe, LeaseRequest, LocalOpen, Operation, ProbeOutcome, SyncCircuit, SyncRequest,
    Synced, Update,
};

/// The largest epoch of an answer. Nothing of this crate writes a larger one.
const LARGEST_EPOCH: u64 = 2 * MAX_EPOCH;

/// The longest texts of an answer, in bytes.
const LONGEST_NAME: usize = 1024;
const LONGEST_TEXT: usize = 1024;

#[derive(Serialize)]
pub(super) struct WireSync {
    instance: String,
    lifetime_ms: u64,
    grace_ms: u64,
    circuits: Vec<WireCircuit>,
}

#[derive(Serialize)]
struct WireCircuit {
    circuit: String,
    member: bool,
    vote: bool,
    since_success_ms: Option<u64>,
    failure_ages_ms: Vec<u64>,
    at_least: u32,
    share: f64,
    failure_limit: u32,
    failure_span_ms: u64,
    /// Null: until it is reset.
    open_ms: Option<u64>,
    local: WireLocal,
    known: Option<WireRecord>,
}

/// How long a process is open on its local evidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireLocal {
    Unknown,
    No,
    ForMs(u64),
    UntilReset,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WireRecord {
    circuit: String,
    epoch: u64,
    state: FleetState,
    /// Null: until it is reset.
    remaining_ms: Option<u64>,
    manual: Option<Override>,
    /// Null: there is no override, or it stays in force until it is released.
    manual_remaining_ms: Option<u64>,
    reason: String,
    by: String,
}

#[derive(Deserialize)]
pub(super) struct WireSynced {
    members: u32,
    open_members: u32,
    votes: u32,
    votes_needed: u32,
    warming_up: bool,
    local: WireLocal,
    record: Option<WireRecord>,
}

#[derive(Serialize)]
pub(super) struct WireLeaseRequest {
    instance: String,
    circuit: String,
    probes: u32,
    lease_ms: u64,
    weight: f64,
    grace_ms: u64,
}

#[derive(Deserialize)]
pub(super) struct WireLeaseReply {
    pub(super) granted: bool,
    pub(super) retry_ms: u64,
    pub(super) record: WireRecord,
}

#[derive(Serialize)]
pub(super) struct WireCompletedProbe {
    instance: String,
    circuit: String,
    epoch: u64,
    outcome: &'static str,
    open_ms: Option<u64>,
    probes: u32,
    successes_to_close: u32,
    grace_ms: u64,
}

#[derive(Serialize)]
pub(super) struct WireOperation {
    circuit: String,
    action: &'static str,
    by: String,
    reason: String,
    expected_epoch: Option<u64>,
    open_ms: Option<u64>,
    keep_ms: Option<u64>,
    grace_ms: u64,
}

#[derive(Deserialize)]
pub(super) struct WireOperationReply {
    pub(super) applied: bool,
    pub(super) record: WireRecord,
}

/// The payload of a notification.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WireUpdate {
    Record(WireRecord),
    SlotsTaken { circuit: String, epoch: u64, retry_ms: u64 },
}

impl WireSync {
    pub(super) fn new(request: &SyncRequest) -> Self {
        Self {
            instance: name(&request.instance),
            lifetime_ms: milliseconds(request.lifetime),
            grace_ms: milliseconds(request.grace),
            circuits: request.circuits.iter().map(WireCircuit::new).collect(),
        }
    }
}

impl WireCircuit {
    fn new(circuit: &SyncCircuit) -> Self {
        let (ballot, quorum) = (&circuit.ballot, &circuit.quorum);
        Self {
            circuit: name(&circuit.name),
            member: circuit.member,
            vote: ballot.vote,
            since_success_ms: ballot.since_success.map(milliseconds),
            failure_ages_ms: ballot.failure_ages.iter().copied().map(milliseconds).collect(),
            at_least: quorum.at_least,
            share: quorum.share,
            failure_limit: quorum.consecutive_failures,
            failure_span_ms: milliseconds(quorum.consecutive_failures_span),
            open_ms: circuit.open_for.map(milliseconds),
            local: match circuit.local {
                LocalOpen::Unknown => WireLocal::Unknown,
                LocalOpen::No => WireLocal::No,
                LocalOpen::For(time) => WireLocal::ForMs(milliseconds(time)),
                LocalOpen::UntilReset => WireLocal::UntilReset,
            },
            // A larger epoch is damaged, and would make all later ones so.
            known: circuit.known.as_ref().filter(|known| known.epoch <= MAX_EPOCH).map(WireRecord::new),
        }
    }
}

impl WireRecord {
    fn new(record: &CircuitRecord) -> Self {
        Self {
            circuit: name(&record.circuit),
            epoch: record.epoch,
            state: record.state,
            remaining_ms: record.remaining.map(milliseconds),
            manual: record.manual,
            manual_remaining_ms: record.manual_remaining.map(milliseconds),
            reason: clean_text(&record.reason),
            by: clean_text(&record.by),
        }
    }

    /// Returns the record. An error names the field, and the range.
    pub(super) fn read(self) -> Result<CircuitRecord, String> {
        check_text("circuit", &self.circuit, LONGEST_NAME)?;
        check_text("reason", &self.reason, LONGEST_TEXT)?;
        check_text("by", &self.by, LONGEST_TEXT)?;
        Ok(CircuitRecord {
            circuit: self.circuit,
            epoch: check_epoch(self.epoch)?,
            state: self.state,
            remaining: self.remaining_ms.map(|ms| duration("remaining_ms", ms)).transpose()?,
            manual: self.manual,
            manual_remaining: self
                .manual_remaining_ms
                .map(|ms| duration("manual_remaining_ms", ms))
                .transpose()?,
            reason: self.reason,
            by: self.by,
        })
    }
}

impl WireSynced {
    pub(super) fn read(self) -> Result<Synced, String> {
        Ok(Synced {
            members: self.members,
            open_members: self.open_members,
            votes: self.votes,
            votes_needed: self.votes_needed,
            warming_up: self.warming_up,
            local: match self.local {
                WireLocal::Unknown => LocalOpen::Unknown,
                WireLocal::No => LocalOpen::No,
                WireLocal::ForMs(ms) => LocalOpen::For(duration("local", ms)?),
                WireLocal::UntilReset => LocalOpen::UntilReset,
            },
            record: self.record.map(WireRecord::read).transpose()?,
        })
    }
}

impl WireLeaseRequest {
    pub(super) fn new(request: &LeaseRequest) -> Self {
        Self {
            instance: name(&request.instance),
            circuit: name(&request.circuit),
            probes: request.probes,
            lease_ms: milliseconds(request.lease),
            weight: request.weight,
            grace_ms: milliseconds(request.grace),
        }
    }
}

impl WireCompletedProbe {
    pub(super) fn new(probe: &CompletedProbe) -> Self {
        Self {
            instance: name(&probe.instance),
            circuit: name(&probe.circuit),
            epoch: probe.epoch,
            outcome: match probe.outcome {
                ProbeOutcome::Success => "success",
                ProbeOutcome::Failure => "failure",
                ProbeOutcome::Neutral => "neutral",
            },
            open_ms: probe.open_for.map(milliseconds),
            probes: probe.probes,
            successes_to_close: probe.successes_to_close,
            grace_ms: milliseconds(probe.grace),
        }
    }
}

impl WireOperation {
    pub(super) fn new(operation: &Operation) -> Self {
        Self {
            circuit: name(&operation.circuit),
            action: match operation.action {
                Action::Trip => "trip",
                Action::Reset => "reset",
                Action::ForceOpen => "force_open",
                Action::ForceClosed => "force_closed",
                Action::Release => "release",
            },
            by: clean_text(&operation.by),
            reason: clean_text(&operation.reason),
            expected_epoch: operation.expected_epoch,
            open_ms: operation.open_for.map(milliseconds),
            keep_ms: operation.keep_for.map(milliseconds),
            grace_ms: milliseconds(operation.grace),
        }
    }
}

impl WireUpdate {
    pub(super) fn read(self) -> Result<Update, String> {
        Ok(match self {
            Self::Record(record) => Update::Record(record.read()?),
            Self::SlotsTaken { circuit, epoch, retry_ms } => {
                check_text("circuit", &circuit, LONGEST_NAME)?;
                let epoch = check_epoch(epoch)?;
                Update::SlotsTaken { circuit, epoch, retry_after: duration("retry_ms", retry_ms)? }
            }
        })
    }
}

/// Returns the time of an answer. An error names the field.
pub(super) fn duration(field: &str, ms: u64) -> Result<Duration, String> {
    if ms > LONGEST {
        return Err(format!("`{field}` is {ms} ms, allowed are up to {LONGEST} ms"));
    }
    Ok(Duration::from_millis(ms))
}

fn check_epoch(epoch: u64) -> Result<u64, String> {
    if epoch > LARGEST_EPOCH {
        return Err(format!("`epoch` is {epoch}, allowed is up to {LARGEST_EPOCH}"));
    }
    Ok(epoch)
}

fn check_text(field: &str, value: &str, longest: usize) -> Result<(), String> {
    if value.len() > longest {
        return Err(format!("`{field}` has {} bytes, allowed are up to {longest}", value.len()));
    }
    Ok(())
}

/// Returns a name as PostgreSQL can store it: NUL, which no text of PostgreSQL has, is replaced.
pub(super) fn name(name: &str) -> String {
    name.replace('\0', "\u{FFFD}")
}
