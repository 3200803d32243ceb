//! Runs one path the given number of times, so that callgrind can count its instructions.
//!
//! With `await` as the third argument, the calls are made as users write them: `ready().await` and
//! `call().await` in an async function. Otherwise, a loop polls the service and the future.

use std::env::args;
use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, BreakerLayer};
use tower_jitter_retry::{Budget, Clock, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder};

#[path = "../../tower-breaker/benches/bare/mod.rs"]
mod bare;

use bare::{Bare, call};

/// A service whose calls fail twice and then succeed.
#[derive(Clone)]
struct FailsTwice;

/// The future of a call, which completes at its first poll.
struct Flaky {
    fails: bool,
}

impl Service<bool> for FailsTwice {
    type Response = u32;
    type Error = io::Error;
    type Future = Flaky;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: bool) -> Flaky {
        use std::sync::atomic::{AtomicU32, Ordering};

        static CALLS: AtomicU32 = AtomicU32::new(0);
        // One thread makes all calls.
        let number = CALLS.load(Ordering::Relaxed);
        CALLS.store(number.wrapping_add(1), Ordering::Relaxed);
        Flaky { fails: black_box(number % 3 != 2) }
    }
}

impl Future for Flaky {
    type Output = io::Result<u32>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(if self.fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(1) })
    }
}

/// Makes one call as users write it.
#[inline(never)]
async fn send<S: Service<bool>>(service: &mut S, request: bool) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

/// Makes the calls of one path.
fn repeat<S: Service<bool>>(mut service: S, calls: u32, awaits: bool, fails: bool) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..calls {
        black_box(if awaits {
            matches!(pin!(send(&mut service, fails)).poll(&mut cx), Poll::Ready(Ok(_)))
        } else {
            call(&mut service, fails)
        });
    }
}

// The system's clock does not work under valgrind.
fn policy(budget: Option<Budget>) -> RetryPolicyBuilder {
    RetryPolicy::builder().clock(Clock::manual().0).budget(budget)
}

fn retry(policy: RetryPolicyBuilder) -> JitterRetryLayer {
    JitterRetryLayer::new(policy.initial_backoff(Duration::ZERO).build().expect("it is valid"))
}

fn breaker() -> BreakerConfigBuilder {
    BreakerConfig::builder().clock(Clock::manual().0)
}

fn breaker_layer(config: BreakerConfigBuilder) -> BreakerLayer {
    BreakerLayer::new(config.build().expect("it is valid"))
}

/// A budget that pays for every retry.
fn ample() -> Budget {
    Budget::window().ratio(3.0).clock(Clock::manual().0).build().expect("it is valid")
}

fn main() {
    let (Some(path), Some(calls)) = (args().nth(1), args().nth(2)) else { return };
    // `cargo test` and `cargo bench` pass arguments of their own.
    let Ok(calls) = calls.parse::<u32>() else { return };
    let awaits = args().nth(3).is_some_and(|style| style == "await");
    let window = Budget::window().clock(Clock::manual().0).build().expect("it is valid");
    let success = |layer: JitterRetryLayer| repeat(layer.layer(Bare), calls, awaits, false);
    let default = || Some(Budget::default());
    match &*path {
        "bare" => repeat(Bare, calls, awaits, false),
        "no-budget" => success(retry(policy(None))),
        "window" => success(retry(policy(Some(window)))),
        "failed-once" => repeat(retry(policy(None).max_attempts(1)).layer(Bare), calls, awaits, true),
        "failed-twice" => repeat(retry(policy(None).max_attempts(2)).layer(Bare), calls, awaits, true),
        "retried-twice" => repeat(retry(policy(None)).layer(FailsTwice), calls, awaits, false),
        "retried-twice-paid" => repeat(retry(policy(Some(ample()))).layer(FailsTwice), calls, awaits, false),
        "over-breaker" => {
            let layers =
                ServiceBuilder::new().layer(retry(policy(default()))).layer(breaker_layer(breaker()));
            repeat(layers.service(Bare), calls, awaits, false);
        }
        "over-breaker-retried-twice" => {
            let breaker = breaker_layer(breaker().consecutive_failures(0).minimum_calls(u32::MAX));
            let layers = ServiceBuilder::new().layer(retry(policy(None))).layer(breaker);
            repeat(layers.service(FailsTwice), calls, awaits, false);
        }
        "over-breaker-rejected" => {
            let breaker = breaker_layer(breaker());
            let mut opened = breaker.layer(Bare);
            while opened.circuit().status().retry_after.is_none() {
                call(&mut opened, true);
            }
            let layers = ServiceBuilder::new().layer(retry(policy(default()))).layer(breaker);
            repeat(layers.service(Bare), calls, awaits, false);
        }
        _ => success(retry(policy(default()))),
    }
}
