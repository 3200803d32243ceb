//! The public values of decisions: states, reasons, counts and health reports.

use core::fmt;

/// The state of a circuit.
///
/// | state | calls | until |
/// |---|---|---|
/// | [`Closed`](Self::Closed) | admitted and counted | a limit is reached |
/// | [`Open`](Self::Open) | rejected | the first call after the open time, which is a probe; if it is [open until it is reset](crate::BreakerConfigBuilder::open_until_reset): [`reset`](crate::Circuit::reset) |
/// | [`HalfOpen`](Self::HalfOpen) | a few are admitted as probes | enough probes have succeeded, one fails or is slow, or too many are cancelled |
/// | [`ForcedOpen`](Self::ForcedOpen) | rejected | [`release`](crate::Circuit::release), or the first call after the time of [`force_open_for`](crate::Circuit::force_open_for), which is a probe |
/// | [`ForcedClosed`](Self::ForcedClosed) | admitted, not counted | [`release`](crate::Circuit::release), or the first call after the time of [`force_closed_for`](crate::Circuit::force_closed_for) |
/// | [`Disabled`](Self::Disabled) | admitted, not counted | [`reconfigure`](crate::Circuit::reconfigure) |
///
/// With [`Mode::ObserveOnly`](crate::Mode::ObserveOnly) no call is rejected.
///
/// "Counted" refers to the window of the circuit. Metrics count the calls in every state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls are admitted and counted. The initial state, and the **default**.
    ///
    /// In a slow start, only a growing share of the calls is admitted, or a growing number of
    /// concurrent calls.
    #[default]
    Closed,
    /// Calls are rejected immediately, until the open time is over or the circuit is reset.
    Open,
    /// A few calls are admitted as probes; all others are rejected.
    HalfOpen,
    /// Calls are rejected until the manual override ends.
    ForcedOpen,
    /// Calls are admitted and not counted until the manual override ends.
    ForcedClosed,
    /// Calls are admitted and not counted, because the configuration disables the circuit.
    Disabled,
}

impl CircuitState {
    /// Returns whether the state is [`Open`](Self::Open) or [`ForcedOpen`](Self::ForcedOpen).
    ///
    /// A circuit whose open time is over stays [`Open`](Self::Open) until the next call, which is a
    /// probe. For a readiness endpoint use [`Status::rejects_calls`](crate::Status::rejects_calls),
    /// which is `false` when the open time is over.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::ForcedOpen)
    }

    /// Returns the name in `snake_case`, as in logs, metrics and serialized values.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The report of a health checker about the server behind a circuit.
///
/// Pass it to [`Circuit::report`](crate::Circuit::report):
///
/// ```
/// use tokio::sync::watch;
/// use tower_breaker::{BreakerConfig, Circuit, CircuitState, HealthReport};
///
/// # tokio_test::block_on(async {
/// let circuit = Circuit::new(BreakerConfig::default());
/// let (checker, mut reports) = watch::channel(HealthReport::Recovered);
/// let reported_circuit = circuit.clone();
/// let task = tokio::spawn(async move {
///     while reports.changed().await.is_ok() {
///         let report = *reports.borrow_and_update();
///         reported_circuit.report(report);
///     }
/// });
/// checker.send(HealthReport::Critical).unwrap();
/// # drop(checker);
/// # task.await.unwrap();
/// # assert_eq!(circuit.status().state, CircuitState::Open);
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HealthReport {
    /// The server is down: a closed or half-open circuit opens.
    ///
    /// The circuit recovers as usual. A repeated report does not extend the open time.
    Critical,
    /// The server has recovered: an open circuit half-opens, so that the next calls are probes.
    ///
    /// This applies also to a circuit that is open until it is reset. A closed or half-open circuit
    /// does not change.
    Recovered,
}

