//! The settings of a budget.

use std::time::Duration;

/// The settings of a budget. Returned by [`Budget::settings`](super::Budget::settings).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum BudgetSettings {
    /// Of [`Budget::window`](super::Budget::window).
    Window {
        /// See [`WindowBudgetBuilder::ratio`](super::WindowBudgetBuilder::ratio).
        ratio: f64,
        /// See [`WindowBudgetBuilder::min_per_second`](super::WindowBudgetBuilder::min_per_second).
        min_per_second: u32,
        /// See [`WindowBudgetBuilder::span`](super::WindowBudgetBuilder::span).
        span: Duration,
    },
    /// Of [`Budget::grpc`](super::Budget::grpc).
    Grpc {
        /// See [`GrpcBudgetBuilder::max_tokens`](super::GrpcBudgetBuilder::max_tokens).
        max_tokens: u32,
        /// See [`GrpcBudgetBuilder::ratio`](super::GrpcBudgetBuilder::ratio).
        ratio: f64,
    },
    /// Of [`Budget::aws`](super::Budget::aws).
    Aws {
        /// See [`AwsBudgetBuilder::capacity`](super::AwsBudgetBuilder::capacity).
        capacity: u32,
        /// See [`AwsBudgetBuilder::cost`](super::AwsBudgetBuilder::cost).
        cost: u32,
        /// See [`AwsBudgetBuilder::timeout_cost`](super::AwsBudgetBuilder::timeout_cost).
        timeout_cost: u32,
        /// See [`AwsBudgetBuilder::increment`](super::AwsBudgetBuilder::increment).
        increment: u32,
    },
}
