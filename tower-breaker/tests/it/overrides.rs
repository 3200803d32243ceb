//! Manual overrides and open periods that end by themselves, and probes on request.

use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_breaker::{
    BreakerConfigBuilder, BreakerError, BreakerLayer, Circuit, CircuitRegistry, CircuitState, Clock,
    ControlError, Counts, Mode, Reason, Verdict,
};

use crate::support::{FAILURE, OPEN_FOR, SECOND, circuit, config};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

const MILLI: Duration = Duration::from_millis(1);

fn succeed(circuit: &Circuit, calls: usize) {
    (0..calls).for_each(|_| circuit.try_acquire().unwrap().record(Verdict::Success));
}

/// Returns the reasons of all transitions from now on.
fn observe_reasons(circuit: &Circuit) -> Arc<Mutex<Vec<Reason>>> {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&reasons);
    circuit.on_transition(move |transition| observed.lock().unwrap().push(transition.reason));
    reasons
}

fn last_reason(circuit: &Circuit) -> Reason {
    circuit.status().last_transition.unwrap().reason
}

#[test]
fn force_open_for_rejects_until_its_end_and_then_probes() {
    let (circuit, time) = circuit(config());
    circuit.force_open_for(600 * SECOND).unwrap();
    time.advance(599 * SECOND);
    let rejection = circuit.try_acquire().unwrap_err();
    assert_eq!((rejection.state(), rejection.retry_after()), (CircuitState::ForcedOpen, Some(SECOND)));
    assert_eq!(rejection.to_string(), "circuit breaker `breaker` is forced open; retry after 1 s");
    let status = circuit.status();
    assert_eq!((status.retry_after, status.override_ends_in), (Some(SECOND), Some(SECOND)));
    assert!(status.rejects_calls());
    time.advance(SECOND);
    let status = circuit.status();
    assert_eq!(status.state, CircuitState::ForcedOpen, "a status read changes nothing");
    let zero = Some(Duration::ZERO);
    assert_eq!((status.retry_after, status.override_ends_in, status.rejects_calls()), (zero, zero, false));
    let probe = circuit.try_acquire().unwrap();
    assert_eq!(
        (circuit.status().state, last_reason(&circuit)),
        (CircuitState::HalfOpen, Reason::OverrideEnded)
    );
    assert_eq!(circuit.status().override_ends_in, None);
    probe.record(Verdict::Success);
    succeed(&circuit, 1);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[test]
fn force_closed_for_admits_until_its_end_and_then_counts() {
    let (circuit, time) = circuit(config());
    (0..4).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    circuit.force_closed_for(60 * SECOND).unwrap();
    time.advance(59 * SECOND);
    (0..100).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    let status = circuit.status();
    assert_eq!((status.state, status.window), (CircuitState::ForcedClosed, Counts::default()));
    assert_eq!((status.retry_after, status.override_ends_in), (None, Some(SECOND)));
    let late = circuit.try_acquire().unwrap();
    time.advance(SECOND);
    assert_eq!(circuit.status().override_ends_in, Some(Duration::ZERO));
    circuit.try_acquire().unwrap().record(FAILURE);
    late.record(FAILURE);
    let status = circuit.status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 1));
    assert_eq!((status.window.calls, last_reason(&circuit)), (1, Reason::OverrideEnded));
}

