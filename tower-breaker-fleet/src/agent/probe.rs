//! The fleet's probes in one process: leases, reservations and outcomes.
//!
//! After the open time, a process that has calls asks for a lease. The lease is a short reservation
//! first: a process that has a call every ten seconds would otherwise block the slot. Its weight is
//! the probability that the process begins its probe within it. When the probe begins, the process
//! extends the lease to the probe lease of the configuration.
//!
//! After an unused reservation, the process asks again. Between the two requests others can take
//! the slot. If no process does, the next reservation is twice as long: then the calls of the whole
//! fleet are rare, and a slot that waits longer costs nothing.

use std::time::Duration;

use tower_breaker::control::{Command, Effect, Signal};
use tower_breaker::{CircuitState, Reason};

use super::Time;
use super::circuit::{Accepted, Action, Follower, Local};
use super::known::Known;
use crate::record::CircuitRecord;
use crate::store::{LeaseReply, ProbeOutcome};

/// How long the first lease waits for a call.
pub(super) const RESERVATION: Duration = Duration::from_millis(500);

/// The longest time that a lease waits for a call.
const LONGEST_RESERVATION: Duration = Duration::from_secs(8);

/// The largest weight of a reservation. A weight of 1 means that the probe has begun.
const MAX_RESERVATION: f64 = 0.99;

/// The requests of many processes are spread by this time for each member, and at most by
/// [`MAX_SPREAD`].
///
/// The first requests get the slots, whatever the spread is. The others come while these probes
/// run, and most of them are then not sent: a database would be too slow for all of them at once.
const SPREAD: Duration = Duration::from_millis(1);

const MAX_SPREAD: Duration = Duration::from_secs(1);

/// The store rounds times to milliseconds. A request comes this much later, so that it is not
/// early.
pub(super) const ROUNDING: Duration = Duration::from_millis(1);

/// How long a request waits after the store has lost its data.
const AFTER_LOSS: Duration = Duration::from_millis(50);

/// The probe of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    None,
    /// The process has a lease, and no call has begun.
    Reserved {
        epoch: u64,
        until: Time,
    },
    /// The probe runs.
    Running {
        epoch: u64,
        until: Time,
        reserved_until: Time,
    },
    /// The outcome is on its way to the store.
    Completing,
    /// A success without a probe is on its way to the store.
    Vouching,
}

impl Probe {
    pub(super) fn deadline(self) -> Option<Time> {
        match self {
            Self::Reserved { until, .. } | Self::Running { until, .. } => Some(until),
            Self::None | Self::Completing | Self::Vouching => None,
        }
    }
}

impl Follower {
    /// A new epoch has begun: leases of the last one are over.
    pub(super) fn end_probe(&mut self) {
        self.probe = Probe::None;
        (self.ask_at, self.not_before, self.reservation) = (None, Time::ZERO, RESERVATION);
    }

    /// Returns the epoch of a lease that no call has used yet.
    pub(crate) fn reserved_epoch(&self) -> Option<u64> {
        match self.probe {
            Probe::Reserved { epoch, .. } => Some(epoch),
            Probe::None | Probe::Running { .. } | Probe::Completing | Probe::Vouching => None,
        }
    }

    pub(crate) fn on_demand_signal(&mut self, now: Time) {
        self.demand = true;
        self.schedule_ask(now);
    }

    /// Schedules a request for a lease, if the fleet is not closed.
    pub(super) fn schedule_ask(&mut self, now: Time) {
        let Some(known) = self.known.as_ref().filter(|known| known.is_unclosed(now)) else { return };
        let Some(until) = known.until() else { return };
        if self.probe != Probe::None || !self.attached {
            return;
        }
        let earliest = now.max(until + ROUNDING).max(self.not_before);
        let spread = (SPREAD * self.members.count).min(MAX_SPREAD);
        let at = earliest + spread.mul_f64(self.random.f64());
        self.ask_at = Some(self.ask_at.map_or(at, |other| other.min(at)));
    }

    /// Schedules a request for a lease if there is demand and none is scheduled.
    ///
    /// A request can be dropped: for example, an override of the process is in force when the
    /// request is due. The signal of the demand is not sent again.
    pub(super) fn schedule_missing_ask(&mut self, now: Time) {
        if self.demand && self.ask_at.is_none() && !self.asking {
            self.schedule_ask(now);
        }
    }

