//! What a call through the breaker costs, beside a bare service and an uncontended lock.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tower::{Layer, Service};
use tower_breaker::{BreakerConfig, BreakerLayer};

#[path = "../../examples/support/measure.rs"]
mod measure;

use measure::{compare, scaling, variant};

/// Fails when it is told to.
#[derive(Clone)]
struct Bare;

impl Service<bool> for Bare {
    type Response = u32;
    type Error = io::Error;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, fails: bool) -> Self::Future {
        Answer { fails: black_box(fails) }
    }
}

/// Answers at once.
struct Answer {
    fails: bool,
}

impl Future for Answer {
    type Output = Result<u32, io::Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(if self.fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(1) })
    }
}

#[inline]
fn call<S: Service<bool>>(service: &mut S, fails: bool) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = service.poll_ready(&mut cx).is_ready();
    let done = match pin!(service.call(fails)).poll(&mut cx) {
        Poll::Ready(result) => result.is_ok(),
        Poll::Pending => false,
    };
    ready && done
}

fn main() {
    let default = || BreakerLayer::new(BreakerConfig::default()).layer(Bare);
    let never = BreakerConfig::builder().consecutive_failures(0).minimum_calls(u32::MAX);
    let counting = |calls| BreakerConfig::builder().count_window(calls).build().unwrap();

    let mut bare = Bare;
    let (mut success, mut clones) = (default(), default());
    let mut failure = BreakerLayer::new(never.build().unwrap()).layer(Bare);
    let mut small = BreakerLayer::new(counting(10)).layer(Bare);
    let mut large = BreakerLayer::new(counting(1_000_000)).layer(Bare);
    let mut open = default();
    while call(&mut open, true) || open.circuit().status().retry_after.is_none() {}

    compare(vec![
        variant("bare service", || call(&mut bare, false)),
        variant("closed, success", || call(&mut success, false)),
        variant("closed, a clone of the service per call", || {
            let mut service = clones.clone();
            black_box(&mut clones);
            call(&mut service, false)
        }),
        variant("closed, failure", || call(&mut failure, true)),
        variant("open, rejected", || call(&mut open, false)),
        variant("closed, success, window of 10 calls", || call(&mut small, false)),
        variant("closed, success, window of 1,000,000 calls", || call(&mut large, false)),
    ]);
    let bare = scaling("bare service", || {
        let mut service = Bare;
        move || {
            black_box(call(&mut service, false));
        }
    });
    let layer = BreakerLayer::new(BreakerConfig::default());
    let breaker = scaling("closed, success", || {
        let mut service = layer.layer(Bare);
        move || {
            black_box(call(&mut service, false));
        }
    });
    println!("{:44} {:>9.2} of the bare service's scaling", "", breaker / bare);
}
