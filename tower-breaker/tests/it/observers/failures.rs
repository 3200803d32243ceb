//! Observers of failures.

use tower_breaker::telemetry::{Failure, ObserverId};
use tower_breaker::{BreakerConfig, CancelledPolicy};

use super::*;

/// The failures that an observer has received.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Failure>>>);

impl Received {
    fn observer(&self) -> impl Fn(&Failure) + Send + Sync + 'static {
        let received = Arc::clone(&self.0);
        move |failure| received.lock().unwrap().push(failure.clone())
    }

    /// Returns the state and the consecutive failures of each failure since the last call.
    fn take(&self) -> Vec<(CircuitState, u64)> {
        let failures = std::mem::take(&mut *self.0.lock().unwrap());
        failures.iter().map(|failure| (failure.state, failure.consecutive_failures)).collect()
    }
}

fn closed(consecutive_failures: impl IntoIterator<Item = u64>) -> Vec<(CircuitState, u64)> {
    consecutive_failures.into_iter().map(|number| (CircuitState::Closed, number)).collect()
}

#[test]
fn failure_observer_is_called_for_each_counted_failure() {
    let (circuit, time) = circuit(config().name("search"));
    let received = Received::default();
    circuit.on_failure(received.observer());
    send(&circuit, 2, FAILURE);
    send(&circuit, 1, NEUTRAL);
    send(&circuit, 1, Verdict::Success);
    {
        let failures = received.0.lock().unwrap();
        let failure = &failures[1];
        assert_eq!((failure.circuit, failure.key.as_deref(), failure.fault), ("search", None, FAULT));
    }
    assert_eq!(received.take(), closed([1, 2]));

    let late = circuit.try_acquire().unwrap();
    send(&circuit, 5, FAILURE);
    assert_eq!(received.take(), closed(1..=5));
    late.record(FAILURE);
    assert!(received.take().is_empty(), "the call was admitted before the transition");

    time.advance(OPEN_FOR);
    send(&circuit, 1, NEUTRAL);
    send(&circuit, 1, FAILURE);
    assert_eq!(received.take(), [(CircuitState::HalfOpen, 6)]);

    circuit.force_closed().unwrap();
    send(&circuit, 3, FAILURE);
    assert!(received.take().is_empty(), "a circuit that is forced closed counts no call");
}

#[test]
fn failure_observer_follows_policies_of_config() {
    let received = Received::default();
    let observed = |config| {
        let (circuit, _time) = circuit(config);
        circuit.on_failure(received.observer());
        circuit
    };
    let ignoring = observed(config().cancelled(CancelledPolicy::Ignore));
    drop(ignoring.try_acquire().unwrap());
    ignoring.try_acquire().unwrap().retry().record(FAILURE);
    assert!(received.take().is_empty());

    let counting = observed(config().cancelled(CancelledPolicy::Failure).count_failed_retries(true));
    drop(counting.try_acquire().unwrap());
    counting.try_acquire().unwrap().retry().record(FAILURE);
    assert_eq!(received.take(), closed([1, 2]));

    let slow = observed(config().slow_call_rate(SECOND, 1.0));
    send(&slow, 2, FAILURE);
    assert_eq!(received.take(), closed([1, 2]), "each call is timed");
}

#[test]
fn failure_observer_runs_after_transition_and_may_use_circuit() {
    use CircuitState::{Closed, Open};
    let (circuit, _time) = circuit(config());
    let (weak, order) = (circuit.downgrade(), Arc::new(Mutex::new(Vec::new())));
    circuit.on_transition({
        let order = Arc::clone(&order);
        move |transition| order.lock().unwrap().push(transition.to)
    });
    circuit.on_failure({
        let order = Arc::clone(&order);
        move |_| {
            let circuit = weak.upgrade().unwrap();
            order.lock().unwrap().push(state(&circuit));
            circuit.on_failure(|_| {});
        }
    });
    send(&circuit, 5, FAILURE);
    assert_eq!(*order.lock().unwrap(), [Closed, Closed, Closed, Closed, Open, Open]);
}

