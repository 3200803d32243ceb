//! The builders of the budgets, and the methods of [`Budget`] that return them.

use std::ops::RangeInclusive;
use std::time::Duration;

use tower_fault_classify::__internals::{Clock, ConfigError, PoolHandle, TimeBuckets};

use super::handle::{Budget, BudgetKind};
use super::rules::tokens::{ONE, Scheme, TokenRules};
use super::rules::window::WindowRules;
use super::settings::BudgetSettings;
use super::tokens::TokenCore;
use super::window::WindowCore;

pub(crate) const RATIO_RANGE: RangeInclusive<f64> = 0.0..=1_000.0;

pub(crate) const MIN_PER_SECOND_RANGE: RangeInclusive<f64> = 0.0..=1_000_000_000.0;

pub(crate) const SPAN_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// The range of a whole number of tokens.
pub(crate) const TOKEN_RANGE: RangeInclusive<u32> = 1..=1_000_000_000;

/// The range of the capacity of a gRPC bucket.
pub(crate) const GRPC_TOKEN_RANGE: RangeInclusive<u32> = 1..=1_000;

/// The range of the tokens that a success adds to a bucket of [`Budget::tokens`].
pub(crate) const PER_SUCCESS_RANGE: RangeInclusive<f64> = 0.0..=1_000.0;

/// The range of the cost of a retry after a timeout, for the largest capacity.
#[cfg(feature = "serde")]
pub(crate) const TIMEOUT_COST_RANGE: RangeInclusive<f64> = 1.0..=1_000_000_000.0;

/// The range of the tokens that a success adds to a gRPC bucket.
pub(crate) const GRPC_RATIO_RANGE: RangeInclusive<f64> = 0.001..=1_000.0;

impl Budget {
    /// Returns a builder of a budget over a sliding window.
    ///
    /// **Default**: 20 % of the requests of the last 10 s, and 10 retries per second. These are the
    /// defaults of Finagle's `RetryBudget`, which tower's budget adopted.
    pub fn window() -> WindowBudgetBuilder {
        WindowBudgetBuilder::default()
    }

    /// Returns a builder of a budget that successes refill.
    ///
    /// **Default**: the bucket holds 10 tokens and starts full. A retry costs 1 token, or 6 after a
    /// timeout. A success without a retry adds 0.2 tokens.
    pub fn tokens() -> TokenBudgetBuilder {
        TokenBudgetBuilder::default()
    }

    /// Returns a builder of gRPC's retry throttling (gRFC A6).
    ///
    /// **Default**: the values of gRFC A6's example. The bucket holds 10 tokens, and a success adds
    /// 0.1 tokens.
    pub fn grpc() -> GrpcBudgetBuilder {
        GrpcBudgetBuilder::default()
    }

    /// Returns a builder of the retry quota of the AWS SDKs.
    ///
    /// **Default**: the values of the AWS SDKs. The bucket holds 500 tokens. A retry costs 5
    /// tokens, or 10 after a timeout. A success without a retry adds 1 token.
    pub fn aws() -> AwsBudgetBuilder {
        AwsBudgetBuilder::default()
    }

