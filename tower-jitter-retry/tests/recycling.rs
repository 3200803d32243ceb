//! The storage of budgets is reused. The test runs alone in its process, because the pools belong
//! to the process.

use std::time::Duration;

use tower_jitter_retry::budget::RetryBudget;
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};
use tower_jitter_retry::{Budget, Clock, ConfigError};

const FAULT: Fault = Fault::new(Kind::Server, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);

/// Builds a window budget with settings that no other number has.
fn window(number: u32, clock: Clock) -> Result<Budget, ConfigError> {
    let span = Duration::from_secs(1) + Duration::from_micros(number.into());
    Budget::window().ratio(f64::from(number) / 1e6).min_per_second(1 + number).span(span).clock(clock).build()
}

/// Builds token budgets with settings that no other number has.
fn tokens(number: u32) -> [Result<Budget, ConfigError>; 3] {
    let plain = Budget::tokens().capacity(1 + number).initial(1 + number / 2);
    let grpc = Budget::grpc().max_tokens(1 + number % 1_000).ratio(f64::from(1 + number) / 1e3);
    [plain.build(), grpc.build(), Budget::aws().capacity(100 + number).increment(0).build()]
}

/// Builds four budgets with distinct settings, and uses and drops them.
fn build(number: u32, clock: Clock) {
    let [plain, grpc, aws] = tokens(number);
    for budget in [window(number, clock), plain, grpc, aws] {
        let budget = budget.unwrap();
        budget.withdraw(&FAULT).expect("a new budget grants a retry").failed(&FAULT);
        budget.deposit(&Verdict::Success);
    }
}

#[test]
fn dropped_budgets_of_any_settings_take_no_memory() {
    // The clocks themselves are never freed.
    let clocks: Vec<_> = (0..20_000).map(|_| Clock::manual().0).collect();
    let build_all = |numbers: std::ops::Range<u32>| {
        let numbers = numbers.zip(&clocks);
        allocation_counter::measure(|| numbers.for_each(|(number, clock)| build(number, *clock)))
    };
    build_all(0..100);
    let info = build_all(100..20_000);
    assert_eq!((info.bytes_current, info.count_total), (0, 0), "{info:?}");

    let alive = |numbers: std::ops::Range<u32>| {
        numbers.map(|number| window(number, clocks[number as usize]).unwrap()).collect::<Vec<_>>()
    };
    drop(alive(0..1_000));
    let info = allocation_counter::measure(|| drop(alive(1_000..2_000)));
    assert_eq!(info.bytes_current, 0, "a thousand budgets reuse the storage of the thousand before them");
}