    /// Whether the circuit has closed by its own probes since the fleet opened it, which happens
    /// while the store is away.
    ///
    /// Such a process reports a success without another probe, so that the fleet closes, too. It
    /// does not open its circuit again, unless the open time of a later decision is not over.
    pub(super) fn can_vouch(&self, now: Time, local: &Local) -> bool {
        let Some(opened) = self.opened else { return false };
        let reason = local.status.last_transition.as_ref().map(|transition| transition.reason);
        Self::may_probe(local)
            && local.status.state == CircuitState::Closed
            && reason == Some(Reason::ProbesSucceeded)
            && local.status.lasted < now.saturating_sub(opened.at)
            && self.known.as_ref().is_some_and(|known| known.is_time_over(now))
    }

    fn can_ask(&self, now: Time, local: &Local) -> bool {
        let is_over = |known: &Known| known.is_unclosed(now) && known.is_time_over(now);
        let waits = matches!(local.status.state, CircuitState::Open | CircuitState::HalfOpen);
        let is_useful = (self.demand && waits && Self::may_probe(local)) || self.can_vouch(now, local);
        let is_idle = self.probe == Probe::None && !self.asking && self.attached;
        is_idle && is_useful && self.known.as_ref().is_some_and(is_over)
    }

    /// The probability that a call begins within the reservation, from the calls before the fleet
    /// opened the circuit and the rejected calls since.
    ///
    /// The few calls since then alone would show too high a rate: only a process with a rejected
    /// call asks.
    fn weight(&self, now: Time, local: &Local) -> f64 {
        if local.status.state == CircuitState::Closed {
            return 1.0;
        }
        let opened = self.opened.unwrap_or_default();
        let rejected = local.status.rejected_calls.saturating_sub(opened.rejected).max(1);
        let elapsed = opened.counted_for + now.saturating_sub(opened.at).max(RESERVATION);
        let rate = (opened.calls + rejected) as f64 / elapsed.as_secs_f64();
        (self.reservation.as_secs_f64() * rate).min(MAX_RESERVATION)
    }