    /// Returns a builder with this budget's settings and clock, or `None` for a custom budget.
    ///
    /// A budget that is built from it shares nothing with this budget. Like any new budget, a
    /// window starts empty. A bucket of tokens starts full, or with
    /// [`initial`](TokenBudgetBuilder::initial) tokens.
    pub fn to_builder(&self) -> Option<BudgetBuilder> {
        let clock = match &self.0 {
            BudgetKind::Window(core, _) => core.clock(),
            BudgetKind::Tokens(..) | BudgetKind::Custom(_) => Clock::runtime(),
        };
        Some(match self.settings()? {
            BudgetSettings::Window { ratio, min_per_second, span } => {
                BudgetBuilder::Window(WindowBudgetBuilder { ratio, min_per_second, span, clock })
            }
            BudgetSettings::Tokens { capacity, initial, per_success, timeout_cost } => {
                // Defaults that depend on the capacity follow it if the caller changes it.
                let initial = (initial < capacity).then_some(initial);
                let timeout_cost = (rounded(timeout_cost) != rounded(default_timeout_cost(capacity)))
                    .then_some(timeout_cost);
                BudgetBuilder::Tokens(TokenBudgetBuilder { capacity, initial, per_success, timeout_cost })
            }
            BudgetSettings::Grpc { max_tokens, ratio } => {
                BudgetBuilder::Grpc(GrpcBudgetBuilder { max_tokens, ratio })
            }
            BudgetSettings::Aws { capacity, cost, timeout_cost, increment } => {
                BudgetBuilder::Aws(AwsBudgetBuilder { capacity, cost, timeout_cost, increment })
            }
        })
    }
}

impl Default for Budget {
    fn default() -> Self {
        let budget = Self::tokens().build();
        // A test checks that the defaults are in their ranges.
        budget.unwrap_or_else(|error| unreachable!("the defaults are valid: {error}"))
    }
}

/// The builder of a budget of any kind, returned by [`Budget::to_builder`].
///
/// ```
/// use tower_jitter_retry::Budget;
/// use tower_jitter_retry::budget::BudgetBuilder;
///
/// let budget = Budget::default();
/// let stricter = match budget.to_builder() {
///     Some(BudgetBuilder::Tokens(tokens)) => tokens.per_success(0.05).build()?,
///     _ => budget,
/// };
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
#[non_exhaustive]
pub enum BudgetBuilder {
    /// The builder of a [`Budget::window`].
    Window(WindowBudgetBuilder),
    /// The builder of a [`Budget::tokens`].
    Tokens(TokenBudgetBuilder),
    /// The builder of a [`Budget::grpc`].
    Grpc(GrpcBudgetBuilder),
    /// The builder of a [`Budget::aws`].
    Aws(AwsBudgetBuilder),
}

impl BudgetBuilder {
    /// Checks every setting and builds the budget.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range, with its field, value and allowed range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        match self {
            Self::Window(builder) => builder.build(),
            Self::Tokens(builder) => builder.build(),
            Self::Grpc(builder) => builder.build(),
            Self::Aws(builder) => builder.build(),
        }
    }
}

/// Builds a budget over a sliding window.
///
/// A retry is granted if the number of retries in the window, including this one, is at most:
///
/// ```text
/// ratio · requests in the window + min_per_second · span in seconds
/// ```
///
/// A request counts after its first attempt has ended, unless the attempt was rejected and not
/// sent.
///
/// | setting | sets | range | default |
/// |---|---|---|---|
/// | [`ratio`](Self::ratio) | retries per request | 0 to 1,000 | 0.2 |
/// | [`min_per_second`](Self::min_per_second) | retries per second in addition | 0 to 1,000,000,000 | 10 |
/// | [`span`](Self::span) | length of the window | 1 s to 1 hour | 10 s |
/// | [`clock`](Self::clock) | clock of the window | any [`Clock`] | [`Clock::runtime`] |
#[derive(Clone, Debug)]
#[must_use]
pub struct WindowBudgetBuilder {
    ratio: f64,
    min_per_second: f64,
    span: Duration,
    clock: Clock,
}

impl Default for WindowBudgetBuilder {
    fn default() -> Self {
        Self { ratio: 0.2, min_per_second: 10.0, span: Duration::from_secs(10), clock: Clock::runtime() }
    }
}

