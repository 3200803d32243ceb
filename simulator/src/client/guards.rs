//! The guards that the scenarios compare.

pub mod peers;

use std::time::Duration;

use tower_breaker::BreakerConfig;
use tower_jitter_retry::{Jitter, RetryPolicy};

use super::{Breaker, Guard};
use crate::figure::colour;

/// Returns a guard without retries and without a breaker.
pub const fn none() -> Guard {
    Guard { name: "none", colour: colour::BLACK, retry: None, breaker: None }
}

/// Returns a guard with three attempts, 100 ms apart, without jitter and without a budget.
///
/// # Panics
///
/// Does not panic: the settings are valid.
pub fn naive() -> Guard {
    let policy = RetryPolicy::builder()
        .initial_backoff(Duration::from_millis(100))
        .backoff_multiplier(1.0)
        .jitter(Jitter::None)
        .budget(None);
    let policy = policy.build().expect("the settings are valid");
    Guard { name: "naive", colour: colour::ORANGE, retry: Some(policy), breaker: None }
}

/// Returns the default retries.
pub fn retry() -> Guard {
    Guard { name: "retry", colour: colour::RED, retry: Some(RetryPolicy::default()), breaker: None }
}

/// Returns the default breaker.
pub fn breaker() -> Guard {
    let breaker = Some(Breaker::Local(BreakerConfig::builder()));
    Guard { name: "breaker", colour: colour::SKY, retry: None, breaker }
}

/// Returns the default retries above the default breaker.
pub fn both() -> Guard {
    Guard { name: "both", colour: colour::GREEN, retry: retry().retry, ..breaker() }
}

/// Returns the retries of a gateway above the default breaker.
///
/// # Panics
///
/// Does not panic: the settings are valid.
pub fn gateway() -> Guard {
    let policy = RetryPolicy::gateway().build().expect("the settings are valid");
    Guard { name: "gateway", colour: colour::PURPLE, retry: Some(policy), ..breaker() }
}
