//! A slow start admits a share of the calls. A readiness poll that no call follows is not counted.

use tower_breaker::Verdict;

use super::*;

const SLOW_START: Duration = Duration::from_secs(100);

/// Returns a layer whose circuit is in the middle of its slow start. The initial credit is spent.
async fn halfway(not_ready: bool) -> BoxedLayer {
    let config = config().probes(1).successes_to_close(1).slow_start(SLOW_START);
    let layer = BreakerLayer::new(config.build().unwrap());
    let layer = if not_ready { layer.not_ready_when_open() } else { layer };
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    tokio::time::advance(OPEN_FOR + SECOND).await;
    circuit.try_acquire().unwrap().record(Verdict::Success);
    assert_eq!(circuit.status().slow_start, Some(0.0));
    circuit.try_acquire().expect("the first call of a slow start must be admitted").record(Verdict::Success);
    tokio::time::advance(SLOW_START / 2).await;
    layer
}

/// Returns how many of 100 calls are admitted.
fn admitted<S>(service: &mut Spawn<S>, mut before_each: impl FnMut(&mut Spawn<S>)) -> usize
where
    S: Service<(), Response = (), Error = BoxError>,
{
    let calls = (0..100).filter(|_| {
        before_each(service);
        assert_ready_ok!(service.poll_ready());
        matches!(task::spawn(service.call(())).poll(), Poll::Ready(Ok(())))
    });
    calls.count()
}

#[tokio::test(start_paused = true)]
async fn slow_start_ignores_repeated_readiness_polls() {
    let layer = halfway(false).await;
    let mut service = Spawn::new(layer.layer(unit()));
    let admitted =
        admitted(&mut service, |service| (0..7).for_each(|_| assert_ready_ok!(service.poll_ready())));
    assert_eq!(admitted, 50, "half of 100 calls");
}

#[tokio::test(start_paused = true)]
async fn slow_start_ignores_dropped_ready_services() {
    let layer = halfway(false).await;
    let mut service = Spawn::new(layer.layer(unit()));
    let admitted = admitted(&mut service, |service| {
        let mut unused = service.clone();
        assert_ready_ok!(unused.poll_ready());
    });
    assert_eq!(admitted, 50, "half of 100 calls");
}

#[tokio::test(start_paused = true)]
async fn slow_start_rejected_call_returns_reservation() {
    let layer = halfway(false).await;
    let limit = ConcurrencyLimit::new(unit(), 1);
    let (mut guarded, mut other) = (Spawn::new(layer.layer(limit.clone())), Spawn::new(limit));
    assert_ready_ok!(guarded.poll_ready());
    assert_pending!(other.poll_ready());
    assert_ready_err!(task::spawn(guarded.call(())).poll(), "the first of two is rejected");
    assert_ready_ok!(other.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn cancelled_permit_returns_slow_start_credit() {
    let circuit = halfway(false).await.circuit();
    assert!(circuit.try_acquire().is_err(), "the credit is half a call");
    for _ in 0..100 {
        circuit.try_acquire().expect("the credit must be refunded").cancel();
    }
    // The credit of a call that has begun is not refunded, even if its caller cancels it.
    drop(circuit.try_acquire().unwrap());
    assert!(circuit.try_acquire().is_err());
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_dropped_ready_returns_slow_start_credit() {
    let layer = halfway(true).await;
    assert!(layer.circuit().try_acquire().is_err(), "the credit is half a call");
    let service = Spawn::new(layer.layer(unit()));
    for _ in 0..100 {
        assert_ready_ok!(service.clone().poll_ready());
    }
    // A service that is ready holds the credit.
    let mut ready = service.clone();
    assert_ready_ok!(ready.poll_ready());
    assert!(layer.circuit().try_acquire().is_err());
    assert_ready_ok!(task::spawn(ready.call(())).poll());
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_counts_once_in_slow_start() {
    let layer = halfway(true).await;
    let mut waiting = Spawn::new(layer.layer(unit()));
    assert_pending!(waiting.poll_ready());
    for _ in 0..100 {
        assert_pending!(waiting.poll_ready());
    }
    // The arrival of this service and of the next call add the credit of exactly one call.
    let circuit = layer.circuit();
    circuit.try_acquire().expect("the next call must be admitted").record(Verdict::Success);
    assert!(circuit.try_acquire().is_err());
}
