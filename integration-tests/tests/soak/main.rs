//! Ten thousand requests, 256 at a time, through each stack, over a server that fails one in five:
//! nothing is lost, doubled or left hanging, and what either side has counted agrees with the
//! other.

mod function;
mod gateway;
mod hyper_client;
mod load;
mod reqwest_client;
mod reqwest_middleware;
mod tonic_client;

use std::time::Duration;

use tower_breaker::{BreakerConfig, Clock};
use tower_jitter_retry::{Jitter, RetryPolicy};

/// Far more than any answer over loopback takes: no test waits for it.
const TIMEOUT: Duration = Duration::from_secs(60);

const ATTEMPTS: u32 = 3;

/// Without a delay, and without a budget, which would refuse what the sums ask for. No redirect is
/// followed, so that a POST is sent again after a refused connection.
fn policy() -> RetryPolicy {
    let policy =
        RetryPolicy::builder().max_attempts(ATTEMPTS).initial_backoff(Duration::ZERO).jitter(Jitter::None);
    policy.budget(None).follows_redirects(false).build().unwrap()
}

fn client_without_redirects() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// Never opens, and forgets nothing, for its clock stands still.
fn circuit() -> BreakerConfig {
    let circuit = BreakerConfig::builder().name("soak").consecutive_failures(0).failure_rate(None);
    circuit.clock(Clock::manual().0).build().unwrap()
}
