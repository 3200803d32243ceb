//! Events for `tracing`: transitions at warn, rejections at debug.

use super::Transition;
use crate::machine::CircuitState;

pub(super) fn changed(transition: &Transition) {
    let Transition { circuit, key, from, to, reason, fault, counts, epoch, .. } = transition;
    tracing::warn!(
        circuit,
        key = key.as_deref(),
        from = from.as_str(),
        to = to.as_str(),
        reason = reason.as_str(),
        "error.type" = fault.map(|fault| fault.kind().as_str()),
        calls = counts.map(|counts| counts.calls),
        failures = counts.map(|counts| counts.failures),
        slow = counts.map(|counts| counts.slow),
        epoch,
        "circuit is {to}: {reason}",
    );
}

pub(super) fn rejected(circuit: &str, state: CircuitState, enforced: bool) {
    if enforced {
        tracing::debug!(circuit, state = state.as_str(), "call rejected");
    } else {
        tracing::debug!(circuit, state = state.as_str(), "call would have been rejected");
    }
}
