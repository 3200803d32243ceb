//! Buckets of tokens: gRPC's throttle and the retry quota of the AWS SDKs.
//!
//! Neither knows time. What failures take, successes give back.

mod core;
mod rules;

use std::ops::RangeInclusive;

use tower_fault_classify::__shared::{ConfigError, Recycled};

pub(super) use self::core::{Refund, TokenCore};
use self::rules::{ONE, Rules, Scheme};
use super::{Budget, Kind};

/// What a whole number of tokens may be.
pub(crate) const TOKENS: RangeInclusive<u32> = 1..=1_000_000_000;

/// What a bucket of gRPC may hold.
pub(crate) const GRPC_TOKENS: RangeInclusive<u32> = 1..=1_000;

/// What a success may give back to a bucket of gRPC.
pub(crate) const GRPC_RATIOS: RangeInclusive<f64> = 0.001..=1_000.0;

fn take(rules: Rules) -> Budget {
    let core = Recycled::take(TokenCore::new);
    let epoch = core.adopt(rules);
    Budget(Kind::Tokens(core, epoch))
}

fn thousandths(tokens: u32) -> u64 {
    u64::from(tokens) * ONE
}

/// Builds gRPC's retry throttle (gRFC A6).
///
/// A bucket is full at first. Each attempt that fails takes a token, also if it is not retried; each that succeeds gives back a part of
/// one. Retries are allowed while *more* than half of the bucket is left, and cost nothing by themselves.
///
/// What fails is what may be retried, was pushed back, or says that the server is ill. An answer that is the caller's own fault
/// (`NOT_FOUND`) is a success of the server; what a layer on this side refused to send is neither.
#[derive(Clone, Debug)]
#[must_use]
pub struct GrpcBudgetBuilder {
    max_tokens: u32,
    ratio: f64,
}

impl Default for GrpcBudgetBuilder {
    fn default() -> Self {
        Self { max_tokens: 10, ratio: 0.1 }
    }
}

impl GrpcBudgetBuilder {
    /// What the bucket holds, 1 to 1,000 (the range of gRFC A6). **Default**: 10.
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// What a success gives back, 0.001 to 1,000, kept to a thousandth. **Default**: 0.1.
    pub fn ratio(mut self, tokens: f64) -> Self {
        self.ratio = tokens;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        ConfigError::check("max_tokens", self.max_tokens, GRPC_TOKENS)?;
        ConfigError::check("ratio", self.ratio, GRPC_RATIOS)?;
        #[expect(clippy::cast_sign_loss, reason = "the ratio is positive")]
        let ratio = (self.ratio * ONE as f64).round() as u64;
        Ok(take(Rules { capacity: thousandths(self.max_tokens), scheme: Scheme::Grpc { ratio } }))
    }
}

/// Builds the retry quota of the AWS SDKs' "standard" mode.
///
/// The bucket starts full. A retry pays its cost. The cost is returned if the retry succeeds, if it
/// is rejected before it is sent, or if its caller stops waiting. A request that succeeds without a
/// retry adds a little.
#[derive(Clone, Debug)]
#[must_use]
pub struct AwsBudgetBuilder {
    capacity: u32,
    cost: u32,
    timeout_cost: u32,
    increment: u32,
}

impl Default for AwsBudgetBuilder {
    fn default() -> Self {
        Self { capacity: 500, cost: 5, timeout_cost: 10, increment: 1 }
    }
}

impl AwsBudgetBuilder {
    /// What the bucket holds, 1 to 1,000,000,000 tokens. **Default**: 500.
    pub fn capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// What a retry costs, 1 token to the capacity. **Default**: 5.
    pub fn cost(mut self, tokens: u32) -> Self {
        self.cost = tokens;
        self
    }

    /// What a retry after a timeout costs, 1 token to the capacity. **Default**: 10.
    pub fn timeout_cost(mut self, tokens: u32) -> Self {
        self.timeout_cost = tokens;
        self
    }

    /// What a request gives that succeeds without a retry, 0 tokens to the capacity. **Default**: 1.
    pub fn increment(mut self, tokens: u32) -> Self {
        self.increment = tokens;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        let capacity = ConfigError::check("capacity", self.capacity, TOKENS)?;
        ConfigError::check("cost", self.cost, 1..=capacity)?;
        ConfigError::check("timeout_cost", self.timeout_cost, 1..=capacity)?;
        ConfigError::check("increment", self.increment, 0..=capacity)?;
        let scheme = Scheme::Aws {
            increment: thousandths(self.increment),
            cost: thousandths(self.cost),
            timeout_cost: thousandths(self.timeout_cost),
        };
        Ok(take(Rules { capacity: thousandths(capacity), scheme }))
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

    use super::*;
    use crate::budget::RetryBudget;

    const FAILURE: Fault = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Failure, Origin::Remote);

    #[test]
    fn grpcs_throttle_closes_at_half_and_failures_drain_it_even_unretried() {
        let budget = Budget::grpc().build().unwrap();
        let failure = Verdict::Fault(FAILURE);
        for tokens in [9, 8, 7, 6] {
            budget.outcome(&failure);
            assert!(budget.try_retry(&FAILURE).is_some(), "{tokens} of 10 are left");
        }
        budget.outcome(&failure);
        assert!(budget.try_retry(&FAILURE).is_none(), "5 of 10 are no more than half");
        budget.outcome(&Verdict::Success);
        let ticket = budget.try_retry(&FAILURE).expect("5.1 are");
        ticket.failed(&FAILURE);
        assert!(budget.try_retry(&FAILURE).is_none(), "4.1 are left: a retry that fails drains as well");
        for _ in 0..10 {
            budget.outcome(&Verdict::Success);
        }
        budget.try_retry(&FAILURE).expect("5.1").succeeded();
        drop(
            budget
                .try_retry(&FAILURE)
                .expect("a retry that succeeds fills, one that is dropped does nothing"),
        );
        budget.outcome(&failure);
        assert!(budget.try_retry(&FAILURE).is_none());
        for _ in 0..1_000 {
            budget.outcome(&failure);
        }
        for _ in 0..50 {
            budget.outcome(&Verdict::Success);
            assert!(budget.try_retry(&FAILURE).is_none());
        }
        budget.outcome(&Verdict::Success);
        assert!(budget.try_retry(&FAILURE).is_some(), "it was empty, never negative");
    }

