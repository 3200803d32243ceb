//! The status of a circuit.

use std::sync::Arc;
use std::time::Duration;

use crate::machine::{CircuitState, Counts, HalfOpen};
use crate::telemetry::{LastFailure, Transition};

/// The status of a circuit at one moment: its state, its counts, and its last transitions.
///
/// [`Circuit::status`](crate::Circuit::status) returns it. Calls that are recorded concurrently may
/// be in one count and not yet in another.
///
/// All values are of one epoch. Only if the first transition of a keyed circuit happens
/// concurrently, they may be of two epochs.
///
/// With the feature `serde` it can be serialized. Durations are then seconds, in fields whose names
/// end in `_seconds`.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Status {
    /// The name of the circuit.
    pub circuit: &'static str,
    /// The label of the key. `None`: the circuit has no key, or the key's `Debug` panicked.
    pub key: Option<Arc<str>>,
    /// The state of the circuit.
    pub state: CircuitState,
    /// The progress of a slow start, 0 to 1. `None`: there is no slow start.
    ///
    /// - [By time](crate::BreakerConfigBuilder::slow_start): the share of calls that it admits now.
    ///   When its time is over, the share is 1 until the next call ends the slow start.
    /// - [By successes](crate::BreakerConfigBuilder::slow_start_successes): the successes so far, as
    ///   a share of those that end it. It is always below 1.
    pub slow_start: Option<f64>,
    /// The time since the last transition, or since the circuit was created.
    ///
    /// A keyed circuit without a transition does not store when it was created. It reports zero, or
    /// the time since it first needed its lock, such as for a slow or cancelled call.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "lasted_seconds", serialize_with = "crate::serde::seconds")
    )]
    pub lasted: Duration,
    /// The failures since the last success.
    ///
    /// - While the circuit is open, half-open, forced or disabled, the number that it had counted
    ///   before remains. A failed probe adds 1, and a successful probe sets the number to 0.
    /// - Each transition to [`Closed`](CircuitState::Closed) sets it to 0, also a
    ///   [reset](crate::Circuit::reset).
    ///
    /// The number at the last trip is in [`last_trip`](Self::last_trip).
    pub consecutive_failures: u64,
    /// The counts of the window.
    ///
    /// Every transition empties the window. The counts that led to the last trip are in
    /// [`last_trip`](Self::last_trip).
    pub window: Counts,
    /// The progress of the probes. `None`: the circuit is not half-open.
    ///
    /// After [`Command::Probe`](crate::control::Command::Probe) there is one slot, and no success is
    /// counted: the coordinator decides.
    ///
    /// The progress at the end of the last round of probes is in the [`Transition`].
    pub half_open: Option<HalfOpen>,
    /// The calls that the circuit has rejected since it was created.
    ///
    /// With [`Mode::ObserveOnly`](crate::Mode::ObserveOnly), and while a service is
    /// [not ready](crate::BreakerLayer::not_ready_when_open), no call is rejected.
    pub rejected_calls: u64,
    /// The calls that the circuit has rejected since the last transition, or since it was created.
    pub rejected_since_transition: u64,
    /// The time since the last call that the circuit counted as a success.
    ///
    /// A healthy fault and a slow success are successes. A call that the circuit does not count is
    /// not, for example while it is forced closed.
    ///
    /// - For a probe, the time is exact.
    /// - While the circuit is closed, and until the next probe, the time is rounded up to the start
    ///   of a bucket. A bucket is a fifteenth of the [time
    ///   window](crate::BreakerConfigBuilder::time_window), or a tenth for a keyed circuit. With a
    ///   [count window](crate::BreakerConfigBuilder::count_window), the time is exact.
    /// - `None`: there was no success since the circuit was created or
    ///   [reset](crate::Circuit::reset), or the circuit is closed and its window holds none.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "since_last_success_seconds", serialize_with = "crate::serde::optional_seconds")
    )]
    pub since_last_success: Option<Duration>,
    /// The time since the last call that the circuit counted as a failure, also if
    /// [`last_failure`](Self::last_failure) is not kept.
    ///
    /// [`Circuit::on_failure`](crate::Circuit::on_failure) lists which calls are failures. The time
    /// is exact to about a millisecond.
    ///
    /// A keyed circuit stores no time before it first needs its lock, such as for a transition or a
    /// slow call. Until then, the time is rounded up to the start of a tenth of the window, and a
    /// failure that has left the window is not shown. A configuration with another
    /// window empties the window, and with it both times of such a circuit.
    ///
    /// `None`: there was no failure since the circuit was created or
    /// [reset](crate::Circuit::reset).
    #[cfg_attr(
        feature = "serde",
        serde(rename = "since_last_failure_seconds", serialize_with = "crate::serde::optional_seconds")
    )]
    pub since_last_failure: Option<Duration>,
    /// How long the circuit stays open or forced open.
    ///
    /// - Zero: the time is over, and the next call is a probe. After
    ///   [`Command::Open`](crate::control::Command::Open), a call in the `takeover` is rejected.
    /// - `None`: the circuit is neither, or it stays in this state until it is reset or released.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "retry_after_seconds", serialize_with = "crate::serde::optional_seconds")
    )]
    pub retry_after: Option<Duration>,
    /// How long the manual override stays in force.
    ///
    /// - Zero: the time of [`force_open_for`](crate::Circuit::force_open_for) or
    ///   [`force_closed_for`](crate::Circuit::force_closed_for) is over. The state stays forced until
    ///   the next call, readiness poll or manual operation, which ends the override first.
    /// - `None`: the circuit is not forced, or it is forced until it is released.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "override_ends_in_seconds", serialize_with = "crate::serde::optional_seconds")
    )]
    pub override_ends_in: Option<Duration>,
    /// The last transition. `None`: there was none.
    pub last_transition: Option<Transition>,
    /// The last transition to [`Open`](CircuitState::Open).
    ///
    /// It has the reason, the fault, and the counts that led to the transition.
    ///
    /// After a [restore](crate::Circuit::restore), it is the trip of the earlier process, without its
    /// counts. Its epoch is 0.
    pub last_trip: Option<Transition>,
    /// The last failure since the circuit was created or [reset](crate::Circuit::reset).
    ///
    /// `None`: there was none, or it is not kept; see [`LastFailure`].
    pub last_failure: Option<LastFailure>,
}

