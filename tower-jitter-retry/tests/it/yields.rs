//! Retries without a delay let other tasks run.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use tower::{Layer, service_fn};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use crate::support::{Broken, Calls, immediate, send};

/// The number of attempts that tokio lets a task make in one poll, including the first attempt.
const MOST: usize = 129;

fn policy() -> RetryPolicy {
    immediate().max_attempts(1_000).build().unwrap()
}

/// Polls until the future is ready. Returns the largest number of calls that were made in one poll.
async fn most_in_a_poll<F: Future>(calls: &Calls, future: F) -> usize {
    let mut future = pin!(future);
    let mut most = 0;
    poll_fn(|cx| {
        let before = calls.made();
        let polled = future.as_mut().poll(cx).map(drop);
        most = most.max(calls.made() - before);
        polled
    })
    .await;
    most
}

/// Does the same without a runtime. A future that is pending must have woken its task.
fn most_without_runtime<F: Future>(calls: &Calls, future: F) -> usize {
    let mut task = tokio_test::task::spawn(most_in_a_poll(calls, future));
    loop {
        match task.poll() {
            Poll::Ready(most) => return most,
            Poll::Pending => assert!(task.is_woken()),
        }
    }
}

/// Runs a task and another task. Returns whether the other task had run when the first one ended.
fn other_task_has_run<F: Future<Output: Send> + Send + 'static>(task: F) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let has_run = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&has_run);
        let task = tokio::spawn(async move {
            task.await;
            seen.load(Ordering::SeqCst)
        });
        tokio::spawn(async move { has_run.store(true, Ordering::SeqCst) });
        task.await.unwrap()
    })
}

async fn call_layer(policy: RetryPolicy, calls: Calls) {
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(|_: u32| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    send(&mut service, 7).await.unwrap_err();
}

async fn call_closure(policy: RetryPolicy, calls: Calls) {
    let attempt = async || Err::<(), _>(Broken(calls.next()));
    policy.retry(attempt).await.unwrap_err();
}

#[cfg(feature = "tower-retry")]
async fn call_tower(policy: RetryPolicy, calls: Calls) {
    let layer = tower::retry::RetryLayer::new(policy.for_tower());
    let mut service = layer.layer(service_fn(|_: u32| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    send(&mut service, 7).await.unwrap_err();
}

macro_rules! check {
    ($call:ident) => {
        let calls = Calls::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let most = runtime.block_on(most_in_a_poll(&calls, $call(policy(), calls.clone())));
        assert!(most <= MOST, "{most} in a poll of tokio");
        assert_eq!(calls.made(), 1_000);
        let calls = Calls::default();
        let most = most_without_runtime(&calls, $call(policy(), calls.clone()));
        assert!(most <= MOST, "{most} in a poll without a runtime");
        assert_eq!(calls.made(), 1_000);
        assert!(other_task_has_run($call(policy(), Calls::default())));
    };
}

#[test]
fn immediate_retries_of_layer_yield_to_other_tasks() {
    check!(call_layer);
}

#[test]
fn immediate_retries_of_closure_yield_to_other_tasks() {
    check!(call_closure);
}

#[cfg(feature = "tower-retry")]
#[test]
fn immediate_retries_of_tower_policy_yield_to_other_tasks() {
    check!(call_tower);
}

/// Each call has few attempts, and no attempt waits.
#[test]
fn many_calls_with_few_immediate_retries_yield_to_other_tasks() {
    assert!(other_task_has_run(async {
        for _ in 0..200 {
            call_layer(immediate().build().unwrap(), Calls::default()).await;
        }
    }));
}

#[test]
fn few_immediate_retries_do_not_yield() {
    let call = pin!(call_layer(immediate().max_attempts(20).build().unwrap(), Calls::default()));
    assert!(call.poll(&mut Context::from_waker(Waker::noop())).is_ready());
}