    #[test]
    fn the_aws_quota_is_paid_in_fives_and_tens_and_refunded() {
        let budget = Budget::aws().build().unwrap();
        let timeout = FAILURE.with_kind(Kind::Timeout);
        let tickets: Vec<_> = (0..1_000).map_while(|_| budget.try_retry(&timeout)).collect();
        assert_eq!(tickets.len(), 50);
        for ticket in tickets {
            ticket.succeeded();
        }
        let tickets: Vec<_> = (0..1_000).map_while(|_| budget.try_retry(&FAILURE)).collect();
        assert_eq!(tickets.len(), 100);
        for ticket in tickets {
            ticket.failed(&FAILURE);
        }
        for _ in 0..4 {
            budget.outcome(&Verdict::Success);
            assert!(budget.try_retry(&FAILURE).is_none());
        }
        budget.outcome(&Verdict::Fault(FAILURE));
        assert!(budget.try_retry(&FAILURE).is_none(), "a failure gives nothing");
        budget.outcome(&Verdict::Success);
        budget.try_retry(&FAILURE).expect("five successes pay for a retry").failed(&FAILURE);
        assert!(budget.try_retry(&FAILURE).is_none(), "one that fails is not refunded");
    }

    #[test]
    fn aws_ticket_dropped_or_rejected_returns_its_cost() {
        let budget = Budget::aws().capacity(5).timeout_cost(5).increment(0).build().unwrap();
        for _ in 0..3 {
            drop(budget.try_retry(&FAILURE).expect("the caller of the retry before left"));
            let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
            budget.try_retry(&FAILURE).expect("the cost was returned").failed(&rejected);
        }
        budget.try_retry(&FAILURE).expect("nothing was sent").failed(&FAILURE);
        assert!(budget.try_retry(&FAILURE).is_none(), "a retry that failed keeps its cost");
    }

    /// For every pair of schemes: what a call of a former bucket does to one that has taken its
    /// core over.
    #[test]
    fn call_of_former_bucket_changes_nothing_for_next() {
        let aws = Scheme::Aws { increment: 0, cost: 7 * ONE, timeout_cost: 7 * ONE };
        let grpc = Scheme::Grpc { ratio: ONE };
        let rules = [aws, grpc].map(|scheme| Rules { capacity: 7 * ONE, scheme });
        let failure = Verdict::Fault(FAILURE);
        for (former, next) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let core: &'static TokenCore = Box::leak(Box::new(TokenCore::new()));
            let epoch = core.adopt(rules[former]);
            let ticket = core.withdraw(&FAILURE, epoch).unwrap();
            let next_epoch = core.adopt(rules[next]);
            // A former owner's failures, retries and refunds.
            (0..9).for_each(|_| core.settle(&failure, epoch, None));
            core.withdraw(&FAILURE, epoch)
                .expect("it pays as from a full bucket of its own")
                .settle(&failure);
            drop(core.withdraw(&FAILURE, epoch).unwrap());
            let own = core.withdraw(&FAILURE, next_epoch).expect("it is full");
            own.settle(&failure);
            ticket.settle(&Verdict::Success);
            (0..9).for_each(|_| core.settle(&Verdict::Success, epoch, None));
            if next == 1 {
                // 6 of 7 are left: two more failures leave 4, and a third 3, which is not more than
                // half.
                (0..2).for_each(|_| core.settle(&failure, next_epoch, None));
                drop(core.withdraw(&FAILURE, next_epoch).expect("4 are more than half of 7"));
                core.settle(&failure, next_epoch, None);
            }
            assert!(core.withdraw(&FAILURE, next_epoch).is_none(), "{former}, then {next}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let grpc = |builder: GrpcBudgetBuilder| builder.build().unwrap_err().to_string();
        assert_eq!(grpc(Budget::grpc().max_tokens(0)), "`max_tokens` is 0; allowed is 1 to 1000");
        assert_eq!(grpc(Budget::grpc().max_tokens(1_001)), "`max_tokens` is 1001; allowed is 1 to 1000");
        for ratio in [0.0, -1.0, 1_001.0, f64::NAN, f64::INFINITY] {
            assert!(grpc(Budget::grpc().ratio(ratio)).starts_with("`ratio` is "));
        }
        let aws = |builder: AwsBudgetBuilder| builder.build().unwrap_err().field();
        assert_eq!(aws(Budget::aws().capacity(0)), "capacity");
        assert_eq!(aws(Budget::aws().cost(0)), "cost");
        assert_eq!(aws(Budget::aws().cost(501)), "cost");
        assert_eq!(aws(Budget::aws().timeout_cost(501)), "timeout_cost");
        assert_eq!(aws(Budget::aws().increment(501)), "increment");
        let most = Budget::aws().capacity(1_000_000_000).cost(1_000_000_000).build().unwrap();
        let ticket = most.try_retry(&FAILURE);
        assert!(ticket.is_some() && most.try_retry(&FAILURE).is_none());
    }
}
