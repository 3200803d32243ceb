//! Guards with the rules and the defaults of other projects.
//!
//! A retry that the shipped policy can express has the same rule as the original. It sends a
//! request again after the faults that the shipped classification allows: 503, timeouts, and lost
//! connections.

use std::time::Duration;

use tower_jitter_retry::{Budget, Jitter, RetryPolicy, RetryPolicyBuilder};

use crate::client::model::{Envoy, Gobreaker, Hystrix, Linkerd, Model, Polly, Resilience4j};
use crate::client::{Breaker, Guard};
use crate::figure::colour;

/// Returns a guard with the breaker of resilience4j.
pub const fn resilience4j_breaker() -> Guard {
    let breaker = model(|_| Box::new(Resilience4j::new()));
    Guard { name: "resilience4j", colour: colour::RED, retry: None, breaker: Some(breaker) }
}

/// Returns a guard with the breaker of Polly 8.
pub const fn polly_breaker() -> Guard {
    let breaker = model(|_| Box::new(Polly::new()));
    Guard { name: "polly", colour: colour::ORANGE, retry: None, breaker: Some(breaker) }
}

/// Returns a guard with the outlier detection of Envoy.
pub const fn envoy() -> Guard {
    let breaker = model(|seed| Box::new(Envoy::new(seed)));
    Guard { name: "envoy", colour: colour::PURPLE, retry: None, breaker: Some(breaker) }
}

/// Returns a guard with the breaker gobreaker.
pub const fn gobreaker() -> Guard {
    let breaker = model(|_| Box::new(Gobreaker::new()));
    Guard { name: "gobreaker", colour: colour::BLUE, retry: None, breaker: Some(breaker) }
}

/// Returns a guard with the failure accrual of Linkerd 2.
pub const fn linkerd() -> Guard {
    let breaker = model(|seed| Box::new(Linkerd::new(seed)));
    Guard { name: "linkerd", colour: colour::GREEN, retry: None, breaker: Some(breaker) }
}

/// Returns a guard with the breaker of Hystrix.
pub const fn hystrix() -> Guard {
    let breaker = model(|_| Box::new(Hystrix::new()));
    Guard { name: "hystrix", colour: colour::GREY, retry: None, breaker: Some(breaker) }
}

/// Returns a guard with the `Retry` of resilience4j above its breaker.
///
/// Three attempts, 500 ms apart, without a budget:
/// <https://resilience4j.readme.io/docs/retry>. All exceptions are retried, also those of the
/// breaker:
/// <https://github.com/resilience4j/resilience4j/blob/0124df713de675b6f88e8176bd71eaf6b15d9db5/resilience4j-retry/src/main/java/io/github/resilience4j/retry/RetryConfig.java>.
pub fn resilience4j() -> Guard {
    let retry = Some(constant(3, Duration::from_millis(500)));
    Guard { retry, ..resending(resilience4j_breaker()) }
}

/// Returns a guard with the retry strategy of Polly 8 above its breaker.
///
/// Three retries, 2 s apart, without jitter and without a budget. All exceptions but
/// `OperationCanceledException` are retried, also those of the breaker:
/// <https://www.pollydocs.org/strategies/retry#defaults>.
pub fn polly() -> Guard {
    let retry = Some(constant(4, Duration::from_secs(2)));
    Guard { retry, ..resending(polly_breaker()) }
}

/// Returns a guard with gRPC's retries and retry throttling.
///
/// gRPC has no defaults. The settings are those of the example in gRFC A6: four attempts, a backoff
/// of 0.1 s to 1 s that doubles, ten tokens, and 0.1 tokens for a success. The jitter is 20 % up
/// and down: <https://github.com/grpc/proposal/blob/master/A6-client-retries.md>.
///
/// # Panics
///
/// Does not panic: the settings are valid.
pub fn grpc() -> Guard {
    let backoff = (Duration::from_millis(100), Duration::from_secs(1), 2.0);
    let budget = Budget::grpc().build().expect("the settings are valid");
    let retry = exponential(4, backoff).jitter(Jitter::CenkaltiProportional(0.2)).budget(budget);
    Guard { name: "grpc", colour: colour::BLUE, retry: Some(built(retry)), breaker: None }
}

/// Returns a guard with the standard retry mode of the AWS SDK for Rust.
///
/// Three attempts, a backoff of 1 s to 20 s that doubles, with full jitter:
/// <https://docs.rs/aws-smithy-types/latest/aws_smithy_types/retry/struct.RetryConfig.html>. The
/// budget is that of `aws-smithy-runtime`: 500 tokens, of which a retry takes five, or ten after a
/// timeout. In 2026, AWS announced other figures, which an application has to enable:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>.
///
/// # Panics
///
/// Does not panic: the settings are valid.
pub fn aws() -> Guard {
    let backoff = (Duration::from_secs(1), Duration::from_secs(20), 2.0);
    let budget = Budget::aws().build().expect("the settings are valid");
    let retry = exponential(3, backoff).jitter(Jitter::Full).budget(budget);
    Guard { name: "aws", colour: colour::PURPLE, retry: Some(built(retry)), breaker: None }
}

/// Returns a guard with retries that only the default budget of tower and Finagle limits.
///
/// The budget allows retries for 20 % of the requests of the last 10 s, and 10 retries per second:
/// <https://finagle.github.io/blog/2016/02/08/retry-budgets>. The attempts and delays are those of
/// [`naive`](super::naive), because tower and Finagle leave them to the application.
///
/// # Panics
///
/// Does not panic: the settings are valid.
pub fn tower() -> Guard {
    let span = Duration::from_secs(10);
    let budget = Budget::window().ratio(0.2).min_per_second(10.0).span(span).build();
    let naive = super::naive();
    let budgeted =
        |policy: RetryPolicy| built(policy.to_builder().budget(budget.expect("the settings are valid")));
    Guard { name: "tower", colour: colour::GREY, retry: naive.retry.map(budgeted), breaker: None }
}

const fn model(new: fn(u64) -> Box<dyn Model>) -> Breaker {
    Breaker::Model { new, resend_rejected: false }
}

/// Changes a guard so that the retry sends rejected requests again.
fn resending(guard: Guard) -> Guard {
    let breaker = match guard.breaker {
        Some(Breaker::Model { new, .. }) => Some(Breaker::Model { new, resend_rejected: true }),
        other => other,
    };
    Guard { breaker, ..guard }
}

/// Returns retries at a constant distance, without jitter and without a budget.
fn constant(attempts: u32, delay: Duration) -> RetryPolicy {
    built(exponential(attempts, (delay, delay, 1.0)).jitter(Jitter::None).budget(None))
}

/// Returns retries with a first backoff, a maximum and a factor, without a limit of the total time.
fn exponential(attempts: u32, (first, max, factor): (Duration, Duration, f64)) -> RetryPolicyBuilder {
    RetryPolicy::builder()
        .max_attempts(attempts)
        .initial_backoff(first)
        .max_backoff(max)
        .backoff_multiplier(factor)
        .max_elapsed(None)
}

fn built(policy: RetryPolicyBuilder) -> RetryPolicy {
    policy.build().expect("the settings are valid")
}
