//! The status of a budget.

/// A snapshot of a budget, returned by [`Budget::status`](super::Budget::status).
///
/// ```
/// use tower_jitter_retry::Budget;
///
/// let budget = Budget::window().min_per_second(2).build()?;
/// let status = budget.status().expect("it is not a custom budget");
/// assert_eq!((status.available, status.deposits), (20.0, Some(0)));
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BudgetStatus {
    /// The amount that retries can use now, 0 or more.
    ///
    /// | budget | amount | a retry is granted if the amount is |
    /// |---|---|---|
    /// | [`Budget::window`](super::Budget::window) | retries | at least 1 |
    /// | [`Budget::tokens`](super::Budget::tokens) | retries that cost one token | at least 1; after a timeout at least `timeout_cost` |
    /// | [`Budget::aws`](super::Budget::aws) | retries at the usual `cost` | at least 1; after a timeout at least `timeout_cost / cost` |
    /// | [`Budget::grpc`](super::Budget::grpc) | tokens above half of the capacity; a failed attempt takes one | above 0 |
    ///
    /// The amount of a window is exact to a millionth, and that of a bucket of tokens to a
    /// thousandth of a token.
    pub available: f64,
    /// The tokens in the bucket. `None` for a window.
    pub tokens: Option<f64>,
    /// The largest number of tokens in the bucket. `None` for a window.
    pub capacity: Option<f64>,
    /// The deposits in the window: the requests of the span. `None` for a bucket of tokens.
    pub deposits: Option<u64>,
    /// The withdrawals in the window: the retries that were granted in the span. `None` for a
    /// bucket of tokens.
    pub withdrawals: Option<u64>,
}