#[test]
fn later_override_replaces_earlier_end() {
    let (circuit, time) = circuit(config());
    circuit.force_open_for(10 * SECOND).unwrap();
    let epoch = circuit.status().last_transition.unwrap().epoch;
    for period in [30, 5, 20] {
        circuit.force_open_for(period * SECOND).unwrap();
        assert_eq!(circuit.status().override_ends_in, Some(period * SECOND));
    }
    circuit.force_open().unwrap();
    assert_eq!(circuit.status().last_transition.unwrap().epoch, epoch, "another end is no transition");
    time.advance(YEAR);
    let rejection = circuit.try_acquire().unwrap_err();
    assert_eq!(rejection.to_string(), "circuit breaker `breaker` is forced open until it is released");
    circuit.force_closed_for(SECOND).unwrap();
    circuit.force_closed().unwrap();
    time.advance(YEAR);
    circuit.try_acquire().unwrap().record(FAILURE);
    assert_eq!(circuit.status().state, CircuitState::ForcedClosed);
    circuit.force_closed_for(SECOND).unwrap();
    time.advance(SECOND);
    succeed(&circuit, 1);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

/// An operation after the end of an override finds the circuit as the next call would.
#[test]
fn operation_after_end_of_override_ends_it_first() {
    type Operation = fn(&Circuit);
    let operations: [(Operation, &[Reason]); 7] = [
        (|circuit| circuit.trip().unwrap(), &[Reason::OverrideEnded, Reason::Tripped]),
        (|circuit| circuit.trip_for(SECOND).unwrap(), &[Reason::OverrideEnded, Reason::Tripped]),
        (|circuit| circuit.reset().unwrap(), &[Reason::OverrideEnded, Reason::Reset]),
        (|circuit| circuit.force_open().unwrap(), &[Reason::OverrideEnded, Reason::Forced]),
        (Circuit::release, &[Reason::OverrideEnded]),
        (|circuit| circuit.probe_now().unwrap(), &[Reason::OverrideEnded]),
        (
            |circuit| {
                let disabled = config().mode(Mode::Disabled).build().unwrap();
                circuit.reconfigure(disabled).unwrap();
            },
            &[Reason::OverrideEnded, Reason::Reconfigured],
        ),
    ];
    for force in [Circuit::force_open_for, Circuit::force_closed_for] {
        for (number, (operation, expected)) in operations.iter().enumerate() {
            let (circuit, time) = circuit(config());
            force(&circuit, SECOND).unwrap();
            let reasons = observe_reasons(&circuit);
            time.advance(SECOND);
            operation(&circuit);
            assert_eq!(*reasons.lock().unwrap(), *expected, "operation {number}");
        }
    }
}

#[test]
fn override_of_circuit_disabled_meanwhile_ends_disabled() {
    for force in [Circuit::force_open_for, Circuit::force_closed_for] {
        let (circuit, time) = circuit(config());
        force(&circuit, SECOND).unwrap();
        circuit.reconfigure(config().mode(Mode::Disabled).build().unwrap()).unwrap();
        assert_eq!(circuit.status().override_ends_in, Some(SECOND));
        time.advance(SECOND);
        (0..100).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
        assert_eq!(
            (circuit.status().state, last_reason(&circuit)),
            (CircuitState::Disabled, Reason::OverrideEnded)
        );
    }
}

#[test]
fn trip_for_replaces_remaining_open_time_exactly() {
    let jittered = || config().open_jitter(1.0).open_backoff(2.0, 1_000 * SECOND);
    for limits in [jittered(), jittered().open_until_reset(true)] {
        let (circuit, time) = circuit(limits);
        circuit.trip().unwrap();
        let tripped = circuit.status().last_transition.unwrap();
        for period in [90, 2, 40] {
            circuit.trip_for(period * SECOND).unwrap();
            assert_eq!(circuit.try_acquire().unwrap_err().retry_after(), Some(period * SECOND));
        }
        assert_eq!(circuit.status().last_transition.unwrap().epoch, tripped.epoch, "this is no transition");
        time.advance((40 * SECOND).saturating_sub(MILLI));
        assert!(circuit.try_acquire().is_err());
        time.advance(MILLI);
        succeed(&circuit, 2);
        assert_eq!(circuit.status().state, CircuitState::Closed);
        circuit.trip_for(7 * SECOND).unwrap();
        assert_eq!(
            (circuit.status().retry_after, last_reason(&circuit)),
            (Some(7 * SECOND), Reason::Tripped)
        );
        assert_eq!(circuit.status().override_ends_in, None, "an open period is no override");
    }
}

#[test]
fn probe_now_admits_probe_of_open_circuit() {
    for limits in [config(), config().open_until_reset(true)] {
        let (circuit, _time) = circuit(limits);
        circuit.probe_now().unwrap();
        assert!(circuit.status().last_transition.is_none(), "a closed circuit does not change");
        circuit.trip().unwrap();
        circuit.probe_now().unwrap();
        assert_eq!(
            (circuit.status().state, last_reason(&circuit)),
            (CircuitState::HalfOpen, Reason::ProbeRequested)
        );
        let probe = circuit.try_acquire().unwrap();
        circuit.probe_now().unwrap();
        probe.record(Verdict::Success);
        succeed(&circuit, 1);
        assert_eq!(circuit.status().state, CircuitState::Closed, "a half-open circuit keeps its round");
    }
}

#[test]
fn forced_or_disabled_circuit_refuses_trip_for_and_probe_now() {
    let (circuit, _time) = circuit(config());
    for force in [Circuit::force_open, Circuit::force_closed] {
        force(&circuit).unwrap();
        let state = Some(circuit.status().state);
        for result in [circuit.trip_for(SECOND), circuit.probe_now()] {
            assert_eq!(result.unwrap_err().state(), state);
        }
    }
    circuit.release();
    circuit.reconfigure(config().mode(Mode::Disabled).build().unwrap()).unwrap();
    let operations = [Circuit::trip_for, Circuit::force_open_for, Circuit::force_closed_for];
    for result in
        operations.map(|operation| operation(&circuit, SECOND)).into_iter().chain([circuit.probe_now()])
    {
        assert!(matches!(result, Err(ControlError::Disabled { .. })), "{result:?}");
    }
}

#[test]
fn duration_out_of_range_is_an_error_and_changes_nothing() {
    type Operation = fn(&Circuit, Duration) -> Result<(), ControlError>;
    let operations: [(&str, Operation); 3] = [
        ("trip_for", Circuit::trip_for),
        ("force_open_for", Circuit::force_open_for),
        ("force_closed_for", Circuit::force_closed_for),
    ];
    for (name, operation) in operations {
        let (circuit, _time) = circuit(config().name("billing"));
        for time in [Duration::ZERO, Duration::from_micros(999), YEAR + MILLI, Duration::MAX] {
            let error = operation(&circuit, time).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`{name}` of circuit breaker `billing` is {time:?}; allowed is 1ms to 31536000s")
            );
            assert_eq!((error.circuit(), error.state()), ("billing", None));
            let ControlError::OutOfRange { field, value, allowed, .. } = error else { panic!("{error}") };
            assert_eq!((field, value, allowed), (name, time, MILLI..=YEAR));
            assert!(circuit.status().last_transition.is_none());
        }
        for time in [MILLI, YEAR] {
            operation(&circuit, time).unwrap();
        }
    }
}

