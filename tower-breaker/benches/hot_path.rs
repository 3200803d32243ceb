//! The cost of a call through the breaker, compared with a bare service and an uncontended lock.

use std::hint::black_box;

use tower::Layer;
use tower_breaker::{BreakerConfig, BreakerLayer};

mod bare;
#[path = "../../benches/measure.rs"]
mod measure;

use bare::{Bare, call};
use measure::{compare, scaling, variant};

fn main() {
    let default = || BreakerLayer::new(BreakerConfig::default()).layer(Bare);
    let never = BreakerConfig::builder().consecutive_failures(0).minimum_calls(u32::MAX);
    let counting = |calls| BreakerConfig::builder().count_window(calls).build().unwrap();

    let mut bare = Bare;
    let (mut success, mut clones) = (default(), default());
    let mut failure = BreakerLayer::new(never.build().unwrap()).layer(Bare);
    let mut small = BreakerLayer::new(counting(10)).layer(Bare);
    let mut large = BreakerLayer::new(counting(1_000_000)).layer(Bare);
    let mut observed = default();
    let _unread = observed.circuit().transitions();
    observed.circuit().on_transition(|_| {});
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
        variant("closed, success, a stuck reader of transitions", || call(&mut observed, false)),
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
