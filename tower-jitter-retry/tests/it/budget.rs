//! The budget keeps retries a share of the traffic.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use http::{Method, Request, Response};
use tokio::task::JoinSet;
use tower::{Layer, Service, service_fn};
use tower_fault_classify::ClassifiedError;
use tower_jitter_retry::budget::{RetryBudget, Ticket, WindowBudgetBuilder};
use tower_jitter_retry::decision::{CallOptions, Decision};
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};
use tower_jitter_retry::{
    Budget, Clock, GiveUp, JitterRetryLayer, ManualClock, RetryPolicy, RetryPolicyBuilder, RetrySafety,
};

use crate::support::{Broken, Calls, block_on, immediate, layer, request, response, send};

const SECOND: Duration = Duration::from_secs(1);
const UNAVAILABLE: Fault =
    Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);
const REJECTED: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);

/// Returns a budget with a manual clock.
fn with_manual_clock(builder: WindowBudgetBuilder) -> (Budget, ManualClock) {
    let (clock, manual) = Clock::manual();
    manual.set(1_000 * SECOND);
    (builder.clock(clock).build().unwrap(), manual)
}

fn share(ratio: f64) -> Budget {
    with_manual_clock(Budget::window().ratio(ratio).min_per_second(0)).0
}

fn from(budget: &Budget) -> RetryPolicyBuilder {
    immediate().budget(budget.clone())
}

/// Sends failing requests and returns the number of retries.
fn retries_of(layer: &JitterRetryLayer, requests: usize) -> usize {
    let calls = Calls::default();
    let mut service = layer.layer(service_fn(|_: u32| {
        calls.next();
        async { Err::<(), _>(Broken(0)) }
    }));
    for _ in 0..requests {
        assert_eq!(block_on(send(&mut service, 7)), Err(Broken(0)));
    }
    calls.made() - requests
}

fn succeed(layer: &JitterRetryLayer, requests: usize) {
    let mut service = layer.layer(service_fn(async |_: u32| Ok::<(), Broken>(())));
    for _ in 0..requests {
        block_on(send(&mut service, 7)).unwrap();
    }
}

#[test]
fn failing_requests_are_retried_up_to_ratio() {
    for (ratio, expected) in
        [(0.0, 0), (0.001, 1), (0.1, 100), (0.2, 200), (0.6, 600), (1.0, 1_000), (1.5, 1_500)]
    {
        let retries = retries_of(&layer(from(&share(ratio))), 1_000);
        assert_eq!(retries, expected, "at a ratio of {ratio}");
    }
}

#[test]
fn ratio_holds_after_every_request() {
    let layer = layer(from(&share(0.1)));
    let mut retries = 0;
    for requests in 1..=1_000 {
        retries += retries_of(&layer, 1);
        assert_eq!(retries, requests / 10, "after {requests} requests");
    }
}

#[test]
fn ratio_without_exact_binary_form_is_exact() {
    let layer = layer(from(&share(0.7)).max_attempts(1_000));
    let mut retries = 0;
    for requests in 1..=1_000 {
        retries += retries_of(&layer, 1);
        assert_eq!(retries, requests * 7 / 10, "after {requests} requests");
    }
}

#[test]
fn policy_without_budget_retries_every_request() {
    assert_eq!(retries_of(&layer(immediate()), 1_000), 2_000);
}

#[test]
fn window_budget_grants_20_percent_and_10_per_second_by_default() {
    let (budget, manual) = with_manual_clock(Budget::window());
    let layer = layer(from(&budget));
    assert_eq!(retries_of(&layer, 1_000), 200 + 100);
    manual.advance(5 * SECOND);
    assert_eq!(retries_of(&layer, 10), 2);
}

