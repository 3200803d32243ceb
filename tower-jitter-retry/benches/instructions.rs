//! Runs one path the given number of times, so that callgrind can count its instructions.

use std::env::args;
use std::hint::black_box;
use std::time::Duration;

use tower::{Layer, ServiceBuilder};
use tower_breaker::{BreakerConfig, BreakerLayer};
use tower_jitter_retry::{Budget, Clock, JitterRetryLayer, RetryPolicy};

#[path = "../../tower-breaker/benches/bare/mod.rs"]
mod bare;

use bare::{Bare, call};

fn main() {
    let (Some(path), Some(calls)) = (args().nth(1), args().nth(2)) else { return };
    // `cargo test` and `cargo bench` pass arguments of their own.
    let Ok(calls) = calls.parse::<u32>() else { return };
    // The system's clock does not work under valgrind.
    let clock = || Clock::manual().0;
    let window = Budget::window().clock(clock()).build().expect("it is valid");
    let budget = Budget::default();
    let policy = |budget| RetryPolicy::builder().clock(clock()).budget(budget).build().expect("it is valid");
    let breaker = BreakerConfig::builder().clock(clock()).build().expect("it is valid");
    let mut bare = Bare;
    let mut unbounded = JitterRetryLayer::new(policy(None)).layer(Bare);
    let mut windowed = JitterRetryLayer::new(policy(Some(window))).layer(Bare);
    let mut default = JitterRetryLayer::new(policy(Some(budget.clone()))).layer(Bare);
    let mut over_breaker = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy(Some(budget))))
        .layer(BreakerLayer::new(breaker))
        .service(Bare);
    let attempts = |most| {
        let policy = RetryPolicy::builder()
            .clock(clock())
            .budget(None)
            .initial_backoff(Duration::ZERO)
            .max_attempts(most);
        JitterRetryLayer::new(policy.build().expect("it is valid")).layer(Bare)
    };
    let (mut once, mut twice) = (attempts(1), attempts(2));
    for _ in 0..calls {
        black_box(match &*path {
            "bare" => call(&mut bare, false),
            "no-budget" => call(&mut unbounded, false),
            "window" => call(&mut windowed, false),
            "failed-once" => call(&mut once, true),
            "failed-twice" => call(&mut twice, true),
            "over-breaker" => call(&mut over_breaker, false),
            _ => call(&mut default, false),
        });
    }
}
