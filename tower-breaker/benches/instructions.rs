//! Runs one path a given number of times, so that callgrind can count its instructions.
//! `.ci/instructions` compares the counts with the recorded ones.

use std::env::args;
use std::hint::black_box;

use tower::Layer;
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig, KeyedConfigBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer, Clock};

mod bare;

use bare::{Bare, call};

fn main() {
    let (Some(path), Some(calls)) = (args().nth(1), args().nth(2)) else { return };
    // `cargo test` and `cargo bench` pass other arguments.
    let Ok(calls) = calls.parse::<u32>() else { return };
    let default = || BreakerConfig::builder().clock(Clock::manual().0);
    let layer = |config: tower_breaker::BreakerConfigBuilder| {
        BreakerLayer::new(config.build().expect("valid configuration")).layer(Bare)
    };
    let mut service = match &*path {
        "failure" => layer(default().consecutive_failures(0).minimum_calls(u32::MAX)),
        _ => layer(default()),
    };
    while path == "rejected" && service.circuit().status().retry_after.is_none() {
        call(&mut service, true);
    }
    let config = default().build().map(KeyedConfig::builder).and_then(KeyedConfigBuilder::build);
    let mut keyed =
        KeyedBreakerLayer::new(config.expect("valid configuration"), |key: &u64| *key).layer(Bare);
    let mut bare = Bare;
    for _ in 0..calls {
        black_box(match &*path {
            "bare" => call(&mut bare, false),
            "failure" => call(&mut service, true),
            "keyed" => call(&mut keyed, 7_u64),
            "clone" => call(&mut service.clone(), false),
            _ => call(&mut service, false),
        });
    }
}
