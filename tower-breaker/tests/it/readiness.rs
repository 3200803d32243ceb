//! The contract of `tower::Service`: readiness, reservations, wakers and cancellation.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::limit::{ConcurrencyLimit, RateLimit};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::body::OnHead;
use tower_breaker::fallback::ReturnError;
use tower_breaker::fault_classify::classifiers::{Auto, BoxedError};
use tower_breaker::{
    Breaker, BreakerLayer, Circuit, CircuitState, Clock, ManualClock, Permit, Reason, Rejection, Verdict,
};
use tower_test::mock::{self, Mock};

use crate::support::{OPEN_FOR, config};

type MockService = Mock<&'static str, &'static str>;
type Guarded<S> = Breaker<S, Auto<BoxedError>, ReturnError<BoxedError>, OnHead>;
type BoxedLayer = BreakerLayer<Auto<BoxedError>, ReturnError<BoxedError>>;

fn layer() -> (BoxedLayer, ManualClock) {
    let (clock, time) = Clock::manual();
    time.set(Duration::from_secs(1_000));
    (BreakerLayer::new(config().clock(clock).build().unwrap()), time)
}

fn guarded(
    layer: &BoxedLayer,
) -> (mock::Spawn<Guarded<MockService>>, mock::Handle<&'static str, &'static str>) {
    mock::spawn_with(|inner| layer.layer(inner))
}

fn failure() -> Verdict {
    tower_breaker::fault_classify::classify_error(&io::Error::from(io::ErrorKind::TimedOut)).into()
}

fn permit(circuit: &Circuit) -> Permit {
    circuit.try_acquire().expect("the circuit must admit the call")
}

fn trip(circuit: &Circuit) {
    for _ in 0..5 {
        permit(circuit).record(failure());
    }
    assert_eq!(circuit.status().state, CircuitState::Open);
}

fn close(circuit: &Circuit, time: &ManualClock) {
    time.advance(OPEN_FOR);
    for _ in 0..2 {
        permit(circuit).record(Verdict::Success);
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

fn is_rejection(error: &BoxError) -> bool {
    error.is::<Rejection>()
}

#[test]
fn open_circuit_is_ready_and_rejects_without_inner_service() {
    let (layer, _time) = layer();
    let (mut service, mut handle) = guarded(&layer);
    handle.allow(0);
    trip(&layer.circuit());
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("request"));
    let error = assert_ready_err!(call.poll());
    let rejection = error.downcast_ref::<Rejection>().expect("the error must be a rejection");
    assert_eq!((rejection.circuit(), rejection.state()), ("breaker", CircuitState::Open));
    assert_eq!(rejection.retry_after(), Some(OPEN_FOR));
    assert_pending!(handle.poll_request());
}

#[test]
fn service_ready_while_open_is_rejected_after_close() {
    let (layer, time) = layer();
    let (mut service, mut handle) = guarded(&layer);
    handle.allow(0);
    trip(&layer.circuit());
    assert_ready_ok!(service.poll_ready());
    close(&layer.circuit(), &time);
    let mut call = task::spawn(service.call("request"));
    assert!(is_rejection(&assert_ready_err!(call.poll())));
    assert_pending!(handle.poll_request());
}

#[test]
fn closed_circuit_is_ready_when_inner_service_is() {
    let (layer, _time) = layer();
    let (mut service, mut handle) = guarded(&layer);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    handle.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("request"));
    assert_pending!(call.poll());
    let (request, respond) = assert_ready!(handle.poll_request()).unwrap();
    assert_eq!(request, "request");
    respond.send_response("response");
    assert_eq!(assert_ready_ok!(call.poll()), "response");
    assert_eq!(layer.circuit().status().window.calls, 1);
}

#[test]
fn task_waiting_for_inner_service_is_woken_when_circuit_opens() {
    let (layer, _time) = layer();
    let (mut service, mut handle) = guarded(&layer);
    handle.allow(0);
    assert_pending!(service.poll_ready());
    assert!(!service.is_woken());
    trip(&layer.circuit());
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("request"));
    assert!(is_rejection(&assert_ready_err!(call.poll())));
}

#[test]
fn service_dropped_while_waiting_leaves_no_waker() {
    let (layer, _time) = layer();
    let (mut service, mut handle) = guarded(&layer);
    handle.allow(0);
    let mut waiting = task::spawn(());
    assert_pending!(waiting.enter(|cx, _| service.get_mut().poll_ready(cx)));
    drop(service);
    drop(handle);
    assert_eq!(waiting.waker_ref_count(), 1, "the circuit has dropped the waker");
}

