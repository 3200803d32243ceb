//! The layers of this workspace.

use std::time::Duration;

use tower::{Layer, ServiceBuilder};
use tower_breaker::keyed::{ByValue, KeyedBreaker, KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{Breaker, BreakerConfig, BreakerConfigBuilder, BreakerLayer};
use tower_jitter_retry::{Budget, JitterRetry, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder};

use crate::OURS;
use crate::bare::{Bare, FailsTwice};
use crate::keys::{call_each_key, random_key};
use crate::variant::{Expect, Variants};

/// Longer than any run.
const AN_HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn add(variants: &mut Variants) {
    breaker(variants);
    retry(variants);
    retry_over_breaker(variants);
    keyed(variants);
}

fn breaker(variants: &mut Variants) {
    let succeeds = |_| false;
    let default = || {
        let layer = breaker_layer(BreakerConfig::builder());
        move || layer.layer(Bare)
    };
    variants.add("breaker, success", OURS, Expect::Success, default, succeeds);
    let never_trips = || {
        let config = BreakerConfig::builder().consecutive_failures(0).minimum_calls(u32::MAX);
        let layer = breaker_layer(config);
        move || layer.layer(Bare)
    };
    variants.add("breaker, failure", OURS, Expect::Failure, never_trips, |_| true);
    variants.add("breaker, every fourth fails", OURS, Expect::ThreeOfFour, default, |call| call % 4 == 0);
    let open = || {
        let layer = breaker_layer(BreakerConfig::builder().open_for(AN_HOUR));
        layer.circuit().trip().expect("the circuit is not forced");
        move || layer.layer(Bare)
    };
    variants.add("breaker, rejected", OURS, Expect::Failure, open, succeeds);
    variants.add_cloned("breaker, a clone per call", OURS, Expect::Success, default, succeeds);
    let count_window = || {
        let layer = breaker_layer(BreakerConfig::builder().count_window(100));
        move || layer.layer(Bare)
    };
    variants.add("breaker, window of 100 calls", OURS, Expect::Success, count_window, succeeds);
    let large_window = || {
        let layer = breaker_layer(BreakerConfig::builder().count_window(1_000_000));
        move || layer.layer(Bare)
    };
    variants.add("breaker, window of 1,000,000 calls", OURS, Expect::Success, large_window, succeeds);
}

fn retry(variants: &mut Variants) {
    let default = || {
        let layer = retry_layer(RetryPolicy::builder());
        move || layer.layer(Bare)
    };
    variants.add("retry, budget", OURS, Expect::Success, default, |_| false);
    let no_budget = || {
        let layer = retry_layer(RetryPolicy::builder().budget(None));
        move || layer.layer(Bare)
    };
    variants.add("retry, no budget", OURS, Expect::Success, no_budget, |_| false);
    let once = || {
        let layer = retry_layer(RetryPolicy::builder().max_attempts(1).budget(None));
        move || layer.layer(Bare)
    };
    variants.add("retry, failure of the only attempt", OURS, Expect::Failure, once, |_| true);
    let twice = || {
        let budget = Budget::window().ratio(2.0).build().expect("the budget is valid");
        let policy = RetryPolicy::builder().max_attempts(2).initial_backoff(Duration::ZERO).budget(budget);
        let layer = retry_layer(policy);
        move || layer.layer(Bare)
    };
    variants.add("retry, failure of two attempts, budget", OURS, Expect::Failure, twice, |_| true);
}

fn retry_over_breaker(variants: &mut Variants) {
    let default = || both(RetryPolicy::builder(), breaker_layer(BreakerConfig::builder()), Bare);
    variants.add("retry over breaker, success", OURS, Expect::Success, default, |_| false);
    // Two of three attempts fail, which is less than the failure rate.
    let two_retries = || {
        let policy = RetryPolicy::builder().initial_backoff(Duration::ZERO).budget(None);
        both(policy, breaker_layer(BreakerConfig::builder().failure_rate(0.9)), FailsTwice)
    };
    variants.add("retry over breaker, two retries", OURS, Expect::Success, two_retries, |_| false);
    let open = || {
        let breaker = breaker_layer(BreakerConfig::builder().open_for(AN_HOUR));
        breaker.circuit().trip().expect("the circuit is not forced");
        both(RetryPolicy::builder(), breaker, Bare)
    };
    variants.add("retry over breaker, rejected", OURS, Expect::Failure, open, |_| false);
}

fn keyed(variants: &mut Variants) {
    variants.add("keyed, 1 key", OURS, Expect::Success, || keyed_service(1), |_| 0);
    let thousand = || keyed_service(1_000);
    variants.add("keyed, 1,000 keys", OURS, Expect::Success, thousand, |call| random_key(call, 1_000));
    let many = || keyed_service(100_000);
    variants.add("keyed, 100,000 keys", OURS, Expect::Success, many, |call| random_key(call, 100_000));
}

fn breaker_layer(config: BreakerConfigBuilder) -> BreakerLayer {
    BreakerLayer::new(config.build().expect("the configuration is valid"))
}

fn retry_layer(policy: RetryPolicyBuilder) -> JitterRetryLayer {
    JitterRetryLayer::new(policy.build().expect("the policy is valid"))
}

fn both<S: Copy>(
    policy: RetryPolicyBuilder,
    breaker: BreakerLayer,
    service: S,
) -> impl Fn() -> JitterRetry<Breaker<S>> {
    let layers = ServiceBuilder::new().layer(retry_layer(policy)).layer(breaker);
    move || layers.service(service)
}

type Keyed = KeyedBreaker<Bare, ByValue<fn(&u64) -> u64>, u64>;

/// Returns a function that creates services, whose map has a circuit for each of `keys` keys.
fn keyed_service(keys: u32) -> impl Fn() -> Keyed {
    let config = KeyedConfig::builder(BreakerConfig::default()).max_keys(100_000).build();
    let layer = KeyedBreakerLayer::new(config.expect("the configuration is valid"), (|key: &u64| *key) as _);
    let mut service = layer.layer(Bare);
    call_each_key(&mut service, keys);
    move || layer.layer(Bare)
}
