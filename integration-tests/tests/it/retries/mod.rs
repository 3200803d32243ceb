//! Retries over every client, counted on a server that fails so many times.

mod early_answer;
mod hyper_client;
mod last_outcome;
mod reqwest_client;
mod tonic_channel;

use std::time::Duration;

use tower_jitter_retry::{Jitter, RetryPolicy, RetryPolicyBuilder};

/// Far more than anything over loopback takes: no test waits for it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Three attempts without a delay.
fn at_once() -> RetryPolicyBuilder {
    RetryPolicy::builder().initial_backoff(Duration::ZERO).jitter(Jitter::None)
}
