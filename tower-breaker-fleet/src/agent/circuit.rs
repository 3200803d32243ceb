//! What an agent does for one circuit: a pure state machine.
//!
//! Inputs are replies and updates of the store, signals and transitions of the local circuit, and
//! the time. Outputs are [`Action`]s: commands for the local circuit, and messages to send.
//!
//! The local circuit stays whole: it trips on its own evidence at any time. Each command has a
//! deadline, the fleet's time plus a takeover time. If the store is silent, the deadline passes,
//! and the circuit recovers by its own rules.
//!
//! Manual overrides of the fleet are applied as overrides of the local circuit. The follower stores
//! the epoch of the transition with which it applied one, and the number of overrides. A local
//! circuit that is forced in another epoch, or again in the same epoch, was forced by its own
//! process, which takes precedence: the follower changes nothing until that override ends. If the
//! process releases an override of the fleet, the circuit stays released until the fleet's next
//! decision.

use std::time::Duration;

use tower_breaker::control::{Command, Signal};
use tower_breaker::telemetry::Transition;
use tower_breaker::{BreakerConfig, CircuitState, Reason, Status};

use super::Time;
use super::ballot::{is_member, votes};
use super::failures::Failures;
use super::known::Known;
use super::probe::{Probe, RESERVATION, ROUNDING};
use crate::record::{CircuitRecord, FleetState, Override};
use crate::store::{Ballot, LocalOpen, ProbeOutcome, Synced};

/// The least time between two evaluations of a ballot.
const BALLOT_INTERVAL: Duration = Duration::from_millis(20);

/// The settings of an agent that concern one circuit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// The longest time until the next reply of an available store.
    pub(crate) silence: Duration,
    pub(crate) takeover: Duration,
    pub(crate) max_open: Duration,
    /// Whether the consecutive failures of all members are added up.
    pub(crate) sums_failures: bool,
}

/// The local circuit at the time of an input.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) status: Status,
    pub(crate) config: BreakerConfig,
    /// How many manual overrides were set.
    pub(crate) overrides: u32,
}

/// An override of the fleet that was applied to the local circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forced {
    /// The epoch of the transition.
    pub(crate) epoch: u32,
    /// How many overrides were set then.
    pub(crate) count: u32,
}

/// What the process knows about its own calls when the fleet opens the circuit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opening {
    pub(super) at: Time,
    /// The calls that the circuit had rejected.
    pub(super) rejected: u64,
    /// The calls in the window of the closed circuit, and the time in which they were made.
    pub(super) calls: u64,
    pub(super) counted_for: Duration,
}

impl Opening {
    pub(super) fn of(local: &Local, now: Time) -> Self {
        let opened = Self { at: now, rejected: local.status.rejected_calls, ..Self::default() };
        match (local.status.state, local.config.time_window()) {
            (CircuitState::Closed, Some(window)) => Self {
                calls: local.status.window.calls,
                counted_for: window.min(local.status.lasted),
                ..opened
            },
            _ => opened,
        }
    }
}

/// A transition of the local circuit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moved {
    pub(crate) reason: Reason,
    pub(crate) epoch: u32,
}

/// An output: what to do next, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Apply(Command),
    /// Opens the circuit for the local open time of an earlier process with the same instance name.
    RestoreLocal(Option<Duration>),
    Force(Override, Option<Duration>),
    Release,
    Rearm(Signal),
    /// Asks for a lease.
    Ask {
        weight: f64,
        lease: Duration,
    },
    /// Extends the lease of a probe that has begun.
    Extend {
        lease: Duration,
    },
    Complete {
        epoch: u64,
        outcome: ProbeOutcome,
    },
    /// Gives a lease back that no probe has used.
    GiveBack {
        epoch: u64,
    },
    /// Sends the ballot soon.
    Sync,
}

/// What the store replied last about the members.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Members {
    pub(crate) count: u32,
    /// How many are open on their local evidence.
    pub(crate) open: u32,
    pub(crate) votes: u32,
    pub(crate) votes_needed: u32,
    pub(crate) warming_up: bool,
}