#[test]
fn failure_observer_panic_is_caught() {
    let (circuit, _time) = circuit(config());
    let received = Received::default();
    circuit.on_failure(|_| panic!("this panic must be caught"));
    circuit.on_failure(received.observer());
    send(&circuit, 1, FAILURE);
    assert_eq!(received.take(), closed([1]));
}

#[test]
fn removed_failure_observer_is_not_called() {
    let (circuit, _time) = circuit(config());
    let [first, second] = [(); 2].map(|()| Received::default());
    let ids = [&first, &second].map(|received| circuit.on_failure(received.observer()));
    assert!(circuit.remove_observer(ids[0]));
    send(&circuit, 1, FAILURE);
    assert_eq!((first.take(), second.take()), (closed([]), closed([1])));
    assert!(circuit.remove_observer(ids[1]) && !circuit.remove_observer(ids[1]));
    send(&circuit, 1, FAILURE);
    assert!(second.take().is_empty());
    assert_eq!(Arc::strong_count(&second.0), 1, "the observer is dropped");
}

#[test]
fn registry_failure_observer_sees_all_circuits() {
    let (default, _time) = timed(config());
    let registry = CircuitRegistry::new(default);
    let received = Received::default();
    let early = registry.circuit("early");
    let id: ObserverId = registry.on_failure(received.observer());
    let late = registry.circuit("late");
    let removed = registry.remove("early").unwrap();
    for circuit in [&early, &late, &removed] {
        send(circuit, 1, FAILURE);
    }
    let names: Vec<_> = received.0.lock().unwrap().iter().map(|failure| failure.circuit).collect();
    assert_eq!(names, ["early", "late", "early"]);
    received.take();
    assert!(registry.remove_observer(id));
    send(&late, 1, FAILURE);
    assert!(received.take().is_empty());
}

#[test]
fn registry_failure_observer_added_after_removal_sees_removed_circuits() {
    let (default, _time) = timed(config());
    let registry = CircuitRegistry::new(default);
    let removed = ["first", "second"].map(|name| {
        registry.circuit(name);
        registry.remove(name).unwrap()
    });
    let received = Received::default();
    let id = registry.on_failure(received.observer());
    for circuit in &removed {
        send(circuit, 1, FAILURE);
    }
    assert_eq!(received.take(), closed([1, 1]));
    assert!(registry.remove_observer(id));
    for circuit in &removed {
        send(circuit, 1, FAILURE);
    }
    assert!(received.take().is_empty());
}

#[test]
fn keyed_failure_observer_sees_all_keys_and_overflow() {
    let (each, _time) = timed(config().name("tenants"));
    let config = KeyedConfig::builder(each).max_keys(1).overflow(Overflow::Shared).build().unwrap();
    let received = Received::default();
    let layer = KeyedBreakerLayer::<_, _>::new(config, by_number).on_failure(received.observer());
    let circuits = layer.circuits();
    let _kept = circuits.get_or_insert(7);
    let mut service = layer.layer(service_fn(respond));
    for key in [7, 8] {
        drop(call_once(&mut service, (key, true)));
    }
    let failures = received.0.lock().unwrap();
    let keys: Vec<_> = failures.iter().map(|failure| (failure.circuit, failure.key.as_deref())).collect();
    assert_eq!(keys, [("tenants", Some("7")), ("tenants", Some("(overflow)"))]);
}

#[test]
fn layer_failure_observer_sees_panic_and_readiness_error() {
    let received = Received::default();
    let (each, _time) = timed(config());
    let layer: BreakerLayer = BreakerLayer::new(each).on_failure(received.observer());
    let mut service = layer.layer(service_fn(async |(_, panics): Request| {
        assert!(!panics, "the service panics");
        Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    }));
    drop(call_once(&mut service, (0, false)));
    catch_unwind(AssertUnwindSafe(|| drop(call_once(&mut service, (0, true))))).unwrap_err();
    assert_eq!(received.take(), closed([1, 2]));
}

#[test]
fn next_circuit_does_not_notify_failure_observer() {
    let received = Received::default();
    let config = || timed(config()).0;
    let new = |config: BreakerConfig| Circuit::new(config);
    for _ in 0..20 {
        let circuit = new(config());
        circuit.on_failure(received.observer());
        drop(circuit);
        let next = new(config());
        send(&next, 1, FAILURE);
        assert!(received.take().is_empty());
    }
}
