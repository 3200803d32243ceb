//! Observability: state transitions of circuits, the last failure, metrics and logs.
//!
//! | item | |
//! |---|---|
//! | [`Transition`] | a change of a circuit's state; observers and streams receive it, and the status contains the last one |
//! | [`Failure`] | a call that a circuit counted as a failure; observers receive it |
//! | [`ObserverId`] | the identifier of an observer, to remove it |
//! | [`Transitions`], [`Missed`] | a stream of transitions (feature `stream`) |
//! | [`LastFailure`] | the last failure of a circuit, if it is kept |
//! | [`NoLastFailure`], [`KeepLastFailure`], [`KeepLastFailureBy`] | part of a layer's type: whether the layer keeps the last failure |
//! | [`LastFailureMode`], [`KeepFailure`], [`KeepError`], [`FailureKeeper`], [`SameSubject`] | the sealed traits of these types, and what a call carries |
//! | `register_metrics` | registers the metrics with a recorder that was installed late (feature `metrics`) |
//!
//! The events of `tracing` and the metrics have the target `tower_breaker`. A circuit that opens is
//! logged at `WARN`, other transitions at `INFO`, failures and rejections at `DEBUG`. Observers,
//! recorders and subscribers are called outside of all locks.

mod last_failure;
// Each backend behind a feature has an empty twin with the same interface.
#[cfg_attr(not(feature = "metrics"), path = "metrics_noop.rs")]
mod metrics;
mod observers;
#[cfg_attr(not(feature = "stream"), path = "stream_noop.rs")]
mod stream;
#[cfg_attr(not(feature = "tracing"), path = "tracing_noop.rs")]
mod tracing;

pub(crate) use last_failure::{Cause, failure_in};
pub use last_failure::{
    FailureKeeper, KeepError, KeepFailure, KeepLastFailure, KeepLastFailureBy, LastFailure, LastFailureMode,
    NoLastFailure, SameSubject,
};
#[cfg(feature = "keyed")]
pub(crate) use metrics::KeyInstruments;
#[cfg(feature = "metrics")]
pub use metrics::register_metrics;
pub(crate) use metrics::{Instruments, instruments, is_recording, recheck_recorder, register};
pub use observers::ObserverId;
pub(crate) use observers::{Observer, Observers};
#[cfg(feature = "stream")]
pub use stream::{Missed, Transitions};
pub(crate) use tracing::{log_failure, log_rejection, log_transition, logs_failures};

use std::sync::Arc;
use std::time::SystemTime;

use tower_fault_classify::Fault;

use crate::machine::{CircuitState, Counts, HalfOpen, Reason};

/// The target of metrics and events. It is a constant, so that it does not depend on module paths.
#[cfg(any(feature = "metrics", feature = "tracing"))]
const TARGET: &str = "tower_breaker";

/// A change of a circuit's state.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The circuit's name.
    pub circuit: &'static str,
    /// The label of the key, for a keyed circuit.
    ///
    /// The label is the key's `Debug` text, without the surrounding quotes of a string. The label
    /// of the overflow circuit is `(overflow)`.
    ///
    /// `None`: the circuit has no key, or the key's `Debug` panicked.
    pub key: Option<Arc<str>>,
    /// The state before the transition.
    pub from: CircuitState,
    /// The state after the transition.
    pub to: CircuitState,
    /// The reason for the transition.
    pub reason: Reason,
    /// The fault of the call that caused the transition; `None` if no call caused it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::fault"))]
    pub fault: Option<Fault>,
    /// The content of the window at the transition of a closed circuit.
    ///
    /// For a trip, these are the counts that led to it. `None`: the circuit was not closed.
    pub counts: Option<Counts>,
    /// The number of failures since the last success, at the transition of a closed circuit.
    ///
    /// 0: the circuit was not closed.
    pub consecutive_failures: u64,
    /// The progress of the probes at the transition of a half-open circuit.
    ///
    /// The probe that caused the transition is in it: its success is counted, and it holds no slot.
    /// `None`: the circuit was not half-open.
    pub half_open: Option<HalfOpen>,
    /// The wall-clock time of the transition, for display. No decision uses it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::time"))]
    pub at: SystemTime,
    /// The sequence number of the transition, which gives the order of a circuit's transitions.
    ///
    /// The first transition has 1. The number wraps: 0 follows 2²⁴ − 1.
    pub epoch: u32,
}

/// A call that a circuit has counted as a failure.
///
/// [`Circuit::on_failure`](crate::Circuit::on_failure) lists which calls are failures.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Failure {
    /// The circuit's name.
    pub circuit: &'static str,
    /// The label of the key, for a keyed circuit: see [`Transition::key`].
    pub key: Option<Arc<str>>,
    /// The fault of the call.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::one_fault"))]
    pub fault: Fault,
    /// The state in which the circuit counted the failure.
    ///
    /// It is [`Closed`](CircuitState::Closed), or [`HalfOpen`](CircuitState::HalfOpen) for a probe.
    pub state: CircuitState,
    /// The number of failures since the last success, with this one.
    ///
    /// The failures before the circuit opened, and those of probes, count too.
    pub consecutive_failures: u64,
    /// The wall-clock time of the failure, for display. No decision uses it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::time"))]
    pub at: SystemTime,
}
