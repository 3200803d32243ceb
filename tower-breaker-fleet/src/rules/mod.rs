//! The rules of a fleet: plain functions of the data of one circuit, a message and the time.
//!
//! [`MemoryStore`](crate::MemoryStore) and `FileStore` run these functions. The scripts of Redis and
//! the functions of PostgreSQL are transcriptions. The scenarios in `store/scenarios.rs` run on all
//! of them.
//!
//! The caller passes the store's time in milliseconds since 1970. Each function first drops
//! what is over, and ends an override whose time is over. Each returns the reply and what the
//! store has to publish.
//!
//! # Failures that each rule prevents
//!
//! **Quorum** ([`sync`](CircuitData::sync)). A process with a broken network or configuration would
//! open the circuit of all others. So a circuit opens only if at least
//! `max(at_least, share × members)` processes vote for it. A ballot is a state and not a change:
//! a repeated message counts once, and a lost one is repeated by the next heartbeat. Only a message
//! with a vote decides, or one with consecutive failures, so stores need a lock only for those.
//!
//! **Failures of all members** (also in [`sync`](CircuitData::sync)). Each process of a pool with
//! few calls would send `consecutive_failures` failing calls before it opens. So with a quorum of
//! one vote, the circuit also opens when the failures of all members together reach this number.
//! Failures by chance would reach it, too. So a failure counts only if no member has had a success
//! after it, and the first failure that counts must be `consecutive_failures_span` old.
//!
//! A ballot contains the age of each failure, because the success of another member may lie between
//! two failures of a process. With the number and the age of the first one, the store could not
//! know how many of them are later: an outage would open the circuit too late, or chance too early.
//!
//! Members report successes with their heartbeats, so the store knows them late, and until then
//! counts failures from before them. A late message makes its success look later than it was. Then
//! failures of others are lost that were reported before the message arrived, and later ones count.
//!
//! **Warm-up.** After a loss of data the store knows few members, and a few bad processes would be
//! "the majority". So no vote is decided for one lifetime after the first member appeared. The
//! warm-up begins again when all members have expired, as in an outage of the store: it forgets
//! them one by one. No vote is decided either while the members that expired within the last
//! lifetime outnumber the live ones, as in a network partition. A quorum without a share (`share
//! == 0`) has no warm-up: the number of votes that it needs does not depend on the members.
//!
//! **Epoch** ([`begin_epoch`](CircuitData::begin_epoch)). A late message of an earlier decision must
//! not change a later one. Each decision has a number: the larger of the last number plus 1 and the
//! store's time. So numbers grow also if the store has lost the last one, and processes drop
//! records with a smaller number. A decision clears all ballots, leases and probe outcomes. A lost
//! decision and the next one have the same number if both are made in the same millisecond. A
//! process that receives the next one follows it; a process that misses it keeps the lost one until
//! there is another.
//!
//! **Giving a record back** ([`restore`](CircuitData::restore)). A store that has lost its data, or
//! its last writes in a failover, would close an open circuit and end manual overrides. A process
//! that knows a larger epoch returns the record with its heartbeat. A half-open record comes back
//! as open with its time over, because the leases are lost. A closed record is not written into an
//! empty store, where nothing means closed already. Its epoch is a lower bound for the next
//! decision.
//!
//! **Leases and weights** ([`lease`](CircuitData::lease)). Thousands of processes would probe a
//! recovering server at the same time. A probe needs a lease, and the weights of the live leases
//! add up to at most `probes`. A process with few calls holds a short reservation whose weight is
//! the probability that it calls in that time; otherwise a quiet fleet would wait for processes
//! without calls. When its probe begins, it extends the lease with weight 1. An extension is
//! always granted, because the probe runs already. So reservations can exceed the limit by those
//! that begin before `SlotsTaken` reaches them. A crashed holder loses its slot when the lease is
//! over. An outcome counts once, and up to one lease length after the end of its lease: otherwise a
//! server slower than the lease would never be decided on.
//!
//! **Closing and opening again** ([`complete`](CircuitData::complete)). One bad process would keep
//! the circuit of all others open. So `successes_to_close` successes close it, and
//! `probes − successes_to_close + 1` failures open it again: the number after which the probes of
//! one round could no longer succeed.
//!
//! **Local open times.** A process that restarts in a crash loop would call the failed server again
//! after each restart. The store keeps how long the circuit of a process is open on local evidence,
//! under the name of the process.
//!
//! **Open members.** An operator would not see that some processes cannot reach the server while
//! the others can. So the reply counts the members with such an open time. A process that has ended
//! keeps its open time, and does not count. While the fleet is open or has an override, the reply
//! has 0: the decision applies to all members, and the stored open times are older than it.
//!
//! **Clock steps** ([`Deadline`]). A deadline also stores its length. If the clock steps back, the
//! deadline is at most that length ahead, and a success or failure is not later than now. If the
//! clock steps forward, times end early, which costs one more probe.

