//! The settings of a budget.

use std::time::Duration;

/// The settings of a budget, returned by [`Budget::settings`](super::Budget::settings).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum BudgetSettings {
    /// The settings of a [`Budget::window`](super::Budget::window).
    Window {
        /// The retries per request; see
        /// [`WindowBudgetBuilder::ratio`](super::WindowBudgetBuilder::ratio).
        ratio: f64,
        /// The additional retries per second.
        ///
        /// See [`WindowBudgetBuilder::min_per_second`](super::WindowBudgetBuilder::min_per_second).
        min_per_second: f64,
        /// The length of the window; see
        /// [`WindowBudgetBuilder::span`](super::WindowBudgetBuilder::span).
        span: Duration,
    },
    /// The settings of a [`Budget::tokens`](super::Budget::tokens).
    Tokens {
        /// The capacity in tokens; see
        /// [`TokenBudgetBuilder::capacity`](super::TokenBudgetBuilder::capacity).
        capacity: u32,
        /// The tokens in a new bucket.
        ///
        /// See [`TokenBudgetBuilder::initial`](super::TokenBudgetBuilder::initial).
        initial: u32,
        /// The tokens per success without a retry.
        ///
        /// See [`TokenBudgetBuilder::per_success`](super::TokenBudgetBuilder::per_success).
        per_success: f64,
        /// The cost of a retry after a timeout.
        ///
        /// See [`TokenBudgetBuilder::timeout_cost`](super::TokenBudgetBuilder::timeout_cost).
        timeout_cost: f64,
    },
    /// The settings of a [`Budget::grpc`](super::Budget::grpc).
    Grpc {
        /// The capacity in tokens.
        ///
        /// See [`GrpcBudgetBuilder::max_tokens`](super::GrpcBudgetBuilder::max_tokens).
        max_tokens: u32,
        /// The tokens per success; see
        /// [`GrpcBudgetBuilder::ratio`](super::GrpcBudgetBuilder::ratio).
        ratio: f64,
    },
    /// The settings of a [`Budget::aws`](super::Budget::aws).
    Aws {
        /// The capacity in tokens; see
        /// [`AwsBudgetBuilder::capacity`](super::AwsBudgetBuilder::capacity).
        capacity: u32,
        /// The cost of a retry; see [`AwsBudgetBuilder::cost`](super::AwsBudgetBuilder::cost).
        cost: u32,
        /// The cost of a retry after a timeout.
        ///
        /// See [`AwsBudgetBuilder::timeout_cost`](super::AwsBudgetBuilder::timeout_cost).
        timeout_cost: u32,
        /// The tokens per success without a retry.
        ///
        /// See [`AwsBudgetBuilder::increment`](super::AwsBudgetBuilder::increment).
        increment: u32,
    },
}
