//! Snapshots: circuits keep their state over a restart of the process.
//!
//! A new process starts with closed circuits. While a server is down, it would send calls to the
//! server until each circuit has opened again, and a circuit that was forced open would admit
//! calls. Take a snapshot of the circuits before the process ends, and restore it when the next
//! process starts:
//!
//! | circuits | take | restore |
//! |---|---|---|
//! | one circuit | [`Circuit::snapshot`] | [`Circuit::restore`] |
//! | of a registry | [`CircuitRegistry::snapshots`] | [`CircuitRegistry::restore`] |
//! | by key (feature `keyed`) | `KeyedCircuits::snapshots` | `KeyedCircuits::restore` |
//!
//! The crate writes no file. With the feature `serde`, the snapshots can be written in any format:
//!
//! ```
//! use tower_breaker::snapshot::CircuitSnapshot;
//! use tower_breaker::{BreakerConfig, CircuitRegistry, CircuitState};
//!
//! let registry = CircuitRegistry::new(BreakerConfig::default());
//! registry.circuit("search").force_open()?;
//! # #[cfg(feature = "serde")]
//! let file = serde_json::to_string(&registry.snapshots())?;
//!
//! // The next process.
//! let registry = CircuitRegistry::new(BreakerConfig::default());
//! # #[cfg(feature = "serde")] {
//! let snapshots: Vec<CircuitSnapshot> = serde_json::from_str(&file)?;
//! registry.restore(snapshots);
//! // The circuit is created, and it is forced open before its first call.
//! assert_eq!(registry.circuit("search").status().state, CircuitState::ForcedOpen);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The example [`restart`] writes the snapshots of a registry to a file, also while the process
//! runs, so that a process that is killed loses only the last few seconds.
//!
//! # Restored state
//!
//! | state in the snapshot | restored state |
//! |---|---|
//! | open | open, for the remaining time |
//! | open until it is reset | the same; if the configuration now has an open time: open, for the longest open period |
//! | half-open | open, and the open time is over: the next call is a probe |
//! | closed | closed, with an empty window and without a slow start |
//! | forced open, forced closed | the same, for the remaining time of the manual override, also if the configuration now disables the circuit |
//! | disabled | as the configuration says |
//!
//! - **Growth.** The number of open periods in a row is restored. With
//!   [`open_backoff`](crate::BreakerConfigBuilder::open_backoff), the next open period is as long as
//!   without the restart.
//! - **Last trip.** [`Status::last_trip`](crate::Status::last_trip) shows the trip of the earlier
//!   process, so that its reason is known.
//! - **Not restored:** the window, the consecutive failures, the slow start, the counts of
//!   rejections, and the last failure.
//!
//! # Times
//!
//! A snapshot contains remaining times and the wall-clock time at which it was taken. The time
//! between the snapshot and the restore is subtracted. If the wall clock ran back in between,
//! nothing is subtracted.
//!
//! An open time is limited to the longest open period of the configuration, with its jitter and
//! [`max_retry_after`](crate::BreakerConfigBuilder::max_retry_after). So a wrong clock or a damaged
//! file cannot keep a circuit open for long. A longer period of
//! [`trip_for`](crate::Circuit::trip_for) is shortened, too; use
//! [`force_open_for`](crate::Circuit::force_open_for) for maintenance. The time of a manual override
//! is limited to 365 days.
//!
//! [`restart`]: https://github.com/OWNER/tower-resilience-layers/blob/main/examples/restart/main.rs

mod error;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use tower_fault_classify::__internals::system_time;
use tower_fault_classify::Fault;

pub use self::error::{RestoreError, RestoreReport, Restored};
#[cfg(doc)]
use crate::circuit::Circuit;
use crate::config::DURATIONS;
use crate::machine::{CircuitState, Reason, Saved, SavedStreak};
#[cfg(doc)]
use crate::registry::CircuitRegistry;
use crate::telemetry::Transition;

/// The version of the snapshots that this version of the crate writes and reads.
const VERSION: u32 = 1;