impl WindowBudgetBuilder {
    /// Sets the number of retries per request.
    ///
    /// Range: 0 to 1,000, rounded to a millionth. **Default**: 0.2.
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets the number of retries per second that are allowed in addition to the ratio.
    ///
    /// They let a client with little traffic retry at all. They are counted over the whole
    /// [`span`](Self::span): 10 per second over 10 s allow 100 retries at one moment, and 0.1 per
    /// second allow one. Range: 0 to 1,000,000,000, rounded to a millionth. **Default**: 10.
    ///
    /// Each client of a server has such a reserve. In a fleet of a thousand clients, 0.1 per second
    /// each are 100 per second together.
    ///
    /// A fraction of a retry is added to the retries of the [`ratio`](Self::ratio), and grants none
    /// by itself: 0.05 per second over 10 s are half a retry. For one retry in 20 s, set a span of
    /// 20 s or more.
    pub fn min_per_second(mut self, retries: impl Into<f64>) -> Self {
        self.min_per_second = retries.into();
        self
    }

    /// Sets the length of the window in which requests and retries are counted.
    ///
    /// The window has sixteen buckets. Range: 1 s to 1 hour. **Default**: 10 s.
    pub fn span(mut self, span: Duration) -> Self {
        self.span = span;
        self
    }

    /// Sets the clock of the window.
    ///
    /// **Default**: [`Clock::runtime`], so that the budget refills under `tokio::time::pause`.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Checks every setting and builds the budget.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range, with its field, value and allowed range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        ConfigError::check("ratio", self.ratio, RATIO_RANGE)?;
        ConfigError::check("min_per_second", self.min_per_second, MIN_PER_SECOND_RANGE)?;
        let span = ConfigError::check("span", self.span, SPAN_RANGE)?.as_nanos() as u64;
        let rules = WindowRules::new(self.ratio, self.min_per_second, span);
        let core = PoolHandle::acquire(|| WindowCore::new(self.clock));
        let owner = core.adopt(rules, TimeBuckets::new(span), self.clock);
        Ok(Budget(BudgetKind::Window(core, owner)))
    }
}

/// Builds a budget that successes refill.
///
/// A retry costs one token, or [`timeout_cost`](Self::timeout_cost) tokens after a timeout. The
/// cost is returned if the retry succeeds, if it is rejected before it is sent, or if its caller
/// stops waiting. A request that succeeds without a retry adds a part of a token. Time adds
/// nothing: in an outage the bucket empties, and no retry follows until requests succeed again.
///
/// The defaults suit a client with few calls at a time. The table shows the share of the retries
/// that they refuse, with three attempts and calls one after the other:
///
/// | attempts that fail at random | with a fault other than a timeout | with a timeout |
/// |---|---|---|
/// | 5 % | 0 % | 7 % |
/// | 10 % | 0 % | 19 % |
/// | 25 % | 0.1 % | 66 % |
/// | 30 % | 2 % | 76 % |
/// | 40 % | 40 % | 88 % |
///
/// | setting | sets | range | default |
/// |---|---|---|---|
/// | [`capacity`](Self::capacity) | capacity of the bucket | 1 to 1,000,000,000 | 10 |
/// | [`initial`](Self::initial) | tokens in a new bucket | 0 to `capacity` | `capacity` |
/// | [`per_success`](Self::per_success) | tokens that a success without a retry adds | 0 to 1,000 | 0.2 |
/// | [`timeout_cost`](Self::timeout_cost) | cost of a retry after a timeout | 1 to `capacity` | 6, or `capacity` if that is less |
///
/// ```
/// use tower_jitter_retry::Budget;
/// use tower_jitter_retry::budget::RetryBudget;
/// use tower_jitter_retry::fault_classify::Verdict;
///
/// let budget = Budget::tokens().capacity(20).initial(5).build()?;
/// (0..10).for_each(|_| budget.deposit(&Verdict::Success));
/// assert_eq!(budget.status().expect("it is not a custom budget").available, 7.0);
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct TokenBudgetBuilder {
    capacity: u32,
    /// `None`: the capacity.
    initial: Option<u32>,
    per_success: f64,
    /// `None`: [`default_timeout_cost`].
    timeout_cost: Option<f64>,
}

