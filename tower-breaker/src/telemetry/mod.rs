//! Observability: transitions of circuits, as values and as a stream.
//!
//! | item | |
//! |---|---|
//! | [`Transition`] | one change of a circuit's state: observers and streams get it, a status has the last one |
//! | [`Transitions`], [`Missed`] | a stream of transitions (feature `stream`) |
//! | [`LastFailure`] | the last failure, if the layer keeps it |
//!
//! Metrics and the events of `tracing` have the target `tower_breaker`. Transitions are logged at
//! `WARN`, rejections at `DEBUG`. Observers, recorders and subscribers run outside of all locks.

// Each backend behind a feature has an empty twin of the same interface.
#[cfg_attr(not(feature = "metrics"), path = "metrics_noop.rs")]
mod metrics;
mod observers;
#[cfg_attr(not(feature = "stream"), path = "stream_noop.rs")]
mod stream;
#[cfg_attr(not(feature = "tracing"), path = "tracing_noop.rs")]
mod tracing;

pub(crate) use metrics::{Instruments, instruments, register};
pub(crate) use observers::Observers;
#[cfg(feature = "stream")]
pub use stream::{Missed, Transitions};
pub(crate) use tracing::{log_rejection, log_transition};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use tower_fault_classify::Fault;

use crate::machine::{CircuitState, Counts, Reason};

/// The target of metrics and events. It does not change when a module moves.
#[cfg(any(feature = "metrics", feature = "tracing"))]
const TARGET: &str = "tower_breaker";

/// A change of a circuit's state.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The circuit's name.
    pub circuit: &'static str,
    /// The key of one that is one of many, as its layer labels it.
    pub key: Option<Arc<str>>,
    /// Where it stood.
    pub from: CircuitState,
    /// Where it stands now.
    pub to: CircuitState,
    /// Why.
    pub reason: Reason,
    /// The fault of the call that caused the change, if a call did.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::fault"))]
    pub fault: Option<Fault>,
    /// What the window held when a closed circuit changed: for a trip, the counts that led to it.
    /// `None`: the circuit was not closed.
    pub counts: Option<Counts>,
    /// The failures since the last success when a closed circuit changed. 0: the circuit was not
    /// closed.
    pub consecutive_failures: u64,
    /// When it was, by the wall clock: for people, no decision reads it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::time"))]
    pub at: SystemTime,
    /// Counts the circuit's changes, so that two of them can be told in order; it starts over after 2²⁴.
    pub epoch: u32,
}

/// The last failure that a circuit heard of.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LastFailure {
    /// The verdict on the failure.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::one_fault"))]
    pub fault: Fault,
    /// The compiler's name of the cause's type, for people: the innermost error whose type is
    /// known. Known are the types of the standard library and of the clients whose features are on,
    /// the type that the classifier was given, and the type that the service returns. For a
    /// response, the type of the response.
    pub type_name: &'static str,
    /// The text of the error and of its sources, separated by colons, without the text of a
    /// `ClassifiedError`, which is that of [`fault`](Self::fault). For a response, the text of its fault.
    pub message: String,
    /// The label that the layer was given.
    pub label: Cow<'static, str>,
}
