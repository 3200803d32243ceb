//! Every decision of the circuit, and nothing else.
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
//! Closed may begin with a slow start, which admits a growing share of the calls. From every state
//! the circuit can be forced open or closed; once released, it is half-open or closed.
//!
//! A decision is a plain function of the state, what happened, the time and the limits. There is no clock here, no atomic, no
//! lock and no allocation on the way of a call: `circuit/` stores the state and makes it concurrent, and asks here what to
//! do. Times are nanoseconds on the circuit's clock.

mod count_window;
mod half_open;
mod limits;
mod open_duration;
mod slow_start;
mod state;
mod trip;

pub(crate) use count_window::CountWindow;
pub(crate) use half_open::Ticket;
pub use limits::CancelledPolicy;
pub(crate) use limits::{RecoveryLimits, SlowCallLimits, TripLimits, WindowShape};
pub(crate) use open_duration::OpenDuration;
pub(crate) use trip::{Sample, may_reach_slow_rate, min_failures_for_rate, none_completes, trip_reason};

pub use state::{CircuitState, Counts, HealthReport, Reason};

use core::time::Duration;

use half_open::ProbeRound;
use open_duration::OpenStreak;
use slow_start::{SlowStart, SlowStartStep};
use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

/// The state of a circuit, without the consecutive failures and the window, which `circuit/` stores.
#[derive(Debug)]
pub(crate) struct Machine {
    state: StateData,
    streak: OpenStreak,
    /// The configured mode, which applies once the circuit is not forced.
    disabled: bool,
}

#[derive(Debug)]
enum StateData {
    Closed {
        slow_start: Option<SlowStart>,
    },
    /// `None`: until it is reset.
    Open {
        until: Option<u64>,
    },
    HalfOpen(ProbeRound),
    Forced(Force),
}

/// A manual override, or the configured mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    Open,
    Closed,
    Disabled,
}

/// The time of a decision, and a number drawn evenly from 0 to 1 for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: u64,
    pub(crate) draw: f64,
}

/// The state as it is published, for calls that do not take the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed {
        slow_start: bool,
    },
    OpenUntil(u64),
    /// Rejects calls until it is reset or released.
    OpenIndefinitely,
    HalfOpen,
    /// Admits calls and counts none.
    Bypassed,
}

/// How a service that asks whether it is ready counts in a slow start, whose share is one of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Not yet: the call is counted when it begins.
    AtCall,
    /// A call arrives now.
    Now,
    /// The call has arrived before, and waits.
    Again,
}