impl Default for TokenBudgetBuilder {
    fn default() -> Self {
        Self { capacity: 10, initial: None, per_success: 0.2, timeout_cost: None }
    }
}

/// Returns the cost of a retry after a timeout that a full bucket of this capacity pays for.
fn default_timeout_cost(capacity: u32) -> f64 {
    f64::from(capacity).min(6.0)
}

impl TokenBudgetBuilder {
    /// Sets the capacity of the bucket, in tokens.
    ///
    /// A retry takes its token before its delay. The capacity therefore also limits how many
    /// retries wait for their delay or run at the same time. For 200 failures per second and delays
    /// of 100 ms, a client needs 20 tokens for the delays alone.
    ///
    /// Range: 1 to 1,000,000,000. **Default**: 10.
    pub fn capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// Sets the number of tokens in a new bucket.
    ///
    /// A client that starts during an outage makes at most this number of retries. No retry follows
    /// a timeout until the bucket holds [`timeout_cost`](Self::timeout_cost) tokens. Range: 0 to the
    /// capacity. **Default**: the capacity.
    pub fn initial(mut self, tokens: u32) -> Self {
        self.initial = Some(tokens);
        self
    }

    /// Sets the number of tokens that a request adds if it succeeds without a retry.
    ///
    /// If the request succeeds on a retry, only the cost of that retry is returned. A fault adds
    /// nothing, even if it shows a healthy server.
    ///
    /// Range: 0 to 1,000, rounded to a thousandth. **Default**: 0.2.
    pub fn per_success(mut self, tokens: f64) -> Self {
        self.per_success = tokens;
        self
    }

    /// Sets the cost of a retry after a timeout, in tokens.
    ///
    /// After a timeout, the server may still work on the request, and a retry adds to its load. A
    /// timeout is a fault of [`Kind::Timeout`](tower_fault_classify::Kind::Timeout), such as an elapsed timeout, a
    /// 408 or a 504. Any other retry costs one token.
    ///
    /// Range: 1 to the capacity, rounded to a thousandth. **Default**: 6, so that a full bucket of
    /// 10 tokens pays for one retry. If the capacity is less than 6, the default is the capacity.
    pub fn timeout_cost(mut self, tokens: f64) -> Self {
        self.timeout_cost = Some(tokens);
        self
    }

    /// Checks every setting and builds the budget.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range, with its field, value and allowed range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        let capacity = ConfigError::check("capacity", self.capacity, TOKEN_RANGE)?;
        let by_capacity = |error: ConfigError| error.because("capacity", capacity);
        let initial = ConfigError::check("initial", self.initial.unwrap_or(capacity), 0..=capacity)
            .map_err(by_capacity)?;
        ConfigError::check("per_success", self.per_success, PER_SUCCESS_RANGE)?;
        let timeout_cost = self.timeout_cost.unwrap_or_else(|| default_timeout_cost(capacity));
        ConfigError::check("timeout_cost", timeout_cost, 1.0..=f64::from(capacity)).map_err(by_capacity)?;
        let scheme = Scheme::Tokens {
            initial: thousandths(initial),
            per_success: rounded(self.per_success),
            timeout_cost: rounded(timeout_cost),
        };
        Ok(token_budget(TokenRules { capacity: thousandths(capacity), scheme }))
    }
}

