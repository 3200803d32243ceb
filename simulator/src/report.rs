//! The counts of a run, and what is derived from them.

use std::ops::Range;

use crate::time::{MILLISECOND, SECOND};

/// The counts of one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that began in this second.
    pub asked: u64,
    /// How many of these calls were answered.
    pub answered: u64,
    /// How many of these calls were sent and failed.
    pub failed: u64,
    /// How many of these calls the breaker rejected before any request was sent.
    pub rejected: u64,
    /// Requests that were sent in this second, retries included.
    pub sent: u64,
}

impl Counts {
    /// Adds the counts of another second.
    pub const fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.failed += other.failed;
        self.rejected += other.rejected;
        self.sent += other.sent;
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The counts of each second.
    pub seconds: Vec<Counts>,
    /// Requests that were sent in each tenth of a second, retries included.
    pub sent_tenths: Vec<u64>,
    /// With a backlog: items that arrived, those of the start included.
    pub items: u64,
    /// With a backlog: items that are still there at the end.
    pub left: u64,
    /// With a backlog: the first time, in nanoseconds, at which all items are answered.
    /// Only times after the outage are considered. `None`: there was no such time.
    pub drained: Option<u64>,
}

impl Report {
    /// Returns the counts of the second that contains `at`, in nanoseconds.
    pub fn second(&mut self, at: u64) -> &mut Counts {
        let second = (at / SECOND) as usize;
        if second >= self.seconds.len() {
            self.seconds.resize(second + 1, Counts::default());
        }
        &mut self.seconds[second]
    }

    /// Counts a request that is sent at `at`, in nanoseconds.
    pub fn add_sent(&mut self, at: u64) {
        self.second(at).sent += 1;
        let tenth = (at / (100 * MILLISECOND)) as usize;
        if tenth >= self.sent_tenths.len() {
            self.sent_tenths.resize(tenth + 1, 0);
        }
        self.sent_tenths[tenth] += 1;
    }

    /// Returns the sum over some seconds. Seconds after the end of the run are zero.
    pub fn sum(&self, seconds: Range<usize>) -> Counts {
        let mut sum = Counts::default();
        for second in self.seconds.iter().take(seconds.end).skip(seconds.start) {
            sum.add(second);
        }
        sum
    }

    /// Returns the sum over the whole run.
    pub fn total(&self) -> Counts {
        self.sum(0..self.seconds.len())
    }

    /// Returns the number of seconds after `end` until the server serves the clients again.
    ///
    /// This is the case from the first second on from which 95 % of the calls of the next five
    /// seconds are answered. `None`: there is no such second before `horizon`.
    pub fn recovery(&self, end: usize, horizon: usize) -> Option<usize> {
        const SPAN: usize = 5;
        (end..=horizon.saturating_sub(SPAN))
            .find(|&from| {
                let counts = self.sum(from..from + SPAN);
                counts.asked > 0 && counts.answered * 100 >= counts.asked * 95
            })
            .map(|from| from - end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(answered_per_second: &[u64]) -> Report {
        let second = |&answered| Counts { asked: 100, answered, ..Counts::default() };
        Report { seconds: answered_per_second.iter().map(second).collect(), ..Report::default() }
    }

    #[test]
    fn recovery_begins_with_five_good_seconds() {
        let counts = [0, 0, 0, 100, 0, 100, 90, 95, 95, 95, 95, 100];
        assert_eq!(report(&counts).recovery(2, 12), Some(3));
        assert_eq!(report(&counts).recovery(2, 9), None, "the five seconds end after the horizon");
        assert_eq!(report(&[0; 12]).recovery(2, 12), None);
    }

    #[test]
    fn second_grows_the_report() {
        let mut report = Report::default();
        report.add_sent(3 * SECOND - 1);
        report.add_sent(SECOND);
        assert_eq!(report.seconds.iter().map(|second| second.sent).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!((report.sent_tenths.len(), report.sent_tenths[10], report.sent_tenths[29]), (30, 1, 1));
        assert_eq!((report.total().sent, report.sum(2..9).sent), (2, 1));
    }
}