/// After this time without effect, a snapshot restores nothing in a circuit that does not exist.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The state of a circuit that outlives its process.
///
/// [`Circuit::snapshot`] returns it, and [`Circuit::restore`] restores it. The
/// [module page](self) describes what is restored.
///
/// With the feature `serde` it can be serialized and deserialized. Durations are then seconds, in
/// fields whose names end in `_seconds`, and the wall-clock times are in the format of RFC 3339. A
/// reader ignores unknown fields. It rejects a duration that is negative or not a number. A
/// duration that is too long is limited when it is restored.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CircuitSnapshot {
    /// The version of the format: 1.
    ///
    /// A restore returns an error for another version. New fields do not change the version.
    pub version: u32,
    /// The name of the circuit.
    pub circuit: Cow<'static, str>,
    /// The wall-clock time at which the snapshot was taken.
    #[cfg_attr(feature = "serde", serde(with = "crate::serde::snapshot::time"))]
    pub taken_at: SystemTime,
    /// The state of the circuit.
    pub state: CircuitState,
    /// How long the circuit stays open, from [`taken_at`](Self::taken_at).
    ///
    /// - Zero: the time was over, or the circuit was half-open.
    /// - `None`: the circuit is not open, or it is open until it is reset.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            rename = "open_remaining_seconds",
            serialize_with = "crate::serde::optional_seconds",
            deserialize_with = "crate::serde::snapshot::open_remaining"
        )
    )]
    pub open_remaining: Option<Duration>,
    /// How long the manual override stays in force, from [`taken_at`](Self::taken_at).
    ///
    /// `None`: the circuit is not forced, or it is forced until it is released.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            rename = "override_remaining_seconds",
            serialize_with = "crate::serde::optional_seconds",
            deserialize_with = "crate::serde::snapshot::override_remaining"
        )
    )]
    pub override_remaining: Option<Duration>,
    /// The number of open periods in a row, on which a growing open time depends.
    ///
    /// 0: the circuit did not open, or it has been closed for as long as its last open period.
    #[cfg_attr(feature = "serde", serde(default))]
    pub open_periods: u32,
    /// The length of the last open period. Zero: [`open_periods`](Self::open_periods) is 0.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            rename = "last_open_period_seconds",
            serialize_with = "crate::serde::seconds",
            deserialize_with = "crate::serde::snapshot::last_open_period"
        )
    )]
    pub last_open_period: Duration,
    /// How long a circuit that has closed must stay closed from [`taken_at`](Self::taken_at), until
    /// a growing open time starts again at its initial value.
    ///
    /// `None`: the circuit has not closed since its last open period, or
    /// [`open_periods`](Self::open_periods) is 0.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            rename = "open_periods_end_in_seconds",
            serialize_with = "crate::serde::optional_seconds",
            deserialize_with = "crate::serde::snapshot::open_periods_end_in"
        )
    )]
    pub open_periods_end_in: Option<Duration>,
    /// The last transition to [`Open`](CircuitState::Open), for display.
    ///
    /// `None`: there was none. A reader also sets `None` if it does not know one of the values.
    #[cfg_attr(feature = "serde", serde(default, deserialize_with = "crate::serde::snapshot::last_trip"))]
    pub last_trip: Option<SnapshotTrip>,
}

/// The last transition to [`Open`](CircuitState::Open) in a [`CircuitSnapshot`].
///
/// The fields have the meaning of those of a [`Transition`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SnapshotTrip {
    /// The state before the transition.
    pub from: CircuitState,
    /// The reason for the transition.
    pub reason: Reason,
    /// The fault of the call that caused the transition; `None` if no call caused it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::fault"))]
    pub fault: Option<Fault>,
    /// The number of failures since the last success, at the transition of a closed circuit.
    pub consecutive_failures: u64,
    /// The wall-clock time of the transition.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::snapshot::time::serialize"))]
    pub at: SystemTime,
}