/// What a ballot consists of, to send it again when it has changed.
#[derive(Debug, PartialEq)]
struct Sent {
    vote: bool,
    has_local_evidence: bool,
    /// When the failures happened that the fleet adds up.
    failed_at: Vec<Time>,
    /// How many of them are as old as they must be, so that the store looks at them again.
    spanning: usize,
}

/// The state of one circuit in an agent.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(crate) struct Follower {
    pub(super) tuning: Tuning,
    pub(super) random: fastrand::Rng,
    pub(super) attached: bool,
    pub(super) known: Option<Known>,
    pub(super) members: Members,
    /// Whether the store has replied since the process started.
    answered: bool,
    /// Whether the store has not replied yet since the agent connected.
    resync: bool,
    /// What was sent last.
    sent: Option<Sent>,
    /// The epoch of the transition that restored the local open time of an earlier process.
    restored: Option<u32>,
    pub(super) forced: Option<Forced>,
    /// The epoch of the override whose end was reported to the store.
    ended_override: Option<u64>,
    /// When the circuit half-opens by itself, if no other command follows.
    held_until: Option<Time>,
    pub(super) probe: Probe,
    /// Whether the process had calls before the fleet opened the circuit, or a call was rejected
    /// since then or since the fleet refused a lease.
    pub(super) demand: bool,
    /// Whether a request for a lease is on its way.
    pub(super) asking: bool,
    pub(super) ask_at: Option<Time>,
    /// No request for a lease before.
    pub(super) not_before: Time,
    /// How long the next lease waits for a call.
    pub(super) reservation: Duration,
    /// `None`: the fleet is closed.
    pub(super) opened: Option<Opening>,
    failures: Failures,
    /// When to evaluate the ballot, and when it was evaluated last.
    check_at: Option<Time>,
    checked_at: Time,
}

impl Follower {
    pub(crate) fn new(tuning: Tuning, random: fastrand::Rng) -> Self {
        Self {
            tuning,
            random,
            attached: false,
            known: None,
            members: Members::default(),
            answered: false,
            resync: true,
            sent: None,
            restored: None,
            forced: None,
            failures: Failures::default(),
            ended_override: None,
            held_until: None,
            probe: Probe::None,
            demand: false,
            asking: false,
            ask_at: None,
            not_before: Time::ZERO,
            reservation: RESERVATION,
            opened: None,
            check_at: None,
            checked_at: Time::ZERO,
        }
    }

    pub(crate) fn record(&self, now: Time) -> Option<CircuitRecord> {
        self.known.as_ref().map(|known| known.record(now))
    }

    pub(crate) fn members(&self) -> Members {
        self.members
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered
    }

    pub(crate) fn sent_vote(&self) -> bool {
        self.sent.as_ref().is_some_and(|sent| sent.vote)
    }

    /// The agent has connected to the store.
    pub(crate) fn on_attached(&mut self) {
        (self.attached, self.resync) = (true, true);
    }

    /// The agent has lost the store. Without its replies, the local deadlines are shorter.
    pub(crate) fn on_detached(&mut self, now: Time, local: &Local, actions: &mut Vec<Action>) {
        (self.attached, self.asking, self.ask_at) = (false, false, None);
        let has_lost_outcome = self.probe == Probe::Completing;
        if matches!(self.probe, Probe::Completing | Probe::Vouching) {
            self.probe = Probe::None;
        }
        let Some(known) = self.known.as_ref().filter(|known| known.is_unclosed(now)) else { return };
        let is_long = known
            .until()
            .zip(self.held_until)
            .is_some_and(|(until, held_until)| held_until > until.max(now) + 2 * self.tuning.takeover);
        let waits = self.probe == Probe::None && local.status.state == CircuitState::Open && is_long;
        if waits || has_lost_outcome {
            self.hold(now, actions);
        }
    }

    /// Returns the ballot and the local open time to send.
    pub(crate) fn report(&mut self, now: Time, local: &Local) -> (Ballot, LocalOpen) {
        let sent = self.evaluate(now, local);
        let since_success = self.failures.since_success(now, &local.status);
        let ballot = Ballot {
            vote: sent.vote,
            since_success: since_success.filter(|_| self.adds_up_failures(local)),
            failure_ages: sent.failed_at.iter().map(|at| now.saturating_sub(*at)).collect(),
        };
        self.sent = Some(sent);
        (ballot, self.local_open(now, &local.status))
    }