#[tokio::test(start_paused = true)]
async fn default_budget_grants_ten_retries_and_recovers_with_successes() {
    let layer = layer(RetryPolicy::builder().initial_backoff(Duration::ZERO).max_attempts(1_000));
    assert_eq!(retries_of(&layer, 1), 10);
    tokio::time::advance(3_600 * SECOND).await;
    assert_eq!(retries_of(&layer, 100), 0, "time and failures add no token");
    succeed(&layer, 5);
    assert_eq!(retries_of(&layer, 1), 1);
}

#[test]
fn layers_sharing_budget_are_bounded_together() {
    let budget = share(0.1);
    let one = layer(from(&budget));
    let other = layer(from(&budget).max_attempts(10));
    let retries: usize = (0..500).map(|_| retries_of(&one, 1) + retries_of(&other, 1)).sum();
    assert_eq!(retries, 100);
}

#[test]
fn deposit_of_one_layer_pays_for_another() {
    let budget = share(0.1);
    succeed(&layer(from(&budget)), 1_000);
    assert_eq!(retries_of(&layer(from(&budget).max_attempts(1_000)), 1), 100);
}

#[test]
fn policy_and_layer_clones_share_budget() {
    let policy = from(&share(0.1)).build().unwrap();
    let layers = [JitterRetryLayer::new(policy.clone()), JitterRetryLayer::new(policy)];
    let layers = [layers[0].clone(), layers[1].clone(), layers[0].clone()];
    let retries: usize = (0..400).flat_map(|_| layers.iter().map(|layer| retries_of(layer, 1))).sum();
    assert_eq!(retries, 120);
}

#[test]
fn default_policies_have_separate_budgets() {
    let policy = || RetryPolicy::builder().initial_backoff(Duration::ZERO).max_attempts(6);
    let (one, other) = (layer(policy()), layer(policy()));
    // Ten tokens are enough for two requests with five retries each.
    assert_eq!([retries_of(&one, 1), retries_of(&one, 1)], [5, 5]);
    assert_eq!([retries_of(&other, 1), retries_of(&other, 1)], [5, 5]);
}

#[test]
fn request_deposits_once_for_all_attempts() {
    let layer = layer(from(&share(1.0)).max_attempts(1_000));
    assert_eq!(retries_of(&layer, 1), 1);
    assert_eq!(retries_of(&layer, 10), 10);
}

#[test]
fn request_rejected_below_deposits_nothing() {
    let layer = layer(from(&share(1.0)).max_attempts(1_000));
    let mut rejecting =
        layer.layer(service_fn(async |_: u32| Err::<(), _>(ClassifiedError::from_fault(REJECTED))));
    for _ in 0..1_000 {
        block_on(send(&mut rejecting, 7)).unwrap_err();
    }
    assert_eq!(retries_of(&layer, 1), 1);
}

#[test]
fn custom_budget_receives_the_verdict_of_a_rejected_request() {
    #[derive(Debug, Default)]
    struct Deposits(Arc<Mutex<Vec<Verdict>>>);

    impl RetryBudget for Deposits {
        fn deposit(&self, verdict: &Verdict) {
            self.0.lock().unwrap().push(*verdict);
        }

        fn withdraw(&self, fault: &Fault) -> Option<Ticket> {
            panic!("withdrawal for {fault}")
        }
    }

    let deposits = Arc::default();
    let layer = layer(from(&Budget::custom(Deposits(Arc::clone(&deposits)))));
    let mut rejecting =
        layer.layer(service_fn(async |_: u32| Err::<(), _>(ClassifiedError::from_fault(REJECTED))));
    block_on(send(&mut rejecting, 7)).unwrap_err();
    assert_eq!(*deposits.lock().unwrap(), [Verdict::Fault(REJECTED)]);
}

