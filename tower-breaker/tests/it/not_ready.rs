//! Services that are not ready while their circuit rejects calls, alone and under load balancers.

use std::future::{Ready, ready};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::balance::p2c::Balance;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::limit::ConcurrencyLimit;
use tower::load::Constant;
use tower::load_shed::LoadShed;
use tower::ready_cache::ReadyCache;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::{
    Breaker, BreakerConfigBuilder, BreakerError, BreakerLayer, Circuit, CircuitState, Clock, HealthReport,
    Verdict,
};
use tower_test::mock::Spawn;

use crate::support::OPEN_FOR;

const NEARLY_OPEN_FOR: Duration = Duration::from_millis(29_999);

/// Responds with its number, and counts its calls.
#[derive(Clone, Debug, Default)]
struct Endpoint {
    number: usize,
    calls: Arc<AtomicUsize>,
}

impl Service<()> for Endpoint {
    type Response = usize;
    type Error = io::Error;
    type Future = Ready<Result<usize, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        ready(Ok(self.number))
    }
}

type Guarded<S = Endpoint> = Breaker<
    S,
    tower_breaker::fault_classify::classifiers::Auto,
    tower_breaker::fallback::ReturnError,
    tower_breaker::body::OnHead,
>;

fn config() -> BreakerConfigBuilder {
    crate::support::config().clock(Clock::tokio()).open_for(OPEN_FOR).probes(1).successes_to_close(1)
}

fn layer(config: BreakerConfigBuilder) -> BreakerLayer {
    BreakerLayer::new(config.build().unwrap()).not_ready_when_open()
}

fn endpoint(number: usize) -> (Guarded, Circuit) {
    let layer = layer(config());
    (layer.layer(Endpoint { number, ..Endpoint::default() }), layer.circuit())
}

