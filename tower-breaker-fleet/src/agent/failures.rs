//! When the consecutive failures of a process happened.
//!
//! The status has their number, and the time of the last one. A fleet that adds up the failures of
//! all processes needs the time of each, because the success of another process may be between
//! them. So the agent looks at the status after each failure, and again every 20 ms while there are
//! consecutive failures.

use std::time::Duration;

use tower_breaker::{CircuitState, Status};

use super::Time;

/// The latest of the current consecutive failures of a closed circuit.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The number of failures at the last look.
    count: u64,
    /// When the latest of them were seen, oldest first.
    seen_at: Vec<Time>,
    looked_at: Time,
    /// The last look before the last success that has ended consecutive failures.
    succeeded_after: Option<Time>,
}

impl Failures {
    /// Looks at the circuit, and keeps the times of up to `limit` failures.
    pub(super) fn look(&mut self, now: Time, status: &Status, limit: usize) {
        let is_closed = status.state == CircuitState::Closed;
        let count = if is_closed { status.consecutive_failures } else { 0 };
        if count < self.count {
            // A reset ends the failures, too. It does no harm that it counts as a success.
            if is_closed {
                self.succeeded_after = Some(self.looked_at);
            }
            self.count = 0;
            self.seen_at.clear();
        }
        let new = usize::try_from(count - self.count).unwrap_or(usize::MAX).min(limit);
        self.seen_at.extend(std::iter::repeat_n(now, new));
        self.seen_at.drain(..self.seen_at.len().saturating_sub(limit));
        (self.count, self.looked_at) = (count, now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen_at.is_empty()
    }

    pub(super) fn seen_at(&self) -> &[Time] {
        &self.seen_at
    }

    /// Returns how long ago the last success was, or longer.
    ///
    /// The status rounds the time up to a bucket of the window. The end of consecutive failures
    /// shows the time of a success to 20 ms.
    pub(super) fn since_success(&self, now: Time, status: &Status) -> Option<Duration> {
        let seen = self.succeeded_after.map(|at| now.saturating_sub(at));
        [seen, status.since_last_success].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use tower_breaker::test_util;

    use super::*;

    const LIMIT: usize = 3;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn status(state: CircuitState, failures: u64) -> Status {
        let mut status = test_util::status("search", state);
        status.consecutive_failures = failures;
        status
    }

    fn look(failures: &mut Failures, millis: u64, count: u64) {
        failures.look(at(millis), &status(CircuitState::Closed, count), LIMIT);
    }

    #[test]
    fn each_failure_has_the_time_of_the_look_that_saw_it() {
        let mut failures = Failures::default();
        look(&mut failures, 10, 1);
        look(&mut failures, 30, 1);
        assert_eq!(failures.seen_at(), [at(10)]);
        look(&mut failures, 50, 3);
        assert_eq!(failures.seen_at(), [at(10), at(50), at(50)]);
        look(&mut failures, 70, 4);
        assert_eq!(failures.seen_at(), [at(50), at(50), at(70)], "the latest");
        look(&mut failures, 90, u64::MAX);
        assert_eq!(failures.seen_at(), [at(90); LIMIT]);
    }

    #[test]
    fn success_is_after_the_last_look_at_the_failures_that_it_ended() {
        let mut failures = Failures::default();
        let healthy = status(CircuitState::Closed, 0);
        look(&mut failures, 10, 2);
        look(&mut failures, 30, 2);
        assert_eq!(failures.since_success(at(30), &healthy), None);
        look(&mut failures, 50, 1);
        assert_eq!(failures.seen_at(), [at(50)]);
        assert_eq!(failures.since_success(at(60), &healthy), Some(Duration::from_millis(30)));
        look(&mut failures, 70, 0);
        assert!(failures.is_empty());
        assert_eq!(failures.since_success(at(80), &healthy), Some(Duration::from_millis(30)));
        // A later success without failures before it is only in the status.
        let mut later = healthy;
        later.since_last_success = Some(Duration::from_millis(5));
        assert_eq!(failures.since_success(at(80), &later), Some(Duration::from_millis(5)));
    }

    #[test]
    fn circuit_that_opens_has_no_failures_and_no_success() {
        let mut failures = Failures::default();
        look(&mut failures, 10, 2);
        let open = status(CircuitState::Open, 5);
        failures.look(at(30), &open, LIMIT);
        assert!(failures.is_empty());
        assert_eq!(failures.since_success(at(30), &open), None);
    }

    #[test]
    fn failures_that_the_fleet_does_not_add_up_are_not_kept() {
        let mut failures = Failures::default();
        failures.look(at(10), &status(CircuitState::Closed, 4), 0);
        assert!(failures.is_empty());
    }
}
