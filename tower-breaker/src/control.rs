//! Commands and signals for code that decides for several circuits with one backend.

use std::time::Duration;

use crate::machine::CircuitState;

/// A command of a coordinator, for [`Circuit::apply`](crate::Circuit::apply).
///
/// | state of the circuit | [`Open`](Self::Open) | [`Probe`](Self::Probe) | [`Close`](Self::Close) |
/// |---|---|---|---|
/// | closed | opens | unchanged | unchanged |
/// | open | gets the new deadline | half-opens | closes |
/// | half-open, by the circuit's own rules | opens | half-opens again | closes |
/// | half-open, by [`Probe`](Self::Probe) | opens | gets the new times until its probe has succeeded or failed; then it half-opens again | closes |
/// | forced, or disabled by the configuration | unchanged | unchanged | unchanged |
///
/// A duration that is too long for the clock has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Rejects calls.
    ///
    /// A closed or half-open circuit opens. For an open circuit only the deadline changes, which is
    /// no transition: its epoch stays, and waiting tasks are woken.
    ///
    /// An opening by command is part of the streak of open periods, so the next open period of a
    /// circuit with [`open_backoff`](crate::BreakerConfigBuilder::open_backoff) is longer.
    Open {
        /// How long callers should stay away.
        ///
        /// [`Rejection::retry_after`](crate::Rejection::retry_after) and
        /// [`Status::retry_after`](crate::Status::retry_after) show this time. When it is over,
        /// the status shows zero, and a rejection at most 1 s and the resolution of the clock.
        ///
        /// `None`: until another command or a reset.
        remaining: Option<Duration>,
        /// How long the circuit waits for another command after `remaining`. Then the next call
        /// half-opens the circuit, which continues by its own rules.
        takeover: Duration,
    },
    /// Half-opens the circuit for exactly one probe.
    ///
    /// The outcome of the probe does not change the circuit. It is sent as
    /// [`Signal::ProbeCompleted`], and the coordinator decides. A neutral outcome frees the slot.
    /// While the probe holds the slot, a repeated command changes only the times.
    Probe {
        /// The probe must be admitted within this time.
        start_within: Duration,
        /// How long the circuit waits for another command. Then it continues with a half-open round
        /// of its own, in the same epoch: a probe that still runs is one of the round's probes.
        remaining: Duration,
    },
    /// Closes an open or half-open circuit, with the configured slow start.
    Close,
}

/// The effect of a [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The command changed nothing.
    Unchanged,
    /// The circuit has other deadlines. There was no transition.
    Retimed,
    /// The circuit has had a transition, and its observers were notified.
    Changed,
    /// The circuit is in this state by a manual override or by its configuration, which takes
    /// precedence. The command changed nothing.
    Overridden(CircuitState),
}

/// An event that a coordinator may react to, for
/// [`Circuit::on_signal`](crate::Circuit::on_signal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// The circuit has counted a failure.
    ///
    /// Sent once; [`Circuit::rearm`](crate::Circuit::rearm) arms it again.
    Failure,
    /// A call was rejected, a poll of a service's readiness was denied, or a task waits for the
    /// circuit.
    ///
    /// Sent once; [`Circuit::rearm`](crate::Circuit::rearm) arms it again. With
    /// [`Mode::ObserveOnly`](crate::Mode::ObserveOnly), it is sent for a call that would have been
    /// rejected.
    Demand,
    /// The probe of [`Command::Probe`] was admitted. Always sent.
    ProbeStarted,
    /// The probe of [`Command::Probe`] has ended. Always sent.
    ProbeCompleted(ProbeOutcome),
}

/// The outcome of the probe of [`Command::Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// The probe succeeded.
    Success,
    /// The probe failed, or was slow.
    Failure,
    /// The probe was cancelled, or its outcome shows nothing about the server. Another call may be
    /// the probe, within the time that the command set.
    Neutral,
}
