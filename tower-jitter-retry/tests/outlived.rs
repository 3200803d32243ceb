//! Calls that outlive the service that made them: `oneshot` drops the service as soon as the call
//! is made.
//!
//! The tests run alone in their process, because budgets of other tests would reuse the storage
//! that these tests release.

#[path = "it/support.rs"]
mod support;

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, service_fn};
use tower_jitter_retry::{Budget, JitterRetryLayer, RetryPolicy};

use support::{Broken, Calls, block_on, immediate};

/// Returns every kind of built-in budget, and none.
fn budgets() -> Vec<Option<Budget>> {
    vec![
        None,
        Some(Budget::window().build().unwrap()),
        Some(Budget::tokens().build().unwrap()),
        Some(Budget::grpc().build().unwrap()),
        Some(Budget::aws().build().unwrap()),
    ]
}

/// Runs a test under paused time. No other test runs at the same time, because it could reuse the
/// storage of a budget that has no handle.
fn run_alone(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
}

#[test]
fn call_outliving_its_only_handle_is_retried() {
    run_alone(async { retries_without_a_handle() });
}

fn retries_without_a_handle() {
    for budget in budgets() {
        let calls = Calls::default();
        let layer = JitterRetryLayer::new(immediate().budget(budget.clone()).build().unwrap());
        // The policy has the only handle.
        drop(budget);
        let stack = layer.layer(service_fn(async |_: u32| match calls.next() {
            3 => Ok(3),
            call => Err(Broken(call)),
        }));
        drop(layer);
        assert_eq!(block_on(stack.oneshot(7)), Ok(3));
    }
}

/// Creating a policy for each call is a mistake, because no budget then limits the retries of all
/// calls. The retries still happen.
#[test]
fn calls_with_one_policy_each_are_all_retried() {
    run_alone(calls_with_a_policy_each());
}

async fn calls_with_a_policy_each() {
    let calls = Calls::default();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let calls = calls.clone();
        let policy = RetryPolicy::builder().initial_backoff(Duration::from_secs(1)).build().unwrap();
        let stack = JitterRetryLayer::new(policy).layer(service_fn(move |_: u32| {
            calls.next();
            async {
                tokio::task::yield_now().await;
                Err::<(), _>(Broken(0))
            }
        }));
        callers.spawn(stack.oneshot(7));
        tokio::task::yield_now().await;
    }
    callers.join_all().await;
    assert_eq!(calls.made(), 300);
}

#[test]
fn budget_without_handles_still_bounds_running_calls() {
    run_alone(calls_without_a_handle());
}

async fn calls_without_a_handle() {
    let calls = Calls::default();
    let budget = Budget::aws().capacity(50).build().unwrap();
    let policy =
        RetryPolicy::builder().initial_backoff(Duration::from_secs(1)).budget(budget).build().unwrap();
    let counter = calls.clone();
    let stack = JitterRetryLayer::new(policy).layer(service_fn(move |_: u32| {
        counter.next();
        async {
            tokio::task::yield_now().await;
            Err::<(), _>(Broken(0))
        }
    }));
    let mut callers = JoinSet::new();
    for _ in 0..1_000 {
        callers.spawn(stack.clone().oneshot(7));
    }
    drop(stack);
    callers.join_all().await;
    assert_eq!(calls.made(), 1_010, "fifty tokens pay for ten retries");
}
