//! The breaker gobreaker of Sony.

use super::Model;
use crate::time::SECOND;

/// `ReadyToTrip` is true for more failures in a row than this.
const CONSECUTIVE: u32 = 5;
/// `Timeout`.
const OPEN: u64 = 60 * SECOND;

/// The breaker gobreaker v2 of Sony with its defaults.
///
/// | setting | value |
/// |---|---|
/// | `ReadyToTrip` | more than five failures in a row |
/// | `Timeout` | 60 s |
/// | `MaxRequests` | 1 in the half-open state |
/// | `Interval` | 0: the counts are not cleared in the closed state |
///
/// One success in the half-open state closes the circuit, and a failure opens it. Each change of
/// the state begins a generation. An outcome of an earlier generation is ignored.
///
/// Sources:
///
/// - Documentation: <https://pkg.go.dev/github.com/sony/gobreaker/v2#Settings>
/// - Source: <https://github.com/sony/gobreaker/blob/0a18939f35cd354331b2f536acbcc56f734cbea5/v2/gobreaker.go>
#[derive(Debug)]
pub struct Gobreaker {
    state: State,
    generation: u64,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: u64 },
    HalfOpen { sent: bool },
}

impl Gobreaker {
    /// Creates a closed breaker.
    pub const fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, generation: 0 }
    }

    const fn set(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }

    /// Begins the half-open state if the open time is over.
    fn update(&mut self, now: u64) {
        if matches!(self.state, State::Open { until } if now >= until) {
            self.set(State::HalfOpen { sent: false });
        }
    }
}

impl Default for Gobreaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Model for Gobreaker {
    fn admit(&mut self, now: u64) -> Option<u64> {
        self.update(now);
        match &mut self.state {
            State::Closed { .. } => {}
            State::HalfOpen { sent } if !*sent => *sent = true,
            State::Open { .. } | State::HalfOpen { .. } => return None,
        }
        Some(self.generation)
    }

    fn record(&mut self, now: u64, ticket: u64, success: bool) {
        self.update(now);
        if ticket != self.generation {
            return;
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures = if success { 0 } else { *failures + 1 };
                if *failures > CONSECUTIVE {
                    self.set(State::Open { until: now + OPEN });
                }
            }
            State::HalfOpen { .. } if success => self.set(State::Closed { failures: 0 }),
            State::HalfOpen { .. } => self.set(State::Open { until: now + OPEN }),
            State::Open { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FAILED, OK, send};
    use super::*;

    fn open() -> Gobreaker {
        let mut model = Gobreaker::new();
        assert_eq!(send(&mut model, 0, &[FAILED; 7]), 6);
        model
    }

    #[test]
    fn closed_circuit_opens_at_more_than_five_failures_in_a_row() {
        let mut model = Gobreaker::new();
        assert_eq!(send(&mut model, 0, &[FAILED, FAILED, FAILED, FAILED, FAILED, OK]), 6);
        assert_eq!(send(&mut model, 0, &[FAILED; 7]), 6);
    }

    #[test]
    fn open_circuit_admits_one_call_after_60_seconds() {
        let mut model = open();
        assert_eq!(model.admit(60 * SECOND - 1), None);
        assert!(model.admit(60 * SECOND).is_some());
        assert_eq!(model.admit(600 * SECOND), None);
    }

    #[test]
    fn outcome_of_the_probe_closes_or_opens() {
        let mut model = open();
        assert_eq!(send(&mut model, OPEN, &[FAILED]), 1);
        assert_eq!(model.admit(2 * OPEN - 1), None);
        assert_eq!(send(&mut model, 2 * OPEN, &[OK; 10]), 10);
    }

    #[test]
    fn outcome_of_an_earlier_generation_is_ignored() {
        let mut model = Gobreaker::new();
        let late = model.admit(0).unwrap();
        assert_eq!(send(&mut model, 0, &[FAILED; 6]), 6);
        let probe = model.admit(OPEN).unwrap();
        model.record(OPEN, late, OK);
        assert_eq!(model.admit(OPEN), None);
        model.record(OPEN, late, FAILED);
        model.record(OPEN, probe, OK);
        assert!(model.admit(OPEN).is_some());
        (0..10).for_each(|_| model.record(OPEN, late, FAILED));
        assert!(model.admit(OPEN).is_some());
    }
}
