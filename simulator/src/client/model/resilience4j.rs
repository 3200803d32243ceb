//! The breaker of resilience4j.

use std::collections::VecDeque;

use super::Model;
use crate::time::SECOND;

/// `slidingWindowSize` and `minimumNumberOfCalls`.
const WINDOW: usize = 100;
/// `permittedNumberOfCallsInHalfOpenState`.
const PROBES: usize = 10;
/// `waitDurationInOpenState`.
const OPEN: u64 = 60 * SECOND;

/// The `CircuitBreaker` of resilience4j with its defaults.
///
/// | setting | value |
/// |---|---|
/// | `slidingWindowType` | `COUNT_BASED` |
/// | `slidingWindowSize`, `minimumNumberOfCalls` | 100 |
/// | `failureRateThreshold` | 50 % |
/// | `waitDurationInOpenState` | 60 s |
/// | `permittedNumberOfCallsInHalfOpenState` | 10 |
/// | `maxWaitDurationInHalfOpenState` | 0: no limit |
///
/// The rate is compared after each outcome. The half-open state compares it after ten outcomes. An
/// outcome counts in the state in which it arrives, also if its request was sent in an earlier
/// state.
///
/// Sources:
///
/// - `CircuitBreakerConfig` of the main branch:
///   <https://github.com/resilience4j/resilience4j/blob/027f1a92ff6682a085a7d02205d5b624a3377a4d/resilience4j-circuitbreaker/src/main/java/io/github/resilience4j/circuitbreaker/CircuitBreakerConfig.java>
/// - `CircuitBreakerStateMachine` of the main branch:
///   <https://github.com/resilience4j/resilience4j/blob/1a4a71641b064ea1b7eacfb303d865ef6ec5c064/resilience4j-circuitbreaker/src/main/java/io/github/resilience4j/circuitbreaker/internal/CircuitBreakerStateMachine.java>
///
/// Difference: the model has no rate of slow calls. The original counts calls of more than 60 s as
/// slow, and no call of the simulation is that slow.
#[derive(Debug)]
pub struct Resilience4j(State);

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: u64 },
    HalfOpen { permits: usize, window: Window },
}

/// The outcomes of the last calls.
#[derive(Debug)]
struct Window {
    size: usize,
    outcomes: VecDeque<bool>,
    failures: usize,
}

impl Resilience4j {
    /// Creates a closed breaker.
    pub fn new() -> Self {
        Self(State::closed())
    }
}

impl Default for Resilience4j {
    fn default() -> Self {
        Self::new()
    }
}

impl Model for Resilience4j {
    fn admit(&mut self, now: u64) -> Option<u64> {
        if matches!(self.0, State::Open { until } if now >= until) {
            self.0 = State::HalfOpen { permits: PROBES, window: Window::new(PROBES) };
        }
        match &mut self.0 {
            State::Closed(_) => {}
            State::Open { .. } => return None,
            State::HalfOpen { permits, .. } => *permits = permits.checked_sub(1)?,
        }
        Some(0)
    }

    fn record(&mut self, now: u64, _: u64, success: bool) {
        let failing = match &mut self.0 {
            State::Closed(window) | State::HalfOpen { window, .. } => window.record(success),
            State::Open { .. } => return,
        };
        match failing {
            Some(true) => self.0 = State::Open { until: now + OPEN },
            Some(false) if matches!(self.0, State::HalfOpen { .. }) => self.0 = State::closed(),
            Some(false) | None => {}
        }
    }
}

impl State {
    fn closed() -> Self {
        Self::Closed(Window::new(WINDOW))
    }
}

impl Window {
    fn new(size: usize) -> Self {
        Self { size, outcomes: VecDeque::with_capacity(size), failures: 0 }
    }

    /// Records an outcome. Returns whether half of the calls failed. `None`: the window is not
    /// full.
    fn record(&mut self, success: bool) -> Option<bool> {
        if self.outcomes.len() == self.size && self.outcomes.pop_front() == Some(false) {
            self.failures -= 1;
        }
        self.outcomes.push_back(success);
        self.failures += usize::from(!success);
        (self.outcomes.len() == self.size).then_some(self.failures * 2 >= self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FAILED, OK, send};
    use super::*;

    fn open() -> Resilience4j {
        let mut model = Resilience4j::new();
        assert_eq!(send(&mut model, 0, &[FAILED; 101]), 100);
        model
    }

    #[test]
    fn closed_circuit_opens_at_half_of_100_calls() {
        let mut model = Resilience4j::new();
        assert_eq!(send(&mut model, 0, &[FAILED; 49]), 49);
        assert_eq!(send(&mut model, 0, &[OK; 51]), 51);
        // The window now loses a failure with each call, and gets it back.
        assert_eq!(send(&mut model, 0, &[FAILED; 49]), 49);
        assert_eq!(send(&mut model, 0, &[FAILED, OK]), 1);
    }

    #[test]
    fn success_that_fills_the_window_opens_at_half() {
        let mut model = Resilience4j::new();
        assert_eq!(send(&mut model, 0, &[FAILED; 50]), 50);
        assert_eq!(send(&mut model, 0, &[OK; 51]), 50);
    }

    #[test]
    fn open_circuit_admits_ten_calls_after_60_seconds() {
        let mut model = open();
        assert_eq!(model.admit(60 * SECOND - 1), None);
        let admitted = (0..20).filter(|_| model.admit(60 * SECOND).is_some()).count();
        assert_eq!(admitted, 10);
    }

    #[test]
    fn half_open_circuit_closes_below_half_and_opens_at_half() {
        let probes = |failures| [vec![FAILED; failures], vec![OK; 10 - failures]].concat();
        let mut model = open();
        assert_eq!(send(&mut model, OPEN, &probes(4)), 10);
        assert_eq!(send(&mut model, OPEN, &[OK; 50]), 50);

        let mut model = open();
        assert_eq!(send(&mut model, OPEN, &probes(5)), 10);
        assert_eq!(model.admit(2 * OPEN - 1), None);
        assert!(model.admit(2 * OPEN).is_some());
    }

    #[test]
    fn late_outcome_is_ignored_when_open_and_counts_when_half_open() {
        let mut model = open();
        (0..20).for_each(|_| model.record(1, 0, OK));
        assert_eq!(model.admit(OPEN - 1), None);
        assert!(model.admit(OPEN).is_some());
        (0..10).for_each(|_| model.record(OPEN, 0, FAILED));
        assert_eq!(model.admit(OPEN), None);
    }
}
