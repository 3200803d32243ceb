//! How an outcome changes a bucket of tokens, and the cost of a retry: pure functions in exact
//! fixed point.

use tower_fault_classify::{Health, Kind, Retryable, Verdict};

/// One token, in thousandths: gRFC A6 keeps three digits of a ratio.
pub(in crate::budget) const ONE: u64 = 1_000;

/// The largest content of a bucket: 40 bits, because the word also contains an epoch.
pub(in crate::budget) const MAX_TOKENS: u64 = (1 << 40) - 1;

/// The rules that fill and empty a bucket, in thousandths of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenRules {
    pub(in crate::budget) capacity: u64,
    pub(in crate::budget) scheme: Scheme,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::budget) enum Scheme {
    /// A retry costs one token, or more after a timeout. Its cost is returned if it succeeds.
    Tokens {
        /// The content of a new bucket.
        initial: u64,
        /// Added by a request that succeeds on its first attempt.
        per_success: u64,
        /// The cost of a retry after a timeout.
        timeout_cost: u64,
    },
    /// gRFC A6.
    Grpc {
        /// Added by a success.
        ratio: u64,
    },
    /// The "standard" retry mode of the AWS SDKs: as `Tokens`, with other costs and a full bucket.
    Aws {
        /// Added by a request that succeeds on its first attempt.
        increment: u64,
        /// The cost of a retry, at least one token.
        cost: u64,
        /// The cost of a retry after a timeout.
        timeout_cost: u64,
    },
}

/// The bit that marks the words of a [`Scheme::Tokens`]. No cost is that high.
const TOKENS: u64 = 1 << 63;

impl TokenRules {
    /// Encodes the rules in four words. The bit [`TOKENS`] means `Tokens`. Otherwise, a cost of 0
    /// means gRPC's scheme.
    pub(in crate::budget) const fn words(self) -> [u64; 4] {
        match self.scheme {
            Scheme::Tokens { initial, per_success, timeout_cost } => {
                [self.capacity, per_success, initial, TOKENS | timeout_cost]
            }
            Scheme::Grpc { ratio } => [self.capacity, ratio, 0, 0],
            Scheme::Aws { increment, cost, timeout_cost } => [self.capacity, increment, cost, timeout_cost],
        }
    }

    /// Decodes the rules from these words.
    #[inline]
    pub(in crate::budget) const fn from_words([capacity, gain, third, fourth]: [u64; 4]) -> Self {
        let scheme = match (third, fourth) {
            (initial, marked) if marked & TOKENS != 0 => {
                Scheme::Tokens { initial, per_success: gain, timeout_cost: marked & !TOKENS }
            }
            (0, _) => Scheme::Grpc { ratio: gain },
            (cost, timeout_cost) => Scheme::Aws { increment: gain, cost, timeout_cost },
        };
        Self { capacity, scheme }
    }

    /// Returns the content of a new bucket.
    pub(in crate::budget) const fn initial(&self) -> u64 {
        match self.scheme {
            Scheme::Tokens { initial, .. } => initial,
            Scheme::Grpc { .. } | Scheme::Aws { .. } => self.capacity,
        }
    }

    /// Returns the tokens that are left after the outcome of an attempt. `paid` is the cost of the
    /// attempt if it was a retry.
    pub(in crate::budget) fn after_outcome(&self, tokens: u64, verdict: &Verdict, paid: Option<u64>) -> u64 {
        let more = match (self.scheme, verdict) {
            (Scheme::Grpc { ratio }, verdict) => match effect(verdict) {
                Effect::Success => ratio,
                Effect::Failure => return tokens.saturating_sub(ONE),
                Effect::Ignored => 0,
            },
            (
                Scheme::Tokens { per_success: gain, .. } | Scheme::Aws { increment: gain, .. },
                Verdict::Success,
            ) => paid.unwrap_or(gain),
            // The request was not sent, so the retry put no load on the server.
            (Scheme::Tokens { .. } | Scheme::Aws { .. }, Verdict::Fault(fault))
                if fault.kind() == Kind::Rejected =>
            {
                paid.unwrap_or(0)
            }
            (Scheme::Tokens { .. } | Scheme::Aws { .. }, Verdict::Fault(_)) => 0,
        };
        (tokens + more).min(self.capacity)
    }

    /// Returns the amount that retries can use now; see
    /// [`BudgetStatus::available`](crate::budget::BudgetStatus::available).
    pub(in crate::budget) fn available(&self, tokens: u64) -> f64 {
        match self.scheme {
            Scheme::Tokens { .. } => tokens as f64 / ONE as f64,
            // Twice, because half of an odd capacity is not a whole number of thousandths.
            Scheme::Grpc { .. } => (tokens * 2).saturating_sub(self.capacity) as f64 / (2 * ONE) as f64,
            Scheme::Aws { cost, .. } => tokens as f64 / cost as f64,
        }
    }