    pub(super) fn on_probe_timer(&mut self, now: Time, local: &Local, actions: &mut Vec<Action>) {
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = None;
            if self.can_ask(now, local) {
                self.asking = true;
                let lease = self.reservation;
                actions.push(Action::Ask { weight: self.weight(now, local), lease });
            }
        }
        match self.probe {
            Probe::Reserved { until, .. } if until <= now => {
                if has_begun_probe(local) {
                    self.on_probe_started(now, local, actions);
                } else {
                    self.repeat_reservation(now, actions);
                }
            }
            // The outcome would come too late.
            Probe::Running { until, .. } if until <= now => {
                self.probe = Probe::None;
                self.wait_for_demand(now, actions);
            }
            _ => {}
        }
    }

    /// Gives an unused reservation back, and asks for a longer one a little later.
    ///
    /// The circuit stays half-open without a slot meanwhile, so that it has no transition for each
    /// reservation.
    fn repeat_reservation(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Probe::Reserved { epoch, .. } = self.probe else { return };
        self.probe = Probe::None;
        actions.push(Action::GiveBack { epoch });
        self.reservation = (self.reservation * 2).min(LONGEST_RESERVATION);
        self.not_before = now + RESERVATION.mul_f64(self.random.f64());
        self.schedule_ask(now);
    }

    /// Gives an unused reservation back, and waits for the next rejected call.
    fn withdraw(&mut self, now: Time, actions: &mut Vec<Action>) {
        let Probe::Reserved { epoch, .. } = self.probe else { return };
        self.probe = Probe::None;
        actions.push(Action::GiveBack { epoch });
        self.wait_for_demand(now, actions);
    }

    fn wait_for_demand(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.demand = false;
        actions.push(Action::Rearm(Signal::Demand));
        if self.known.as_ref().is_some_and(|known| known.is_unclosed(now)) {
            self.hold(now, actions);
        }
    }

    /// Gives the lease back if the local circuit has left the half-open state by itself.
    pub(super) fn withdraw_unless_half_open(&mut self, local: &Local, actions: &mut Vec<Action>) {
        if local.status.state == CircuitState::HalfOpen {
            return;
        }
        match self.probe {
            Probe::Reserved { epoch, .. } => actions.push(Action::GiveBack { epoch }),
            Probe::Running { epoch, .. } => {
                actions.push(Action::Complete { epoch, outcome: ProbeOutcome::Neutral });
            }
            Probe::None | Probe::Completing | Probe::Vouching => return,
        }
        self.probe = Probe::None;
    }

    /// The reply to [`Action::Ask`].
    pub(crate) fn on_lease_reply(
        &mut self,
        now: Time,
        reply: &LeaseReply,
        local: &Local,
        actions: &mut Vec<Action>,
    ) {
        self.asking = false;
        if !reply.granted {
            return self.on_lease_refused(now, reply, local, actions);
        }
        match self.accept(now, &reply.record, local) {
            Accepted::Old => return,
            Accepted::New => self.end_probe(),
            Accepted::Known => {}
        }
        let epoch = reply.record.epoch;
        match local.status.state {
            CircuitState::Open | CircuitState::HalfOpen => {
                let start_within = self.reservation;
                self.probe = Probe::Reserved { epoch, until: now + start_within };
                let takeover = self.tuning.takeover.mul_f64(1.0 + self.random.f64());
                let remaining = start_within + 2 * local.config.probe_lease() + takeover;
                actions.push(Action::Apply(Command::Probe { start_within, remaining }));
            }
            _ if self.can_vouch(now, local) => {
                self.probe = Probe::Vouching;
                actions.push(Action::Complete { epoch, outcome: ProbeOutcome::Success });
            }
            _ => {
                actions.push(Action::GiveBack { epoch });
                if self.forced.is_some() {
                    // The store has lost the override.
                    self.follow(now, true, local, actions);
                }
            }
        }
    }

    fn on_lease_refused(&mut self, now: Time, reply: &LeaseReply, local: &Local, actions: &mut Vec<Action>) {
        // The time of the first free slot is the same for all processes, and there are more of them
        // than slots.
        let retry_after = reply.retry_after.max(RESERVATION.mul_f64(0.5 + 0.5 * self.random.f64()));
        self.not_before = now + retry_after + ROUNDING;
        self.reservation = RESERVATION;
        let known = self.known.as_ref().map_or(0, Known::epoch);
        if reply.record.epoch < known {
            // The store has lost its data. A message with the known record comes first.
            self.not_before = now + AFTER_LOSS;
            actions.push(Action::Sync);
        } else if self.known.as_ref().is_some_and(|known| known.is_of(&reply.record, now)) {
            self.accept(now, &reply.record, local);
        } else {
            return self.on_record(now, &reply.record, local, actions);
        }
        if local.status.state == CircuitState::HalfOpen {
            self.hold(now, actions);
        }
        if self.demand {
            self.schedule_ask(now);
        }
    }

    /// The reply to [`Action::Extend`]. The probe runs in any case.
    pub(crate) fn on_extended(
        &mut self,
        now: Time,
        reply: &LeaseReply,
        local: &Local,
        actions: &mut Vec<Action>,
    ) {
        if self.known.as_ref().is_some_and(|known| known.epoch() < reply.record.epoch) {
            self.on_record(now, &reply.record, local, actions);
        }
    }

    /// The reply to [`Action::Complete`].
    pub(crate) fn on_completed(
        &mut self,
        now: Time,
        record: &CircuitRecord,
        local: &Local,
        actions: &mut Vec<Action>,
    ) {
        self.on_record(now, record, local, actions);
        // The store has lost the epoch.
        if matches!(self.probe, Probe::Completing | Probe::Vouching) {
            self.on_slot_free(now, actions);
            actions.push(Action::Sync);
        }
    }

    /// The circuit has replied to [`Command::Probe`].
    pub(crate) fn on_probe_applied(&mut self, effect: Effect, actions: &mut Vec<Action>) {
        if let (Effect::Unchanged | Effect::Overridden(_), Probe::Reserved { epoch, .. }) =
            (effect, self.probe)
        {
            self.probe = Probe::None;
            actions.push(Action::GiveBack { epoch });
        }
    }

    pub(crate) fn on_probe_started(&mut self, now: Time, local: &Local, actions: &mut Vec<Action>) {
        let Probe::Reserved { epoch, until: reserved_until } = self.probe else { return };
        let lease = local.config.probe_lease();
        // The store counts an outcome up to one lease late.
        self.probe = Probe::Running { epoch, until: now + 2 * lease, reserved_until };
        actions.push(Action::Extend { lease });
    }

    pub(crate) fn on_probe_completed(
        &mut self,
        now: Time,
        outcome: ProbeOutcome,
        local: &Local,
        actions: &mut Vec<Action>,
    ) {
        let (epoch, reserved_until) = match self.probe {
            Probe::Running { epoch, reserved_until, .. } => (epoch, reserved_until),
            Probe::Reserved { epoch, until } => (epoch, until),
            Probe::None | Probe::Completing | Probe::Vouching => return,
        };
        // The circuit admits another call as the probe, within the same reservation.
        let is_admitting = local.status.state == CircuitState::HalfOpen && now < reserved_until;
        if outcome == ProbeOutcome::Neutral && is_admitting {
            self.probe = Probe::Reserved { epoch, until: reserved_until };
            return;
        }
        // This process has calls, so it is a good candidate for the next probe.
        self.demand = true;
        if self.attached {
            self.probe = Probe::Completing;
            actions.push(Action::Complete { epoch, outcome });
        } else {
            self.probe = Probe::None;
            self.hold(now, actions);
        }
    }

    /// A slot of the current epoch is free, or the outcome of this process's own probe decided
    /// nothing.
    pub(super) fn on_slot_free(&mut self, now: Time, actions: &mut Vec<Action>) {
        let is_vouching = self.probe == Probe::Vouching;
        match self.probe {
            Probe::Completing => {
                self.probe = Probe::None;
                actions.push(Action::Rearm(Signal::Demand));
                self.hold(now, actions);
            }
            Probe::Vouching => self.probe = Probe::None,
            Probe::None | Probe::Reserved { .. } | Probe::Running { .. } => {}
        }
        self.not_before = Time::ZERO;
        if self.demand || is_vouching {
            self.schedule_ask(now);
        }
    }

    pub(crate) fn on_slots_taken(
        &mut self,
        now: Time,
        (epoch, retry_after): (u64, Duration),
        local: &Local,
        actions: &mut Vec<Action>,
    ) {
        let Some(known) = &self.known else { return };
        if epoch > known.epoch() {
            actions.push(Action::Sync);
        }
        if epoch != known.epoch() || !known.is_unclosed(now) {
            return;
        }
        self.not_before = now + retry_after;
        self.ask_at = None;
        if has_begun_probe(local) {
            self.on_probe_started(now, local, actions);
        }
        // The slots are taken by probes that have begun: this process must not begin another one.
        self.withdraw(now, actions);
        if self.demand {
            self.schedule_ask(now);
        }
    }
}