    /// Returns the content of a ballot that is sent now.
    fn evaluate(&mut self, now: Time, local: &Local) -> Sent {
        let has_local_evidence = self.has_local_evidence(&local.status);
        let has_evidence = has_local_evidence && !self.has_closed_since(now, local);
        let vote = votes(&local.status, &local.config, self.members.votes_needed, has_evidence);
        let limit = if self.adds_up_failures(local) { local.config.consecutive_failures() } else { 0 };
        self.failures.look(now, &local.status, usize::try_from(limit).unwrap_or(usize::MAX));
        let span = local.config.consecutive_failures_span();
        // The store counts no failure from before this success. So none is old enough yet, and a
        // busy process without an outage sends none.
        let is_early = self.failures.since_success(now, &local.status).is_some_and(|age| age < span);
        let failed_at = if is_early { Vec::new() } else { self.failures.seen_at().to_vec() };
        let spanning = failed_at.iter().filter(|at| now.saturating_sub(**at) >= span).count();
        Sent { vote, has_local_evidence, failed_at, spanning }
    }

    fn adds_up_failures(&self, local: &Local) -> bool {
        self.tuning.sums_failures && is_member(&local.config)
    }

    /// Whether the fleet has closed since the local circuit opened.
    ///
    /// A circuit that a health report has opened does not close with the fleet. Without a call it
    /// stays open, and its vote would open the fleet again and again.
    fn has_closed_since(&self, now: Time, local: &Local) -> bool {
        let is_later = |known: &Known| local.status.lasted > now.saturating_sub(known.since());
        local.status.state == CircuitState::Open
            && self
                .known
                .as_ref()
                .is_some_and(|known| known.state(now) == FleetState::Closed && is_later(known))
    }

    /// Whether the circuit is open or half-open, and no command of the fleet opened it.
    ///
    /// A circuit that is half-open after an override has not been open: its last trip is over.
    fn has_local_evidence(&self, status: &Status) -> bool {
        let was_open = |last: &Transition| last.from == CircuitState::Open;
        let is_unclosed = match status.state {
            CircuitState::Open => true,
            CircuitState::HalfOpen => status.last_transition.as_ref().is_some_and(was_open),
            _ => false,
        };
        is_unclosed
            && status
                .last_trip
                .as_ref()
                .is_some_and(|trip| trip.reason != Reason::CommandedOpen || Some(trip.epoch) == self.restored)
    }

    /// The open time of a circuit that is open while the fleet's is closed.
    fn local_open(&self, now: Time, status: &Status) -> LocalOpen {
        if !self.answered {
            return LocalOpen::Unknown;
        }
        let is_unclosed = self.known.as_ref().is_some_and(|known| known.is_unclosed(now));
        if is_unclosed || status.state != CircuitState::Open || !self.has_local_evidence(status) {
            return LocalOpen::No;
        }
        match status.retry_after {
            None => LocalOpen::UntilReset,
            Some(Duration::ZERO) => LocalOpen::No,
            Some(remaining) => LocalOpen::For(remaining),
        }
    }

    pub(crate) fn on_synced(&mut self, now: Time, synced: &Synced, local: &Local, actions: &mut Vec<Action>) {
        let is_first = !std::mem::replace(&mut self.answered, true);
        let resync = std::mem::take(&mut self.resync);
        let Synced { members: count, open_members: open, votes, votes_needed, warming_up, .. } = *synced;
        if votes_needed != self.members.votes_needed {
            self.check_at = Some(now);
        }
        self.members = Members { count, open, votes, votes_needed, warming_up };
        if let Some(record) = &synced.record {
            self.on_record(now, record, local, actions);
        } else if resync {
            self.resume(now, local, actions);
        } else {
            self.renew(now, local, actions);
        }
        if is_first {
            self.restore(now, synced.local, local, actions);
        }
        if self.can_vouch(now, local) {
            self.schedule_ask(now);
        }
        self.schedule_missing_ask(now);
    }

