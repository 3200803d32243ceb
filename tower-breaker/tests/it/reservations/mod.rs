//! Reservations of the inner service. A service whose call is rejected holds none, neither a queued
//! nor a granted one.

mod histories;
mod slow_start;

use std::future::{Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::limit::{ConcurrencyLimit, GlobalConcurrencyLimitLayer};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_breaker::body::OnHead;
use tower_breaker::fallback::ReturnError;
use tower_breaker::fault_classify::classifiers::{Auto, BoxedError};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{
    Breaker, BreakerConfigBuilder, BreakerLayer, Circuit, CircuitState, Clock, Mode, Rejection,
};
use tower_test::mock::{self, Mock, Spawn};

use crate::support::{OPEN_FOR, SECOND};

type BoxedLayer = BreakerLayer<Auto<BoxedError>, ReturnError<BoxedError>>;
type Guarded<S> = Breaker<S, Auto<BoxedError>, ReturnError<BoxedError>, OnHead>;

fn config() -> BreakerConfigBuilder {
    crate::support::config().clock(Clock::tokio()).open_for(OPEN_FOR)
}

fn layer(not_ready: bool) -> BoxedLayer {
    let layer = BreakerLayer::new(config().build().unwrap());
    if not_ready { layer.not_ready_when_open() } else { layer }
}

/// A server that is up or down, and responds after 50 ms.
#[derive(Clone, Default)]
struct Server {
    is_up: Arc<AtomicBool>,
}

impl Server {
    async fn respond(self) -> Result<(), BoxError> {
        sleep(SECOND / 20).await;
        if self.is_up.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
        }
    }
}

/// Calls the service in a loop. After an error it sleeps for the rejection's `retry_after`, or 1 s.
async fn work<S: Service<(), Error = BoxError>>(mut service: S, mut succeeded: impl FnMut()) {
    loop {
        let result = match service.ready().await {
            Ok(service) => service.call(()).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => succeeded(),
            Err(error) => {
                let rejection = error.downcast_ref::<Rejection>();
                sleep(rejection.and_then(Rejection::retry_after).unwrap_or(SECOND)).await;
            }
        }
    }
}

/// An operation that ends a queued reservation.
type EndReservation<S> = fn(&BoxedLayer, &mut Spawn<Guarded<S>>);

/// Polls the readiness of three services in turn. The second one, which is guarded, waits behind
/// the first, until `end` ends its reservation. The third one must then be next in the queue.
fn assert_queued_reservation_is_returned<S>(first: S, layer: &BoxedLayer, third: S, end: EndReservation<S>)
where
    S: Service<(), Response = (), Error = BoxError> + Clone,
{
    let (mut first, mut third) = (Spawn::new(first), Spawn::new(third));
    let mut guarded = Spawn::new(layer.layer(first.get_ref().clone()));
    assert_ready_ok!(first.poll_ready());
    assert_pending!(guarded.poll_ready());
    assert_pending!(third.poll_ready());
    end(layer, &mut guarded);
    drop(first);
    assert!(third.is_woken(), "the rejected service is no longer in the queue");
    assert_ready_ok!(third.poll_ready());
}

/// Polls a service that was woken because its circuit rejects calls.
fn poll_woken<S>(guarded: &mut Spawn<Guarded<S>>)
where
    S: Service<(), Response = (), Error = BoxError> + Clone,
{
    assert!(guarded.is_woken());
    let _ = guarded.poll_ready();
}

/// The ways in which a service is polled and then not called.
fn ends<S>() -> [EndReservation<S>; 5]
where
    S: Service<(), Response = (), Error = BoxError> + Clone,
{
    [
        |layer, guarded| {
            layer.circuit().trip().unwrap();
            poll_woken(guarded);
        },
        |layer, guarded| {
            layer.circuit().force_open().unwrap();
            poll_woken(guarded);
        },
        |layer, guarded| {
            let circuit = layer.circuit();
            circuit.reconfigure(config().mode(Mode::ObserveOnly).build().unwrap()).unwrap();
            circuit.force_open().unwrap();
            assert_pending!(guarded.poll_ready(), "an observing circuit rejects nothing");
            circuit.reconfigure(config().build().unwrap()).unwrap();
            poll_woken(guarded);
        },
        // A clone does not take over the place in the queue.
        |_, guarded| *guarded = guarded.clone(),
        |layer, guarded| *guarded = Spawn::new(layer.layer(guarded.get_ref().get_ref().clone())),
    ]
}

fn unit() -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone {
    tower::service_fn(async |(): ()| Ok::<_, BoxError>(()))
}

