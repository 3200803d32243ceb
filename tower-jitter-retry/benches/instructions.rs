//! Runs one path so and so often, for callgrind to count its instructions.

use std::env::args;
use std::hint::black_box;

use tower::Layer;
use tower_jitter_retry::{Budget, Clock, JitterRetryLayer, RetryPolicy};

#[path = "../../tower-breaker/benches/bare/mod.rs"]
mod bare;

use bare::{Bare, call};

fn main() {
    let (Some(path), Some(calls)) = (args().nth(1), args().nth(2)) else { return };
    // `cargo test` and `cargo bench` give arguments of their own.
    let Ok(calls) = calls.parse::<u32>() else { return };
    let builder = RetryPolicy::builder();
    let policy = match &*path {
        "unbounded" => builder.budget(None::<Budget>),
        _ => builder.clock(Clock::manual().0),
    };
    let breaker = tower_breaker::BreakerLayer::new(tower_breaker::BreakerConfig::default());
    let both = RetryPolicy::builder().budget(None::<Budget>).build().expect("it is valid");
    let mut both = JitterRetryLayer::new(both).layer(breaker.layer(Bare));
    let mut service = JitterRetryLayer::new(policy.build().expect("it is valid")).layer(Bare);
    let mut bare = Bare;
    for _ in 0..calls {
        black_box(match &*path {
            "both" => call(&mut both, false),
            "bare" => call(&mut bare, false),
            _ => call(&mut service, false),
        });
    }
}
