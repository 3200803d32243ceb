//! Whether a process votes to open a circuit.

use tower_breaker::{BreakerConfig, CircuitState, Mode, Status};

/// Whether the process counts as a member of the circuit.
///
/// A circuit that only observes follows the fleet in its simulation. It is no member, because it
/// never votes: otherwise the processes that do vote would need a larger majority among themselves.
pub(crate) fn is_member(config: &BreakerConfig) -> bool {
    config.mode() == Mode::Enforce
}

/// Returns whether the process votes to open the circuit.
///
/// - `votes_needed`: the votes that open the circuit, as the store replied last; 0 if unknown.
/// - `has_local_evidence`: whether the circuit is open or half-open on its own evidence.
///
/// A closed circuit votes with its share of the evidence: together, the votes that open a circuit
/// contain at least [`minimum_calls`](BreakerConfig::minimum_calls) failures. So a fleet of quiet
/// processes decides as early as one busy process.
pub(crate) fn votes(
    status: &Status,
    config: &BreakerConfig,
    votes_needed: u32,
    has_local_evidence: bool,
) -> bool {
    if !is_member(config) {
        return false;
    }
    if has_local_evidence {
        return true;
    }
    if status.state != CircuitState::Closed {
        return false;
    }
    let least = u64::from(config.minimum_calls().div_ceil(votes_needed.max(1)).max(1));
    let is_over = |limit| status.window.failure_rate() >= limit;
    status.window.failures >= least && config.failure_rate().is_some_and(is_over)
}

#[cfg(test)]
mod tests {
    use tower_breaker::test_util;

    use super::*;

    fn status(state: CircuitState, calls: u64, failures: u64) -> Status {
        let mut status = test_util::status("search", state);
        (status.window.calls, status.window.failures) = (calls, failures);
        status
    }

    fn votes(status: &Status, votes_needed: u32, has_local_evidence: bool) -> bool {
        super::votes(status, &BreakerConfig::default(), votes_needed, has_local_evidence)
    }

    #[test]
    fn closed_circuit_votes_with_its_share_of_the_minimum_calls() {
        for (votes_needed, least) in [(0, 20), (1, 20), (2, 10), (3, 7), (10, 2), (20, 1), (500, 1)] {
            let below = status(CircuitState::Closed, least - 1, least - 1);
            assert!(!votes(&below, votes_needed, false), "{votes_needed}");
            assert!(
                votes(&status(CircuitState::Closed, least, least), votes_needed, false),
                "{votes_needed}"
            );
        }
    }

    #[test]
    fn closed_circuit_below_the_failure_rate_does_not_vote() {
        assert!(!votes(&status(CircuitState::Closed, 41, 20), 2, false));
        assert!(votes(&status(CircuitState::Closed, 40, 20), 2, false));
        let config = BreakerConfig::builder().failure_rate(None).build().unwrap();
        assert!(!super::votes(&status(CircuitState::Closed, 40, 40), &config, 2, false));
    }

    #[test]
    fn only_local_evidence_votes_while_not_closed() {
        for state in [CircuitState::Open, CircuitState::HalfOpen] {
            assert!(votes(&status(state, 0, 0), 2, true), "{state}");
            assert!(!votes(&status(state, 40, 40), 2, false), "{state}");
        }
        for state in [CircuitState::ForcedOpen, CircuitState::ForcedClosed, CircuitState::Disabled] {
            assert!(!votes(&status(state, 40, 40), 2, false), "{state}");
        }
    }

    #[test]
    fn circuit_that_only_observes_never_votes() {
        for mode in [Mode::ObserveOnly, Mode::Disabled] {
            let config = BreakerConfig::builder().mode(mode).build().unwrap();
            let failing = status(CircuitState::Closed, 40, 40);
            assert!(!super::votes(&failing, &config, 2, false), "{mode}");
            assert!(!super::votes(&failing, &config, 2, true), "{mode}");
        }
    }
}