impl CircuitSnapshot {
    pub(crate) fn new(circuit: &'static str, saved: &Saved, last_trip: Option<SnapshotTrip>) -> Self {
        let Saved { state, remaining, streak } = *saved;
        let remaining = remaining.map(Duration::from_nanos);
        let (open_remaining, override_remaining) = match state {
            CircuitState::Open => (remaining, None),
            CircuitState::HalfOpen => (Some(Duration::ZERO), None),
            _ => (None, remaining),
        };
        Self {
            version: VERSION,
            circuit: Cow::Borrowed(circuit),
            taken_at: system_time(),
            state,
            open_remaining,
            override_remaining,
            open_periods: streak.count,
            last_open_period: Duration::from_nanos(streak.last_period),
            open_periods_end_in: streak.ends_in.map(Duration::from_nanos),
            last_trip,
        }
    }

    /// Returns an error if the snapshot has another version, or another name than `circuit`.
    pub(crate) fn check(&self, circuit: &'static str) -> Result<(), RestoreError> {
        self.check_version()?;
        if self.circuit != circuit {
            return Err(RestoreError::OtherCircuit { circuit, snapshot: self.circuit.clone().into_owned() });
        }
        Ok(())
    }

    pub(crate) fn check_version(&self) -> Result<(), RestoreError> {
        if self.version != VERSION {
            return Err(RestoreError::Version {
                circuit: self.circuit.clone().into_owned(),
                version: self.version,
                allowed: VERSION,
            });
        }
        Ok(())
    }

    /// Returns the state of the snapshot at the present wall-clock time.
    pub(crate) fn saved_now(&self) -> Saved {
        self.saved(self.age_at(system_time()))
    }

    /// Returns whether the snapshot restores nothing: the circuit was closed and its open periods
    /// are over, it was disabled, or the time of its state has been over for a day.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale_after(self.age_at(system_time()))
    }

    /// Returns the time between the snapshot and `now`. Zero: the wall clock ran back.
    fn age_at(&self, now: SystemTime) -> Duration {
        now.duration_since(self.taken_at).unwrap_or_default()
    }

    /// Returns the state at the time `age` after the snapshot.
    fn saved(&self, age: Duration) -> Saved {
        let left = |time: Duration| nanos(time.saturating_sub(age));
        let remaining = match self.state {
            CircuitState::Open => self.open_remaining,
            CircuitState::ForcedOpen | CircuitState::ForcedClosed => self.override_remaining,
            _ => None,
        };
        let streak = SavedStreak {
            count: self.open_periods,
            last_period: nanos(self.last_open_period),
            ends_in: self.open_periods_end_in.map(left),
        };
        Saved { state: self.state, remaining: remaining.map(left), streak }
    }

    fn is_stale_after(&self, age: Duration) -> bool {
        let over_since = |remaining: Duration| age.saturating_sub(remaining);
        match self.state {
            CircuitState::Closed => {
                let end = self.open_periods_end_in.unwrap_or(self.last_open_period);
                self.open_periods == 0 || age >= end
            }
            CircuitState::Disabled => true,
            CircuitState::Open => self.open_remaining.is_some_and(|time| over_since(time) >= STALE_AFTER),
            CircuitState::HalfOpen => age >= STALE_AFTER,
            CircuitState::ForcedOpen | CircuitState::ForcedClosed => {
                self.override_remaining.is_some_and(|time| over_since(time) >= STALE_AFTER)
            }
        }
    }
}

impl SnapshotTrip {
    pub(crate) const fn of(trip: &Transition) -> Self {
        let Transition { from, reason, fault, consecutive_failures, at, .. } = *trip;
        Self { from, reason, fault, consecutive_failures, at }
    }

    /// Returns the transition for the status of the circuit with this name.
    pub(crate) const fn transition(&self, circuit: &'static str) -> Transition {
        let Self { from, reason, fault, consecutive_failures, at } = *self;
        Transition {
            circuit,
            key: None,
            from,
            to: CircuitState::Open,
            reason,
            fault,
            counts: None,
            consecutive_failures,
            half_open: None,
            at,
            epoch: 0,
        }
    }
}

/// Returns a duration in nanoseconds, up to the longest duration of any setting.
fn nanos(time: Duration) -> u64 {
    time.min(*DURATIONS.end()).as_nanos() as u64
}
