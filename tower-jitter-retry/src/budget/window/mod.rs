//! A window: a share of the requests of the last seconds, and a few retries a second beside.

mod core;
mod rules;

use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::__shared::{Buckets, Clock, ConfigError, Recycled};

pub(super) use self::core::{Owner, WindowCore};
use self::rules::Rules;
use super::{Budget, Kind};

pub(crate) const RATIOS: RangeInclusive<f64> = 0.0..=1_000.0;

pub(crate) const SPANS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// Builds a budget over a sliding window.
#[derive(Clone, Debug)]
#[must_use]
pub struct BudgetBuilder {
    ratio: f64,
    min_per_second: u32,
    span: Duration,
    clock: Clock,
}

impl Default for BudgetBuilder {
    fn default() -> Self {
        Self { ratio: 0.2, min_per_second: 10, span: Duration::from_secs(10), clock: Clock::runtime() }
    }
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

    /// Where the time is read. **Default**: [`Clock::runtime`], so that the budget refills under
    /// `tokio::time::pause`.
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
        ConfigError::check("ratio", self.ratio, RATIOS)?;
        let span = ConfigError::check("span", self.span, SPANS)?.as_nanos() as u64;
        let rules = Rules::new(self.ratio, self.min_per_second, span);
        let core = Recycled::take(WindowCore::new);
        let owner = core.adopt(rules, Buckets::of(span), self.clock);
        Ok(Budget(Kind::Window(core, owner)))
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

    use super::*;
    use crate::budget::RetryBudget;

    const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Failure, Origin::Remote);

    fn budget(ratio: f64, min_per_second: u32) -> (Budget, tower_fault_classify::__shared::ManualClock) {
        let (clock, hand) = Clock::manual();
        (Budget::builder().ratio(ratio).min_per_second(min_per_second).clock(clock).build().unwrap(), hand)
    }

    fn granted(budget: &Budget) -> usize {
        (0..10_000).take_while(|_| budget.try_retry(&FAULT).is_some()).count()
    }

    fn pay(budget: &Budget, requests: usize) {
        for _ in 0..requests {
            budget.outcome(&Verdict::Success);
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
        let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        budget.outcome(&rejected.into());
        assert_eq!(granted(&budget), 0);
        budget.outcome(&rejected.with_kind(Kind::Server).into());
        assert_eq!(granted(&budget), 1);
    }

    /// What a call of a former budget does to a budget that has taken its core over, for every kind
    /// of change.
    #[test]
    fn call_of_former_budget_neither_pays_nor_draws_for_next() {
        let clocks = [Clock::manual(), Clock::manual()];
        clocks[0].1.set(Duration::from_secs(1_000_000));
        for (former_clock, next_clock) in [(0, 0), (0, 1), (1, 0)] {
            for (former_span, next_span) in [(10, 10), (10, 3_600), (3_600, 1)] {
                let adopt = |core: &WindowCore, ratio, clock: usize, span: u64| {
                    let nanos = span * 1_000_000_000_u64;
                    core.adopt(Rules::new(ratio, 0, nanos), Buckets::of(nanos), clocks[clock].0)
                };
                let core = WindowCore::new();
                let former = adopt(&core, 1.0, former_clock, former_span);
                (0..5).for_each(|_| core.outcome(&Verdict::Success, former));
                let next = adopt(&core, 0.5, next_clock, next_span);
                assert!(!core.try_retry(next), "it begins empty");
                core.outcome(&Verdict::Success, former);
                (0..2).for_each(|_| core.outcome(&Verdict::Success, next));
                assert!((0..3).all(|_| core.try_retry(former)), "as the only call of its own budget");
                assert!(core.try_retry(next) && !core.try_retry(next));
                clocks[former_clock].1.advance(Duration::from_secs(100_000));
                core.outcome(&Verdict::Success, former);
                (0..2).for_each(|_| core.outcome(&Verdict::Success, next));
                assert!(core.try_retry(next), "no late call takes a cell from it");
                assert!(!core.try_retry(next));
            }
        }
    }

    #[test]
    fn a_call_that_outlives_every_handle_goes_on_with_its_budget() {
        let (first, _hand) = budget(0.5, 0);
        pay(&first, 1);
        let late = first.account().unwrap();
        drop(first);
        assert!(late.try_retry(&FAULT).is_none(), "one request does not pay for a retry");
        late.outcome(&Verdict::Success);
        assert!(late.try_retry(&FAULT).is_some());
        assert!(late.try_retry(&FAULT).is_none());
    }

    #[test]
    fn a_ticket_gives_nothing_back() {
        let (budget, _hand) = budget(1.0, 0);
        pay(&budget, 2);
        budget.try_retry(&FAULT).unwrap().succeeded();
        budget.try_retry(&FAULT).unwrap().failed(&FAULT);
        assert!(budget.try_retry(&FAULT).is_none());
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
