//! Events for `tracing`: openings at `WARN`, other transitions at `INFO`, failures and rejections
//! at `DEBUG`.

use std::sync::Arc;

use super::{Failure, TARGET, Transition};
use crate::machine::CircuitState;

/// Logs a transition at a level, which must be a constant.
macro_rules! log_at {
    ($level:expr, $transition:expr) => {{
        let Transition { circuit, key, from, to, reason, fault, counts, consecutive_failures, half_open, epoch, .. } = $transition;
        ::tracing::event!(
            target: TARGET,
            $level,
            circuit,
            key = key.as_deref(),
            from = from.as_str(),
            to = to.as_str(),
            reason = reason.as_str(),
            "error.type" = fault.map(|fault| fault.kind().as_str()),
            calls = counts.map(|counts| counts.calls),
            failures = counts.map(|counts| counts.failures),
            slow = counts.map(|counts| counts.slow),
            consecutive_failures = counts.map(|_| *consecutive_failures),
            probe_successes = half_open.map(|progress| progress.successes),
            epoch,
            "circuit is {to}: {reason}",
        );
    }};
}

/// Logs a transition.
pub(crate) fn log_transition(transition: &Transition) {
    match transition.to {
        CircuitState::Open | CircuitState::ForcedOpen => log_at!(::tracing::Level::WARN, transition),
        _ => log_at!(::tracing::Level::INFO, transition),
    }
}

/// Returns whether failures are logged.
#[inline]
pub(crate) fn logs_failures() -> bool {
    ::tracing::enabled!(target: TARGET, ::tracing::Level::DEBUG)
}

/// Logs a call that a circuit has counted as a failure.
pub(crate) fn log_failure(Failure { circuit, key, fault, state, consecutive_failures, .. }: &Failure) {
    ::tracing::debug!(
        target: TARGET,
        circuit,
        key = key.as_deref(),
        state = state.as_str(),
        "error.type" = fault.kind().as_str(),
        "fault.origin" = fault.origin().as_str(),
        consecutive_failures,
        "call failed",
    );
}

/// Logs a rejected call, or a call that a circuit in `Mode::ObserveOnly` would have rejected.
#[inline]
pub(crate) fn log_rejection(
    circuit: impl FnOnce() -> &'static str,
    key: impl FnOnce() -> Option<Arc<str>>,
    state: CircuitState,
    enforced: bool,
) {
    // With `Mode::ObserveOnly` the key is formatted only if the event is logged. The `Rejection` of
    // an enforced rejection formats the key in any case.
    if !::tracing::enabled!(target: TARGET, ::tracing::Level::DEBUG) {
        return;
    }
    let (circuit, key, state) = (circuit(), key(), state.as_str());
    if enforced {
        ::tracing::debug!(target: TARGET, circuit, key = key.as_deref(), state, "call rejected");
    } else {
        ::tracing::debug!(target: TARGET, circuit, key = key.as_deref(), state, "call would have been rejected");
    }
}