/// The decision on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The circuit is closed.
    Admitted,
    /// The call is a probe, and holds this slot.
    Probe(Ticket),
    /// The call is admitted, and is not counted.
    Uncounted,
    /// The call is denied for this many nanoseconds; `None`: until the circuit is reset or released.
    Denied(Option<u64>),
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
        Self { state: StateData::Closed { slow_start: None }, streak: OpenStreak::default(), disabled: false }
    }

    /// The state of the circuit.
    pub(crate) const fn state(&self) -> CircuitState {
        match self.state {
            StateData::Closed { .. } => CircuitState::Closed,
            StateData::Open { .. } => CircuitState::Open,
            StateData::HalfOpen(_) => CircuitState::HalfOpen,
            StateData::Forced(Force::Open) => CircuitState::ForcedOpen,
            StateData::Forced(Force::Closed) => CircuitState::ForcedClosed,
            StateData::Forced(Force::Disabled) => CircuitState::Disabled,
        }
    }

    pub(crate) const fn published_state(&self) -> State {
        match self.state {
            StateData::Closed { slow_start } => State::Closed { slow_start: slow_start.is_some() },
            StateData::Open { until: Some(until) } => State::OpenUntil(until),
            StateData::Open { until: None } | StateData::Forced(Force::Open) => State::OpenIndefinitely,
            StateData::HalfOpen(_) => State::HalfOpen,
            StateData::Forced(Force::Closed | Force::Disabled) => State::Bypassed,
        }
    }

    /// The share of calls that a slow start admits; `None`: there is no slow start.
    pub(crate) fn slow_start_share(&self, now: u64) -> Option<f64> {
        match &self.state {
            StateData::Closed { slow_start: Some(slow_start) } => Some(slow_start.share(now)),
            _ => None,
        }
    }

    /// Decides on a call that wants to begin. An open circuit whose time is over half-opens for it.
    pub(crate) fn admit(&mut self, now: u64, limits: &RecoveryLimits) -> (Decision, Option<Change>) {
        let admission = match &mut self.state {
            StateData::Closed { slow_start } => admit_closed(slow_start, |slow_start| slow_start.admit(now)),
            StateData::Open { until: None } | StateData::Forced(Force::Open) => Decision::Denied(None),
            StateData::Open { until: Some(until) } if now < *until => Decision::Denied(Some(*until - now)),
            StateData::Open { .. } => {
                let change = self.half_open(limits, Reason::OpenTimeOver);
                return (self.admit(now, limits).0, Some(change));
            }
            StateData::HalfOpen(round) => match round.admit(now, limits.probe_lease) {
                Ok(ticket) => Decision::Probe(ticket),
                Err(left) => Decision::Denied(Some(left)),
            },
            StateData::Forced(Force::Closed | Force::Disabled) => Decision::Uncounted,
        };
        (admission, None)
    }

    /// Decides on a call whose service is polled for readiness. `arrival` says whether a call that a
    /// closed circuit admits is counted in the slow start now.
    pub(crate) fn reserve(
        &mut self,
        now: u64,
        arrival: Arrival,
        limits: &RecoveryLimits,
    ) -> (Decision, Option<Change>) {
        let admission = match (&mut self.state, arrival) {
            (StateData::Closed { .. }, Arrival::AtCall) => Decision::Uncounted,
            (StateData::Closed { slow_start }, Arrival::Again) => {
                admit_closed(slow_start, |slow_start| slow_start.admit_waiting(now))
            }
            _ => return self.admit(now, limits),
        };
        (admission, None)
    }

    /// Refunds the admission of a call in a slow start that did not begin.
    pub(crate) fn refund_slow_start(&mut self, now: u64) {
        if let StateData::Closed { slow_start: Some(slow_start) } = &mut self.state {
            slow_start.refund(now);
        }
    }

    /// Opens a closed circuit. `None`: another thread was first.
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

    /// Records the outcome of a probe of this round.
    pub(crate) fn record_probe(
        &mut self,
        ticket: Ticket,
        outcome: Outcome<'_>,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        let StateData::HalfOpen(round) = &mut self.state else { return None };
        round.release_probe(ticket);
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
                    let slow_start = SlowStart::new(at.now, limits.slow_start);
                    self.transition_to(StateData::Closed { slow_start }, Reason::ProbesSucceeded)
                })
            }
        }
    }

    /// Records a cancelled probe. The server hangs if `most` probes were cancelled since the last
    /// completed probe.
    pub(crate) fn record_cancelled_probe(
        &mut self,
        ticket: Ticket,
        most: u32,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        let StateData::HalfOpen(round) = &mut self.state else { return None };
        round.release_probe(ticket);
        round.record_cancelled(most).then(|| self.open(Reason::NoneCompletes, None, at, limits))
    }

    /// Frees the slot of a probe that did not begin.
    pub(crate) fn release_probe(&mut self, ticket: Ticket) {
        if let StateData::HalfOpen(round) = &mut self.state {
            round.release_probe(ticket);
        }
    }

    /// How long a probe of this round has run at least: since its lease began, or the whole lease if
    /// another probe holds the slot by now.
    pub(crate) fn probe_duration(&self, ticket: Ticket, now: u64, limits: &RecoveryLimits) -> Option<u64> {
        let StateData::HalfOpen(round) = &self.state else { return None };
        Some(round.lease_start(ticket).map_or(limits.probe_lease, |from| now.saturating_sub(from)))
    }

    /// Whether a probe still holds its slot. If it does, its lease is extended.
    pub(crate) fn renew(&mut self, ticket: Ticket, now: u64, limits: &RecoveryLimits) -> bool {
        match &mut self.state {
            StateData::HalfOpen(round) => round.renew(ticket, now, limits.probe_lease),
            _ => false,
        }
    }

    /// Opens the circuit manually. An open circuit stays as it is.
    ///
    /// # Errors
    ///
    /// It is forced.
    pub(crate) fn trip_manually(
        &mut self,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Result<Option<Change>, Force> {
        match self.state {
            StateData::Closed { .. } | StateData::HalfOpen(_) => {
                Ok(Some(self.open(Reason::Tripped, None, at, limits)))
            }
            StateData::Open { .. } => Ok(None),
            StateData::Forced(force) => Err(force),
        }
    }

    /// Applies the report of a health checker. Manual overrides take precedence, and an open circuit
    /// does not stay open longer.
    pub(crate) fn report(
        &mut self,
        report: HealthReport,
        at: Moment,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        match (report, &self.state) {
            (HealthReport::Critical, StateData::Closed { .. } | StateData::HalfOpen(_)) => {
                Some(self.open(Reason::ReportedCritical, None, at, limits))
            }
            (HealthReport::Recovered, StateData::Open { .. }) => {
                Some(self.half_open(limits, Reason::ReportedRecovered))
            }
            _ => None,
        }
    }

    /// When an unused open or half-open circuit becomes idle: after twice its open duration. `None`:
    /// it does not become idle by itself, or it is closed, and its window decides.
    #[cfg(feature = "keyed")]
    pub(crate) fn idle_at(&self, since: u64) -> Option<u64> {
        match self.state {
            StateData::Open { until } => Some(until?.saturating_add(self.streak.last_period())),
            StateData::HalfOpen(_) => Some(since.saturating_add(self.streak.last_period())),
            StateData::Closed { .. } | StateData::Forced(_) => None,
        }
    }

    /// Closes the circuit manually, with an empty window and no memory of earlier open periods.
    ///
    /// # Errors
    ///
    /// It is forced.
    pub(crate) fn reset(&mut self) -> Result<Change, Force> {
        match self.state {
            StateData::Forced(force) => Err(force),
            _ => Ok(self.close(Reason::Reset)),
        }
    }

    /// Forces the circuit. `None`: it is in this state already.
    ///
    /// # Errors
    ///
    /// It is disabled.
    pub(crate) fn force(&mut self, force: Force) -> Result<Option<Change>, Force> {
        match self.state {
            StateData::Forced(Force::Disabled) => Err(Force::Disabled),
            StateData::Forced(other) if other == force => Ok(None),
            _ => Ok(Some(self.transition_to(StateData::Forced(force), Reason::Forced))),
        }
    }

    /// Ends a forced state: after forced open the next call is a probe, after forced closed the circuit
    /// is closed. It is disabled if its configuration says so. `None`: it is not forced.
    pub(crate) fn release(&mut self, limits: &RecoveryLimits) -> Option<Change> {
        match self.state {
            StateData::Forced(Force::Open | Force::Closed) if self.disabled => {
                Some(self.transition_to(StateData::Forced(Force::Disabled), Reason::Released))
            }
            StateData::Forced(Force::Open) => Some(self.half_open(limits, Reason::Released)),
            StateData::Forced(Force::Closed) => Some(self.close(Reason::Released)),
            _ => None,
        }
    }

    /// Sets whether the configuration disables the circuit. Manual overrides take precedence.
    pub(crate) fn set_disabled(&mut self, disabled: bool) -> Option<Change> {
        self.disabled = disabled;
        match self.state {
            StateData::Forced(Force::Open | Force::Closed) => None,
            StateData::Forced(Force::Disabled) => (!disabled).then(|| self.close(Reason::Reconfigured)),
            _ => {
                disabled.then(|| self.transition_to(StateData::Forced(Force::Disabled), Reason::Reconfigured))
            }
        }
    }

    fn open(&mut self, reason: Reason, fault: Option<&Fault>, at: Moment, limits: &RecoveryLimits) -> Change {
        let period = self.streak.next(&limits.open, at.now, at.draw, fault.and_then(server_delay));
        let until = period.map(|period| at.now.saturating_add(period));
        self.transition_to(StateData::Open { until }, reason)
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
        self.state = to;
        Change { from, to: self.state(), reason }
    }
}