/// Whether a probe runs. Its signal may still be on its way to the agent.
fn has_begun_probe(local: &Local) -> bool {
    local.status.half_open.is_some_and(|round| round.running_probes > 0)
}

#[cfg(test)]
mod tests {
    use tower_breaker::{BreakerConfig, Circuit, Clock, ManualClock, Verdict};

    use super::super::circuit::{Forced, Opening, Tuning};
    use super::*;
    use crate::record::{FleetState, Override};

    const OPEN_TIME: Duration = Duration::from_secs(4);

    fn circuit() -> (Circuit, ManualClock) {
        let (clock, time) = Clock::manual();
        let config = BreakerConfig::builder().clock(clock).time_window(Duration::from_secs(10));
        (Circuit::new(config.build().unwrap()), time)
    }

    fn local(circuit: &Circuit) -> Local {
        Local { status: circuit.status(), config: circuit.config(), overrides: 0 }
    }

    fn follower() -> Follower {
        let tuning = Tuning {
            silence: Duration::from_secs(7),
            takeover: Duration::from_secs(2),
            max_open: Duration::from_secs(600),
            sums_failures: false,
        };
        Follower::new(tuning, fastrand::Rng::with_seed(1))
    }

    /// Returns the weight of a process with one rejected call, [`OPEN_TIME`] after the opening.
    fn weight_after(opening: Opening, circuit: &Circuit, time: &ManualClock) -> f64 {
        let mut follower = follower();
        follower.opened = Some(opening);
        circuit.trip().unwrap();
        assert!(circuit.try_acquire().is_err());
        time.advance(OPEN_TIME);
        follower.weight(opening.at + OPEN_TIME, &local(circuit))
    }

