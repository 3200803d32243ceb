//! The heartbeat of a process: membership, ballot, local open time, known record.

use std::time::Duration;

use super::deadline::{Deadline, milliseconds};
use super::{
    CircuitData, Decision, LocalEntry, MAX_EPOCH, Member, REASON_CONSECUTIVE_FAILURES, REASON_QUORUM,
};
use crate::record::FleetState;
use crate::store::{LocalOpen, QuorumRule, SyncCircuit, SyncRequest, Synced, Update};

/// How long a store keeps that a process is open until it is reset: one day after its last message.
/// Instance names may be random, so entries without an end would accumulate.
pub(crate) const LOCAL_UNTIL_RESET_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Products such as `0.07 × 100` are slightly above the whole number.
const ROUNDING_ERROR: f64 = 1e-9;

/// Returns the votes that open a circuit with this number of members.
pub(crate) fn votes_needed(quorum: &QuorumRule, members: u32) -> u32 {
    let share = (quorum.share * f64::from(members) - ROUNDING_ERROR).ceil();
    // A cast saturates: a negative number and NaN are 0.
    #[allow(clippy::cast_sign_loss, reason = "the cast saturates")]
    let share = share as u32;
    quorum.at_least.max(share).max(1)
}

/// What of the ballot of a message counts.
#[derive(Clone, Copy, Default)]
struct Counted {
    vote: bool,
    /// Whether the process has failures since the latest success of a member.
    failures: bool,
}

/// The live members, and what they say together.
#[derive(Default)]
struct Count {
    members: u32,
    open: u32,
    votes: u32,
    /// The failures since the latest success of a member, and the first of them.
    failures: usize,
    first_failure: Option<u64>,
    /// Whether more members than these have expired within their last lifetime.
    most_expired: bool,
}

impl CircuitData {
    /// Processes one circuit of a heartbeat.
    pub(crate) fn sync(
        &mut self,
        request: &SyncRequest,
        circuit: &SyncCircuit,
        now: u64,
    ) -> (Synced, Vec<Update>) {
        let mut changed = self.update_to(now);
        let known = circuit.known.as_ref().filter(|known| known.epoch <= MAX_EPOCH);
        if let Some(known) = known {
            changed |= self.restore(known, request.grace, now);
        }
        let known_epoch = known.map_or(0, |known| known.epoch);
        self.set_local(&request.instance, circuit.local, now);
        let ballot = self.set_member(request, circuit, now);
        let count = self.count(now);
        let quorum = &circuit.quorum;
        let votes_needed = votes_needed(quorum, count.members);
        let warming_up = self.is_warming_up(quorum, &count, now);
        let reason =
            if warming_up { None } else { reason_to_open(quorum, ballot, &count, votes_needed, now) };
        if let Some(reason) = reason {
            // The store may have lost or forgotten the record of a closed circuit.
            self.epoch = self.epoch.max(known_epoch);
            let until = circuit.open_for.map(|open_for| Deadline::after(now, open_for));
            let by = &request.instance;
            let decision = Decision { state: FleetState::Open, until, reason, by, grace: request.grace };
            self.begin_epoch(now, decision);
            changed = true;
        }
        let synced = Synced {
            members: count.members,
            open_members: if self.is_closed() { count.open } else { 0 },
            votes: self.count(now).votes,
            votes_needed,
            warming_up,
            local: self.local_open(&request.instance, now),
            record: (self.epoch > known_epoch).then(|| self.current_record(&circuit.name, now)),
        };
        (synced, self.updates(changed, &circuit.name, now))
    }

    fn set_local(&mut self, instance: &str, local: LocalOpen, now: u64) {
        let (length, until_reset) = match local {
            LocalOpen::Unknown => return,
            LocalOpen::No => (Duration::ZERO, false),
            LocalOpen::For(length) => (length, false),
            LocalOpen::UntilReset => (LOCAL_UNTIL_RESET_KEPT, true),
        };
        if length.is_zero() {
            self.local.remove(instance);
        } else {
            let until = Deadline::after(now, length);
            self.local.insert(instance.to_owned(), LocalEntry { until, until_reset });
        }
    }

    fn local_open(&self, instance: &str, now: u64) -> LocalOpen {
        match self.local.get(instance) {
            None => LocalOpen::No,
            Some(entry) if entry.until_reset => LocalOpen::UntilReset,
            Some(entry) => LocalOpen::For(entry.until.remaining(now)),
        }
    }

    /// Stores the membership and the ballot of a process, and returns what of the ballot counts.
    fn set_member(&mut self, request: &SyncRequest, circuit: &SyncCircuit, now: u64) -> Counted {
        if !circuit.member {
            self.members.remove(&request.instance);
            return Counted::default();
        }
        let ballot = &circuit.ballot;
        let time = |age: &Duration| now.saturating_sub(milliseconds(*age));
        self.last_success = self.last_success.max(ballot.since_success.as_ref().map(time));
        let counts = self.is_closed();
        let vote = counts && ballot.vote;
        let failures = ballot.failure_ages.iter().map(time);
        let failed_at: Vec<_> = failures.filter(|at| counts && self.is_since_success(*at)).collect();
        let counted = Counted { vote, failures: !failed_at.is_empty() };
        let until = Deadline::after(now, request.lifetime);
        self.members.insert(request.instance.clone(), Member { until, vote, failed_at });
        self.warm_up.get_or_insert(until);
        counted
    }

    /// Whether the circuit is closed without an override. Only then ballots and open members count.
    fn is_closed(&self) -> bool {
        self.state == FleetState::Closed && self.manual.is_none()
    }

    /// Whether no member has had a success after this time.
    fn is_since_success(&self, at: u64) -> bool {
        self.last_success.is_none_or(|success| at >= success)
    }

    fn count(&self, now: u64) -> Count {
        let mut count = Count::default();
        let mut expired = 0;
        for (instance, member) in &self.members {
            if member.until.is_over(now) {
                expired += 1;
                continue;
            }
            count.members += 1;
            count.open += u32::from(self.local.contains_key(instance));
            count.votes += u32::from(member.vote);
            for at in member.failed_at.iter().filter(|at| self.is_since_success(**at)) {
                count.failures += 1;
                count.first_failure = Some(count.first_failure.map_or(*at, |first| first.min(*at)));
            }
        }
        count.most_expired = expired > count.members;
        count
    }

    fn is_warming_up(&self, quorum: &QuorumRule, count: &Count, now: u64) -> bool {
        let is_first_lifetime = self.warm_up.is_some_and(|until| !until.is_over(now));
        quorum.share > 0.0 && (is_first_lifetime || count.most_expired)
    }
}

/// Returns why a ballot opens the circuit, if it does.
fn reason_to_open(
    quorum: &QuorumRule,
    ballot: Counted,
    count: &Count,
    votes_needed: u32,
    now: u64,
) -> Option<&'static str> {
    if ballot.vote && count.votes >= votes_needed {
        return Some(REASON_QUORUM);
    }
    let limit = usize::try_from(quorum.consecutive_failures).unwrap_or(usize::MAX);
    let is_reached = limit > 0 && count.failures >= limit;
    let span = milliseconds(quorum.consecutive_failures_span);
    let spans = count.first_failure.is_some_and(|first| now.saturating_sub(first) >= span);
    (ballot.failures && is_reached && spans).then_some(REASON_CONSECUTIVE_FAILURES)
}
