//! The layers over tonic: all four kinds of calls under a generated client, a balancer's endpoints,
//! and a server that sheds.

mod balance;
mod calls;
mod echo_service;
mod replays;
mod retries;
mod server;
mod trailers;

use integration_tests::retry_at_once;
use tower_jitter_retry::RetryPolicyBuilder;

/// Three attempts without a delay, of any method.
fn all_listed() -> RetryPolicyBuilder {
    retry_at_once().idempotent_methods(["echo.Echo/*"])
}