mod ballots;
mod deadline;
mod leases;
mod limits;
mod operations;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{CircuitRecord, FleetState, Override};
use crate::store::Update;
use deadline::Deadline;
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) use deadline::{LONGEST, milliseconds};
pub(crate) use limits::{MAX_EPOCH, clean_text};

pub(crate) const REASON_QUORUM: &str = "quorum";
pub(crate) const REASON_CONSECUTIVE_FAILURES: &str = "consecutive failures";
pub(crate) const REASON_TIME_OVER: &str = "open time over";
pub(crate) const REASON_PROBES_SUCCEEDED: &str = "probes succeeded";
pub(crate) const REASON_PROBES_FAILED: &str = "probes failed";
pub(crate) const REASON_OVERRIDE_ENDED: &str = "override ended";

/// The data of one circuit in a store.
///
/// The default is a circuit that the store does not know: closed, in epoch 0, without members.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CircuitData {
    #[serde(deserialize_with = "limits::read_epoch")]
    epoch: u64,
    state: FleetState,
    /// When the circuit stops being open, or when the last lease ends. If the circuit is closed:
    /// when it closed. `None`: until it is reset.
    until: Option<Deadline>,
    manual: Option<Override>,
    /// `None`: the override stays in force until it is released.
    manual_until: Option<Deadline>,
    #[serde(deserialize_with = "limits::read_text")]
    reason: String,
    #[serde(deserialize_with = "limits::read_text")]
    by: String,
    /// How long the record is kept after `until`, in milliseconds.
    grace: u64,
    /// The outcomes of probes in this epoch.
    successes: u32,
    failures: u32,
    /// When the first lifetime is over since a member appeared while there was no live one.
    warm_up: Option<Deadline>,
    /// The latest success of a member.
    last_success: Option<u64>,
    members: BTreeMap<String, Member>,
    leases: BTreeMap<String, Lease>,
    local: BTreeMap<String, LocalEntry>,
}

/// A process that uses the circuit. Kept for one more lifetime after it has expired, because the
/// warm-up depends on how many have expired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    until: Deadline,
    vote: bool,
    /// When those of its consecutive failures happened that were after the latest success.
    failed_at: Vec<u64>,
}

/// The lease of a probe. Kept for one more lease length after it has ended, for a late outcome.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Lease {
    until: Deadline,
    #[serde(deserialize_with = "limits::read_weight")]
    weight: f64,
}

/// How long a process is open on its local evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LocalEntry {
    until: Deadline,
    /// The process is open until it is reset. `until` is when the store forgets the entry.
    until_reset: bool,
}

/// The content of a new epoch.
#[derive(Clone, Copy)]
struct Decision<'a> {
    state: FleetState,
    until: Option<Deadline>,
    reason: &'a str,
    by: &'a str,
    grace: Duration,
}

impl CircuitData {
    /// Returns the record at `now`.
    pub(crate) fn record(&self, circuit: &str, now: u64) -> CircuitRecord {
        let mut data = self.clone();
        data.update_to(now);
        data.current_record(circuit, now)
    }

    /// Returns whether nothing is stored at `now`, so that a store can delete the circuit.
    pub(crate) fn is_empty(&self, now: u64) -> bool {
        let has_members = self.members.values().any(|member| !member.until.is_over_for_its_length(now));
        let has_local = self.local.values().any(|entry| !entry.until.is_over(now));
        !has_members && !has_local && self.record("", now).epoch == 0
    }

    /// Returns the record of data that [`update_to`](Self::update_to) has brought to `now`.
    fn current_record(&self, circuit: &str, now: u64) -> CircuitRecord {
        let is_until_reset = self.state == FleetState::Open && self.until.is_none();
        CircuitRecord {
            circuit: circuit.to_owned(),
            epoch: self.epoch,
            state: self.state,
            remaining: (!is_until_reset)
                .then(|| self.until.map_or(Duration::ZERO, |until| until.remaining(now))),
            manual: self.manual,
            manual_remaining: self.manual_until.map(|until| until.remaining(now)),
            reason: self.reason.clone(),
            by: self.by.clone(),
        }
    }

    /// Returns the record as an update, if `changed`.
    fn updates(&self, changed: bool, circuit: &str, now: u64) -> Vec<Update> {
        changed.then(|| Update::Record(self.current_record(circuit, now))).into_iter().collect()
    }