impl HealthReport {
    /// Returns the name in `snake_case`, as in serialized values.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Recovered => "recovered",
        }
    }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reason {
    /// The circuit opened: the limit of consecutive failures was reached.
    ConsecutiveFailures,
    /// The circuit opened: the failure rate of the window reached its limit.
    FailureRate,
    /// The circuit opened: the slow-call rate of the window reached its limit.
    SlowRate,
    /// The circuit opened: many calls were cancelled and none completed.
    NoneCompletes,
    /// The circuit half-opened: the open time was over.
    OpenTimeOver,
    /// The circuit opened again: a probe failed.
    ProbeFailed,
    /// The circuit opened again: a probe was slow.
    ProbeSlow,
    /// The circuit closed: enough probes succeeded.
    ProbesSucceeded,
    /// The circuit was opened with [`Circuit::trip`](crate::Circuit::trip) or
    /// [`Circuit::trip_for`](crate::Circuit::trip_for).
    Tripped,
    /// The circuit was half-opened with [`Circuit::probe_now`](crate::Circuit::probe_now).
    ProbeRequested,
    /// The circuit was forced open or closed.
    Forced,
    /// A manual override was released.
    Released,
    /// The time of a manual override was over.
    OverrideEnded,
    /// The circuit was closed with [`Circuit::reset`](crate::Circuit::reset).
    Reset,
    /// A new configuration disabled or enabled the circuit.
    Reconfigured,
    /// The circuit opened: a health checker reported that the server is down.
    ReportedCritical,
    /// The circuit half-opened: a health checker reported that the server has recovered.
    ReportedRecovered,
    /// The circuit opened: a coordinator applied [`Command::Open`](crate::control::Command::Open).
    CommandedOpen,
    /// The circuit half-opened: a coordinator applied
    /// [`Command::Probe`](crate::control::Command::Probe).
    CommandedProbe,
    /// The circuit closed: a coordinator applied
    /// [`Command::Close`](crate::control::Command::Close).
    CommandedClose,
    /// A [snapshot](crate::snapshot) of an earlier process opened the circuit, or forced it open or
    /// closed.
    Restored,
}

impl Reason {
    /// Returns the name in `snake_case`, as in logs, metrics and serialized values.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::NoneCompletes => "none_completes",
            Self::OpenTimeOver => "open_time_over",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeSlow => "probe_slow",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Tripped => "tripped",
            Self::ProbeRequested => "probe_requested",
            Self::Forced => "forced",
            Self::Released => "released",
            Self::OverrideEnded => "override_ended",
            Self::Reset => "reset",
            Self::Reconfigured => "reconfigured",
            Self::ReportedCritical => "reported_critical",
            Self::ReportedRecovered => "reported_recovered",
            Self::CommandedOpen => "commanded_open",
            Self::CommandedProbe => "commanded_probe",
            Self::CommandedClose => "commanded_close",
            Self::Restored => "restored",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The progress of a half-open circuit.
///
/// The circuit closes when `successes` reaches `successes_to_close`. A failed or slow probe opens
/// it again. After [`Command::Probe`](crate::control::Command::Probe), the coordinator decides
/// instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct HalfOpen {
    /// The probes that hold a slot now.
    ///
    /// A probe whose [lease](crate::BreakerConfigBuilder::probe_lease) has ended holds no slot,
    /// even if it still runs.
    pub running_probes: u32,
    /// The slots: how many probes may run at the same time.
    pub probes: u32,
    /// The probes that have succeeded since the circuit half-opened.
    pub successes: u32,
    /// The successful probes that close the circuit.
    pub successes_to_close: u32,
    /// The probes that were cancelled since the last completed probe, or since the circuit
    /// half-opened.
    ///
    /// They are counted only with
    /// [`CancelledPolicy::IfNoneCompletes`](crate::CancelledPolicy::IfNoneCompletes).
    pub cancelled_probes: u32,
}

/// The counts of a window.
///
/// All counts are numbers of calls. A call with a neutral verdict is in none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counts {
    /// The calls that succeeded or failed.
    pub calls: u64,
    /// The calls that failed.
    pub failures: u64,
    /// The slow calls, whether they succeeded or failed.
    pub slow: u64,
    /// The cancelled calls that count neither as a success nor as a failure. They are not in
    /// `calls`.
    ///
    /// They are counted only with
    /// [`CancelledPolicy::IfNoneCompletes`](crate::CancelledPolicy::IfNoneCompletes). In a count
    /// window, each call that succeeds or fails resets the number to 0.
    pub cancelled: u64,
}

impl Counts {
    /// Returns the share of failed calls, 0 to 1. Without calls it is 0.
    pub fn failure_rate(&self) -> f64 {
        share(self.failures, self.calls)
    }

    /// Returns the share of slow calls, 0 to 1. Without calls it is 0.
    pub fn slow_rate(&self) -> f64 {
        share(self.slow, self.calls)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
