//! The status of a circuit.

use std::sync::Arc;
use std::time::Duration;

use crate::machine::{CircuitState, Counts};
use crate::telemetry::{LastFailure, Transition};

/// A snapshot of a circuit.
///
/// With the feature `serde`, durations are serialized as seconds, in fields whose names end in
/// `_seconds`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// The circuit's name.
    pub circuit: &'static str,
    /// The key, of a circuit by key.
    pub key: Option<Arc<str>>,
    /// The state.
    pub state: CircuitState,
    /// The share of calls, 0 to 1, that is admitted in a slow start. `None`: there is no slow start.
    pub slow_start: Option<f64>,
    /// How long the state has lasted.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "lasted_seconds", serialize_with = "crate::serde::seconds")
    )]
    pub lasted: Duration,
    /// Failures since the last success; 0 unless closed. The number that led to the last trip is in
    /// [`last_trip`](Self::last_trip).
    pub consecutive_failures: u64,
    /// What the window holds. It starts empty at every change of the state: what it held at the
    /// last trip is in [`last_trip`](Self::last_trip).
    pub window: Counts,
    /// How long the circuit stays open. Zero: its open time is over, and the next call is a probe.
    /// `None`: it is not open, or is open until it is reset or released.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "retry_after_seconds", serialize_with = "crate::serde::optional_seconds")
    )]
    pub retry_after: Option<Duration>,
    /// The last transition.
    pub last_transition: Option<Transition>,
    /// The last transition that opened the circuit: its reason, its fault, and the counts that led
    /// to it.
    pub last_trip: Option<Transition>,
    /// The last failure, if the layer keeps it: see
    /// [`keep_last_failure`](crate::BreakerLayer::keep_last_failure).
    pub last_failure: Option<LastFailure>,
}

impl Status {
    /// Whether the circuit rejects the next call because it is open or forced open.
    ///
    /// `false` as soon as the open duration is over, although the state stays
    /// [`Open`](CircuitState::Open) until the next call: that call is a probe. A readiness page
    /// should use this method. With the state alone, an instance that receives no calls while it is
    /// not ready stays not ready for ever. A half-open circuit may still reject calls that find no
    /// free probe slot.
    pub fn rejects_calls(&self) -> bool {
        self.state.is_open() && self.retry_after != Some(Duration::ZERO)
    }

    pub(crate) fn of(
        circuit: &'static str,
        key: Option<Arc<str>>,
        snapshot: Snapshot,
        slack: Duration,
    ) -> Self {
        let keyed =
            |transition: Option<Transition>| transition.map(|last| Transition { key: key.clone(), ..last });
        Self {
            circuit,
            state: snapshot.state,
            slow_start: snapshot.slow_start,
            lasted: Duration::from_nanos(snapshot.lasted),
            consecutive_failures: snapshot.consecutive_failures,
            window: snapshot.counts,
            retry_after: snapshot.remaining.map(|left| match left {
                0 => Duration::ZERO,
                left => Duration::from_nanos(left) + slack,
            }),
            last_transition: keyed(snapshot.last_transition),
            last_trip: keyed(snapshot.last_trip),
            last_failure: snapshot.last_failure,
            key,
        }
    }
}

/// A consistent reading of a circuit, with times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) state: CircuitState,
    pub(crate) slow_start: Option<f64>,
    pub(crate) consecutive_failures: u64,
    pub(crate) counts: Counts,
    pub(crate) remaining: Option<u64>,
    /// How long the state has lasted.
    pub(crate) lasted: u64,
    pub(crate) last_transition: Option<Transition>,
    pub(crate) last_trip: Option<Transition>,
    pub(crate) last_failure: Option<LastFailure>,
}
