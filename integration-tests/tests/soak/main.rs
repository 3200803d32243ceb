//! Sends 10,000 requests, 256 at a time, through each stack to a server that fails one in five.
//!
//! No request is lost, duplicated or left hanging, and the counts of the client agree with those of
//! the server.

mod function;
mod gateway;
mod hyper_client;
mod load;
mod reqwest_client;
mod reqwest_middleware;
mod tonic_client;

use std::time::Duration;

use integration_tests::reqwest_client;
use tower_breaker::{BreakerConfig, Clock};
use tower_jitter_retry::{Jitter, RetryPolicy};

/// A timeout that is far longer than any answer over loopback. No test waits for it.
const TIMEOUT: Duration = Duration::from_secs(60);

const ATTEMPTS: u32 = 3;

/// Returns a policy without a delay and without a budget, which would refuse some of the retries.
///
/// The clients follow no redirects, so a POST is sent again after a refused connection.
fn policy() -> RetryPolicy {
    let policy =
        RetryPolicy::builder().max_attempts(ATTEMPTS).initial_backoff(Duration::ZERO).jitter(Jitter::None);
    policy.budget(None).follows_redirects(false).build().unwrap()
}

fn client_without_redirects() -> reqwest::Client {
    reqwest_client().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// Returns settings of a circuit that never opens and counts each attempt. Its clock does not
/// advance, so its window keeps all calls.
fn circuit() -> BreakerConfig {
    BreakerConfig::builder()
        .name("soak")
        .consecutive_failures(0)
        .failure_rate(None)
        .count_failed_retries(true)
        .clock(Clock::manual().0)
        .build()
        .unwrap()
}
