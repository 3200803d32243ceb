//! Tests of the layers with tonic: all four kinds of calls of a generated client, a load balancer,
//! and a server that sheds load.

mod balance;
mod calls;
pub(crate) mod echo_service;
mod replays;
mod retries;
mod server;
mod trailers;

use integration_tests::retry_at_once;
use tower_jitter_retry::RetryPolicyBuilder;

/// Returns a policy of three attempts without a delay, in which every method is idempotent.
fn all_listed() -> RetryPolicyBuilder {
    retry_at_once().idempotent_methods(["echo.Echo/*"])
}