#[tokio::test(start_paused = true)]
async fn queued_concurrency_permit_is_returned_without_call() {
    for not_ready in [false, true] {
        for end in ends() {
            let limit = ConcurrencyLimit::new(unit(), 1);
            assert_queued_reservation_is_returned(limit.clone(), &layer(not_ready), limit, end);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queued_buffer_slot_is_returned_without_call() {
    for not_ready in [false, true] {
        for end in ends() {
            // The worker does not run, so the one slot of the buffer stays with its holder.
            let (buffer, _worker) = tower::buffer::Buffer::pair(unit(), 1);
            assert_queued_reservation_is_returned(buffer.clone(), &layer(not_ready), buffer, end);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn granted_permit_is_returned_before_fallback() {
    let layer = BreakerLayer::new(config().build().unwrap())
        .errors_only()
        .fallback_async(|(), _| std::future::pending::<Result<(), BoxError>>());
    let limit = ConcurrencyLimit::new(unit(), 1);
    let (mut guarded, mut other) = (Spawn::new(layer.layer(limit.clone())), Spawn::new(limit));
    assert_ready_ok!(guarded.poll_ready());
    assert_pending!(other.poll_ready());
    layer.circuit().force_open().unwrap();
    let mut call = task::spawn(guarded.call(()));
    assert_pending!(call.poll(), "the fallback does not complete");
    assert!(other.is_woken());
    assert_ready_ok!(other.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn queued_permit_of_keyed_call_is_returned_before_fallback() {
    let config = KeyedConfig::builder(config().build().unwrap()).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, |(): &()| 7)
        .errors_only()
        .fallback_async(|(), _| std::future::pending::<Result<(), BoxError>>());
    let limit = ConcurrencyLimit::new(unit(), 1);
    let (mut first, mut third) = (Spawn::new(limit.clone()), Spawn::new(limit.clone()));
    let mut guarded = Spawn::new(layer.layer(limit));
    assert_ready_ok!(first.poll_ready());
    assert_ready_ok!(guarded.poll_ready());
    let mut call = task::spawn(guarded.call(()));
    assert_pending!(call.poll());
    assert_pending!(third.poll_ready());
    layer.circuits().get(&7).unwrap().trip().unwrap();
    assert!(call.is_woken());
    assert_pending!(call.poll(), "the fallback does not complete");
    drop(first);
    assert!(third.is_woken());
    assert_ready_ok!(third.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn queued_permit_is_returned_on_rejection() {
    // A half-open circuit reserves a probe slot in `poll_ready`. The lease can end before the call.
    let layer = BreakerLayer::new(config().probes(1).build().unwrap());
    let limit = ConcurrencyLimit::new(unit(), 1);
    let mut other = Spawn::new(limit.clone());
    let mut guarded: Spawn<Guarded<_>> = Spawn::new(layer.layer(limit));
    layer.circuit().trip().unwrap();
    tokio::time::advance(OPEN_FOR + SECOND).await;
    assert_ready_ok!(guarded.poll_ready());
    assert_pending!(other.poll_ready());
    tokio::time::advance(OPEN_FOR + SECOND).await;
    let _probe = layer.circuit().try_acquire().unwrap();
    assert_ready_err!(task::spawn(guarded.call(())).poll());
    assert_ready_ok!(other.poll_ready());
}

/// A service whose `poll_ready` fails after an outer limit has granted a permit.
#[derive(Clone)]
struct Broken;

impl Service<()> for Broken {
    type Response = ();
    type Error = BoxError;
    type Future = Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err("connection closed".into()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn permit_kept_by_readiness_error_is_returned_on_rejection() {
    for not_ready in [false, true] {
        let layer = layer(not_ready);
        let limit = ConcurrencyLimit::new(Broken, 1);
        let mut guarded = Spawn::new(layer.layer(limit.clone()));
        let mut other = Spawn::new(limit);
        assert_ready_err!(guarded.poll_ready());
        assert_pending!(other.poll_ready(), "the permit was granted before the error");
        layer.circuit().trip().unwrap();
        let _ = guarded.poll_ready();
        assert_ready_err!(other.poll_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn workers_over_limit_of_one_close_after_one_open_period() {
    for not_ready in [false, true] {
        let layer = layer(not_ready);
        let server = Server::default();
        let responding = server.clone();
        let limit = ConcurrencyLimit::new(tower::service_fn(move |()| responding.clone().respond()), 1);
        let workers: Vec<_> =
            (0..50).map(|_| tokio::spawn(work(layer.layer(limit.clone()), || {}))).collect();
        sleep(600 * SECOND).await;
        assert_ne!(layer.circuit().status().state, CircuitState::Closed);
        server.is_up.store(true, Ordering::Relaxed);
        let began = Instant::now();
        while layer.circuit().status().state != CircuitState::Closed {
            sleep(SECOND / 10).await;
        }
        let took = began.elapsed();
        workers.iter().for_each(tokio::task::JoinHandle::abort);
        assert!(took <= OPEN_FOR + 2 * SECOND, "not ready when open: {not_ready}, closed after {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn open_circuit_does_not_starve_another_under_global_limit() {
    for not_ready in [false, true] {
        let limit = GlobalConcurrencyLimitLayer::new(2);
        let (failing, healthy) = (Server::default(), Server::default());
        healthy.is_up.store(true, Ordering::Relaxed);
        let start =
            |layer: &BoxedLayer, server: &Server, workers: usize, succeeded: Arc<dyn Fn() + Send + Sync>| {
                let server = server.clone();
                let inner = ServiceBuilder::new()
                    .layer(limit.clone())
                    .service(tower::service_fn(move |()| server.clone().respond()));
                let run = |_| {
                    let succeeded = Arc::clone(&succeeded);
                    tokio::spawn(work(layer.layer(inner.clone()), move || succeeded()))
                };
                (0..workers).map(run).collect::<Vec<_>>()
            };
        let (first, second) = (layer(not_ready), layer(not_ready));
        let successes = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&successes);
        let mut workers = start(&first, &failing, 50, Arc::new(|| {}));
        workers.extend(start(
            &second,
            &healthy,
            2,
            Arc::new(move || _ = counter.fetch_add(1, Ordering::Relaxed)),
        ));
        sleep(60 * SECOND).await;
        let before = successes.load(Ordering::Relaxed);
        sleep(600 * SECOND).await;
        let per_minute = (successes.load(Ordering::Relaxed) - before) / 10;
        workers.iter().for_each(tokio::task::JoinHandle::abort);
        assert_eq!(second.circuit().status().state, CircuitState::Closed);
        assert!(per_minute > 1_000, "not ready when open: {not_ready}, {per_minute} successes a minute");
    }
}

type GuardedMock = Spawn<Guarded<Mock<(), ()>>>;

/// Returns a service that is not ready when open. The handle controls the readiness of its inner
/// service.
fn not_ready_over_mock() -> (GuardedMock, mock::Handle<(), ()>, Circuit) {
    let layer = layer(true);
    let (service, mut handle) = mock::spawn_with(|inner| layer.layer(inner));
    handle.allow(0);
    (service, handle, layer.circuit())
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_with_pending_inner_is_woken_by_transition() {
    let (mut service, _handle, circuit) = not_ready_over_mock();
    circuit.trip().unwrap();
    assert_pending!(service.poll_ready());
    circuit.reset().unwrap();
    assert!(service.is_woken());
    assert_pending!(service.poll_ready(), "the inner service is not ready");
    circuit.trip().unwrap();
    assert!(service.is_woken());
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_dropped_with_pending_inner_is_cancelled() {
    let (mut service, _handle, circuit) = not_ready_over_mock();
    circuit.trip().unwrap();
    assert_pending!(service.poll_ready());
    circuit.reset().unwrap();
    assert_pending!(service.poll_ready());
    drop(service);
    assert_eq!(circuit.status().window.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_is_woken_by_reconfigure_that_admits() {
    type Operation = fn(&Circuit);
    let operations: [(Operation, Mode); 3] = [
        (|circuit| circuit.trip().unwrap(), Mode::ObserveOnly),
        (|circuit| circuit.force_open().unwrap(), Mode::ObserveOnly),
        (|circuit| circuit.trip().unwrap(), Mode::Disabled),
    ];
    for (reject_calls, mode) in operations {
        let (mut service, mut handle, circuit) = not_ready_over_mock();
        handle.allow(1);
        reject_calls(&circuit);
        assert_pending!(service.poll_ready());
        circuit.reconfigure(config().mode(mode).build().unwrap()).unwrap();
        assert!(service.is_woken(), "{mode:?}");
        assert_ready_ok!(service.poll_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_service_is_woken_when_circuit_rejects() {
    let layer = layer(false);
    let (mut service, mut handle) = mock::spawn_with(|inner: Mock<(), ()>| layer.layer(inner));
    handle.allow(0);
    let circuit = layer.circuit();
    circuit.reconfigure(config().mode(Mode::ObserveOnly).build().unwrap()).unwrap();
    circuit.force_open().unwrap();
    assert_pending!(service.poll_ready(), "an observing circuit rejects nothing");
    circuit.reconfigure(config().build().unwrap()).unwrap();
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    assert_ready_err!(task::spawn(service.call(())).poll());
}

#[tokio::test(start_paused = true)]
async fn timer_of_often_polled_service_fires() {
    // In a slow start of 160 s the service polls again after a sixteenth of the remaining time.
    let config = config().probes(1).successes_to_close(1).slow_start(160 * SECOND);
    let layer = BreakerLayer::new(config.build().unwrap()).not_ready_when_open();
    let mut service = Spawn::new(layer.layer(unit()));
    layer.circuit().trip().unwrap();
    tokio::time::advance(OPEN_FOR + SECOND).await;
    for _ in 0..2 {
        assert_ready_ok!(service.poll_ready());
        assert_ready_ok!(task::spawn(service.call(())).poll());
    }
    for _ in 0..80 {
        if service.poll_ready().is_ready() {
            return;
        }
        tokio::time::advance(SECOND).await;
    }
    panic!("a service that is polled every second is still not ready after 80 s");
}