/// Builds gRPC's retry throttling (gRFC A6).
///
/// A bucket starts full. Each attempt that fails takes a token, even if it is not retried. Each
/// attempt that succeeds adds a part of a token. Retries are allowed while *more* than half of the
/// tokens are left, and cost nothing themselves.
///
/// The first row that applies decides how an outcome counts:
///
/// | outcome | counts as |
/// |---|---|
/// | a success | success |
/// | a request that was rejected and not sent | neither |
/// | a fault that may be retried, is throttling or overload, or shows an unhealthy server | failure |
/// | a fault that shows a healthy server, such as `NOT_FOUND` | success |
/// | any other fault | neither |
///
/// | setting | sets | range | default |
/// |---|---|---|---|
/// | [`max_tokens`](Self::max_tokens) | capacity of the bucket | 1 to 1,000 | 10 |
/// | [`ratio`](Self::ratio) | tokens that a success adds | 0.001 to 1,000 | 0.1 |
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
    /// Sets the capacity of the bucket, in tokens.
    ///
    /// Range: 1 to 1,000, as in gRFC A6. **Default**: 10.
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = tokens;
        self
    }

    /// Sets the number of tokens that a success adds.
    ///
    /// Range: 0.001 to 1,000, rounded to a thousandth. **Default**: 0.1.
    pub fn ratio(mut self, tokens: f64) -> Self {
        self.ratio = tokens;
        self
    }

    /// Checks every setting and builds the budget.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range, with its field, value and allowed range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        ConfigError::check("max_tokens", self.max_tokens, GRPC_TOKEN_RANGE)?;
        ConfigError::check("ratio", self.ratio, GRPC_RATIO_RANGE)?;
        let scheme = Scheme::Grpc { ratio: rounded(self.ratio) };
        Ok(token_budget(TokenRules { capacity: thousandths(self.max_tokens), scheme }))
    }
}

/// Builds the retry quota of the AWS SDKs' "standard" mode.
///
/// The bucket starts full, and a retry pays its cost in tokens. The cost is returned if the retry
/// succeeds, if it is rejected before it is sent, or if its caller stops waiting. A request that
/// succeeds without a retry adds the increment.
///
/// | setting | sets | range | default |
/// |---|---|---|---|
/// | [`capacity`](Self::capacity) | capacity of the bucket | 1 to 1,000,000,000 | 500 |
/// | [`cost`](Self::cost) | cost of a retry | 1 to `capacity` | 5 |
/// | [`timeout_cost`](Self::timeout_cost) | cost of a retry after a timeout | 1 to `capacity` | 10 |
/// | [`increment`](Self::increment) | tokens that a success without a retry adds | 0 to `capacity` | 1 |
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
    /// Sets the capacity of the bucket, in tokens.
    ///
    /// Range: 1 to 1,000,000,000. **Default**: 500.
    pub fn capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// Sets the cost of a retry, in tokens.
    ///
    /// Range: 1 to the capacity. **Default**: 5.
    pub fn cost(mut self, tokens: u32) -> Self {
        self.cost = tokens;
        self
    }

    /// Sets the cost of a retry after a timeout, in tokens.
    ///
    /// Range: 1 to the capacity. **Default**: 10.
    pub fn timeout_cost(mut self, tokens: u32) -> Self {
        self.timeout_cost = tokens;
        self
    }

    /// Sets the number of tokens that a request adds if it succeeds without a retry.
    ///
    /// Range: 0 to the capacity. **Default**: 1.
    pub fn increment(mut self, tokens: u32) -> Self {
        self.increment = tokens;
        self
    }

    /// Checks every setting and builds the budget.
    ///
    /// # Errors
    ///
    /// Returns the first setting that is out of its range, with its field, value and allowed range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        let capacity = ConfigError::check("capacity", self.capacity, TOKEN_RANGE)?;
        let by_capacity = |error: ConfigError| error.because("capacity", capacity);
        ConfigError::check("cost", self.cost, 1..=capacity).map_err(by_capacity)?;
        ConfigError::check("timeout_cost", self.timeout_cost, 1..=capacity).map_err(by_capacity)?;
        ConfigError::check("increment", self.increment, 0..=capacity).map_err(by_capacity)?;
        let scheme = Scheme::Aws {
            increment: thousandths(self.increment),
            cost: thousandths(self.cost),
            timeout_cost: thousandths(self.timeout_cost),
        };
        Ok(token_budget(TokenRules { capacity: thousandths(capacity), scheme }))
    }
}