#[test]
fn request_not_sent_again_withdraws_nothing() {
    let (budget, _manual) = with_manual_clock(Budget::window().ratio(0.0).min_per_second(1).span(SECOND));
    let calls = Calls::default();
    let mut service = layer(from(&budget)).layer(service_fn(|request: Request<String>| {
        calls.next();
        let status = if request.method() == Method::HEAD { 404 } else { 503 };
        async move { Ok::<_, io::Error>(response(status)) }
    }));
    let mut marked = request(Method::GET);
    marked.extensions_mut().insert(RetrySafety::Never);
    for unsendable in [request(Method::POST), request(Method::HEAD), marked] {
        block_on(send(&mut service, unsendable)).unwrap();
    }
    assert_eq!(calls.made(), 3);
    block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(calls.made(), 5, "the one retry is still available");
    block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(calls.made(), 6, "the one retry has been used");
}

#[test]
fn delay_that_does_not_fit_withdraws_nothing() {
    let (budget, _manual) = with_manual_clock(Budget::window().ratio(0.0).min_per_second(1).span(SECOND));
    let slow = from(&budget)
        .initial_backoff(SECOND)
        .jitter(tower_jitter_retry::Jitter::None)
        .max_elapsed(Duration::ZERO);
    assert_eq!(retries_of(&layer(slow), 5), 0);
    assert_eq!(retries_of(&layer(from(&budget)), 5), 1);
}

#[test]
fn request_refused_by_budget_returns_its_own_outcome() {
    let layer = layer(from(&share(0.0)));
    let mut service = layer.layer(service_fn(async |_: Request<String>| {
        let mut response: Response<String> = response(503);
        response.headers_mut().insert("retry-after", 7.into());
        Ok::<_, io::Error>(response)
    }));
    let answer = block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!((answer.status().as_u16(), &**answer.body()), (503, "it is 503"));
    assert_eq!(answer.headers()["retry-after"], "7");
}

#[test]
fn reserve_is_granted_immediately_and_refills_after_span() {
    let (budget, manual) = with_manual_clock(Budget::window().ratio(0.0).min_per_second(2).span(10 * SECOND));
    let layer = layer(from(&budget).max_attempts(1_000));
    assert_eq!(retries_of(&layer, 1), 20);
    assert_eq!(retries_of(&layer, 100), 0);
    manual.advance(9 * SECOND);
    assert_eq!(retries_of(&layer, 100), 0);
    // The span, and the bucket in which the retries were withdrawn.
    manual.advance(2 * SECOND);
    assert_eq!(retries_of(&layer, 100), 20);
}

#[test]
fn idle_week_leaves_only_reserve() {
    let (budget, manual) = with_manual_clock(Budget::window().ratio(0.5).min_per_second(1));
    let layer = layer(from(&budget).max_attempts(1_000));
    succeed(&layer, 10_000);
    manual.advance(7 * 24 * 3_600 * SECOND);
    // The request itself adds half a retry to the reserve of 10.
    assert_eq!(retries_of(&layer, 1), 10);
    assert_eq!(retries_of(&layer, 1), 1);
}

#[test]
fn exhausted_budget_recovers_with_traffic() {
    let (budget, manual) = with_manual_clock(Budget::window().ratio(0.1).min_per_second(0));
    let layer = layer(from(&budget));
    for _ in 0..20 {
        assert_eq!(retries_of(&layer, 1_000), 100);
        manual.advance(11 * SECOND);
    }
}

#[test]
fn dropped_call_withdraws_nothing() {
    let layer = layer(from(&share(0.1)).max_attempts(1_000));
    succeed(&layer, 10);
    let mut hung = layer.layer(service_fn(|_: u32| std::future::pending::<Result<(), Broken>>()));
    for _ in 0..5 {
        drop(hung.call(7));
    }
    assert_eq!(retries_of(&layer, 1), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_tasks_are_not_granted_more() {
    let calls = Calls::default();
    let budget = Budget::window().ratio(0.1).min_per_second(0).clock(Clock::tokio()).build().unwrap();
    // With delays, so that all requests fail before the first one is retried.
    let layer = layer(RetryPolicy::builder().budget(budget).max_attempts(5));
    let service = layer.layer(service_fn({
        let calls = calls.clone();
        move |_: u32| {
            calls.next();
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err::<(), _>(Broken(0))
            }
        }
    }));
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let mut service = service.clone();
        tasks.spawn(async move { send(&mut service, 7).await });
    }
    assert!(tasks.join_all().await.into_iter().all(|answer| answer == Err(Broken(0))));
    // Failing retries withdraw further retries, so that all deposits of the thousand requests are
    // used.
    assert_eq!(calls.made(), 1_000 + 100);
}

