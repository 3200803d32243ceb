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
//! A decision is a plain function of the state, what happened, the time and the limits. There is no clock here, no atomic, no
//! lock and no allocation on the way of a call: `circuit/` stores the state and makes it concurrent, and asks here what to
//! do. Times are nanoseconds on the circuit's clock.

mod count;
mod facts;
mod half_open;
mod limits;

pub(crate) use count::CountRing;
pub(crate) use half_open::Ticket;
pub(crate) use limits::{RecoveryLimits, TripLimits};

pub use facts::{CircuitState, Counts, Reason};

use core::time::Duration;

use half_open::Round;
use tower_fault_classify::{Fault, Health, Kind, Verdict};

/// What a closed circuit knows of its calls when one of them failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Failures without a success between them, this one included.
    pub(crate) run: u64,
    /// What the window holds. `None`: it cannot reach the rate, so nobody looked.
    pub(crate) window: Option<Counts>,
}

/// Whether the window must be looked at: `failures` are too few to reach the rate, whatever the number of calls.
pub(crate) fn may_reach_rate(limits: &TripLimits, failures: u64) -> bool {
    limits.failure_rate.is_some_and(|rate| reaches(failures, u64::from(limits.minimum_calls), rate))
}

/// Why a closed circuit opens after a failure, if it does.
pub(crate) fn trips(limits: &TripLimits, sample: &Sample) -> Option<Reason> {
    if limits.consecutive_failures > 0 && sample.run >= u64::from(limits.consecutive_failures) {
        return Some(Reason::ConsecutiveFailures);
    }
    let counts = sample.window?;
    let enough = counts.calls >= u64::from(limits.minimum_calls);
    (enough && reaches(counts.failures, counts.calls, limits.failure_rate?)).then_some(Reason::FailureRate)
}

/// Whether `failures` of `calls` are at least `rate`. The quotient is compared, not the product: both sides are then the
/// nearest double to the same decimal, so that 7 of 100 do reach 0.07.
fn reaches(failures: u64, calls: u64, rate: f64) -> bool {
    failures > 0 && failures as f64 / calls as f64 >= rate
}

/// The state, without what `circuit/` keeps in its own storage (the run of failures and the window).
#[derive(Debug)]
pub(crate) enum State {
    Closed,
    Open { until: u64 },
    HalfOpen(Round),
}

/// What came of asking for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The circuit is closed.
    Normal,
    /// The call is a probe and holds this place.
    Probe(Ticket),
    /// The call is refused for so many nanoseconds.
    Refused(u64),
}

/// A change of the state, to be applied by who stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    pub(crate) reason: Reason,
}

impl State {
    /// Its name.
    pub(crate) const fn name(&self) -> CircuitState {
        match self {
            Self::Closed => CircuitState::Closed,
            Self::Open { .. } => CircuitState::Open,
            Self::HalfOpen(_) => CircuitState::HalfOpen,
        }
    }

    /// Decides on a call that wants to begin. An open circuit whose time is over half-opens for it.
    pub(crate) fn admit(&mut self, now: u64, limits: &RecoveryLimits) -> (Admission, Option<Change>) {
        match self {
            Self::Closed => (Admission::Normal, None),
            Self::Open { until } if now < *until => (Admission::Refused(*until - now), None),
            Self::Open { .. } => {
                let change =
                    self.become_state(Self::HalfOpen(Round::new(limits.probes)), Reason::OpenTimeOver);
                (self.admit(now, limits).0, Some(change))
            }
            Self::HalfOpen(round) => (round.admit(now, limits.probe_lease), None),
        }
    }

    /// Opens a closed circuit. `None`: somebody else was first.
    pub(crate) fn trip(
        &mut self,
        reason: Reason,
        fault: &Fault,
        now: u64,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        match self {
            Self::Closed => Some(self.open(reason, fault, now, limits)),
            Self::Open { .. } | Self::HalfOpen(_) => None,
        }
    }

    /// Hears what came of a probe of this round.
    pub(crate) fn settle_probe(
        &mut self,
        ticket: Ticket,
        outcome: Outcome<'_>,
        now: u64,
        limits: &RecoveryLimits,
    ) -> Option<Change> {
        let Self::HalfOpen(round) = self else { return None };
        round.give_back(ticket);
        match outcome {
            Outcome::Neutral => None,
            Outcome::Failure(fault) => Some(self.open(Reason::ProbeFailed, fault, now, limits)),
            Outcome::Success => {
                let successes = round.succeed();
                (successes >= limits.successes_to_close)
                    .then(|| self.become_state(Self::Closed, Reason::ProbesSucceeded))
            }
        }
    }

    /// Whether a probe still holds its place; if so, its lease begins anew.
    pub(crate) fn renew(&mut self, ticket: Ticket, now: u64, limits: &RecoveryLimits) -> bool {
        match self {
            Self::HalfOpen(round) => round.renew(ticket, now, limits.probe_lease),
            Self::Closed | Self::Open { .. } => false,
        }
    }

    fn open(&mut self, reason: Reason, fault: &Fault, now: u64, limits: &RecoveryLimits) -> Change {
        let until = now.saturating_add(limits.open_time(asked_for(fault)));
        self.become_state(Self::Open { until }, reason)
    }

    fn become_state(&mut self, to: Self, reason: Reason) -> Change {
        let change = Change { from: self.name(), to: to.name(), reason };
        *self = to;
        change
    }
}

/// The time that a server asked for. What a layer on this side asked for does not keep the circuit open.
fn asked_for(fault: &Fault) -> Option<Duration> {
    fault.retry_after().filter(|_| fault.kind() != Kind::Rejected)
}

/// What a call came to, as far as the circuit cares.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    Success,
    Failure(&'a Fault),
    /// It says nothing of the server's health, or it was dropped before it said anything.
    Neutral,
}

impl<'a> Outcome<'a> {
    /// The health axis of a verdict.
    pub(crate) const fn of(verdict: &'a Verdict) -> Self {
        match verdict {
            Verdict::Success => Self::Success,
            Verdict::Fault(fault) => match fault.health() {
                Health::Success => Self::Success,
                Health::Failure => Self::Failure(fault),
                _ => Self::Neutral,
            },
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests;
