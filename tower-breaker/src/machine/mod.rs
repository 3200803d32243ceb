//! The decisions of a circuit, as plain functions.
//!
//! ```text
//!                  too many failures
//!      ┌────────┐ ───────────────────► ┌────────┐
//!      │ closed │                      │  open  │ ◄─┐
//!      └────────┘ ◄──┐                 └────────┘   │
//!                    │  enough             │        │ a probe
//!                    │  probes             │ time   │ failed
//!                    │  succeeded          ▼ over   │
//!                    │               ┌───────────┐  │
//!                    └────────────── │ half-open │ ─┘
//!                                    └───────────┘
//! ```
//!
//! The closed state may begin with a slow start, which admits a growing share of the calls, or a
//! growing number of concurrent calls. From every state except disabled, the circuit can be forced
//! open or forced closed, until it is released or for a time. Afterwards it is half-open, closed or
//! disabled.
//!
//! A decision is a function of the state, the event, the time and the limits. This module has no
//! clock, no atomics and no locks, and does not allocate during a call. `circuit/` stores the
//! state, makes it concurrent, and calls these functions.
//!
//! Times are nanoseconds on the circuit's clock.

mod command;
mod control;
mod count_window;
mod half_open;
mod limits;
mod open_duration;
mod slow_start;
mod snapshot;
mod state;
mod trip;

pub(crate) use command::retry_in;
pub(crate) use count_window::CountWindow;
pub(crate) use half_open::Ticket;
pub use limits::CancelledPolicy;
pub(crate) use limits::{RecoveryLimits, SlowCallLimits, SlowStartKind, TripLimits, WindowShape};
pub(crate) use open_duration::{OpenDuration, SavedStreak};
pub(crate) use snapshot::Saved;
pub(crate) use trip::{
    CancelledRun, Sample, failures_until_rate, may_reach_slow_rate, min_failures_for_rate, trip_reason,
};

pub use state::{CircuitState, Counts, HalfOpen, HealthReport, Reason};

use core::mem;
use core::time::Duration;

use half_open::ProbeRound;
use open_duration::OpenStreak;
use slow_start::{SlowStart, SlowStartStep};
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

use crate::control::{ProbeOutcome, Signal};

/// The state of a circuit, without its consecutive failures and its window, which `circuit/`
/// stores.
#[derive(Debug)]
pub(crate) struct Machine {
    state: StateData,
    streak: OpenStreak,
    /// Whether the configuration disables the circuit. Applies while the circuit is not forced.
    disabled: bool,
    /// How many manual overrides were set.
    overrides: u32,
    /// The round of probes that the last change has ended, until it is reported.
    ended_round: Option<ProbeRound>,
    /// The signal of the last decision on the probe of a coordinator, until it is sent.
    signal: Option<Signal>,
}

#[derive(Debug)]
enum StateData {
    Closed {
        slow_start: Option<SlowStart>,
    },
    Open {
        /// The end of the open time. `None`: it ends when the circuit is reset.
        until: Option<u64>,
        /// The last nanoseconds of the open time, in which the coordinator that opened the circuit
        /// may decide. 0: no coordinator opened it.
        takeover: u64,
    },
    HalfOpen(ProbeRound),
    Forced {
        force: Force,
        /// The end of the manual override. `None`: it ends when it is released. The configured mode
        /// has no end.
        until: Option<u64>,
    },
}

/// A manual override, or the configured mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    Open,
    Closed,
    Disabled,
}

/// The time of a decision, and a uniformly random number from 0 to 1 for the jitter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: u64,
    pub(crate) draw: f64,
}

/// The state in the form that is published for calls that do not take the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed {
        slow_start: bool,
    },
    /// Rejects calls until this time. Callers should retry this many nanoseconds before: see
    /// [`retry_in`].
    OpenUntil {
        until: u64,
        takeover: u64,
    },
    /// Rejects calls. The first call after the end of a manual override ends it under the lock;
    /// otherwise the circuit must be reset or released.
    OpenIndefinitely,
    HalfOpen,
    /// Admits all calls and counts none.
    Bypassed,
    /// Admits all calls and counts none, until the manual override ends at this time.
    BypassedUntil(u64),
}

/// How a slow start counts a poll of a service's readiness.
///
/// A slow start by time admits a share of the calls, so each call must be counted exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The poll is not counted: the call is counted when it begins.
    AtCall,
    /// The poll is counted as the arrival of a call.
    Now,
    /// The poll is not counted: the call arrived before, and has been waiting since.
    Again,
}

