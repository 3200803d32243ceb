//! The circuit breaker of Hystrix.

use std::collections::VecDeque;

use super::Model;
use crate::time::{MILLISECOND, SECOND};

/// `circuitBreaker.requestVolumeThreshold`.
const MINIMUM: u64 = 20;
/// `circuitBreaker.errorThresholdPercentage`.
const FAILING_PERCENT: u64 = 50;
/// `circuitBreaker.sleepWindowInMilliseconds`.
const OPEN: u64 = 5 * SECOND;
/// `metrics.healthSnapshot.intervalInMilliseconds`.
const SNAPSHOT: u64 = 500 * MILLISECOND;
/// How many snapshots `metrics.rollingStats.timeInMilliseconds` contains: 10 s.
const SNAPSHOTS: usize = 20;

/// The circuit breaker of Hystrix with its defaults.
///
/// | setting | value |
/// |---|---|
/// | `metrics.rollingStats.timeInMilliseconds` | 10 s |
/// | `metrics.healthSnapshot.intervalInMilliseconds` | 500 ms |
/// | `circuitBreaker.requestVolumeThreshold` | 20 |
/// | `circuitBreaker.errorThresholdPercentage` | 50 % |
/// | `circuitBreaker.sleepWindowInMilliseconds` | 5 s |
///
/// The rate is compared every 500 ms, over the last 20 complete intervals. After the sleep one call
/// is sent. The next outcome decides, also that of a request that was sent before. A success clears
/// the counts.
///
/// Sources:
///
/// - Documentation: <https://github.com/Netflix/Hystrix/wiki/Configuration>
/// - Values: <https://github.com/Netflix/Hystrix/blob/08672cd70f623b1ad620da3d0e8bef2f1621ead1/hystrix-core/src/main/java/com/netflix/hystrix/HystrixCommandProperties.java>
/// - States: <https://github.com/Netflix/Hystrix/blob/001526b797310fa0b5befa767750cb20e82376a1/hystrix-core/src/main/java/com/netflix/hystrix/HystrixCircuitBreaker.java>
///
/// Differences:
///
/// - The model compares the rate at multiples of 500 ms. The original begins to count time with the
///   first call, and again when it closes.
/// - The model has no thread pool, and so none of its rejections.
#[derive(Debug)]
pub struct Hystrix {
    state: State,
    /// The counts of the last complete intervals. The oldest is the first.
    complete: VecDeque<Counts>,
    current: Counts,
    /// The end of the current interval.
    next_snapshot: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Open { until: u64 },
    HalfOpen,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u64,
    failures: u64,
}

impl Hystrix {
    /// Creates a closed breaker.
    pub fn new() -> Self {
        Self {
            state: State::Closed,
            complete: VecDeque::new(),
            current: Counts::default(),
            next_snapshot: SNAPSHOT,
        }
    }

    /// Ends the intervals that are over, and compares the rate at the end of each.
    fn update(&mut self, now: u64) {
        while self.next_snapshot <= now {
            if self.complete.len() == SNAPSHOTS {
                self.complete.pop_front();
            }
            self.complete.push_back(std::mem::take(&mut self.current));
            if matches!(self.state, State::Closed) && self.is_failing() {
                self.state = State::Open { until: self.next_snapshot + OPEN };
            }
            self.next_snapshot += SNAPSHOT;
        }
    }

    fn is_failing(&self) -> bool {
        let calls: u64 = self.complete.iter().map(|counts| counts.calls).sum();
        let failures: u64 = self.complete.iter().map(|counts| counts.failures).sum();
        calls >= MINIMUM && failures * 100 / calls >= FAILING_PERCENT
    }
}

impl Default for Hystrix {
    fn default() -> Self {
        Self::new()
    }
}

impl Model for Hystrix {
    fn admit(&mut self, now: u64) -> Option<u64> {
        self.update(now);
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
        self.update(now);
        self.current.calls += 1;
        self.current.failures += u64::from(!success);
        match self.state {
            State::HalfOpen if success => *self = Self { next_snapshot: self.next_snapshot, ..Self::new() },
            State::HalfOpen => self.state = State::Open { until: now + OPEN },
            State::Closed | State::Open { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FAILED, OK, send};
    use super::*;

    /// Opens at 500 ms.
    fn open() -> Hystrix {
        let mut model = Hystrix::new();
        assert_eq!(send(&mut model, 0, &[FAILED; 20]), 20);
        assert_eq!(model.admit(SNAPSHOT), None);
        model
    }

    #[test]
    fn closed_circuit_opens_at_half_of_20_calls_in_the_next_snapshot() {
        let mut model = Hystrix::new();
        assert_eq!(send(&mut model, 0, &[OK, FAILED].repeat(10)), 20);
        assert!(model.admit(SNAPSHOT - 1).is_some());
        assert_eq!(model.admit(SNAPSHOT), None);
        for outcomes in [vec![FAILED; 19], [vec![OK; 11], vec![FAILED; 10]].concat()] {
            let mut model = Hystrix::new();
            send(&mut model, 0, &outcomes);
            assert!(model.admit(SNAPSHOT).is_some(), "{outcomes:?}");
        }
    }

    #[test]
    fn calls_are_forgotten_after_10_seconds() {
        for (now, opens) in [(19 * SNAPSHOT, true), (20 * SNAPSHOT, false)] {
            let mut model = Hystrix::new();
            assert_eq!(send(&mut model, 0, &[FAILED; 19]), 19);
            assert_eq!(send(&mut model, now, &[FAILED]), 1);
            assert_eq!(model.admit(now + SNAPSHOT).is_none(), opens, "{now}");
        }
    }

    #[test]
    fn open_circuit_admits_one_call_after_5_seconds() {
        let mut model = open();
        assert_eq!(model.admit(5_500 * MILLISECOND - 1), None);
        assert!(model.admit(5_500 * MILLISECOND).is_some());
        assert_eq!(model.admit(50 * SECOND), None);
    }

    #[test]
    fn outcome_of_the_probe_closes_or_opens() {
        let mut model = open();
        let probe = SNAPSHOT + OPEN;
        assert_eq!(send(&mut model, probe, &[FAILED]), 1);
        assert_eq!(model.admit(probe + OPEN - 1), None);
        assert_eq!(send(&mut model, probe + OPEN, &[OK; 10]), 10);

        let mut model = open();
        assert_eq!(send(&mut model, probe, &[OK]), 1);
        // The failures of the last 10 s do not open the circuit again.
        assert!(model.admit(probe + SNAPSHOT).is_some());
    }

    #[test]
    fn late_outcome_changes_nothing_when_open_and_decides_when_half_open() {
        let mut model = open();
        model.record(SNAPSHOT, 0, OK);
        assert_eq!(model.admit(SNAPSHOT + OPEN - 1), None);
        assert!(model.admit(SNAPSHOT + OPEN).is_some());
        model.record(SNAPSHOT + OPEN, 0, OK);
        assert_eq!(send(&mut model, SNAPSHOT + OPEN, &[OK; 10]), 10);
    }
}