#[test]
fn readiness_error_counts_as_failure() {
    let (layer, _time) = layer();
    for _ in 0..5 {
        let (mut service, mut handle) = guarded(&layer);
        handle.send_error("connection closed");
        let error = assert_ready_err!(service.poll_ready());
        assert!(!is_rejection(&error));
    }
    let status = layer.circuit().status();
    assert_eq!(status.state, CircuitState::Open);
    assert_eq!(status.last_transition.unwrap().reason, Reason::ConsecutiveFailures);
}

#[test]
fn clone_does_not_inherit_readiness() {
    let (layer, _time) = layer();
    let inner = ConcurrencyLimit::new(service_fn(async |(): ()| Ok::<_, BoxError>(())), 1);
    let service = layer.layer(inner);
    let mut service = mock::Spawn::new(service);
    assert_ready_ok!(service.poll_ready());
    let mut clone = service.clone();
    assert_pending!(clone.poll_ready(), "the original holds the only permit");
    drop(service);
    assert!(clone.is_woken());
    assert_ready_ok!(clone.poll_ready());
}

#[test]
fn rejected_call_returns_inner_reservation() {
    let (layer, _time) = layer();
    let inner = ConcurrencyLimit::new(service_fn(async |(): ()| Ok::<_, BoxError>(())), 1);
    let mut other = mock::Spawn::new(inner.clone());
    let mut service = mock::Spawn::new(layer.layer(inner));
    assert_ready_ok!(service.poll_ready());
    assert_pending!(other.poll_ready(), "the permit is reserved");
    trip(&layer.circuit());
    let mut call = task::spawn(service.call(()));
    assert!(is_rejection(&assert_ready_err!(call.poll())));
    assert_ready_ok!(other.poll_ready(), "the rejected service does not keep the permit");
}

#[test]
fn poll_ready_of_open_circuit_returns_inner_reservation() {
    let (layer, _time) = layer();
    let inner = ConcurrencyLimit::new(service_fn(async |(): ()| Ok::<_, BoxError>(())), 1);
    let mut other = mock::Spawn::new(inner.clone());
    let mut service = mock::Spawn::new(layer.layer(inner));
    assert_ready_ok!(service.poll_ready());
    trip(&layer.circuit());
    assert_ready_ok!(service.poll_ready());
    assert_ready_ok!(other.poll_ready());
}

#[test]
fn inner_service_is_never_called_unready() {
    let (layer, time) = layer();
    // The limit panics if it is called without a permit.
    let inner = ConcurrencyLimit::new(service_fn(async |(): ()| Ok::<_, BoxError>(())), 1);
    let mut service = mock::Spawn::new(layer.layer(inner));
    for _ in 0..3 {
        assert_ready_ok!(service.poll_ready());
        assert_ready_ok!(service.poll_ready(), "a second poll is allowed");
        assert_ready_ok!(task::spawn(service.call(())).poll());
        trip(&layer.circuit());
        assert_ready_ok!(service.poll_ready());
        assert!(is_rejection(&assert_ready_err!(task::spawn(service.call(())).poll())));
        close(&layer.circuit(), &time);
    }
}

#[tokio::test(start_paused = true)]
async fn service_without_clone_is_guarded() {
    let (layer, _time) = layer();
    let layer = layer.without_clone();
    let inner = RateLimit::new(
        service_fn(async |(): ()| Ok::<_, BoxError>(())),
        tower::limit::rate::Rate::new(5, Duration::from_secs(1)),
    );
    layer.layer(inner).oneshot(()).await.unwrap();
}

#[test]
fn half_open_admits_as_many_waiting_calls_as_slots() {
    let (layer, time) = layer();
    trip(&layer.circuit());
    time.advance(OPEN_FOR);
    let (first, mut handle) = guarded(&layer);
    handle.allow(0);
    let mut services: Vec<_> = (0..1_000).map(|_| first.clone()).collect();
    let ready = services.iter_mut().map(mock::Spawn::poll_ready::<&str>).filter(Poll::is_ready).count();
    assert_eq!(ready, 997, "all services but the probes are ready, to be rejected");
    let rejected = services.iter_mut().filter_map(|service| {
        let ready = service.poll_ready().is_ready();
        ready.then(|| assert_ready_err!(task::spawn(service.call("request")).poll()))
    });
    assert_eq!(rejected.filter(is_rejection).count(), 997);
    drop(services);
    assert_eq!((0..10).filter_map(|_| layer.circuit().try_acquire().map(std::mem::forget).ok()).count(), 3);
}

