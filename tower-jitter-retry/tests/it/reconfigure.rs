//! A policy that is replaced while layers, services and calls use it.

use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_jitter_retry::decision::{CallOptions, Decision};
use tower_jitter_retry::fault_classify::{Verdict, classify_error};
use tower_jitter_retry::{
    Budget, Clock, Jitter, JitterRetry, JitterRetryLayer, PolicyHandle, RetryPolicy, RetryPolicyBuilder,
};

/// Returns a policy with this number of attempts, without delays and without a budget.
fn attempts(attempts: u32) -> RetryPolicyBuilder {
    RetryPolicy::builder()
        .max_attempts(attempts)
        .initial_backoff(Duration::ZERO)
        .jitter(Jitter::None)
        .budget(None::<Budget>)
}

fn layer(policy: RetryPolicyBuilder) -> JitterRetryLayer {
    JitterRetryLayer::new(policy.build().unwrap())
}

/// Fails every call, and counts the calls.
#[derive(Clone, Default)]
struct Failing(Arc<AtomicU32>);

impl Failing {
    fn calls(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Service<u32> for Failing {
    type Response = u32;
    type Error = io::Error;
    type Future = Ready<io::Result<u32>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

async fn call(service: &mut JitterRetry<Failing>) -> u32 {
    service.ready().await.unwrap().call(7).await.unwrap_err();
    service.get_ref().calls()
}

#[tokio::test(start_paused = true)]
async fn replaced_policy_applies_to_layers_services_and_their_clones() {
    let layer = layer(attempts(2));
    let mut before = layer.layer(Failing::default());
    let template = before.clone();
    assert_eq!(call(&mut before).await, 2);
    layer.clone().handle().reconfigure(attempts(4).build().unwrap());
    assert_eq!(call(&mut before).await, 4);
    for _ in 0..2 {
        assert_eq!(call(&mut template.clone()).await, 4, "the template itself is never called");
    }
    assert_eq!(call(&mut layer.layer(Failing::default())).await, 4);
    before.handle().reconfigure(attempts(1).build().unwrap());
    assert_eq!((call(&mut before).await, layer.handle().policy().max_attempts()), (1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn layers_with_one_handle_share_its_policy() {
    let handle = PolicyHandle::from(attempts(2).build().unwrap());
    let one: JitterRetryLayer = JitterRetryLayer::with_handle(handle.clone());
    let other: JitterRetryLayer = JitterRetryLayer::with_handle(handle);
    let (mut one, mut other) = (one.layer(Failing::default()), other.layer(Failing::default()));
    one.handle().reconfigure(attempts(3).build().unwrap());
    assert_eq!((call(&mut one).await, call(&mut other).await), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn call_in_progress_keeps_its_policy() {
    let (gate, calls) = (Arc::new(Semaphore::new(0)), Failing::default());
    let (opened, counted) = (Arc::clone(&gate), calls.clone());
    let inner = service_fn(move |number: u32| {
        let (opened, mut counted) = (Arc::clone(&opened), counted.clone());
        async move {
            opened.acquire().await.map_err(io::Error::other)?.forget();
            counted.call(number).await
        }
    });
    let layer = layer(attempts(5));
    let mut service = layer.layer(inner);
    let first = tokio::spawn(service.ready().await.unwrap().call(1));
    yield_now().await;
    layer.handle().reconfigure(attempts(1).build().unwrap());
    let second = tokio::spawn(service.ready().await.unwrap().call(2));
    gate.add_permits(10);
    assert!(first.await.unwrap().is_err() && second.await.unwrap().is_err());
    assert_eq!(calls.calls(), 5 + 1);
}

#[tokio::test(start_paused = true)]
async fn budget_with_equal_settings_keeps_its_tokens() {
    let tokens = |capacity| Budget::tokens().capacity(capacity).per_success(0.0).build().unwrap();
    let layer = layer(attempts(2).budget(tokens(3)));
    let handle = layer.handle();
    let mut service = layer.layer(Failing::default());
    assert_eq!((call(&mut service).await, call(&mut service).await), (2, 2));
    handle.reconfigure(attempts(3).budget(tokens(3)).build().unwrap());
    assert_eq!((call(&mut service).await, call(&mut service).await), (2, 1), "one token is left");
    let kept = handle.policy().budget().cloned();
    handle.reconfigure(attempts(3).budget(tokens(3)).build().unwrap());
    assert_eq!(handle.policy().budget(), kept.as_ref());

    handle.reconfigure(attempts(3).budget(tokens(4)).build().unwrap());
    assert_ne!(handle.policy().budget(), kept.as_ref());
    assert_eq!(call(&mut service).await, 3, "a new budget is full");
    handle.reconfigure(attempts(3).build().unwrap());
    assert_eq!(handle.policy().budget(), None);
}

#[test]
fn budget_that_is_shared_replaces_budget_with_equal_settings() {
    let budget_of = |handle: &PolicyHandle| handle.policy().budget().cloned().unwrap();
    let (one, other) = (PolicyHandle::new(RetryPolicy::default()), PolicyHandle::new(RetryPolicy::default()));
    let shared = Budget::default();
    for handle in [&one, &other] {
        handle.reconfigure(RetryPolicy::builder().budget(shared.clone()).build().unwrap());
        assert_eq!(budget_of(handle), shared);
    }
    // A default budget, as in a policy from a file, even while a copy of the policy is kept.
    let default = RetryPolicy::default();
    one.reconfigure(default.clone());
    assert_eq!(budget_of(&one), shared);
    one.reconfigure(default.to_builder().on_retry(|_| {}).build().unwrap());
    assert_eq!(budget_of(&one), shared);
    // The current policy with another setting.
    one.reconfigure(one.policy().to_builder().max_attempts(2).build().unwrap());
    assert_eq!(budget_of(&one), shared);
}

#[tokio::test(start_paused = true)]
async fn clock_and_callback_stay_unless_replaced() {
    let retries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&retries);
    let (clock, _manual) = Clock::manual();
    let count = move |_: &_| _ = counted.fetch_add(1, Ordering::Relaxed);
    let layer = layer(attempts(2).clock(clock).on_retry(count));
    let (handle, mut service) = (layer.handle(), layer.layer(Failing::default()));
    handle.reconfigure(attempts(4).build().unwrap());
    assert_eq!((call(&mut service).await, handle.policy().clock()), (4, clock));
    assert_eq!(retries.load(Ordering::Relaxed), 3);

    let same = handle.policy().to_builder().max_attempts(2).build().unwrap();
    assert_eq!(same.clock(), clock);
    let (other, _manual) = Clock::manual();
    handle.reconfigure(attempts(4).clock(other).on_retry(|_| {}).build().unwrap());
    assert_eq!((call(&mut service).await, handle.policy().clock()), (4, other));
    assert_eq!(retries.load(Ordering::Relaxed), 3, "the callback was replaced");
}

#[test]
fn equal_seed_continues_its_sequence() {
    let delay = |handle: &PolicyHandle| {
        let mut call = handle.policy().begin(CallOptions::new(), Duration::ZERO);
        let fault = classify_error(&io::Error::from(io::ErrorKind::TimedOut));
        match call.record(&Verdict::Fault(fault), Duration::ZERO) {
            Decision::Retry { delay } => delay,
            stopped => panic!("{stopped:?}"),
        }
    };
    let seeded = |seed| {
        let policy = RetryPolicy::builder().budget(None::<Budget>).seed(seed);
        policy.initial_backoff(Duration::from_secs(5)).build().unwrap()
    };
    let expected = PolicyHandle::new(seeded(7));
    let expected: Vec<_> = (0..4).map(|_| delay(&expected)).collect();
    let handle = PolicyHandle::new(seeded(7));
    let mut drawn = Vec::new();
    for _ in 0..4 {
        drawn.push(delay(&handle));
        handle.reconfigure(seeded(7));
    }
    assert_eq!(drawn, expected);
    handle.reconfigure(seeded(8));
    handle.reconfigure(seeded(7));
    assert_eq!(delay(&handle), expected[0], "the sequence of another seed starts again");
}

#[tokio::test(start_paused = true)]
async fn layer_removes_marks_with_every_policy() {
    let seen = Arc::new(AtomicU32::new(0));
    let recorded = Arc::clone(&seen);
    let inner = service_fn(move |request: http::Request<()>| {
        let mark = request.headers().get("grpc-previous-rpc-attempts").is_some();
        recorded.store(u32::from(mark), Ordering::Relaxed);
        ready(Ok::<_, io::Error>(http::Response::new(())))
    });
    let plain = layer(attempts(2));
    let handle = plain.handle();
    let mut removing = plain.clone().remove_marker().layer(inner.clone());
    let mut keeping = plain.layer(inner);
    let request = || http::Request::builder().header("grpc-previous-rpc-attempts", "1").body(()).unwrap();
    for _ in 0..2 {
        removing.ready().await.unwrap().call(request()).await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 0);
        keeping.ready().await.unwrap().call(request()).await.unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 1);
        handle.reconfigure(attempts(3).build().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn closure_uses_current_policy_of_handle() {
    let handle = PolicyHandle::new(attempts(2).build().unwrap());
    let calls = async || {
        let mut calls = 0;
        let policy = handle.policy();
        let attempt = || {
            calls += 1;
            ready(Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut)))
        };
        policy.retry(attempt).await.unwrap_err();
        calls
    };
    assert_eq!(calls().await, 2);
    handle.reconfigure(attempts(3).build().unwrap());
    assert_eq!(calls().await, 3);
}

#[cfg(feature = "tower-retry")]
#[tokio::test(start_paused = true)]
async fn policy_of_towers_retry_layer_is_replaced() {
    let handle = PolicyHandle::new(attempts(2).build().unwrap());
    let failing = Failing::default();
    let policy: tower_jitter_retry::TowerPolicy = handle.for_tower();
    let mut service = tower::retry::RetryLayer::new(policy).layer(failing.clone());
    service.ready().await.unwrap().call(7).await.unwrap_err();
    assert_eq!(failing.calls(), 2);
    handle.reconfigure(attempts(4).build().unwrap());
    for _ in 0..2 {
        service.clone().ready().await.unwrap().call(7).await.unwrap_err();
        assert_eq!(failing.calls(), 4);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Reconfigure(u32),
    Call(usize),
    CloneService(usize),
    NewService,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..6_u32).prop_map(Step::Reconfigure),
        any::<usize>().prop_map(Step::Call),
        any::<usize>().prop_map(Step::CloneService),
        Just(Step::NewService),
    ]
}

proptest! {
    /// Every call uses the policy that was set last, regardless of the service's history.
    #[test]
    fn call_uses_latest_policy(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let layer = layer(attempts(1));
        let mut services = vec![layer.layer(Failing::default())];
        let mut latest = 1;
        for step in steps {
            match step {
                Step::Reconfigure(number) => {
                    layer.handle().reconfigure(attempts(number).build().unwrap());
                    latest = number;
                }
                Step::Call(index) => {
                    let index = index % services.len();
                    prop_assert_eq!(runtime.block_on(call(&mut services[index])), latest);
                }
                Step::CloneService(index) => services.push(services[index % services.len()].clone()),
                Step::NewService => services.push(layer.layer(Failing::default())),
            }
        }
    }
}
