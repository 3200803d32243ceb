//! Retry budgets: limits on the share of retries in the traffic.
//!
//! When a service fails for all its clients, retries multiply its load at the worst moment. A
//! budget allows retries only in proportion to the requests that were made, or to those that
//! succeeded. A [`Budget`] is shared by its clones. Requests make deposits, and each retry makes a
//! withdrawal, for which it holds a [`Ticket`].
//!
//! | budget | allows | recovers | used by |
//! |---|---|---|---|
//! | [`Budget::tokens`], **the default** ([`TokenBudgetBuilder`]) | retries that the tokens pay for, one token each, and more after a timeout; a retry that succeeds, is not sent or is cancelled returns its cost | with successes | |
//! | [`Budget::window`] ([`WindowBudgetBuilder`]) | a share of the requests of the last seconds, and some retries per second in addition | with time | Finagle, linkerd, tower |
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
//! call the same server, the product of the clients and `min_per_second` must be below the spare
//! capacity of the server.
//!
//! A window grants its reserve again in every span, so retries continue throughout an outage. A
//! bucket of tokens is not refilled by time. Once an outage has emptied it, the client sends no
//! retry until requests succeed again. Ten tokens for each of ten thousand clients are 100,000
//! retries, but only once per outage.
//!
//! # Default
//!
//! [`Budget::default`] is a bucket of 10 tokens, to which a success adds 0.2 tokens. A retry costs
//! 1 token, or 6 after a timeout. Simulations chose these values:
//!
//! - **No refill by time**: in a fleet of ten or more processes, the reserve of a window that
//!   allows 20 % of the requests and 10 retries per second is no limit. After an [outage of
//!   10 s](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#retry-budgets-in-a-fleet),
//!   the retries keep the server overloaded. A bucket of tokens is spent once in an outage.
//! - **6 tokens after a timeout**: the server may still work on the request, and a full bucket pays
//!   for one such retry. After an outage of 10 s, [1,000
//!   processes](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#the-defaults-against-other-values)
//!   above the default breaker lose the traffic of 58 s. At 1 token they lose that of 208 s.
//! - **0.2 tokens per success**: at 25 % [random
//!   failures](https://github.com/OWNER/tower-resilience-layers/blob/main/docs/simulations.md#random-failures),
//!   98 % of the calls are answered, at 1 to 1,000 calls/s. With 0.1 tokens it is 95 to 97 %, and
//!   without a budget 98.4 %. The AWS SDKs also return 1 token for each 5 that a retry costs.
//!
//! Tokens are held while a retry waits and runs, so the capacity also limits concurrent retries. At
//! 10,000 calls/s and 30 % random failures, 94.5 % of the calls are answered with a capacity of 10,
//! and 97.2 % with 100, the capacity of [`RetryPolicy::gateway`](crate::RetryPolicy::gateway).
//!
//! # Implementation
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
