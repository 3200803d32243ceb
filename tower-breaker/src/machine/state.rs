//! The public values of a decision: states, reasons, counts, reports.

use core::fmt;

/// The state of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls go through and are counted. A circuit begins so.
    #[default]
    Closed,
    /// Calls are rejected at once.
    Open,
    /// A few calls go through as probes, the others are rejected.
    HalfOpen,
    /// Calls are rejected until the circuit is released by hand.
    ForcedOpen,
    /// Calls go through and are not counted, until the circuit is released by hand.
    ForcedClosed,
    /// Calls go through and are not counted, for the configuration says so.
    Disabled,
}

impl CircuitState {
    /// Whether the state is [`Open`](Self::Open) or [`ForcedOpen`](Self::ForcedOpen).
    ///
    /// A circuit whose open duration is over stays [`Open`](Self::Open) until the next call, which
    /// is a probe. A readiness page should use
    /// [`Status::rejects_calls`](crate::Status::rejects_calls), which is `false` by then.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::ForcedOpen)
    }

    /// The name in `snake_case`, as in logs, metrics and serialized values.
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

/// What a health checker says of the server behind a circuit: see [`Circuit::report`](crate::Circuit::report).
///
/// ```
/// use tokio::sync::watch;
/// use tower_breaker::{BreakerConfig, Circuit, CircuitState, HealthReport};
///
/// # tokio_test::block_on(async {
/// let circuit = Circuit::new(BreakerConfig::default());
/// let (checker, mut reports) = watch::channel(HealthReport::Recovered);
/// let follower = circuit.clone();
/// let follows = tokio::spawn(async move {
///     while reports.changed().await.is_ok() {
///         follower.report(*reports.borrow_and_update());
///     }
/// });
/// checker.send(HealthReport::Critical).unwrap();
/// # drop(checker);
/// # follows.await.unwrap();
/// # assert_eq!(circuit.status().state, CircuitState::Open);
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HealthReport {
    /// It is down: a closed or half-open circuit opens. It recovers as usual, and saying so again does not keep it open longer.
    Critical,
    /// It is back: an open circuit lets probes through at once.
    Recovered,
}

impl HealthReport {
    /// The name in `snake_case`, as in serialized values.
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

/// Why a circuit changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Reason {
    /// So many calls failed in a row.
    ConsecutiveFailures,
    /// The share of failed calls in the window reached the limit.
    FailureRate,
    /// The share of slow calls in the window reached the limit.
    SlowRate,
    /// Callers gave up on many calls, and none was completed.
    NoneCompletes,
    /// The open time is over.
    OpenTimeOver,
    /// A probe failed.
    ProbeFailed,
    /// A probe was slow.
    ProbeSlow,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// It was tripped by hand.
    Tripped,
    /// It was forced by hand.
    Forced,
    /// It was released by hand.
    Released,
    /// It was reset by hand.
    Reset,
    /// It was configured anew.
    Reconfigured,
    /// A health checker said that the server is down.
    ReportedCritical,
    /// A health checker said that the server is back.
    ReportedRecovered,
}

impl Reason {
    /// The name in `snake_case`, as in logs, metrics and serialized values.
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
            Self::Forced => "forced",
            Self::Released => "released",
            Self::Reset => "reset",
            Self::Reconfigured => "reconfigured",
            Self::ReportedCritical => "reported_critical",
            Self::ReportedRecovered => "reported_recovered",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counts {
    /// Calls that said something of the server's health.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, failed or not.
    pub slow: u64,
    /// Calls that were given up, of which nothing else is counted.
    pub cancelled: u64,
}

impl Counts {
    /// The share of failed calls, 0 to 1; 0 without calls.
    pub fn failure_rate(&self) -> f64 {
        share(self.failures, self.calls)
    }

    /// The share of slow calls, 0 to 1; 0 without calls.
    pub fn slow_rate(&self) -> f64 {
        share(self.slow, self.calls)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