/// Decides on a call of a closed circuit, and ends its slow start when the time is over.
fn admit_closed(
    slow_start: &mut Option<SlowStart>,
    admit: impl FnOnce(&mut SlowStart) -> SlowStartStep,
) -> Decision {
    match slow_start.as_mut().map(admit) {
        None | Some(SlowStartStep::Admitted) => Decision::Admitted,
        Some(SlowStartStep::Denied(left)) => Decision::Denied(Some(left)),
        Some(SlowStartStep::Finished) => {
            *slow_start = None;
            Decision::Admitted
        }
    }
}

/// The time that a server asked for. What a layer on this side asked for does not keep the circuit open.
fn server_delay(fault: &Fault) -> Option<Duration> {
    fault.retry_after().filter(|_| fault.kind() != Kind::Rejected)
}

/// What a call came to, as far as the circuit cares.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    Success,
    /// A success that took too long.
    Slow,
    Failure(&'a Fault),
    /// The server answered, and the answer does not count for or against it.
    Answered,
    /// It says nothing about the server.
    Neutral,
}

impl<'a> Outcome<'a> {
    /// The health axis of a verdict.
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

/// The fault of a cancelled call, where it counts as a failure.
pub(crate) const CANCELLED: Fault =
    Fault::new(Kind::Cancelled, Retryable::Never, Health::Unhealthy, Origin::Caller);

/// The fault of a call that its caller cancelled after the server had begun to answer: a completed
/// call that counts in no rate.
pub(crate) const CANCELLED_AFTER_ANSWER: Fault =
    Fault::new(Kind::Cancelled, Retryable::Never, Health::Neutral, Origin::Remote);

#[cfg(all(test, not(loom_models)))]
mod tests;