    #[test]
    fn weight_is_the_rate_of_calls_before_and_after_the_opening() {
        let (circuit, time) = circuit();
        time.advance(Duration::from_secs(60));
        circuit.record(Verdict::Success);
        let opening = Opening::of(&local(&circuit), Duration::from_secs(60));
        // Two calls in 14 s, and a reservation of 0.5 s.
        let weight = weight_after(opening, &circuit, &time);
        assert!((weight - 0.5 * 2.0 / 14.0).abs() < 1e-9, "{weight}");
    }

    #[test]
    fn weight_of_a_young_process_does_not_count_the_time_before_it_began() {
        let (circuit, time) = circuit();
        time.advance(Duration::from_secs(1));
        circuit.record(Verdict::Success);
        let opening = Opening::of(&local(&circuit), Duration::from_secs(1));
        let weight = weight_after(opening, &circuit, &time);
        assert!((weight - 0.5 * 2.0 / 5.0).abs() < 1e-9, "{weight}");
    }

    #[test]
    fn weight_of_a_busy_process_is_almost_a_slot() {
        let (circuit, time) = circuit();
        time.advance(Duration::from_secs(60));
        (0..100).for_each(|_| circuit.record(Verdict::Success));
        let opening = Opening::of(&local(&circuit), Duration::from_secs(60));
        assert!((weight_after(opening, &circuit, &time) - MAX_RESERVATION).abs() < 1e-9);
    }

    #[test]
    fn taken_slots_do_not_withdraw_a_probe_whose_signal_is_on_its_way() {
        for has_begun in [false, true] {
            let (circuit, _) = circuit();
            let (mut follower, mut actions) = (follower(), Vec::new());
            follower.on_attached();
            let half_open = CircuitRecord {
                epoch: 7,
                state: FleetState::HalfOpen,
                remaining: Some(RESERVATION),
                ..CircuitRecord::default()
            };
            follower.on_record(Time::ZERO, &half_open, &local(&circuit), &mut actions);
            circuit.trip().unwrap();
            let granted = LeaseReply { granted: true, retry_after: Duration::ZERO, record: half_open };
            follower.on_lease_reply(Time::ZERO, &granted, &local(&circuit), &mut actions);
            let Some(Action::Apply(probe)) = actions.pop() else { panic!("no probe: {actions:?}") };
            circuit.apply(probe);
            let call = has_begun.then(|| circuit.try_acquire().unwrap());
            actions.clear();
            follower.on_slots_taken(Time::ZERO, (7, OPEN_TIME), &local(&circuit), &mut actions);
            let is_withdrawn = actions.iter().any(|action| matches!(action, Action::GiveBack { .. }));
            assert_eq!(is_withdrawn, !has_begun, "{actions:?}");
            assert_eq!(matches!(follower.probe, Probe::Running { .. }), has_begun);
            drop(call);
        }
    }

    #[test]
    fn lease_of_a_later_epoch_releases_an_override_that_the_store_has_lost() {
        let (circuit, _) = circuit();
        let (mut follower, mut actions) = (follower(), Vec::new());
        let forced =
            CircuitRecord { epoch: 7, manual: Some(Override::ForcedOpen), ..CircuitRecord::default() };
        follower.on_record(Time::ZERO, &forced, &local(&circuit), &mut actions);
        circuit.force_open().unwrap();
        let transition = circuit.status().last_transition.unwrap();
        follower.on_forced(Some(Forced { epoch: transition.epoch, count: 0 }));
        actions.clear();
        let record = CircuitRecord { epoch: 8, state: FleetState::HalfOpen, ..CircuitRecord::default() };
        let granted = LeaseReply { granted: true, retry_after: Duration::ZERO, record };
        follower.on_lease_reply(Time::ZERO, &granted, &local(&circuit), &mut actions);
        assert!(actions.contains(&Action::GiveBack { epoch: 8 }), "{actions:?}");
        assert!(actions.contains(&Action::Release), "{actions:?}");
    }
}