#[test]
fn concurrent_threads_are_not_granted_more() {
    const THREADS: usize = 8;
    for ratio in [0.1, 0.25] {
        let calls = Calls::default();
        let budget = share(ratio);
        let layer = layer(from(&budget).max_attempts(4));
        let start = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (layer, calls, start) = (layer.clone(), calls.clone(), Arc::clone(&start));
                thread::spawn(move || {
                    let mut service = layer.layer(service_fn(|_: u32| {
                        calls.next();
                        async { Err::<(), _>(ClassifiedError::from_fault(UNAVAILABLE)) }
                    }));
                    start.wait();
                    for _ in 0..1_000 {
                        block_on(send(&mut service, 7)).unwrap_err();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let (requests, retries) = (THREADS * 1_000, calls.made() - THREADS * 1_000);
        let allowed = requests / if ratio < 0.2 { 10 } else { 4 };
        assert!((1..=allowed).contains(&retries), "{retries} retries, {allowed} allowed");
        // No deposit was lost: exactly the retries that were not withdrawn are left.
        let left = retries_of(&self::layer(from(&budget).max_attempts(1_000)), 1);
        assert_eq!(retries + left.min(999), allowed.min(retries + 999));
    }
}

/// When a server hangs, the traffic must limit the retries, not only the reserve.
#[tokio::test(start_paused = true)]
async fn request_longer_than_span_deposits() {
    let calls = Calls::default();
    let budget = Budget::window().ratio(0.1).min_per_second(0).clock(Clock::tokio()).build().unwrap();
    let service = layer(from(&budget)).layer(service_fn({
        let calls = calls.clone();
        move |_: u32| {
            calls.next();
            async {
                tokio::time::sleep(30 * SECOND).await;
                Err::<(), _>(Broken(0))
            }
        }
    }));
    let mut tasks = JoinSet::new();
    for _ in 0..1_000 {
        let mut service = service.clone();
        tasks.spawn(async move { send(&mut service, 7).await });
    }
    tasks.join_all().await;
    assert_eq!(calls.made(), 1_000 + 100);
}

/// Requests that are rejected below make no deposit. These threads therefore only withdraw, and all
/// of them compete for the last retry.
#[test]
fn concurrent_withdrawals_share_every_retry() {
    const THREADS: usize = 8;
    let shed = REJECTED.with_retryable(Retryable::Unsent);
    for round in 0..50 {
        let calls = Calls::default();
        let layer = layer(from(&share(0.1)).max_attempts(1_000));
        succeed(&layer, 1_000);
        let start = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let mut service = layer.layer(service_fn(|_: u32| {
                        calls.next();
                        async move { Err::<(), _>(ClassifiedError::from_fault(shed)) }
                    }));
                    start.wait();
                    block_on(send(&mut service, 7)).unwrap_err();
                });
            }
        });
        assert_eq!(calls.made() - THREADS, 100, "in round {round}");
    }
}

/// A new budget on the same clock reuses a dropped budget's memory, but not its deposits and
/// withdrawals.
#[tokio::test(start_paused = true)]
async fn new_budget_starts_empty() {
    for _ in 0..50 {
        let budget = Budget::window().ratio(0.5).min_per_second(0).clock(Clock::tokio()).build().unwrap();
        let layer = layer(from(&budget).max_attempts(1_000));
        assert_eq!(retries_of(&layer, 1), 0);
        succeed(&layer, 99);
        assert_eq!(retries_of(&layer, 1), 50);
        succeed(&layer, 1_000);
        // The number of retries in one poll of a task is limited.
        tokio::task::yield_now().await;
    }
}