    pub(crate) fn on_record(
        &mut self,
        now: Time,
        record: &CircuitRecord,
        local: &Local,
        actions: &mut Vec<Action>,
    ) {
        let before = self.known.as_ref().map(|known| (known.state(now), known.manual(now)));
        match self.accept(now, record, local) {
            Accepted::New => {}
            Accepted::Known if record.state == FleetState::HalfOpen => {
                return self.on_slot_free(now, actions);
            }
            Accepted::Known | Accepted::Old => return,
        }
        if record.state != FleetState::Closed || record.manual.is_some() {
            // As the store will reply: the decision applies to all members.
            self.members.open = 0;
        }
        self.begin_epoch(now, record.state, local, actions);
        let was_unclosed = before.is_some_and(|(state, _)| state != FleetState::Closed);
        self.follow(now, was_unclosed, local, actions);
        if self.demand || self.can_vouch(now, local) {
            self.schedule_ask(now);
        }
    }

    fn begin_epoch(&mut self, now: Time, state: FleetState, local: &Local, actions: &mut Vec<Action>) {
        self.end_probe();
        let opened = Opening::of(local, now);
        match state {
            FleetState::Closed => self.opened = None,
            FleetState::Open => {
                self.opened = Some(opened);
                // In a quiet fleet, a process whose calls were all before the opening may have the
                // next one.
                self.demand = opened.calls > 0;
                actions.push(Action::Rearm(Signal::Demand));
            }
            FleetState::HalfOpen => {
                // The opening was missed if it is not known.
                self.opened.get_or_insert(opened);
                if !self.demand {
                    // The signal may have been sent before the agent had this circuit.
                    actions.push(Action::Rearm(Signal::Demand));
                }
            }
        }
    }

    /// Stores a record, unless its epoch is older.
    ///
    /// Two decisions have the same epoch if the store has lost the first one, and made the second
    /// one in the same millisecond. Then the one that arrives last applies.
    pub(super) fn accept(&mut self, now: Time, record: &CircuitRecord, local: &Local) -> Accepted {
        let may_be_endless = local.config.open_until_reset();
        let max_open = self.tuning.max_open;
        match &mut self.known {
            _ if record.epoch == 0 => Accepted::Old,
            Some(known) if known.epoch() > record.epoch => Accepted::Old,
            Some(known) if known.is_of(record, now) => {
                known.refresh(record.clone(), now, max_open, may_be_endless);
                Accepted::Known
            }
            known => {
                *known = Some(Known::new(record.clone(), now, max_open, may_be_endless));
                Accepted::New
            }
        }
    }

    /// Commands the local circuit to follow the known record.
    pub(super) fn follow(&mut self, now: Time, was_unclosed: bool, local: &Local, actions: &mut Vec<Action>) {
        let Some(known) = &self.known else { return };
        let is_forced = matches!(local.status.state, CircuitState::ForcedOpen | CircuitState::ForcedClosed);
        let last = local.status.last_transition.as_ref();
        let is_of_fleet = self.forced.is_some_and(|forced| {
            forced.count == local.overrides && last.is_some_and(|last| last.epoch == forced.epoch)
        });
        let is_forced_locally = is_forced && !is_of_fleet;
        if let Some(manual) = known.manual(now) {
            // An override of a snapshot is that of the fleet if both agree.
            let is_restored = last.is_some_and(|transition| transition.reason == Reason::Restored)
                && local.status.state == forced_state(manual);
            if !is_forced_locally || is_restored {
                let remaining = known.manual_until().map(|until| until.saturating_sub(now));
                // After forced open, probes of the fleet come first.
                let takeover = match manual {
                    Override::ForcedOpen => self.tuning.takeover,
                    Override::ForcedClosed => Duration::ZERO,
                };
                let keep_for = remaining.map(|remaining| remaining + takeover);
                actions.push(Action::Force(manual, keep_for));
            }
            return;
        }
        let releases = self.forced.take().is_some() && is_forced && !is_forced_locally;
        if releases {
            actions.push(Action::Release);
        }
        match known.state(now) {
            FleetState::Open | FleetState::HalfOpen => {
                if !self.can_vouch(now, local) {
                    self.hold(now, actions);
                }
            }
            // The report of a health checker takes precedence over the fleet.
            FleetState::Closed if (was_unclosed || releases) && !is_reported_critical(&local.status) => {
                self.held_until = None;
                actions.push(Action::Apply(Command::Close));
            }
            FleetState::Closed => {}
        }
    }