impl Status {
    /// Returns whether the circuit rejects the next call because it is open or forced open.
    ///
    /// When the open time is over, or the time of
    /// [`force_open_for`](crate::Circuit::force_open_for), this method returns `false`, although the
    /// state stays until the next call. That call is a probe. After
    /// [`Command::Open`](crate::control::Command::Open), it may show its coordinator that a probe is
    /// due.
    ///
    /// Use this method for a readiness endpoint. An instance that reports the state alone receives
    /// no calls while it is not ready, and so it would never become ready again.
    ///
    /// A half-open circuit may still reject calls, if no probe slot is free. With
    /// [`Mode::ObserveOnly`](crate::Mode::ObserveOnly) this method returns whether the circuit
    /// would reject the call.
    pub fn rejects_calls(&self) -> bool {
        self.state.is_open() && self.retry_after != Some(Duration::ZERO)
    }

    pub(crate) fn of(
        circuit: &'static str,
        key: Option<Arc<str>>,
        values: StatusValues,
        slack: Duration,
    ) -> Self {
        let keyed =
            |transition: Option<Transition>| transition.map(|last| Transition { key: key.clone(), ..last });
        // The circuit's clock may be late by its resolution.
        let remaining = |left| match left {
            0 => Duration::ZERO,
            left => Duration::from_nanos(left) + slack,
        };
        Self {
            circuit,
            state: values.state,
            slow_start: values.slow_start,
            lasted: Duration::from_nanos(values.lasted),
            consecutive_failures: values.consecutive_failures,
            window: values.counts,
            half_open: values.half_open,
            rejected_calls: values.rejections,
            rejected_since_transition: values.rejections_since_transition,
            since_last_success: values.since_last_success.map(Duration::from_nanos),
            since_last_failure: values.since_last_failure.map(Duration::from_nanos),
            retry_after: values.open_remaining.map(remaining),
            override_ends_in: values.override_remaining.map(remaining),
            last_transition: keyed(values.last_transition),
            last_trip: keyed(values.last_trip),
            last_failure: values.last_failure.map(Arc::unwrap_or_clone),
            key,
        }
    }
}

/// The values of a [`Status`], with times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusValues {
    pub(crate) state: CircuitState,
    pub(crate) slow_start: Option<f64>,
    pub(crate) consecutive_failures: u64,
    pub(crate) counts: Counts,
    pub(crate) half_open: Option<HalfOpen>,
    pub(crate) rejections: u64,
    pub(crate) rejections_since_transition: u64,
    pub(crate) since_last_success: Option<u64>,
    pub(crate) since_last_failure: Option<u64>,
    pub(crate) open_remaining: Option<u64>,
    pub(crate) override_remaining: Option<u64>,
    /// The time since the state began.
    pub(crate) lasted: u64,
    pub(crate) last_transition: Option<Transition>,
    pub(crate) last_trip: Option<Transition>,
    pub(crate) last_failure: Option<Arc<LastFailure>>,
}
