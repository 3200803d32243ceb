//! Compares the histories of circuits with those of a circuit that is not shared.

use tower_breaker::{CircuitState, Reason};

use crate::processes::Step;

/// Whether the fleet has decided the transition.
pub(crate) fn is_commanded(step: &Step) -> bool {
    matches!(step.reason, Reason::CommandedOpen | Reason::CommandedProbe | Reason::CommandedClose)
}

/// Returns the transitions after the last one that the fleet has decided, without their times.
///
/// A round is a half-opening and the opening by its failed probe. The number of rounds depends on
/// the time that the test takes, so rounds in a row are one.
pub(crate) fn own_decisions(history: &[Step]) -> Vec<(CircuitState, CircuitState, Reason)> {
    let start = history.iter().rposition(is_commanded).map_or(0, |last| last + 1);
    let mut steps: Vec<_> = history[start..].iter().map(|step| (step.from, step.to, step.reason)).collect();
    let mut index = 0;
    while index + 4 <= steps.len() {
        if steps[index..index + 2] == steps[index + 2..index + 4] {
            steps.drain(index..index + 2);
        } else {
            index += 1;
        }
    }
    steps
}