#[test]
fn probe_with_expired_lease_reserves_again() {
    let (layer, time) = layer();
    trip(&layer.circuit());
    time.advance(OPEN_FOR);
    let (first, mut handle) = guarded(&layer);
    handle.allow(10);
    let mut late = first.clone();
    assert_ready_ok!(late.poll_ready());
    time.advance(OPEN_FOR);
    let others: Vec<_> = (0..3).map(|_| permit(&layer.circuit())).collect();
    assert!(
        is_rejection(&assert_ready_err!(task::spawn(late.call("late")).poll())),
        "another probe holds its slot"
    );
    drop(others);
    let mut late = first.clone();
    assert_ready_ok!(late.poll_ready());
    assert_pending!(task::spawn(late.call("in time")).poll());
}

#[test]
fn dropped_probe_frees_slot_and_is_not_counted() {
    let (layer, time) = layer();
    trip(&layer.circuit());
    time.advance(OPEN_FOR);
    let (service, mut handle) = guarded(&layer);
    handle.allow(100);
    for _ in 0..9 {
        let mut service = service.clone();
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call("hangs"));
        assert_pending!(call.poll());
    }
    let status = layer.circuit().status();
    assert_eq!((status.state, status.window.calls), (CircuitState::HalfOpen, 0));
}

#[test]
fn cancelled_call_is_neither_success_nor_failure() {
    let (layer, _time) = layer();
    let (mut service, mut handle) = guarded(&layer);
    handle.allow(100);
    for _ in 0..4 {
        permit(&layer.circuit()).record(failure());
    }
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call("hangs"));
    assert_pending!(call.poll());
    drop(call);
    let status = layer.circuit().status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 4));
}

#[test]
fn inner_panic_counts_as_failure_and_circuit_stays_usable() {
    let (layer, time) = layer();
    trip(&layer.circuit());
    for _ in 0..10 {
        time.advance(OPEN_FOR);
        let mut service = layer.layer(service_fn(async |(): ()| -> Result<(), BoxError> { panic!("inner") }));
        let call = std::panic::AssertUnwindSafe(|| {
            assert_ready_ok!(task::spawn(()).enter(|cx, _| service.poll_ready(cx)));
            let _ = task::spawn(service.call(())).poll();
        });
        std::panic::catch_unwind(call).unwrap_err();
        let trip = layer.circuit().status().last_trip.unwrap();
        assert_eq!((trip.reason, trip.to), (Reason::ProbeFailed, CircuitState::Open));
    }
    time.advance(OPEN_FOR);
    close(&layer.circuit(), &time);
}

#[derive(Clone, Default)]
struct Hangs(Arc<AtomicUsize>);

impl Service<()> for Hangs {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Pending<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::pending()
    }
}

#[tokio::test]
async fn half_open_with_thousand_tasks_admits_configured_probes() {
    let (layer, time) = layer();
    trip(&layer.circuit());
    time.advance(OPEN_FOR);
    let inner = Hangs::default();
    let service = layer.layer(inner.clone());
    let tasks: Vec<_> = (0..1_000).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    let mut rejected = 0;
    for task in tasks {
        // The probes never complete. A task that has not finished by now is one of them.
        tokio::task::yield_now().await;
        if task.is_finished() {
            assert!(is_rejection(&task.await.unwrap().unwrap_err()));
            rejected += 1;
        } else {
            task.abort();
        }
    }
    assert_eq!((inner.0.load(Ordering::Relaxed), rejected), (3, 997));
}

#[tokio::test(start_paused = true)]
async fn inner_timeout_opens_circuit() {
    let config = config().clock(Clock::tokio()).build().unwrap();
    let layer = BreakerLayer::new(config);
    let circuit = layer.circuit();
    let mut service =
        ServiceBuilder::new().layer(layer).timeout(Duration::from_millis(10)).service(Hangs::default());
    for _ in 0..5 {
        assert!(!is_rejection(&service.ready().await.unwrap().call(()).await.unwrap_err()));
    }
    let error = service.ready().await.unwrap().call(()).await.unwrap_err();
    assert!(is_rejection(&error));
    tokio::time::sleep(error.downcast_ref::<Rejection>().unwrap().retry_after().unwrap()).await;
    assert!(
        !is_rejection(&service.ready().await.unwrap().call(()).await.unwrap_err()),
        "a call after `retry_after` is admitted"
    );
    assert_eq!(circuit.status().state, CircuitState::Open);
}
