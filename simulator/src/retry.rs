//! The retry decision for one call, over the public API of the policy, its backoff and its budget.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::{Retryable, Verdict};
use tower_jitter_retry::RetryPolicy;
use tower_jitter_retry::backoff::Delays;
use tower_jitter_retry::budget::{RetryBudget, Ticket};

use crate::random::Random;

type Uniform = Box<dyn FnMut(RangeInclusive<u64>) -> u64>;

/// The progress of one call.
///
/// Every request is idempotent. There are no deadlines.
pub struct RetryCall {
    started: u64,
    attempts: u32,
    delays: Option<Delays<Uniform>>,
    ticket: Option<Ticket>,
}

impl RetryCall {
    /// Begins a call at `now`, in nanoseconds.
    pub const fn new(now: u64) -> Self {
        Self { started: now, attempts: 1, delays: None, ticket: None }
    }

    /// Returns the number of attempts, including the running one.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Records the verdict on an attempt. Returns the delay before the next attempt, in
    /// nanoseconds, or `None` if no attempt follows.
    pub fn record(
        &mut self,
        policy: &RetryPolicy,
        verdict: &Verdict,
        now: u64,
        random: &mut Random,
    ) -> Option<u64> {
        let budget = policy.budget();
        if self.attempts == 1
            && let Some(budget) = budget
        {
            budget.deposit(verdict);
        }
        match (self.ticket.take(), verdict) {
            (None, _) => {}
            (Some(ticket), Verdict::Fault(fault)) => ticket.failed(fault),
            (Some(ticket), _) => ticket.succeeded(),
        }
        let fault = verdict.fault()?;
        let retryable =
            matches!(fault.retryable(), Retryable::Unsent | Retryable::Refused | Retryable::IfIdempotent);
        let hint = fault.retry_after().unwrap_or(Duration::ZERO);
        if !retryable || self.attempts >= policy.max_attempts() || hint > policy.max_retry_after() {
            return None;
        }
        let delays = self.delays.get_or_insert_with(|| {
            // Each call draws from its own stream.
            let mut random = random.fork();
            let uniform: Uniform = Box::new(move |range| random.within(range));
            policy.backoff().delays(uniform)
        });
        let own = delays.next()?;
        let stretch = nanos((hint / 2).min(Duration::from_secs(5)));
        let delay = nanos(own).max(nanos(hint) + random.within(0..=stretch));
        let end = policy.max_elapsed().map_or(u64::MAX, |time| self.started.saturating_add(nanos(time)));
        if now.saturating_add(delay) > end {
            return None;
        }
        if let Some(budget) = budget {
            self.ticket = Some(budget.withdraw(fault)?);
        }
        self.attempts += 1;
        Some(delay)
    }
}

impl fmt::Debug for RetryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryCall").field("attempts", &self.attempts).finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tower_jitter_retry::{Budget, Jitter};

    use super::*;
    use crate::random::Stream;
    use crate::reply::Reply;
    use crate::time::{MILLISECOND, SECOND};

    fn delays(policy: &RetryPolicy, reply: Reply) -> Vec<u64> {
        let (mut call, mut random) = (RetryCall::new(0), Random::new(1, Stream::Delays));
        let verdict = reply.verdict();
        std::iter::from_fn(|| call.record(policy, &verdict, 0, &mut random)).collect()
    }

    #[test]
    fn delays_follow_the_backoff_until_the_attempts_end() {
        let policy = RetryPolicy::builder().jitter(Jitter::None).max_attempts(4).budget(None);
        let delays = delays(&policy.build().unwrap(), Reply::TimedOut);
        assert_eq!(delays, [100, 200, 400].map(|delay| delay * MILLISECOND));
    }

    #[test]
    fn retries_wait_for_the_time_that_the_server_asks_for() {
        let policy = RetryPolicy::builder().budget(None).build().unwrap();
        let delays = delays(&policy, Reply::Unavailable { retry_after: Some(2) });
        assert!(delays.len() == 2 && delays.iter().all(|delay| (2 * SECOND..=3 * SECOND).contains(delay)));
    }

    #[test]
    fn each_call_deposits_once_and_each_retry_withdraws() {
        // Each call deposits a tenth of a retry.
        let budget = Budget::window().ratio(0.1).min_per_second(0).build().unwrap();
        let policy = RetryPolicy::builder().budget(budget).build().unwrap();
        let granted: usize = (0..100).map(|_| delays(&policy, Reply::TimedOut).len()).sum();
        assert_eq!(granted, 10);
    }
}