/// The decision on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The circuit is closed and admits the call.
    Admitted,
    /// The circuit is closed and admits the call, which holds a slot of the slow start since this
    /// time.
    AdmittedWithSlot(u64),
    /// The call is a probe and holds this slot.
    Probe(Ticket),
    /// The call is admitted and is not counted.
    Uncounted,
    /// The call is rejected. The circuit admits a call after this many nanoseconds at the latest.
    /// `None`: it must be reset or released first.
    Denied(Option<u64>),
}

/// The effect of a manual operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The circuit is in the requested state already.
    Unchanged,
    /// The state has another deadline, and is the same otherwise: there is no transition.
    Retimed,
    Changed(Change),
}

impl From<Option<Change>> for Effect {
    fn from(change: Option<Change>) -> Self {
        change.map_or(Self::Unchanged, Self::Changed)
    }
}

/// A change of the state, which `circuit/` applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    pub(crate) reason: Reason,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            state: StateData::Closed { slow_start: None },
            streak: OpenStreak::default(),
            disabled: false,
            overrides: 0,
            ended_round: None,
            signal: None,
        }
    }

    /// Returns the state of the circuit.
    pub(crate) const fn state(&self) -> CircuitState {
        match self.state {
            StateData::Closed { .. } => CircuitState::Closed,
            StateData::Open { .. } => CircuitState::Open,
            StateData::HalfOpen(_) => CircuitState::HalfOpen,
            StateData::Forced { force: Force::Open, .. } => CircuitState::ForcedOpen,
            StateData::Forced { force: Force::Closed, .. } => CircuitState::ForcedClosed,
            StateData::Forced { force: Force::Disabled, .. } => CircuitState::Disabled,
        }
    }

    pub(crate) const fn published_state(&self) -> State {
        match self.state {
            StateData::Closed { ref slow_start } => State::Closed { slow_start: slow_start.is_some() },
            StateData::Open { until: Some(until), takeover } => State::OpenUntil { until, takeover },
            StateData::Open { until: None, .. } | StateData::Forced { force: Force::Open, .. } => {
                State::OpenIndefinitely
            }
            StateData::HalfOpen(_) => State::HalfOpen,
            StateData::Forced { until: Some(until), .. } => State::BypassedUntil(until),
            StateData::Forced { until: None, .. } => State::Bypassed,
        }
    }

    /// Returns for how many nanoseconds the circuit stays open or forced open, without the time
    /// that belongs to its coordinator. 0: the next call changes the state, or the coordinator may.
    /// `None`: the circuit is neither, or it must be reset or released.
    pub(crate) fn open_remaining(&self, now: u64) -> Option<u64> {
        match self.state {
            StateData::Open { until, takeover } => Some((until? - takeover).saturating_sub(now)),
            StateData::Forced { force: Force::Open, until } => Some(until?.saturating_sub(now)),
            _ => None,
        }
    }

    /// Returns the progress of a slow start, 0 to 1. `None`: there is no slow start.
    pub(crate) fn slow_start_share(&self, now: u64) -> Option<f64> {
        self.slow_start().map(|slow_start| slow_start.share(now))
    }

    /// Returns whether a slow start is in use, so that an idle circuit must be kept.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_in_slow_start(&self, now: u64) -> bool {
        self.slow_start().is_some_and(|slow_start| slow_start.is_in_use(now))
    }

    const fn slow_start(&self) -> Option<&SlowStart> {
        match &self.state {
            StateData::Closed { slow_start } => slow_start.as_ref(),
            _ => None,
        }
    }

    /// Returns the progress of a half-open circuit. `None`: it is not half-open.
    pub(crate) fn half_open_progress(&self, now: u64, limits: &RecoveryLimits) -> Option<HalfOpen> {
        let StateData::HalfOpen(round) = &self.state else { return None };
        Some(round.progress(now, limits))
    }

    /// Returns the progress of the round of probes that the last change has ended. `None`: the
    /// circuit was not half-open before the change, or this method was called since.
    pub(crate) fn take_ended_round(&mut self, now: u64, limits: &RecoveryLimits) -> Option<HalfOpen> {
        Some(self.ended_round.take()?.progress(now, limits))
    }

    /// Decides on a call that is about to begin. A manual override whose time is over ends. An open
    /// circuit whose open time is over half-opens, and the call is its first probe.
    pub(crate) fn admit(&mut self, now: u64, limits: &RecoveryLimits) -> (Decision, Option<Change>) {
        if let Some(ended) = self.end_override(now, limits) {
            return (self.admit(now, limits).0, Some(ended));
        }
        self.end_lead(now, limits);
        let decision = match &mut self.state {
            StateData::Closed { slow_start } => admit_closed(slow_start, |slow_start| slow_start.admit(now)),
            StateData::Open { until: Some(until), .. } if now >= *until => {
                let change = self.half_open(limits, Reason::OpenTimeOver);
                return (self.admit(now, limits).0, Some(change));
            }
            StateData::Open { until, takeover } => {
                Decision::Denied(until.map(|until| retry_in(until - now, *takeover)))
            }
            StateData::Forced { force: Force::Open, until } => {
                Decision::Denied(until.map(|until| until - now))
            }
            StateData::HalfOpen(round) => match round.admit(now, limits.probe_lease) {
                Ok(ticket) => {
                    self.signal = round.is_led(now).then_some(Signal::ProbeStarted);
                    Decision::Probe(ticket)
                }
                Err(left) => Decision::Denied(Some(left)),
            },
            StateData::Forced { force: Force::Closed | Force::Disabled, .. } => Decision::Uncounted,
        };
        (decision, None)
    }

    /// Decides whether a call that begins now would be admitted. `Err`: it would be rejected; the
    /// circuit admits a call after this many nanoseconds at the latest. `Err(None)`: it must be
    /// reset or released first.
    ///
    /// `arrival` says how a slow start counts a rejection. Nothing else changes.
    #[cfg(feature = "tokio")]
    pub(crate) fn would_admit(
        &mut self,
        now: u64,
        arrival: Arrival,
        limits: &RecoveryLimits,
    ) -> Result<(), Option<u64>> {
        self.end_lead(now, limits);
        match &mut self.state {
            StateData::Closed { slow_start: Some(slow_start) } => {
                slow_start.would_admit(now, arrival).map_err(Some)
            }
            StateData::Open { until, takeover } => match until {
                Some(until) if now >= *until => Ok(()),
                _ => Err(until.map(|until| retry_in(until - now, *takeover))),
            },
            StateData::Forced { force: Force::Open, until } => match until {
                Some(until) if now >= *until => Ok(()),
                _ => Err(until.map(|until| until - now)),
            },
            StateData::HalfOpen(round) => round.free_slot(now).map(|_| ()).map_err(Some),
            StateData::Closed { slow_start: None }
            | StateData::Forced { force: Force::Closed | Force::Disabled, .. } => Ok(()),
        }
    }

    /// Half-opens an open circuit whose open time is over.
    pub(crate) fn half_open_if_due(&mut self, now: u64, limits: &RecoveryLimits) -> Option<Change> {
        match self.state {
            StateData::Open { until: Some(until), .. } if now >= until => {
                Some(self.half_open(limits, Reason::OpenTimeOver))
            }
            _ => None,
        }
    }

    /// Decides on a call whose service is polled for readiness. `arrival` says how a slow start
    /// counts the poll.
    pub(crate) fn reserve(
        &mut self,
        now: u64,
        arrival: Arrival,
        limits: &RecoveryLimits,
    ) -> (Decision, Option<Change>) {
        if let Some(ended) = self.end_override(now, limits) {
            return (self.reserve(now, arrival, limits).0, Some(ended));
        }
        let decision = match (&mut self.state, arrival) {
            (StateData::Closed { .. }, Arrival::AtCall) => Decision::Uncounted,
            (StateData::Closed { slow_start }, Arrival::Again) => {
                admit_closed(slow_start, |slow_start| slow_start.admit_waiting(now))
            }
            _ => return self.admit(now, limits),
        };
        (decision, None)
    }

    /// Refunds the credit of a call without a slot that a slow start admitted and that did not
    /// begin.
    pub(crate) fn refund_slow_start(&mut self, now: u64) {
        if let StateData::Closed { slow_start: Some(slow_start) } = &mut self.state {
            slow_start.refund(now);
        }
    }

    /// Returns whether a call that was admitted with a slot at the time `from` may begin: it still
    /// holds the slot, or the slow start is over.
    pub(crate) fn holds_slow_start_slot(&self, from: u64) -> bool {
        self.slow_start().is_none_or(|slow_start| slow_start.holds_slot(from))
    }

    /// Releases the slot of a call that was admitted with a slot at the time `from`. `success`
    /// raises the limit of the slow start, and may end it.
    pub(crate) fn release_slow_start_slot(&mut self, from: u64, success: bool) {
        if let StateData::Closed { slow_start } = &mut self.state
            && slow_start.as_mut().is_some_and(|slow_start| slow_start.release_slot(from, success))
        {
            *slow_start = None;
        }
    }

    /// Opens a closed circuit. `None`: the circuit is not closed any more.
    pub(crate) fn trip(
        &mut self,
        reason: Reason,
        fault: Option<&Fault>,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        match self.state {
            StateData::Closed { .. } => Some(self.open(reason, fault, at, limits)),
            _ => None,
        }
    }

    /// Records the outcome of a probe of the current round. If a coordinator leads the round, the
    /// outcome is only signalled.
    pub(crate) fn record_probe(
        &mut self,
        ticket: Ticket,
        outcome: Outcome<'_>,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        let StateData::HalfOpen(round) = &mut self.state else { return None };
        if !round.is_led(at.now) {
            round.release_probe(ticket);
            return self.record_unadmitted(outcome, at, limits);
        }
        let held = round.release_probe(ticket);
        let (outcome, is_sent) = match outcome {
            Outcome::Success => (ProbeOutcome::Success, round.complete()),
            Outcome::Failure(_) | Outcome::Slow => (ProbeOutcome::Failure, round.complete()),
            // If the ticket does not hold the slot any more, another probe may.
            Outcome::Answered | Outcome::Neutral => (ProbeOutcome::Neutral, held),
        };
        self.signal = is_sent.then_some(Signal::ProbeCompleted(outcome));
        None
    }

    /// Records the outcome of a call that holds no slot. In the half-open state, it counts as the
    /// outcome of a probe, unless a coordinator leads the round.
    pub(crate) fn record_unadmitted(
        &mut self,
        outcome: Outcome<'_>,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        self.end_lead(at.now, limits);
        let StateData::HalfOpen(round) = &mut self.state else { return None };
        if round.is_led(at.now) {
            return None;
        }
        match outcome {
            Outcome::Neutral => None,
            Outcome::Answered => {
                round.record_completed();
                None
            }
            Outcome::Failure(fault) => Some(self.open(Reason::ProbeFailed, Some(fault), at, limits)),
            Outcome::Slow => Some(self.open(Reason::ProbeSlow, None, at, limits)),
            Outcome::Success => {
                let successes = round.record_success();
                (successes >= limits.successes_to_close).then(|| {
                    self.streak.closed(at.now);
                    let slow_start = SlowStart::new(at.now, limits);
                    self.transition_to(StateData::Closed { slow_start }, Reason::ProbesSucceeded)
                })
            }
        }
    }

    /// Records a cancelled probe. If `most` probes were cancelled since the last completed probe,
    /// the server is assumed to hang, and the circuit opens.
    pub(crate) fn record_cancelled_probe(
        &mut self,
        ticket: Ticket,
        most: u32,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        if self.is_led(at.now) {
            return self.record_probe(ticket, Outcome::Neutral, at, limits);
        }
        self.end_lead(at.now, limits);
        let StateData::HalfOpen(round) = &mut self.state else { return None };
        round.release_probe(ticket);
        round.record_cancelled(most).then(|| self.open(Reason::NoneCompletes, None, at, limits))
    }

    /// Frees the slot of a probe that did not begin, or whose outcome does not count.
    pub(crate) fn release_probe(&mut self, ticket: Ticket, now: u64) {
        if let StateData::HalfOpen(round) = &mut self.state
            && round.release_probe(ticket)
            && round.is_led(now)
        {
            self.signal = Some(Signal::ProbeCompleted(ProbeOutcome::Neutral));
        }
    }

    /// Returns how long a probe of the current round has run at least: the time since its lease
    /// began, or the whole lease if another probe holds its slot now. `None`: the circuit is not
    /// half-open.
    pub(crate) fn probe_duration(&self, ticket: Ticket, now: u64, limits: &RecoveryLimits) -> Option<u64> {
        let StateData::HalfOpen(round) = &self.state else { return None };
        Some(round.lease_start(ticket).map_or(limits.probe_lease, |from| now.saturating_sub(from)))
    }

    /// Extends the lease of a probe that still holds its slot. Returns whether it does.
    pub(crate) fn renew(&mut self, ticket: Ticket, now: u64, limits: &RecoveryLimits) -> bool {
        match &mut self.state {
            StateData::HalfOpen(round) => round.renew(ticket, now, limits.probe_lease),
            _ => false,
        }
    }

    /// Returns when an unused open or half-open circuit becomes idle. `since` is when the state
    /// began.
    ///
    /// - An open circuit becomes idle after twice its open period.
    /// - A half-open circuit becomes idle after its last open period, or after the configured open
    ///   time if that is longer: before a first period, or after a manual override.
    /// - A circuit whose manual override has an end becomes idle as the circuit that it will be
    ///   then: half-open, or closed with an empty window.
    ///
    /// `None` for every other circuit: a circuit that is disabled, forced without an end, or open
    /// until it is reset never becomes idle; for a closed circuit its window decides.
    #[cfg(feature = "keyed")]
    pub(crate) fn idle_at(&self, since: u64, limits: &RecoveryLimits) -> Option<u64> {
        let half_open = self.streak.last_period().max(limits.open.initial);
        match self.state {
            StateData::Open { until, .. } => {
                let until = until?;
                Some(until.saturating_add(until.saturating_sub(since)))
            }
            StateData::HalfOpen(_) => Some(since.saturating_add(half_open)),
            StateData::Forced { .. } if self.disabled => None,
            StateData::Forced { force: Force::Open, until } => Some(until?.saturating_add(half_open)),
            StateData::Forced { until, .. } => until,
            StateData::Closed { .. } => None,
        }
    }

    fn open(&mut self, reason: Reason, fault: Option<&Fault>, at: Moment, limits: &RecoveryLimits) -> Change {
        let period = self.streak.next(&limits.open, at.now, at.draw, fault.and_then(server_delay));
        let until = period.map(|period| at.now.saturating_add(period));
        self.transition_to(StateData::Open { until, takeover: 0 }, reason)
    }

    fn half_open(&mut self, limits: &RecoveryLimits, reason: Reason) -> Change {
        self.transition_to(StateData::HalfOpen(ProbeRound::new(limits.probes)), reason)
    }

    fn close(&mut self, reason: Reason) -> Change {
        self.streak = OpenStreak::default();
        self.transition_to(StateData::Closed { slow_start: None }, reason)
    }

    fn transition_to(&mut self, to: StateData, reason: Reason) -> Change {
        let from = self.state();
        if let StateData::HalfOpen(round) = mem::replace(&mut self.state, to) {
            self.ended_round = Some(round);
        }
        Change { from, to: self.state(), reason }
    }
}