    /// Returns the cost of a retry after a fault of this kind, or `None` if there are not enough
    /// tokens.
    pub(in crate::budget) fn retry_cost(&self, tokens: u64, kind: Kind) -> Option<u64> {
        let (cost, timeout_cost) = match self.scheme {
            Scheme::Tokens { timeout_cost, .. } => (ONE, timeout_cost),
            // "If token_count is less than or equal to the threshold, defined to be (max_tokens /
            // 2), then RPCs will not be retried." The failure itself has already taken its token.
            Scheme::Grpc { .. } => return (tokens * 2 > self.capacity).then_some(0),
            Scheme::Aws { cost, timeout_cost, .. } => (cost, timeout_cost),
        };
        let cost = if kind == Kind::Timeout { timeout_cost } else { cost };
        (tokens >= cost).then_some(cost)
    }
}

enum Effect {
    Success,
    Failure,
    Ignored,
}

/// Returns how an outcome counts in gRFC A6: a failure is a fault that may be retried or a
/// pushback, and a success is a proper response of the server.
fn effect(verdict: &Verdict) -> Effect {
    let Verdict::Fault(fault) = verdict else { return Effect::Success };
    match (fault.kind(), fault.retryable(), fault.health()) {
        // Not sent: the outcome says nothing about the server.
        (Kind::Rejected, ..) => Effect::Ignored,
        (Kind::Throttled | Kind::Overloaded, ..)
        | (_, Retryable::Unsent | Retryable::Refused | Retryable::IfIdempotent, _)
        | (.., Health::Unhealthy) => Effect::Failure,
        (.., Health::Healthy) => Effect::Success,
        _ => Effect::Ignored,
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Fault, Origin};

    use super::*;

    #[test]
    fn failure_drains_success_fills_unsent_changes_nothing() {
        let rules = TokenRules { capacity: 10 * ONE, scheme: Scheme::Grpc { ratio: 100 } };
        let after = |kind, retry, health| {
            rules.after_outcome(5 * ONE, &Fault::new(kind, retry, health, Origin::Remote).into(), None)
        };
        assert_eq!(rules.after_outcome(5 * ONE, &Verdict::Success, None), 5_100);
        assert_eq!(after(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy), 4_000);
        assert_eq!(after(Kind::Server, Retryable::Never, Health::Unhealthy), 4_000);
        assert_eq!(after(Kind::Throttled, Retryable::Never, Health::Neutral), 4_000, "pushed back");
        assert_eq!(after(Kind::Client, Retryable::Never, Health::Healthy), 5_100);
        assert_eq!(after(Kind::Rejected, Retryable::Unsent, Health::Neutral), 5_000);
        assert_eq!(after(Kind::Cancelled, Retryable::Never, Health::Neutral), 5_000);
    }

    #[test]
    fn tokens_stay_between_zero_and_capacity() {
        let rules = TokenRules { capacity: MAX_TOKENS, scheme: Scheme::Grpc { ratio: MAX_TOKENS } };
        assert_eq!(rules.after_outcome(MAX_TOKENS, &Verdict::Success, None), MAX_TOKENS);
        let failure = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);
        assert_eq!(rules.after_outcome(1, &failure.into(), None), 0);
        assert_eq!(rules.retry_cost(MAX_TOKENS, failure.kind()), Some(0));
        assert_eq!(rules.retry_cost(MAX_TOKENS / 2, failure.kind()), None);
    }

    const AWS: TokenRules = TokenRules {
        capacity: 500 * ONE,
        scheme: Scheme::Aws { increment: ONE, cost: 5 * ONE, timeout_cost: 10 * ONE },
    };

    const GRPC: TokenRules = TokenRules { capacity: 10 * ONE, scheme: Scheme::Grpc { ratio: 100 } };

    const TOKEN: TokenRules = TokenRules {
        capacity: 10 * ONE,
        scheme: Scheme::Tokens { initial: 3 * ONE, per_success: 100, timeout_cost: 5_500 },
    };

    const FAULT: Fault = Fault::new(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

    #[test]
    fn bucket_holds_40_bits_of_thousandths() {
        assert_eq!(MAX_TOKENS, 0xFF_FFFF_FFFF);
    }

    #[test]
    fn token_rules_survive_being_stored_as_words() {
        let token = |initial, per_success, timeout_cost| TokenRules {
            capacity: MAX_TOKENS,
            scheme: Scheme::Tokens { initial, per_success, timeout_cost },
        };
        for rules in [AWS, GRPC, TOKEN, token(0, 0, ONE), token(MAX_TOKENS, MAX_TOKENS, MAX_TOKENS)] {
            assert_eq!(TokenRules::from_words(rules.words()), rules);
        }
    }

    #[test]
    fn only_token_bucket_starts_with_less_than_capacity() {
        assert_eq!([TOKEN, GRPC, AWS].map(|rules| rules.initial()), [3 * ONE, 10 * ONE, 500 * ONE]);
    }

    #[test]
    fn grpc_bucket_grants_retries_above_half_of_capacity() {
        assert_eq!(GRPC.retry_cost(5_001, Kind::Server), Some(0));
        assert_eq!(GRPC.retry_cost(5_000, Kind::Server), None);
        assert_eq!(GRPC.retry_cost(0, Kind::Server), None);
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "a quotient is rounded once, as the literal is")]
    fn available_amount_agrees_with_grants() {
        assert_eq!([10_000, 5_001, 5_000, 0].map(|tokens| GRPC.available(tokens)), [5.0, 0.001, 0.0, 0.0]);
        assert_eq!([500_000, 5_000, 4_999, 0].map(|tokens| AWS.available(tokens)), [100.0, 1.0, 0.9998, 0.0]);
        assert_eq!([10_000, 1_000, 999, 0].map(|tokens| TOKEN.available(tokens)), [10.0, 1.0, 0.999, 0.0]);
        let odd = TokenRules { capacity: 1_001, ..GRPC };
        for tokens in [500, 501] {
            assert_eq!(
                odd.available(tokens) > 0.0,
                odd.retry_cost(tokens, Kind::Server).is_some(),
                "{tokens}"
            );
        }
    }

    #[test]
    fn token_bucket_charges_one_token_and_more_after_timeouts() {
        let cost = |tokens, kind| TOKEN.retry_cost(tokens, kind);
        for kind in [Kind::Server, Kind::Unavailable, Kind::Throttled, Kind::Overloaded] {
            assert_eq!([1_000, 999, 0].map(|tokens| cost(tokens, kind)), [Some(ONE), None, None], "{kind}");
        }
        let after_timeout = [10_000, 5_500, 5_499, 0].map(|tokens| cost(tokens, Kind::Timeout));
        assert_eq!(after_timeout, [Some(5_500), Some(5_500), None, None]);
    }

    #[test]
    fn token_bucket_success_deposits_and_retry_only_gets_its_cost_back() {
        let after = |verdict: Verdict, paid| TOKEN.after_outcome(5 * ONE, &verdict, paid);
        assert_eq!(after(Verdict::Success, None), 5_100);
        assert_eq!(after(Verdict::Success, Some(ONE)), 6_000, "no deposit in addition");
        assert_eq!(after(Verdict::Success, Some(4_500)), 9_500, "the cost after a timeout");
        let rejected = FAULT.with_kind(Kind::Rejected);
        for fault in [FAULT, rejected, FAULT.with_health(Health::Healthy)] {
            assert_eq!(after(fault.into(), None), 5_000, "{fault:?}");
        }
        assert_eq!(after(FAULT.into(), Some(ONE)), 5_000, "a failed retry keeps its cost");
        assert_eq!(after(rejected.into(), Some(ONE)), 6_000, "a retry that was not sent");
        assert_eq!(TOKEN.after_outcome(9_950, &Verdict::Success, None), 10_000, "at most the capacity");
    }

    #[test]
    fn aws_bucket_charges_more_after_timeouts() {
        assert_eq!(AWS.retry_cost(5_000, Kind::Server), Some(5_000));
        assert_eq!(AWS.retry_cost(4_999, Kind::Server), None);
        assert_eq!(AWS.retry_cost(10_000, Kind::Timeout), Some(10_000));
        assert_eq!(AWS.retry_cost(9_999, Kind::Timeout), None);
    }

    #[test]
    fn aws_success_returns_the_retry_cost_or_one_increment() {
        let after = |verdict: Verdict, paid| AWS.after_outcome(100 * ONE, &verdict, paid);
        assert_eq!(after(Verdict::Success, None), 101 * ONE);
        assert_eq!(after(Verdict::Success, Some(10 * ONE)), 110 * ONE);
        assert_eq!(after(FAULT.into(), None), 100 * ONE);
        assert_eq!(after(FAULT.into(), Some(5 * ONE)), 100 * ONE, "a failed retry returns nothing");
        let rejected = FAULT.with_kind(Kind::Rejected);
        assert_eq!(after(rejected.into(), None), 100 * ONE);
        assert_eq!(after(rejected.into(), Some(5 * ONE)), 105 * ONE, "a retry that was not sent");
        assert_eq!(AWS.after_outcome(499_500, &Verdict::Success, None), 500 * ONE, "at most the capacity");
    }
}