async fn call<S: Service<()>>(service: &mut S) -> Result<S::Response, S::Error> {
    service.ready().await?.call(()).await
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_is_ready_when_open_time_ends() {
    let (mut service, circuit) = endpoint(1);
    circuit.trip().unwrap();
    let mut early = pin!(service.ready());
    assert!(timeout(NEARLY_OPEN_FOR, &mut early).await.is_err());
    let began = tokio::time::Instant::now();
    let service = early.await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(3), "{:?}", began.elapsed());
    assert_eq!(circuit.status().state, CircuitState::HalfOpen);
    assert_eq!(service.call(()).await.unwrap(), 1);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_waits_for_extended_open_time() {
    let (mut service, circuit) = endpoint(1);
    circuit.trip().unwrap();
    let mut ready = task::spawn(service.ready());
    assert_pending!(ready.poll());
    tokio::time::advance(OPEN_FOR / 2).await;
    circuit.reset().unwrap();
    circuit.trip().unwrap();
    drop(ready);
    assert!(timeout(NEARLY_OPEN_FOR, service.ready()).await.is_err());
    assert!(timeout(Duration::from_millis(10), service.ready()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_is_woken_by_control_and_health_report() {
    type Operation = fn(&Circuit);
    let operations: [(Operation, Operation); 4] = [
        (|circuit| circuit.trip().unwrap(), |circuit| circuit.reset().unwrap()),
        (|circuit| circuit.force_open().unwrap(), Circuit::release),
        (|circuit| circuit.force_open().unwrap(), |circuit| circuit.force_closed().unwrap()),
        (|circuit| circuit.trip().unwrap(), |circuit| circuit.report(HealthReport::Recovered)),
    ];
    for (reject_calls, admit_calls) in operations {
        let (mut service, circuit) = endpoint(1);
        reject_calls(&circuit);
        let mut ready = task::spawn(service.ready());
        assert_pending!(ready.poll());
        assert!(!ready.is_woken());
        admit_calls(&circuit);
        assert!(ready.is_woken(), "{:?}", circuit.status().state);
        assert_ready_ok!(ready.poll());
    }
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_dropped_while_open_counts_nothing() {
    let (service, circuit) = endpoint(1);
    let mut service = Spawn::new(service);
    circuit.trip().unwrap();
    assert_pending!(service.poll_ready());
    circuit.reset().unwrap();
    drop(service);
    assert_eq!(circuit.status().window.cancelled, 0);
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_forced_open_waits_without_timer() {
    let (mut service, circuit) = endpoint(1);
    circuit.force_open().unwrap();
    assert!(timeout(Duration::from_secs(365 * 24 * 3_600), service.ready()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn ready_service_holds_slot_until_dropped() {
    let (first, circuit) = endpoint(1);
    let (mut first, mut second) = (Spawn::new(first.clone()), Spawn::new(first));
    circuit.report(HealthReport::Critical);
    circuit.report(HealthReport::Recovered);
    assert_ready_ok!(first.poll_ready());
    assert_pending!(second.poll_ready(), "the only slot is in use");
    assert_ready_ok!(first.poll_ready(), "it keeps its slot when it is polled again");
    drop(first);
    assert!(second.is_woken(), "the slot is free");
    assert_ready_ok!(second.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn neutral_probe_frees_slot() {
    let (service, circuit) = endpoint(1);
    let mut second = Spawn::new(service);
    circuit.report(HealthReport::Critical);
    circuit.report(HealthReport::Recovered);
    let permit = circuit.try_acquire().unwrap();
    assert_pending!(second.poll_ready());
    let neutral = tower_breaker::Fault::new(
        tower_breaker::Kind::Client,
        tower_breaker::fault_classify::Retryable::Never,
        tower_breaker::Health::Neutral,
        tower_breaker::fault_classify::Origin::Caller,
    );
    permit.record(Verdict::Fault(neutral));
    assert!(second.is_woken());
    assert_ready_ok!(second.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn unused_slot_is_free_when_lease_ends() {
    let layer = layer(config().probe_lease(Duration::from_secs(5)));
    let mut first = Spawn::new(layer.layer(Endpoint::default()));
    let mut second = layer.layer(Endpoint::default());
    layer.circuit().report(HealthReport::Critical);
    layer.circuit().report(HealthReport::Recovered);
    assert_ready_ok!(first.poll_ready());
    assert!(timeout(Duration::from_millis(4_999), second.ready()).await.is_err());
    assert!(timeout(Duration::from_millis(10), second.ready()).await.is_ok(), "woken by its own timer");
    assert_pending!(first.poll_ready(), "another service holds the slot now");
}

#[tokio::test(start_paused = true)]
async fn call_is_rejected_if_circuit_opened_after_ready() {
    let (mut service, circuit) = endpoint(1);
    service.ready().await.unwrap();
    circuit.trip().unwrap();
    let error = service.call(()).await.unwrap_err();
    assert!(matches!(error, BreakerError::Rejected(_)));
    assert_eq!(service.get_ref().calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_is_admitted_during_slow_start() {
    let layer = layer(config().slow_start(Duration::from_secs(160)));
    let mut service = layer.layer(Endpoint::default());
    layer.circuit().report(HealthReport::Critical);
    layer.circuit().report(HealthReport::Recovered);
    call(&mut service).await.unwrap();
    assert_eq!(layer.circuit().status().slow_start, Some(0.0));
    call(&mut service).await.expect("the first call must be admitted");
    let began = tokio::time::Instant::now();
    call(&mut service).await.unwrap();
    // The first poll adds no credit, because the share is 0. Each later poll comes after a
    // sixteenth of the remaining time. So half of the slow start is enough.
    assert!(began.elapsed() < Duration::from_secs(80), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waiting_services_take_slots_in_turn() {
    let layer = layer(config().probes(2).successes_to_close(1_000));
    let calls = Arc::new(AtomicUsize::new(0));
    let endpoint = Endpoint { calls: Arc::clone(&calls), ..Endpoint::default() };
    layer.circuit().trip().unwrap();
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            let mut service = layer.layer(endpoint.clone());
            tokio::spawn(async move { call(&mut service).await.unwrap() })
        })
        .collect();
    for task in tasks {
        timeout(OPEN_FOR * 2, task).await.expect("every waiting task is woken").unwrap();
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1_000);
    assert_eq!(layer.circuit().status().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn balancer_skips_open_endpoint() {
    let ((one, first), (two, _)) = (endpoint(1), endpoint(2));
    let calls = Arc::clone(&one.get_ref().calls);
    let endpoints = [Constant::new(one, 1), Constant::new(two, 1)];
    let mut balance = Balance::new(ServiceList::new(endpoints));
    for _ in 0..50 {
        call(&mut balance).await.unwrap();
    }
    let before = calls.load(Ordering::Relaxed);
    assert!(before > 0, "both endpoints are used while their circuits are closed");
    first.force_open().unwrap();
    for _ in 0..50 {
        assert_eq!(call(&mut balance).await.unwrap(), 2);
    }
    assert_eq!(calls.load(Ordering::Relaxed), before);
    first.release();
    for _ in 0..50 {
        call(&mut balance).await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > before, "the endpoint is used again");
}

#[tokio::test(start_paused = true)]
async fn balancer_with_all_open_waits_and_load_shed_fails_fast() {
    let ((one, first), (two, second)) = (endpoint(1), endpoint(2));
    first.trip().unwrap();
    second.trip().unwrap();
    let endpoints = [Constant::new(one, 1), Constant::new(two, 1)];
    let balance = Balance::new(ServiceList::new(endpoints));
    let mut shedding = LoadShed::new(balance);
    assert!(call(&mut shedding).await.unwrap_err().is::<tower::load_shed::error::Overloaded>());
    tokio::time::sleep(OPEN_FOR + Duration::from_millis(1)).await;
    call(&mut shedding).await.expect("a probe must be admitted");
}

#[tokio::test(start_paused = true)]
async fn ready_cache_keeps_open_service_pending_until_open_time_ends() {
    let (service, circuit) = endpoint(1);
    let mut cache: ReadyCache<&str, Guarded, ()> = ReadyCache::default();
    cache.push("one", service);
    circuit.trip().unwrap();
    let mut pending = task::spawn(std::future::poll_fn(|cx| {
        let _ = cache.poll_pending(cx);
        if cache.ready_len() == 1 { Poll::Ready(()) } else { Poll::Pending }
    }));
    assert_pending!(pending.poll());
    tokio::time::sleep(OPEN_FOR + Duration::from_millis(10)).await;
    assert!(pending.is_woken());
    assert!(pending.poll().is_ready());
    drop(pending);
    assert_eq!(cache.call_ready_index(0, ()).await.unwrap(), 1);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

/// Asserts that a stack responds while its circuit is closed, waits or fails while it is open, and
/// responds after the open time.
async fn assert_recovers<S>(mut stack: S, circuit: &Circuit, waits: bool)
where
    S: Service<(), Response = usize>,
    S::Error: Into<BoxError>,
{
    assert_eq!(call(&mut stack).await.map_err(Into::into).unwrap(), 1);
    circuit.trip().unwrap();
    let outcome = timeout(OPEN_FOR / 2, call(&mut stack)).await;
    assert_eq!(outcome.is_err(), waits, "the call waits");
    assert!(outcome.is_err() || outcome.unwrap().is_err(), "an open circuit admits no call");
    tokio::time::sleep(OPEN_FOR + Duration::from_millis(1)).await;
    assert_eq!(call(&mut stack).await.map_err(Into::into).unwrap(), 1, "the open time is over");
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn breaker_composes_with_limit_buffer_and_load_shed() {
    for not_ready in [false, true] {
        let layer = || {
            let layer: BreakerLayer = BreakerLayer::new(config().build().unwrap());
            if not_ready { layer.not_ready_when_open() } else { layer }
        };
        let endpoint = || Endpoint { number: 1, ..Endpoint::default() };

        let breaker = layer();
        let circuit = breaker.circuit();
        assert_recovers(ConcurrencyLimit::new(breaker.layer(endpoint()), 1), &circuit, not_ready).await;
        let breaker = layer();
        let circuit = breaker.circuit();
        assert_recovers(breaker.layer(ConcurrencyLimit::new(endpoint(), 1)), &circuit, not_ready).await;

        let breaker = layer();
        let circuit = breaker.circuit();
        // The buffer accepts the request, and its worker waits for the breaker.
        assert_recovers(Buffer::new(breaker.layer(endpoint()), 8), &circuit, not_ready).await;

        let breaker = layer();
        let circuit = breaker.circuit();
        assert_recovers(LoadShed::new(breaker.layer(endpoint())), &circuit, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn breaker_composes_with_boxed_errors() {
    for not_ready in [false, true] {
        let layer = || {
            let layer = BreakerLayer::new(config().build().unwrap());
            if not_ready { layer.not_ready_when_open() } else { layer }
        };
        let endpoint = || Endpoint { number: 1, ..Endpoint::default() };
        let breaker = layer();
        let circuit = breaker.circuit();
        let stack = ServiceBuilder::new().layer(breaker).buffer(8).service(endpoint());
        assert_recovers(stack, &circuit, not_ready).await;
        let breaker = layer();
        let circuit = breaker.circuit();
        let stack = ServiceBuilder::new().layer(breaker).load_shed().service(endpoint());
        assert_recovers(stack, &circuit, not_ready).await;
    }
}

#[tokio::test(start_paused = true)]
async fn breaker_composes_with_balancer_that_is_not_clone() {
    for not_ready in [false, true] {
        let layer = BreakerLayer::new(config().build().unwrap());
        let layer = if not_ready { layer.not_ready_when_open() } else { layer };
        let circuit = layer.circuit();
        let endpoints = [1, 1].map(|number| Constant::new(Endpoint { number, ..Endpoint::default() }, 1));
        let balance = Balance::new(ServiceList::new(endpoints));
        assert_recovers(layer.without_clone().layer(balance), &circuit, not_ready).await;
    }
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_returns_reservation_while_open() {
    let limit = ConcurrencyLimit::new(Endpoint::default(), 1);
    let layer = layer(config());
    let mut guarded = Spawn::new(layer.layer(limit.clone()));
    let mut other = Spawn::new(limit);
    assert_ready_ok!(guarded.poll_ready());
    assert_pending!(other.poll_ready(), "the only permit is in use");
    layer.circuit().trip().unwrap();
    assert_pending!(guarded.poll_ready());
    assert!(other.is_woken());
    assert_ready_ok!(other.poll_ready());
}
