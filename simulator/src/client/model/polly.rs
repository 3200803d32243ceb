//! The circuit breaker of Polly 8.

use std::collections::VecDeque;

use super::Model;
use crate::time::SECOND;

/// `MinimumThroughput`.
const MINIMUM: u64 = 100;
/// `FailureRatio`, in percent.
const FAILING_PERCENT: u64 = 10;
/// `SamplingDuration`.
const SAMPLING: u64 = 30 * SECOND;
/// The sampling duration has ten slices.
const SLICE: u64 = SAMPLING / 10;
/// `BreakDuration`.
const OPEN: u64 = 5 * SECOND;

/// The circuit breaker strategy of Polly 8 with its defaults.
///
/// | setting | value |
/// |---|---|
/// | `FailureRatio` | 0.1 |
/// | `MinimumThroughput` | 100 |
/// | `SamplingDuration` | 30 s, in ten slices |
/// | `BreakDuration` | 5 s |
///
/// The ratio is compared after each failure. After the break one call is sent, and its outcome
/// decides. An outcome that arrives late is counted in the open state, and decides in the half-open
/// state.
///
/// Sources:
///
/// - Documentation of the defaults: <https://www.pollydocs.org/strategies/circuit-breaker#defaults>
/// - `CircuitStateController`:
///   <https://github.com/App-vNext/Polly/blob/008b9524f9db83c76548247492282d08022913ba/src/Polly.Core/CircuitBreaker/Controller/CircuitStateController.cs>
/// - `AdvancedCircuitBehavior` and `RollingHealthMetrics`:
///   <https://github.com/App-vNext/Polly/tree/13428cc098f863965c41737265597ab2ba5f16d6/src/Polly.Core/CircuitBreaker>
#[derive(Debug)]
pub struct Polly {
    state: State,
    /// The oldest slice is the first.
    slices: VecDeque<Slice>,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: u64 },
    HalfOpen,
}

/// The outcomes of a part of the sampling duration.
#[derive(Debug)]
struct Slice {
    begin: u64,
    calls: u64,
    failures: u64,
}

impl Polly {
    /// Creates a closed breaker.
    pub const fn new() -> Self {
        Self { state: State::Closed, slices: VecDeque::new() }
    }

    fn count(&mut self, now: u64, success: bool) {
        if self.slices.back().is_none_or(|slice| now - slice.begin >= SLICE) {
            self.slices.push_back(Slice { begin: now, calls: 0, failures: 0 });
        }
        while self.slices.front().is_some_and(|slice| now - slice.begin >= SAMPLING) {
            self.slices.pop_front();
        }
        if let Some(slice) = self.slices.back_mut() {
            slice.calls += 1;
            slice.failures += u64::from(!success);
        }
    }

    fn is_failing(&self) -> bool {
        let calls: u64 = self.slices.iter().map(|slice| slice.calls).sum();
        let failures: u64 = self.slices.iter().map(|slice| slice.failures).sum();
        calls >= MINIMUM && failures * 100 >= calls * FAILING_PERCENT
    }
}

impl Default for Polly {
    fn default() -> Self {
        Self::new()
    }
}

impl Model for Polly {
    fn admit(&mut self, now: u64) -> Option<u64> {
        match self.state {
            State::Closed => Some(0),
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                Some(0)
            }
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    fn record(&mut self, now: u64, _: u64, success: bool) {
        match self.state {
            State::Closed => {
                self.count(now, success);
                if !success && self.is_failing() {
                    self.state = State::Open { until: now + OPEN };
                }
            }
            State::Open { .. } => self.count(now, success),
            State::HalfOpen if success => *self = Self::new(),
            State::HalfOpen => self.state = State::Open { until: now + OPEN },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FAILED, OK, send};
    use super::*;

    fn open() -> Polly {
        let mut model = Polly::new();
        assert_eq!(send(&mut model, 0, &[FAILED; 101]), 100);
        model
    }

    #[test]
    fn closed_circuit_opens_at_ten_of_100_calls() {
        let mut model = Polly::new();
        assert_eq!(send(&mut model, 0, &[OK; 90]), 90);
        assert_eq!(send(&mut model, 0, &[FAILED; 11]), 10);

        let mut model = Polly::new();
        assert_eq!(send(&mut model, 0, &[OK; 91]), 91);
        assert_eq!(send(&mut model, 0, &[FAILED; 10]), 10);
        assert_eq!(send(&mut model, 0, &[OK; 9]), 9);
    }

    #[test]
    fn calls_are_forgotten_after_30_seconds() {
        for (now, admitted) in [(30 * SECOND - 1, 1), (30 * SECOND, 10)] {
            let mut model = Polly::new();
            assert_eq!(send(&mut model, 0, &[FAILED; 99]), 99);
            assert_eq!(send(&mut model, now, &[FAILED; 10]), admitted, "{now}");
        }
    }

    #[test]
    fn open_circuit_admits_one_call_after_5_seconds() {
        let mut model = open();
        assert_eq!(model.admit(5 * SECOND - 1), None);
        assert!(model.admit(5 * SECOND).is_some());
        assert_eq!(model.admit(50 * SECOND), None);
    }

    #[test]
    fn outcome_of_the_probe_closes_or_opens() {
        let mut model = open();
        assert_eq!(send(&mut model, OPEN, &[FAILED]), 1);
        assert_eq!(model.admit(2 * OPEN - 1), None);
        assert_eq!(send(&mut model, 2 * OPEN, &[OK]), 1);
        // The old calls do not count any more.
        assert_eq!(send(&mut model, 2 * OPEN, &[FAILED; 101]), 100);
    }

    #[test]
    fn late_outcome_is_counted_when_open_and_decides_when_half_open() {
        let mut model = open();
        model.record(1, 0, FAILED);
        assert_eq!(model.slices.iter().map(|slice| slice.calls).sum::<u64>(), 101);
        assert_eq!(model.admit(OPEN - 1), None);
        assert!(model.admit(OPEN).is_some());
        model.record(OPEN, 0, OK);
        assert_eq!(send(&mut model, OPEN, &[OK; 10]), 10);
    }
}
