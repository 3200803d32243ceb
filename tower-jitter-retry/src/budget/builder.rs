//! The settings of a budget of any kind.

use std::time::Duration;

use tower_fault_classify::__internals::ConfigError;

use super::{AwsBudgetBuilder, Budget, GrpcBudgetBuilder, WindowBudgetBuilder};

/// The settings of a budget. Returned by [`Budget::settings`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum BudgetSettings {
    /// Of [`Budget::window`].
    Window {
        /// See [`WindowBudgetBuilder::ratio`].
        ratio: f64,
        /// See [`WindowBudgetBuilder::min_per_second`].
        min_per_second: u32,
        /// See [`WindowBudgetBuilder::span`].
        span: Duration,
    },
    /// Of [`Budget::grpc`].
    Grpc {
        /// See [`GrpcBudgetBuilder::max_tokens`].
        max_tokens: u32,
        /// See [`GrpcBudgetBuilder::ratio`].
        ratio: f64,
    },
    /// Of [`Budget::aws`].
    Aws {
        /// See [`AwsBudgetBuilder::capacity`].
        capacity: u32,
        /// See [`AwsBudgetBuilder::cost`].
        cost: u32,
        /// See [`AwsBudgetBuilder::timeout_cost`].
        timeout_cost: u32,
        /// See [`AwsBudgetBuilder::increment`].
        increment: u32,
    },
}

/// The builder of a budget of any kind. Returned by [`Budget::to_builder`].
///
/// ```
/// use tower_jitter_retry::Budget;
/// use tower_jitter_retry::budget::BudgetBuilder;
///
/// let budget = Budget::default();
/// let stricter = match budget.to_builder() {
///     Some(BudgetBuilder::Window(window)) => window.ratio(0.05).build()?,
///     _ => budget,
/// };
/// # Ok::<(), tower_jitter_retry::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
#[non_exhaustive]
pub enum BudgetBuilder {
    /// Of [`Budget::window`].
    Window(WindowBudgetBuilder),
    /// Of [`Budget::grpc`].
    Grpc(GrpcBudgetBuilder),
    /// Of [`Budget::aws`].
    Aws(AwsBudgetBuilder),
}

impl BudgetBuilder {
    /// Builds the budget.
    ///
    /// # Errors
    ///
    /// The first value that is out of its range, with its field and the range.
    pub fn build(self) -> Result<Budget, ConfigError> {
        match self {
            Self::Window(builder) => builder.build(),
            Self::Grpc(builder) => builder.build(),
            Self::Aws(builder) => builder.build(),
        }
    }
}
