//! The calls of the breaker that `.ci/instructions` counts.

use std::time::Duration;

use tower::{Layer, Service};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{Breaker, BreakerConfig, BreakerConfigBuilder, BreakerLayer, Clock};

mod bare;
mod counted;

use bare::{Bare, call};
use counted::Rows;

fn main() {
    let rows = Rows::from_arguments();
    let succeeds = |_| false;
    rows.add("bare", || Bare, succeeds);
    rows.add("success", || breaker(default()), succeeds);
    rows.add_cloned("clone", || breaker(default()), succeeds);
    rows.add("failure", || breaker(default().consecutive_failures(0).minimum_calls(u32::MAX)), |_| true);
    rows.add("every-fourth-fails", || breaker(default()), |call| call % 4 == 0);
    rows.add("rejected", open_breaker, succeeds);
    rows.add("count-window", || breaker(default().count_window(100)), succeeds);
    rows.add("slow-calls", || breaker(default().slow_call_rate(Duration::from_secs(1), 0.5)), succeeds);
    rows.add("keyed", || keyed_breaker(1), |_| 0);
    rows.add("keyed-1000", || keyed_breaker(1_000), |call| u64::from(call % 1_000));
}

/// The default configuration, with a clock that runs under valgrind.
fn default() -> BreakerConfigBuilder {
    BreakerConfig::builder().clock(Clock::manual().0)
}

fn breaker(config: BreakerConfigBuilder) -> Breaker<Bare> {
    BreakerLayer::new(config.build().expect("the configuration is valid")).layer(Bare)
}

fn open_breaker() -> Breaker<Bare> {
    let service = breaker(default());
    service.circuit().trip().expect("the circuit is not forced");
    service
}

/// Returns a breaker with a circuit for each of `keys` keys.
fn keyed_breaker(keys: u64) -> impl Service<u64> + Clone + Send {
    let each = default().build().expect("the configuration is valid");
    let config = KeyedConfig::builder(each).build().expect("the configuration is valid");
    let mut service = KeyedBreakerLayer::<_, _>::new(config, |key: &u64| *key).layer(Bare);
    for key in 0..keys {
        call(&mut service, key);
    }
    service
}