#[test]
fn budget_value_out_of_range_names_field() {
    for (builder, field) in [
        (Budget::window().ratio(-0.1), "ratio"),
        (Budget::window().ratio(f64::NAN), "ratio"),
        (Budget::window().ratio(1_000.5), "ratio"),
        (Budget::window().span(SECOND / 2), "span"),
        (Budget::window().span(3_601 * SECOND), "span"),
    ] {
        assert_eq!(builder.build().unwrap_err().field(), field);
    }
}

#[tokio::test(start_paused = true)]
async fn window_budget_refills_under_paused_clock() {
    let layer = layer(from(&Budget::window().build().unwrap()).max_attempts(1_000));
    for _ in 0..3 {
        assert_eq!(retries_of(&layer, 1), 100, "ten per second over ten seconds");
        assert_eq!(retries_of(&layer, 1), 0);
        tokio::time::advance(11 * SECOND).await;
    }
}

/// `max_elapsed` uses the policy's clock, and the budget's span uses the budget's clock.
#[test]
fn budget_uses_its_own_clock() {
    let (budget, manual) = with_manual_clock(Budget::window().ratio(0.0).min_per_second(1).span(10 * SECOND));
    let (clock, policy_clock) = Clock::manual();
    let layer = layer(from(&budget).clock(clock).max_attempts(1_000).max_elapsed(None::<Duration>));
    assert_eq!(retries_of(&layer, 1), 10);
    policy_clock.advance(3_600 * SECOND);
    assert_eq!(retries_of(&layer, 1), 0);
    manual.advance(11 * SECOND);
    assert_eq!(retries_of(&layer, 1), 10);
}

#[test]
fn grpc_budget_applies_in_layer() {
    let layer = layer(from(&Budget::grpc().build().unwrap()).max_attempts(1_000));
    // After 1, 2, 3 and 4 failures, 9, 8, 7 and 6 tokens are left: more than half.
    assert_eq!(retries_of(&layer, 1), 4);
    assert_eq!(retries_of(&layer, 100), 0);
    succeed(&layer, 50);
    assert_eq!(retries_of(&layer, 1), 0, "a hundred failures emptied the bucket");
    // That failure took one more token.
    succeed(&layer, 60);
    assert_eq!(retries_of(&layer, 1), 4);
}

#[test]
fn token_budget_in_outage_grants_initial_retries_and_recovers_with_successes() {
    for initial in [0, 1, 7, 10] {
        let budget = Budget::tokens().initial(initial).build().unwrap();
        let layer = layer(from(&budget));
        assert_eq!(retries_of(&layer, 1_000), initial as usize);
        succeed(&layer, 4);
        assert_eq!(retries_of(&layer, 100), 0, "0.8 retries are left");
        succeed(&layer, 11);
        assert_eq!(retries_of(&layer, 100), 3);
        succeed(&layer, 1_000);
        assert_eq!(retries_of(&layer, 1_000), 10, "a full bucket");
    }
}

/// Makes 100,000 calls, one after the other, whose attempts fail at random with this fault. Returns
/// the share of the retries that a token budget with its defaults refuses.
fn refused_share(fault: Fault, failure_rate: f64) -> f64 {
    let policy = RetryPolicy::default();
    let mut random = fastrand::Rng::with_seed(1);
    let (mut granted, mut refused) = (0_u32, 0_u32);
    for _ in 0..100_000 {
        let mut call = policy.begin(CallOptions::new(), Duration::ZERO);
        let last = loop {
            let fails = random.f64() < failure_rate;
            let verdict = if fails { Verdict::Fault(fault) } else { Verdict::Success };
            match call.record(&verdict, Duration::ZERO) {
                Decision::Retry { .. } => granted += 1,
                last => break last,
            }
        };
        refused += u32::from(last == Decision::GiveUp(GiveUp::Budget));
    }
    f64::from(refused) / f64::from(granted + refused)
}