#[test]
fn observe_only_admits_calls_of_circuit_forced_open_for_a_time() {
    let (circuit, time) = circuit(config().mode(Mode::ObserveOnly));
    circuit.force_open_for(SECOND).unwrap();
    (0..10).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    assert_eq!(circuit.status().state, CircuitState::ForcedOpen);
    time.advance(SECOND);
    succeed(&circuit, 2);
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

#[test]
fn registry_controls_overrides_by_name() {
    let (clock, time) = Clock::manual();
    let registry = CircuitRegistry::new(config().clock(clock).build().unwrap());
    let circuit = registry.circuit("search");
    registry.trip_for("search", 7 * SECOND).unwrap();
    assert_eq!(circuit.status().retry_after, Some(7 * SECOND));
    registry.probe_now("search").unwrap();
    assert_eq!(circuit.status().state, CircuitState::HalfOpen);
    registry.force_closed_for("search", SECOND).unwrap();
    assert_eq!(circuit.status().state, CircuitState::ForcedClosed);
    registry.force_open_for("search", 5 * SECOND).unwrap();
    assert_eq!(circuit.status().override_ends_in, Some(5 * SECOND));
    assert!(registry.probe_now("search").is_err());
    time.advance(5 * SECOND);
    registry.probe_now("search").unwrap();
    assert_eq!(circuit.status().state, CircuitState::HalfOpen);
    let unknown = [
        registry.trip_for("serach", SECOND),
        registry.force_open_for("serach", SECOND),
        registry.force_closed_for("serach", SECOND),
        registry.probe_now("serach"),
    ];
    for result in unknown {
        assert!(matches!(result, Err(ControlError::Unknown { .. })), "{result:?}");
    }
}

/// A service behind a layer that is not ready when open, on tokio's clock.
fn waiting_layer(limits: BreakerConfigBuilder) -> BreakerLayer {
    BreakerLayer::new(limits.clock(Clock::tokio()).build().unwrap()).not_ready_when_open()
}

fn server() -> impl Service<(), Response = (), Error = io::Error, Future: Send> + Clone + Debug + Send + Sync
{
    service_fn(|()| async { Ok(()) })
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_is_ready_when_override_ends() {
    let layer = waiting_layer(config()).errors_only();
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    circuit.force_open_for(OPEN_FOR).unwrap();
    let began = Instant::now();
    service.ready().await.unwrap().call(()).await.unwrap();
    assert!((OPEN_FOR..=OPEN_FOR + 3 * MILLI).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(last_reason(&circuit), Reason::OverrideEnded);
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_follows_replaced_deadline() {
    type Operation = fn(&Circuit, Duration) -> Result<(), ControlError>;
    for operation in [Circuit::force_open_for as Operation, Circuit::trip_for] {
        for (first, second) in [(100, 10), (10, 100)] {
            let layer = waiting_layer(config()).errors_only();
            let circuit = layer.circuit();
            operation(&circuit, first * SECOND).unwrap();
            let mut ready = task::spawn(layer.layer(server()).ready_oneshot());
            assert_pending!(ready.poll());
            operation(&circuit, second * SECOND).unwrap();
            assert!(ready.is_woken(), "the timer may end too late");
            let began = Instant::now();
            timeout(YEAR, ready).await.unwrap().unwrap();
            let waited = began.elapsed();
            assert!((second * SECOND..=second * SECOND + 3 * MILLI).contains(&waited), "{waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn not_ready_service_is_woken_by_probe_now_and_force_closed_for() {
    type Operation = fn(&Circuit);
    let operations: [(Operation, Operation); 2] = [
        (|circuit| circuit.trip().unwrap(), |circuit| circuit.probe_now().unwrap()),
        (
            |circuit| circuit.force_open_for(SECOND).unwrap(),
            |circuit| circuit.force_closed_for(SECOND).unwrap(),
        ),
    ];
    for (reject_calls, admit_calls) in operations {
        let layer = waiting_layer(config()).errors_only();
        reject_calls(&layer.circuit());
        let mut ready = task::spawn(layer.layer(server()).ready_oneshot());
        assert_pending!(ready.poll());
        admit_calls(&layer.circuit());
        assert!(ready.is_woken());
        assert_ready_ok!(ready.poll());
    }
}

#[tokio::test(start_paused = true)]
async fn fail_fast_service_rejects_with_remaining_time_of_override() {
    let layer: BreakerLayer = BreakerLayer::new(config().clock(Clock::tokio()).build().unwrap());
    let layer = layer.errors_only();
    let circuit = layer.circuit();
    let mut service = layer.layer(server());
    circuit.force_open_for(10 * SECOND).unwrap();
    let Err(BreakerError::Rejected(rejection)) = service.ready().await.unwrap().call(()).await else {
        panic!("the circuit is forced open")
    };
    let retry_after = rejection.retry_after().unwrap();
    assert!((10 * SECOND..=10 * SECOND + 2 * MILLI).contains(&retry_after), "{retry_after:?}");
    tokio::time::advance(retry_after).await;
    service.ready().await.unwrap().call(()).await.expect("a caller that waits this long is admitted");
    circuit.force_closed_for(SECOND).unwrap();
    service.ready().await.unwrap().call(()).await.unwrap();
    tokio::time::advance(2 * SECOND).await;
    service.ready().await.unwrap();
    assert_eq!(circuit.status().state, CircuitState::Closed, "a readiness poll ends an override");
    service.call(()).await.unwrap();
    assert_eq!(circuit.status().window.calls, 1);
}

/// All tasks that wait for the end of an override are served, and only probes run before the
/// circuit closes.
#[tokio::test(start_paused = true)]
async fn thousand_waiting_tasks_are_served_after_override_ends() {
    let layer = waiting_layer(config().probes(2).successes_to_close(100)).errors_only();
    let running = Arc::new(AtomicUsize::new(0));
    let inner = {
        let (running, circuit) = (Arc::clone(&running), layer.circuit());
        service_fn(move |()| {
            let (running, circuit) = (Arc::clone(&running), circuit.clone());
            async move {
                let before = running.fetch_add(1, Ordering::Relaxed);
                assert!(before < 2 || circuit.status().state == CircuitState::Closed, "{before}");
                tokio::time::sleep(MILLI).await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, io::Error>(())
            }
        })
    };
    let circuit = layer.circuit();
    circuit.force_open_for(OPEN_FOR).unwrap();
    let service = layer.layer(inner);
    let tasks: Vec<_> = (0..1_000).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    for task in tasks {
        timeout(10 * OPEN_FOR, task).await.expect("every task is woken").unwrap().unwrap();
    }
    assert_eq!(circuit.status().state, CircuitState::Closed);
}

/// A thousand threads call at the moment at which an override ends. It ends once, and only as many
/// calls are admitted as the state afterwards allows.
#[test]
fn thousand_calls_at_end_of_override_end_it_once() {
    type Force = fn(&Circuit, Duration) -> Result<(), ControlError>;
    for (force, admitted, state) in [
        (Circuit::force_open_for as Force, 3, CircuitState::HalfOpen),
        (Circuit::force_closed_for, 1_000, CircuitState::Closed),
    ] {
        let (circuit, time) = circuit(config());
        force(&circuit, SECOND).unwrap();
        let reasons = observe_reasons(&circuit);
        let barrier = Barrier::new(1_000);
        let call = || {
            if barrier.wait().is_leader() {
                time.advance(SECOND);
            }
            while circuit.status().override_ends_in.is_some_and(|left| !left.is_zero()) {
                thread::yield_now();
            }
            circuit.try_acquire()
        };
        let permits: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..1_000).map(|_| scope.spawn(call)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
        });
        assert_eq!((permits.len(), circuit.status().state), (admitted, state));
        for permit in permits {
            permit.record(Verdict::Success);
        }
        assert_eq!(reasons.lock().unwrap()[0], Reason::OverrideEnded);
        assert!(!reasons.lock().unwrap()[1..].contains(&Reason::OverrideEnded));
    }
}