/// Decides on a call of a closed circuit. Ends a slow start whose time is over.
fn admit_closed(
    slow_start: &mut Option<SlowStart>,
    admit: impl FnOnce(&mut SlowStart) -> SlowStartStep,
) -> Decision {
    match slow_start.as_mut().map(admit) {
        None | Some(SlowStartStep::Admitted) => Decision::Admitted,
        Some(SlowStartStep::AdmittedWithSlot(from)) => Decision::AdmittedWithSlot(from),
        Some(SlowStartStep::Denied(left)) => Decision::Denied(Some(left)),
        Some(SlowStartStep::Finished) => {
            *slow_start = None;
            Decision::Admitted
        }
    }
}

/// Returns the delay that the server asked for. A delay from a layer on this side, in a rejection,
/// does not keep the circuit open.
fn server_delay(fault: &Fault) -> Option<Duration> {
    fault.retry_after().filter(|_| fault.kind() != Kind::Rejected)
}

/// The outcome of a call, as the circuit counts it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    Success,
    /// A success that took too long.
    Slow,
    Failure(&'a Fault),
    /// A neutral answer of the server: the call is completed, and counts in no rate.
    Answered,
    /// An outcome that shows nothing about the server.
    Neutral,
}

impl<'a> Outcome<'a> {
    /// Returns the outcome of a verdict, from its health and, if that is neutral, its origin.
    pub(crate) const fn of(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Success,
            Verdict::Fault(fault) => match fault.health() {
                Health::Healthy => Self::Success,
                Health::Unhealthy => Self::Failure(fault),
                _ if matches!(fault.origin(), Origin::Remote) => Self::Answered,
                _ => Self::Neutral,
            },
        }
    }
}

/// The fault of a cancelled call that counts as a failure.
pub(crate) const CANCELLED: Fault =
    Fault::new(Kind::Cancelled, Retryable::Never, Health::Unhealthy, Origin::Caller);

/// The fault of a call that its caller cancelled after the server had begun to answer. The call is
/// completed, and counts in no rate.
pub(crate) const CANCELLED_AFTER_ANSWER: Fault =
    Fault::new(Kind::Cancelled, Retryable::Never, Health::Neutral, Origin::Remote);

#[cfg(all(test, not(loom_models)))]
mod tests;
