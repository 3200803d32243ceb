//! Retry budgets: limits on the share of retries in the traffic.
//!
//! When a service fails for all its clients, retries multiply its load at the worst moment. A
//! budget allows retries only in proportion to the requests that were made, or to those that
//! succeeded. A [`Budget`] is shared by its clones. Requests make deposits, and each retry makes a
//! withdrawal, for which it holds a [`Ticket`].
//!
//! | budget | allows | recovers | used by |
//! |---|---|---|---|
//! | [`Budget::window`], **the default** ([`WindowBudgetBuilder`]) | a share of the requests of the last seconds, and some retries per second in addition | with time | Finagle, linkerd, tower |
//! | [`Budget::tokens`] ([`TokenBudgetBuilder`]) | retries that the tokens pay for, one token each, and more after a timeout; a retry that succeeds, is not sent or is cancelled returns its cost | with successes | |
//! | [`Budget::grpc`] ([`GrpcBudgetBuilder`]) | any retry while more than half of the tokens are left; failures take a token, successes return a part of one | with successes | gRPC (gRFC A6) |
//! | [`Budget::aws`] ([`AwsBudgetBuilder`]) | as `Budget::tokens`, but each retry costs several tokens | with successes | the AWS SDKs ("standard" mode) |
//! | [`Budget::custom`] | what your own [`RetryBudget`] allows | | |
//!
//! [`Budget::settings`] returns the settings of a budget ([`BudgetSettings`]), and
//! [`Budget::to_builder`] a builder with the same settings ([`BudgetBuilder`]). [`Budget::status`]
//! returns what is left for retries ([`BudgetStatus`]).
//!
//! A budget limits the retries of one client. It protects a server from many clients only if it is
//! small, because each client has a budget of its own and their reserves add up. Ten retries per
//! second are few for one client, but 100,000 per second for ten thousand clients. If many clients
//! call the same server, give each of them a small `min_per_second`, such as 0.1, or 0.
//!
//! A window grants its reserve again in every span, so retries continue throughout an outage. A
//! bucket of tokens is not refilled by time. Once an outage has emptied it, the client sends no
//! retry until requests succeed again. Ten tokens for each of ten thousand clients are 100,000
//! retries, but only once per outage.
//!
//! All amounts are exact fixed-point numbers. They are changed by compare-and-swap, or under a lock
//! that only retries take. The time of an operation does not depend on how long a budget was idle.

mod builder;
mod handle;
mod rules;
mod settings;
mod status;
mod ticket;
mod tokens;
mod window;

pub use self::builder::{
    AwsBudgetBuilder, BudgetBuilder, GrpcBudgetBuilder, TokenBudgetBuilder, WindowBudgetBuilder,
};
#[cfg(feature = "serde")]
pub(crate) use self::builder::{
    GRPC_RATIO_RANGE, GRPC_TOKEN_RANGE, MIN_PER_SECOND_RANGE, PER_SUCCESS_RANGE, RATIO_RANGE, SPAN_RANGE,
    TIMEOUT_COST_RANGE, TOKEN_RANGE,
};
pub(crate) use self::handle::BudgetRef;
pub use self::handle::{Budget, RetryBudget};
pub use self::settings::BudgetSettings;
pub use self::status::BudgetStatus;
pub use self::ticket::Ticket;