/// Checks the table of `TokenBudgetBuilder`.
#[test]
fn token_budget_refuses_documented_share_of_retries() {
    let timeout = UNAVAILABLE.with_kind(Kind::Timeout);
    for (failure_rate, share, share_of_timeouts) in
        [(0.05, 0.0, 0.07), (0.1, 0.0, 0.19), (0.25, 0.001, 0.66), (0.3, 0.02, 0.76), (0.4, 0.4, 0.88)]
    {
        for (fault, documented) in [(UNAVAILABLE, share), (timeout, share_of_timeouts)] {
            let refused = refused_share(fault, failure_rate);
            let rounding = if documented < 0.01 { 0.000_5 } else { 0.01 };
            assert!(
                (refused - documented).abs() <= rounding,
                "{refused} at {failure_rate}, {}",
                fault.kind()
            );
        }
    }
}

#[test]
fn aws_budget_applies_in_layer_and_is_refunded() {
    let budget = Budget::aws().build().unwrap();
    let layer = layer(from(&budget).max_attempts(1_000));
    let calls = Calls::default();
    let mut recovering = layer.layer(service_fn(|_: u32| {
        let call = calls.next();
        async move { if call % 2 == 0 { Ok(()) } else { Err(Broken(call)) } }
    }));
    for _ in 0..1_000 {
        block_on(send(&mut recovering, 7)).unwrap();
    }
    assert_eq!(retries_of(&layer, 1), 100, "every retry that succeeded was refunded");
    assert_eq!(retries_of(&layer, 1), 0);
    succeed(&layer, 20);
    assert_eq!(retries_of(&layer, 1), 4, "20 successes pay for four retries");
}

#[test]
fn aws_retry_cancelled_returns_its_cost() {
    let budget = Budget::aws().capacity(5).timeout_cost(5).increment(0).build().unwrap();
    let layer = layer(from(&budget));
    for _ in 0..100 {
        let calls = Calls::default();
        let mut hanging = layer.layer(service_fn(|_: u32| {
            let call = calls.next();
            async move {
                if call == 1 { Err(Broken(1)) } else { std::future::pending::<Result<(), Broken>>().await }
            }
        }));
        let mut call = tokio_test::task::spawn(send(&mut hanging, 7));
        tokio_test::assert_pending!(call.poll());
        assert_eq!(calls.made(), 2, "the retry hangs");
        drop(call);
    }
    assert_eq!(retries_of(&layer, 1), 1);
    assert_eq!(retries_of(&layer, 1), 0, "a retry that failed keeps its cost");
}

#[test]
fn ratio_of_0_6_grants_six_of_ten_across_threads() {
    let (budget, _manual) = with_manual_clock(Budget::window().ratio(0.6).min_per_second(0));
    let layer = layer(immediate().budget(budget).max_attempts(4));
    assert_eq!(retries_of(&layer, 10), 6);
    let granted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| granted.fetch_add(retries_of(&layer, 1_000), Ordering::Relaxed));
        }
    });
    let granted = granted.into_inner();
    assert!((4_790..=4_800).contains(&granted), "{granted} of 4,800: never more, and at most 10 fewer");
}

#[test]
fn budget_idle_for_a_century_refills() {
    let (budget, manual) = with_manual_clock(Budget::window().ratio(0.5).min_per_second(0).span(SECOND));
    let layer = layer(immediate().budget(budget));
    assert_eq!(retries_of(&layer, 100), 50);
    manual.advance(100 * 365 * 24 * 3_600 * SECOND);
    // A refill is one pass over sixteen cells per ring. If buckets expired one by one, this test
    // would not end.
    for _ in 0..20 {
        assert_eq!(retries_of(&layer, 100), 50, "an empty budget refills completely");
        manual.advance(100 * 365 * 24 * 3_600 * SECOND / 50);
    }
}
