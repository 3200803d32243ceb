//! tower-resilience: its circuit breaker and its retry.

use std::io;
use std::pin::pin;

use tower::{Layer, Service};
use tower_resilience_circuitbreaker::{
    CircuitBreaker, CircuitBreakerConfigBuilder, CircuitBreakerError, CircuitBreakerLayer, DefaultClassifier,
};
use tower_resilience_retry::{RetryBudgetBuilder, RetryConfigBuilder, RetryLayer};

use super::AN_HOUR;
use crate::bare::Bare;
use crate::call::finish;
use crate::variant::{Expect, Variants};

const TOWER_RESILIENCE: &str = "tower-resilience";

type Guarded = CircuitBreaker<Bare, DefaultClassifier>;
type GuardedError = CircuitBreakerError<io::Error>;

pub(crate) fn add(variants: &mut Variants) {
    let succeeds = |_| false;
    let default = default_breaker;
    variants.add("breaker, success", TOWER_RESILIENCE, Expect::Success, default, succeeds);
    let never_trips = || shared(CircuitBreakerLayer::builder().minimum_number_of_calls(usize::MAX));
    variants.add("breaker, failure", TOWER_RESILIENCE, Expect::Failure, never_trips, |_| true);
    let mixed = |call| call % 4 == 0;
    variants.add("breaker, every fourth fails", TOWER_RESILIENCE, Expect::ThreeOfFour, default, mixed);
    variants.add("breaker, rejected", TOWER_RESILIENCE, Expect::Failure, open, succeeds);
    variants.add_cloned("breaker, a clone per call", TOWER_RESILIENCE, Expect::Success, default, succeeds);
    variants.add("breaker, window of 100 calls", TOWER_RESILIENCE, Expect::Success, default, succeeds);

    let budget = || {
        let budget = RetryBudgetBuilder::new().token_bucket().build().expect("the budget is valid");
        let layer = RetryLayer::<bool, u32, io::Error>::builder().budget(budget).build();
        move || layer.layer(Bare)
    };
    variants.add("retry, budget", TOWER_RESILIENCE, Expect::Success, budget, succeeds);
    let no_budget = || {
        let layer = RetryLayer::<bool, u32, io::Error>::builder().build();
        move || layer.layer(Bare)
    };
    variants.add("retry, no budget", TOWER_RESILIENCE, Expect::Success, no_budget, succeeds);

    // "Two retries" is missing, because the crate sleeps for at least one tick of tokio's timer.
    let both = move || {
        let (retry, service) = (retry_unless_rejected().build(), default());
        move || retry.layer(service())
    };
    variants.add("retry over breaker, success", TOWER_RESILIENCE, Expect::Success, both, succeeds);
    let rejected = || {
        let (retry, service) = (retry_unless_rejected().build(), open());
        move || retry.layer(service())
    };
    variants.add("retry over breaker, rejected", TOWER_RESILIENCE, Expect::Failure, rejected, succeeds);
}

fn open() -> impl Fn() -> Guarded {
    let service = shared(CircuitBreakerLayer::builder().wait_duration_in_open(AN_HOUR));
    let mut opening = service();
    while !matches!(finish(pin!(opening.call(true))), Err(CircuitBreakerError::OpenCircuit)) {}
    service
}

fn shared(config: CircuitBreakerConfigBuilder<DefaultClassifier>) -> impl Fn() -> Guarded {
    let service = config.build().expect("the configuration is valid").layer(Bare);
    move || service.clone()
}

fn retry_unless_rejected() -> RetryConfigBuilder<bool, u32, GuardedError> {
    RetryLayer::builder().retry_on(|error: &GuardedError| !error.is_circuit_open())
}

pub(super) fn default_breaker() -> impl Fn() -> Guarded {
    shared(CircuitBreakerLayer::builder())
}