    /// Keeps the circuit open until the fleet's time is over, and then until the next reply.
    pub(super) fn hold(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Some(known) = &self.known else { return };
        let takeover = self.tuning.takeover.mul_f64(1.0 + self.random.f64());
        let remaining = known.until().map(|until| until.saturating_sub(now));
        let over = now + remaining.unwrap_or_default();
        let mut latest = over;
        if self.attached {
            latest = latest.max((now + self.tuning.silence).min(known.since() + self.tuning.max_open));
        }
        let takeover = latest.saturating_sub(over) + takeover;
        // A time that never comes, if the circuit stays open until it is reset.
        self.held_until = Some(remaining.map_or(Time::MAX, |_| over + takeover));
        actions.push(Action::Apply(Command::Open { remaining, takeover }));
    }

    /// Prolongs the deadline of a circuit that waits for demand, because the store has answered.
    fn renew(&mut self, now: Time, local: &Local, actions: &mut Vec<Action>) {
        let Some(known) = self.known.as_ref().filter(|known| known.is_unclosed(now)) else { return };
        let is_short = self.held_until.is_some_and(|until| until < now + self.tuning.silence);
        let is_allowed = now < known.since() + self.tuning.max_open;
        let waits = self.probe == Probe::None && local.status.state == CircuitState::Open;
        if waits && is_short && is_allowed {
            self.hold(now, actions);
        }
    }

    /// Continues after a connection was lost, if the fleet has decided nothing else meanwhile.
    fn resume(&mut self, now: Time, local: &Local, actions: &mut Vec<Action>) {
        let is_unclosed = self.known.as_ref().is_some_and(|known| known.is_unclosed(now));
        let waits = matches!(local.status.state, CircuitState::Open | CircuitState::HalfOpen);
        if is_unclosed && waits && self.probe == Probe::None {
            actions.push(Action::Rearm(Signal::Demand));
            self.hold(now, actions);
        }
    }

    /// Opens the circuit if an earlier process with this instance name was open on its own
    /// evidence.
    fn restore(&self, now: Time, stored: LocalOpen, local: &Local, actions: &mut Vec<Action>) {
        let is_closed = local.status.state == CircuitState::Closed && local.status.last_transition.is_none();
        let is_unclosed = self.known.as_ref().is_some_and(|known| known.is_unclosed(now));
        if !is_closed || is_unclosed {
            return;
        }
        let longest = self.tuning.max_open;
        match stored {
            LocalOpen::For(remaining) => actions.push(Action::RestoreLocal(Some(remaining.min(longest)))),
            LocalOpen::UntilReset => {
                let remaining = (!local.config.open_until_reset()).then_some(longest);
                actions.push(Action::RestoreLocal(remaining));
            }
            LocalOpen::Unknown | LocalOpen::No => {}
        }
    }

    /// The command of [`Action::RestoreLocal`] caused the transition of `epoch`.
    pub(crate) fn on_restored(&mut self, epoch: Option<u32>) {
        self.restored = epoch;
    }

    /// The override of [`Action::Force`] is in force. `None`: it was refused.
    pub(crate) fn on_forced(&mut self, forced: Option<Forced>) {
        self.forced = forced;
    }

    pub(crate) fn on_failure_signal(&mut self, now: Time) {
        let earliest = now.max(self.checked_at + BALLOT_INTERVAL);
        self.check_at = Some(self.check_at.map_or(earliest, |at| at.min(earliest)));
    }

