//! Keeps retries a small share of the traffic.
//!
//! When a service fails for everybody, retries multiply its load exactly when it can bear the least. A budget allows them only in
//! proportion to the requests that were made: each request pays in, each retry draws.
//!
//! One client's budget does not protect a server from ten thousand clients unless it is small: each of them has its own.

mod core;
mod rules;

use std::fmt;
use std::time::Duration;

use tower_fault_classify::__shared::{Buckets, Clock, ConfigError, Recycled};
use tower_fault_classify::{Kind, Verdict};

use self::core::BudgetCore;
use self::rules::Rules;

/// A share of the requests of the last seconds that may be spent on retries, and a few a second beside it.
///
/// Clones share one budget; give one to several policies to bound their retries together.
///
/// ```
/// use std::time::Duration;
/// use tower_jitter_retry::Budget;
///
/// let default = Budget::default();
/// let strict = Budget::builder().ratio(0.05).min_per_second(1).build()?;
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Budget {
    core: Recycled<BudgetCore>,
    /// Calls that outlive the last handle must not pay into the next owner's budget.
    epoch: u32,
}

impl Budget {
    /// A builder with the defaults: 20 % of the requests of the last 10 s, and 10 retries a second (the defaults of Finagle's
    /// `RetryBudget`, which tower's follow).
    pub fn builder() -> BudgetBuilder {
        BudgetBuilder {
            ratio: 0.2,
            min_per_second: 10,
            span: Duration::from_secs(10),
            clock: Clock::default(),
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.core.clock()
    }

    pub(crate) fn account(&self) -> Account {
        Account { core: self.core.forever(), epoch: self.epoch }
    }
}

impl Default for Budget {
    fn default() -> Self {
        let budget = Self::builder().build();
        // A test holds that the defaults are in their ranges.
        budget.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

impl PartialEq for Budget {
    /// Whether both are handles to one budget.
    fn eq(&self, other: &Self) -> bool {
        self.core.is(&other.core)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("core", &*self.core).field("epoch", &self.epoch).finish()
    }
}

/// A budget as a call sees it: without a handle, so that a call counts no references.
#[derive(Clone, Copy)]
pub(crate) struct Account {
    core: &'static BudgetCore,
    epoch: u32,
}

impl Account {
    /// Pays in for a request, by what its first attempt came to. One that was never sent pays nothing.
    #[inline]
    pub(crate) fn outcome(&self, verdict: &Verdict, now: u64) {
        if verdict.fault().is_none_or(|fault| fault.kind() != Kind::Rejected) {
            self.core.deposit(now, self.epoch);
        }
    }

    /// Draws for a retry, if there is enough.
    pub(crate) fn try_retry(&self, now: u64) -> bool {
        self.core.withdraw(now, self.epoch)
    }
}

/// Builds a [`Budget`].
#[derive(Clone, Debug)]
#[must_use]
pub struct BudgetBuilder {
    ratio: f64,
    min_per_second: u32,
    span: Duration,
    clock: Clock,
}

impl BudgetBuilder {
    /// Retries per request, 0 to 1,000, kept to a millionth. **Default**: 0.2.
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Retries a second that are allowed beside, so that a client with little traffic can retry at all. They are counted over
    /// the whole [`span`](Self::span): 10 a second over 10 s are 100 at once. **Default**: 10.
    pub fn min_per_second(mut self, retries: u32) -> Self {
        self.min_per_second = retries;
        self
    }

    /// Over how long requests and retries are counted, 1 s to 1 hour, in sixteen buckets. **Default**: 10 s.
    pub fn span(mut self, span: Duration) -> Self {
        self.span = span;
        self
    }

    /// Where the time is read. It is the clock of every policy that uses the budget. **Default**: [`Clock::coarse`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        ConfigError::check("ratio", self.ratio, 0.0..=1_000.0)?;
        let spans = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
        let span = ConfigError::check("span", self.span, spans)?.as_nanos() as u64;
        let (rules, buckets, clock) =
            (Rules::new(self.ratio, self.min_per_second, span), Buckets::of(span), self.clock);
        let core = Recycled::take(
            |core: &BudgetCore| core.fits(rules, buckets, &clock),
            || BudgetCore::new(rules, buckets, clock.clone()),
        );
        let epoch = core.epoch();
        Ok(Budget { core, epoch })
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Fault, Health, Origin, Retry};

    use super::*;

    fn budget(ratio: f64, min_per_second: u32) -> (Budget, tower_fault_classify::__shared::ManualClock) {
        let (clock, hand) = Clock::manual();
        (Budget::builder().ratio(ratio).min_per_second(min_per_second).clock(clock).build().unwrap(), hand)
    }

    fn granted(budget: &Budget) -> usize {
        let now = budget.clock().now();
        (0..10_000).take_while(|_| budget.account().try_retry(now)).count()
    }

    fn pay(budget: &Budget, requests: usize) {
        let now = budget.clock().now();
        for _ in 0..requests {
            budget.account().outcome(&Verdict::Success, now);
        }
    }

    #[test]
    fn it_grants_the_ratio_exactly() {
        for (ratio, granted_of_a_thousand) in
            [(0.0, 0), (0.1, 100), (0.2, 200), (0.6, 600), (1.0, 1_000), (2.5, 2_500)]
        {
            let (budget, _hand) = budget(ratio, 0);
            assert_eq!(granted(&budget), 0, "nothing was paid in");
            pay(&budget, 1_000);
            assert_eq!(granted(&budget), granted_of_a_thousand, "{ratio}");
        }
    }

    #[test]
    fn the_reserve_is_there_without_traffic_and_comes_back() {
        let (budget, hand) = budget(0.2, 10);
        assert_eq!(granted(&budget), 100);
        assert_eq!(granted(&budget), 0);
        hand.advance(Duration::from_secs(11));
        assert_eq!(granted(&budget), 100);
    }

    #[test]
    fn a_week_of_idleness_leaves_the_reserve_and_no_more() {
        let (budget, hand) = budget(0.2, 1);
        pay(&budget, 1_000_000);
        hand.advance(Duration::from_secs(7 * 24 * 60 * 60));
        assert_eq!(granted(&budget), 10);
    }

    #[test]
    fn a_rejected_request_pays_nothing() {
        let (budget, _hand) = budget(1.0, 0);
        let rejected = Fault::new(Kind::Rejected, Retry::Never, Health::Neutral, Origin::Local);
        budget.account().outcome(&rejected.into(), 0);
        assert_eq!(granted(&budget), 0);
        budget.account().outcome(&rejected.with_kind(Kind::Server).into(), 0);
        assert_eq!(granted(&budget), 1);
    }

    #[test]
    fn a_call_of_the_last_owner_neither_pays_nor_draws() {
        let (clock, _hand) = Clock::manual();
        let builder = Budget::builder().ratio(1.0).min_per_second(0).clock(clock);
        let first = builder.clone().build().unwrap();
        let (late, core) = (first.account(), first.core.forever());
        drop(first);
        let second = builder.build().unwrap();
        assert!(std::ptr::eq(second.core.forever(), core), "it was used again");
        late.outcome(&Verdict::Success, 0);
        assert_eq!(granted(&second), 0);
        pay(&second, 1);
        assert!(!late.try_retry(0));
        assert_eq!(granted(&second), 1);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let field = |builder: BudgetBuilder| builder.build().unwrap_err().field();
        for ratio in [-0.1, 1_000.1, f64::NAN, f64::INFINITY] {
            assert_eq!(field(Budget::builder().ratio(ratio)), "ratio");
        }
        for span in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(3_601)] {
            assert_eq!(field(Budget::builder().span(span)), "span");
        }
        assert!(Budget::builder().ratio(1_000.0).min_per_second(u32::MAX).build().is_ok());
    }
}
