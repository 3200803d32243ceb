//! What others are told, always outside every lock.

mod failure;

pub use failure::{KeepFailures, LastFailure};

use std::sync::Arc;

use tower_fault_classify::Fault;

use crate::machine::{CircuitState, Counts, Reason};

/// A change of a circuit's state.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Transition {
    /// The circuit's name.
    pub circuit: &'static str,
    /// Where it stood.
    pub from: CircuitState,
    /// Where it stands now.
    pub to: CircuitState,
    /// Why.
    pub reason: Reason,
    /// The fault of the call that caused the change, if a call did.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::serde::fault"))]
    pub fault: Option<Fault>,
    /// What the window held, where it was looked at.
    pub counts: Option<Counts>,
    /// Counts the circuit's changes, so that two of them can be told in order; it starts over after 2²⁴.
    pub epoch: u32,
}

/// Who is told of transitions.
pub(crate) type Observer = Arc<dyn Fn(&Transition) + Send + Sync>;

/// Tells an observer. Its panic ends there: the call that happened to cause the transition has no part in it.
pub(crate) fn tell(observer: &Observer, transition: &Transition) {
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| observer(transition)));
    // The panic hook has reported it.
    drop(told);
}