    /// Drops what is over at `now`. Returns whether an override has ended, and so an epoch begun.
    fn update_to(&mut self, now: u64) -> bool {
        self.correct_times(now);
        self.members.retain(|_, member| !member.until.is_over_for_its_length(now));
        if self.members.values().all(|member| member.until.is_over(now)) {
            self.warm_up = None;
        }
        if self.members.is_empty() {
            self.last_success = None;
        }
        self.leases.retain(|_, lease| !lease.until.is_over_for_its_length(now));
        self.local.retain(|_, entry| !entry.until.is_over(now));
        let ended = self.end_override(now);
        self.forget_record(now);
        ended
    }

    /// Limits each deadline to its length, and the other times to now, in case the clock has
    /// stepped back.
    fn correct_times(&mut self, now: u64) {
        let failures = self.members.values_mut().flat_map(|member| &mut member.failed_at);
        failures.chain(&mut self.last_success).for_each(|at| *at = now.min(*at));
        let members = self.members.values_mut().map(|member| &mut member.until);
        let leases = self.leases.values_mut().map(|lease| &mut lease.until);
        let local = self.local.values_mut().map(|entry| &mut entry.until);
        let others = [&mut self.until, &mut self.manual_until, &mut self.warm_up];
        let deadlines = members.chain(leases).chain(local).chain(others.into_iter().flatten());
        deadlines.for_each(|deadline| deadline.correct(now));
    }

    /// Ends an override whose time is over, as a release at that time would.
    ///
    /// The new epoch depends on that time and not on `now`. So a reader, which stores nothing,
    /// returns the same epoch as a later writer.
    fn end_override(&mut self, now: u64) -> bool {
        let Some(end) = self.manual_until.filter(|until| until.is_over(now)) else { return false };
        let by = self.by.clone();
        let grace = Duration::from_millis(self.grace);
        self.release(end.at(), REASON_OVERRIDE_ENDED, &by, grace);
        true
    }

    /// Ends an override. After a forced open circuit, probes come first.
    fn release(&mut self, now: u64, reason: &str, by: &str, grace: Duration) {
        let was_open = self.manual.take() == Some(Override::ForcedOpen);
        self.manual_until = None;
        let state = if was_open { FleetState::Open } else { FleetState::Closed };
        let until = Some(Deadline::after(now, Duration::ZERO));
        self.begin_epoch(now, Decision { state, until, reason, by, grace });
    }

    /// Forgets the record when the grace after its time is over. Overrides and circuits that are
    /// open until they are reset stay.
    fn forget_record(&mut self, now: u64) {
        let Some(until) = self.until.filter(|_| self.manual.is_none()) else { return };
        if until.at().saturating_add(self.grace) <= now {
            let (members, local) = (std::mem::take(&mut self.members), std::mem::take(&mut self.local));
            let (warm_up, last_success) = (self.warm_up, self.last_success);
            *self = Self { warm_up, last_success, members, local, ..Self::default() };
        }
    }

    /// Begins a new epoch. No ballot, lease or outcome of the last epoch counts in it.
    fn begin_epoch(&mut self, now: u64, decision: Decision<'_>) {
        self.epoch = self.epoch.saturating_add(1).max(now);
        self.state = decision.state;
        self.until = decision.until;
        decision.reason.clone_into(&mut self.reason);
        decision.by.clone_into(&mut self.by);
        self.grace = deadline::milliseconds(decision.grace);
        self.clear_round();
    }

    fn clear_round(&mut self) {
        (self.successes, self.failures) = (0, 0);
        self.leases.clear();
        for member in self.members.values_mut() {
            member.vote = false;
            member.failed_at.clear();
        }
    }

    /// Takes a record from a process that knows a later one than the store. Returns whether it did.
    fn restore(&mut self, known: &CircuitRecord, grace: Duration, now: u64) -> bool {
        let is_nothing_new = self.epoch == 0 && known.state == FleetState::Closed && known.manual.is_none();
        if known.epoch <= self.epoch || is_nothing_new {
            return false;
        }
        let (state, remaining) = match known.state {
            FleetState::Closed => (FleetState::Closed, Some(Duration::ZERO)),
            FleetState::Open => (FleetState::Open, known.remaining),
            FleetState::HalfOpen => (FleetState::Open, Some(Duration::ZERO)),
        };
        self.epoch = known.epoch;
        self.state = state;
        self.until = remaining.map(|remaining| Deadline::after(now, remaining));
        self.manual = known.manual;
        let manual_remaining = known.manual.and(known.manual_remaining);
        self.manual_until = manual_remaining.map(|remaining| Deadline::after(now, remaining));
        self.reason = clean_text(&known.reason);
        self.by = clean_text(&known.by);
        self.grace = deadline::milliseconds(grace);
        self.clear_round();
        self.end_override(now);
        true
    }
}