    pub(crate) fn on_transition(
        &mut self,
        now: Time,
        moved: Moved,
        local: &Local,
        actions: &mut Vec<Action>,
    ) {
        // An event from before the override of the fleet was applied says nothing about it.
        let is_later = self.forced.is_none_or(|forced| is_after(moved.epoch, forced.epoch));
        let was_of_fleet = self.forced.is_some_and(|forced| forced.count == local.overrides);
        match moved.reason {
            Reason::CommandedOpen | Reason::CommandedProbe | Reason::CommandedClose => return,
            // An override of the fleet that this process released stays released. After an override
            // of the process itself, the circuit follows the fleet again.
            Reason::Released | Reason::OverrideEnded if !was_of_fleet => {
                self.forced = None;
                self.follow(now, false, local, actions);
            }
            Reason::Released | Reason::OverrideEnded | Reason::Forced if is_later => self.forced = None,
            Reason::Reconfigured => self.follow(now, false, local, actions),
            _ => {}
        }
        self.withdraw_unless_half_open(local, actions);
        self.schedule_missing_ask(now);
        // By the timer, which arms the signal of failures again: it may have come at the same time.
        self.check_at = Some(now);
    }

    /// Whether the ballot is due. The caller then arms [`Signal::Failure`] before it reads the
    /// status, so that no failure is missed.
    pub(crate) fn is_check_due(&self, now: Time) -> bool {
        self.check_at.is_some_and(|at| at <= now)
    }

    pub(crate) fn on_timer(&mut self, now: Time, local: &Local, actions: &mut Vec<Action>) {
        if self.is_check_due(now) {
            self.check(now, local, actions);
        }
        if self.override_end().is_some_and(|end| end <= now) {
            self.ended_override = self.known.as_ref().map(Known::epoch);
            actions.push(Action::Sync);
        }
        self.on_probe_timer(now, local, actions);
    }

    /// Sends the ballot if it has changed. While a closed circuit has one or may soon have one,
    /// evaluates it again soon, because no signal reports a success.
    pub(crate) fn check(&mut self, now: Time, local: &Local, actions: &mut Vec<Action>) {
        (self.check_at, self.checked_at) = (None, now);
        let ballot = self.evaluate(now, local);
        let has_ballot = ballot.vote || !self.failures.is_empty();
        if has_ballot && local.status.state == CircuitState::Closed {
            self.check_at = Some(now + BALLOT_INTERVAL);
        }
        if self.sent.as_ref() != Some(&ballot) {
            actions.push(Action::Sync);
        }
    }

    /// Returns when the next timer is due.
    pub(crate) fn next_timer(&self) -> Option<Time> {
        let timers = [self.check_at, self.ask_at, self.probe.deadline(), self.override_end()];
        timers.into_iter().flatten().min()
    }

    /// When to ask the store for the record after an override, once for each override.
    fn override_end(&self) -> Option<Time> {
        let known = self.known.as_ref().filter(|known| self.ended_override != Some(known.epoch()))?;
        known.manual_until().map(|until| until + ROUNDING)
    }

    /// Whether this process takes part in the fleet's probes.
    pub(super) fn may_probe(local: &Local) -> bool {
        is_member(&local.config)
    }
}

/// Whether a record was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Its epoch is older.
    Old,
    /// Its epoch is known; only its times are new.
    Known,
    New,
}

/// Whether a transition came after another one. Epochs have 24 bits, and wrap.
fn is_after(epoch: u32, other: u32) -> bool {
    const BITS: u32 = 24;
    let distance = epoch.wrapping_sub(other) % (1 << BITS);
    (1..1 << (BITS - 1)).contains(&distance)
}

const fn forced_state(manual: Override) -> CircuitState {
    match manual {
        Override::ForcedOpen => CircuitState::ForcedOpen,
        Override::ForcedClosed => CircuitState::ForcedClosed,
    }
}

fn is_reported_critical(status: &Status) -> bool {
    let is_critical = |trip: &Transition| trip.reason == Reason::ReportedCritical;
    status.state == CircuitState::Open && status.last_trip.as_ref().is_some_and(is_critical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_wrap() {
        assert!(is_after(1, 0) && is_after(0, (1 << 24) - 1) && is_after(5, (1 << 24) - 5));
        assert!(!is_after(0, 1) && !is_after((1 << 24) - 1, 0) && !is_after(7, 7));
    }
}
