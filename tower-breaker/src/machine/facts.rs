//! The words in which a decision is told.

use core::fmt;

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls go through and are counted.
    Closed,
    /// Calls are rejected at once.
    Open,
    /// A few calls go through as probes, the others are rejected.
    HalfOpen,
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// Why a circuit changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// So many calls failed in a row.
    ConsecutiveFailures,
    /// The share of failed calls in the window reached the limit.
    FailureRate,
    /// The open time is over.
    OpenTimeOver,
    /// A probe failed.
    ProbeFailed,
    /// Enough probes succeeded.
    ProbesSucceeded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConsecutiveFailures => "too many failures in a row",
            Self::FailureRate => "failure rate too high",
            Self::OpenTimeOver => "open time is over",
            Self::ProbeFailed => "a probe failed",
            Self::ProbesSucceeded => "probes succeeded",
        })
    }
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Calls that said something of the server's health.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
}

impl Counts {
    /// The share of failed calls, 0 to 1; 0 without calls.
    pub fn failure_rate(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.failures as f64 / self.calls as f64 }
    }
}