fn token_budget(rules: TokenRules) -> Budget {
    let core = PoolHandle::acquire(TokenCore::new);
    let owner = core.adopt(rules);
    Budget(BudgetKind::Tokens(core, owner))
}

fn thousandths(tokens: u32) -> u64 {
    u64::from(tokens) * ONE
}

/// Converts a number that is not negative to thousandths.
fn rounded(tokens: f64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "the number is not negative")]
    let thousandths = (tokens * ONE as f64).round() as u64;
    thousandths
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};

    use super::*;
    use crate::budget::RetryBudget;

    const FAULT: Fault = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);

    #[test]
    fn window_budget_value_out_of_range_names_field() {
        let field = |builder: WindowBudgetBuilder| builder.build().unwrap_err().field();
        for ratio in [-0.1, 1_000.1, f64::NAN, f64::INFINITY] {
            assert_eq!(field(Budget::window().ratio(ratio)), "ratio");
        }
        for span in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(3_601)] {
            assert_eq!(field(Budget::window().span(span)), "span");
        }
        for retries in [-0.1, 1_000_000_000.1, f64::NAN, f64::INFINITY] {
            assert_eq!(field(Budget::window().min_per_second(retries)), "min_per_second");
        }
        let error = Budget::window().min_per_second(-1).build().unwrap_err();
        assert_eq!(error.to_string(), "`min_per_second` is -1.0; allowed is 0.0 to 1000000000.0");
        assert!(Budget::window().ratio(1_000.0).min_per_second(1_000_000_000).build().is_ok());
    }

    #[test]
    fn token_budget_value_out_of_range_names_field_and_range() {
        let error = |builder: TokenBudgetBuilder| builder.build().unwrap_err().to_string();
        let capacity = |value| error(Budget::tokens().capacity(value));
        assert_eq!(capacity(0), "`capacity` is 0; allowed is 1 to 1000000000");
        assert_eq!(capacity(1_000_000_001), "`capacity` is 1000000001; allowed is 1 to 1000000000");
        assert_eq!(
            error(Budget::tokens().initial(11)),
            "`initial` is 11; allowed is 0 to 10, because `capacity` is 10"
        );
        assert_eq!(
            error(Budget::tokens().initial(5).capacity(4)),
            "`initial` is 5; allowed is 0 to 4, because `capacity` is 4"
        );
        for (value, shown) in
            [(-0.001, "-0.001"), (1_000.001, "1000.001"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")]
        {
            let expected = format!("`per_success` is {shown}; allowed is 0.0 to 1000.0");
            assert_eq!(error(Budget::tokens().per_success(value)), expected);
        }
        for (value, shown) in [(0.999, "0.999"), (10.001, "10.001"), (f64::NAN, "NaN")] {
            let expected =
                format!("`timeout_cost` is {shown}; allowed is 1.0 to 10.0, because `capacity` is 10");
            assert_eq!(error(Budget::tokens().timeout_cost(value)), expected);
        }
        let above_capacity = error(Budget::tokens().capacity(5).timeout_cost(6.0));
        assert_eq!(above_capacity, "`timeout_cost` is 6.0; allowed is 1.0 to 5.0, because `capacity` is 5");
    }

    #[test]
    fn full_token_bucket_pays_for_one_retry_after_timeout() {
        let timeout = FAULT.with_kind(Kind::Timeout);
        for (capacity, left) in [(1, 0.0), (5, 0.0), (6, 0.0), (7, 1.0), (11, 5.0)] {
            let budget = Budget::tokens().capacity(capacity).build().unwrap();
            budget.withdraw(&timeout).expect("the bucket is full").failed(&timeout);
            assert_eq!(budget.status().unwrap().tokens, Some(left));
            assert!(budget.withdraw(&timeout).is_none());
            assert_eq!(budget.withdraw(&FAULT).is_some(), left > 0.0, "other retries cost one token");
        }
    }

    #[test]
    fn token_budget_grants_at_the_ends_of_its_ranges() {
        let least = Budget::tokens().capacity(1).initial(0).per_success(0.0).build().unwrap();
        least.deposit(&Verdict::Success);
        assert!(least.withdraw(&FAULT).is_none(), "the bucket is empty and stays empty");
        let most = Budget::tokens().capacity(1_000_000_000).per_success(1_000.0).build().unwrap();
        let ticket = most.withdraw(&FAULT).unwrap();
        assert_eq!(most.status().unwrap().tokens, Some(999_999_999.0));
        most.deposit(&Verdict::Success);
        ticket.succeeded();
        assert_eq!(most.status().unwrap().tokens, Some(1e9), "at most the capacity");
        let timeout = FAULT.with_kind(Kind::Timeout);
        let dearest = Budget::tokens().capacity(1_000_000_000).timeout_cost(1e9).build().unwrap();
        dearest.withdraw(&timeout).unwrap().failed(&timeout);
        assert_eq!(dearest.status().unwrap().tokens, Some(0.0));
    }

    #[test]
    fn token_budget_rounds_amounts_to_a_thousandth() {
        let budget = |per_success| Budget::tokens().initial(0).per_success(per_success).build().unwrap();
        for (per_success, rounded) in [(0.000_4, 0.0), (0.000_5, 0.001), (0.333_3, 0.333)] {
            let budget = budget(per_success);
            budget.deposit(&Verdict::Success);
            assert_eq!(budget.status().unwrap().tokens, Some(rounded));
        }
        let timeout = FAULT.with_kind(Kind::Timeout);
        for (timeout_cost, left) in [(1.000_4, 9.0), (1.000_5, 8.999), (2.5, 7.5)] {
            let budget = Budget::tokens().timeout_cost(timeout_cost).build().unwrap();
            budget.withdraw(&timeout).unwrap().failed(&timeout);
            assert_eq!(budget.status().unwrap().tokens, Some(left));
        }
    }

    #[test]
    fn rebuilt_token_budget_is_full_unless_it_started_with_less() {
        let initial = |budget: Result<Budget, ConfigError>| {
            let Some(BudgetBuilder::Tokens(builder)) = budget.unwrap().to_builder() else { unreachable!() };
            builder.capacity(4).build().map(|budget| budget.status().unwrap().tokens)
        };
        assert_eq!(initial(Budget::tokens().build()), Ok(Some(4.0)));
        assert_eq!(initial(Budget::tokens().initial(3).build()), Ok(Some(3.0)));
        assert_eq!(initial(Budget::tokens().initial(5).build()).unwrap_err().field(), "initial");
    }

    #[test]
    fn rebuilt_token_budget_limits_only_default_timeout_cost_by_capacity() {
        let rebuilt = |budget: TokenBudgetBuilder, capacity| {
            let Some(BudgetBuilder::Tokens(builder)) = budget.build().unwrap().to_builder() else {
                unreachable!()
            };
            builder.capacity(capacity).build().map(|budget| match budget.settings() {
                Some(BudgetSettings::Tokens { timeout_cost, .. }) => timeout_cost,
                settings => unreachable!("{settings:?}"),
            })
        };
        assert_eq!(rebuilt(Budget::tokens(), 4), Ok(4.0));
        assert_eq!(rebuilt(Budget::tokens().capacity(4), 20), Ok(6.0));
        assert_eq!(rebuilt(Budget::tokens().timeout_cost(4.5), 20), Ok(4.5));
        assert_eq!(rebuilt(Budget::tokens().timeout_cost(4.5), 4).unwrap_err().field(), "timeout_cost");
    }

    #[test]
    fn bucket_value_out_of_range_names_field() {
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
        let ticket = most.withdraw(&FAULT);
        assert!(ticket.is_some() && most.withdraw(&FAULT).is_none());
    }
}
