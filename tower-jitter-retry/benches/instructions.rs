//! Runs one path so and so often, for callgrind to count its instructions.

use std::env::args;
use std::hint::black_box;

use tower::{Layer, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_jitter_retry::{Budget, Clock, JitterRetryLayer, RetryPolicy};

#[path = "../../tower-breaker/benches/bare/mod.rs"]
mod bare;

use bare::{Bare, call};

fn main() {
    let (Some(path), Some(calls)) = (args().nth(1), args().nth(2)) else { return };
    // `cargo test` and `cargo bench` give arguments of their own.
    let Ok(calls) = calls.parse::<u32>() else { return };
    // The system's clock is not there under valgrind.
    let clock = || Clock::manual().0;
    let budget = Budget::builder().clock(clock()).build().expect("it is valid");
    let policy = |budget| RetryPolicy::builder().clock(clock()).budget(budget).build().expect("it is valid");
    let breaker = BreakerConfig::builder().clock(clock()).build().expect("it is valid");
    let mut bare = Bare;
    let mut unbounded = JitterRetryLayer::new(policy(None)).layer(Bare);
    let mut default = JitterRetryLayer::new(policy(Some(budget.clone()))).layer(Bare);
    let mut over_breaker = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy(Some(budget))))
        .layer(BreakerLayer::new(breaker))
        .service(Bare);
    for _ in 0..calls {
        black_box(match &*path {
            "bare" => call(&mut bare, false),
            "no-budget" => call(&mut unbounded, false),
            "over-breaker" => call(&mut over_breaker, false),
            _ => call(&mut default, false),
        });
    }
}
