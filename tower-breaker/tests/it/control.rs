//! Manual control of a circuit, its modes, its configuration and its status.

use std::future::ready;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_test::task;
use tower::{Layer, Service, service_fn};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig};
use tower_breaker::{
    BreakerConfigBuilder, BreakerError, BreakerLayer, Circuit, CircuitState, Clock, ControlError, Counts,
    HealthReport, ManualClock, Mode, Reason, Verdict,
};

use crate::support::{FAILURE, OPEN_FOR, SECOND, config};

/// A circuit with its clock.
struct Bench {
    circuit: Circuit,
    clock: Clock,
    time: ManualClock,
}

impl Bench {
    fn new(config: BreakerConfigBuilder) -> Self {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(1_000));
        let circuit = Circuit::new(config.clock(clock).build().unwrap());
        Self { circuit, clock, time }
    }

    fn reconfigure(&self, config: BreakerConfigBuilder) {
        self.circuit.reconfigure(config.build().unwrap()).unwrap();
    }

    /// Makes this number of calls. Returns whether the circuit admitted all of them.
    fn send(&self, number: usize, verdict: Verdict) -> bool {
        let sent = (0..number).filter(|_| self.circuit.try_acquire().map(|p| p.record(verdict)).is_ok());
        sent.count() == number
    }

    fn state(&self) -> CircuitState {
        self.circuit.status().state
    }

    fn window(&self) -> (u64, u64) {
        let Counts { calls, failures, .. } = self.circuit.status().window;
        (calls, failures)
    }

    fn half_open(&self) {
        self.circuit.trip().unwrap();
        self.time.advance(self.circuit.status().retry_after.unwrap());
        self.circuit.try_acquire().unwrap().cancel();
        assert_eq!(self.state(), CircuitState::HalfOpen);
    }
}

#[test]
fn second_trip_does_not_extend_open_time() {
    let bench = Bench::new(config());
    bench.circuit.trip().unwrap();
    let trip = bench.circuit.status().last_trip.unwrap();
    assert_eq!((trip.from, trip.reason, trip.fault), (CircuitState::Closed, Reason::Tripped, None));
    bench.time.advance(10 * SECOND);
    bench.circuit.trip().unwrap();
    assert_eq!(bench.circuit.try_acquire().unwrap_err().retry_after(), Some(20 * SECOND));
    bench.time.advance(20 * SECOND);
    assert!(bench.send(1, Verdict::Success));
    bench.circuit.trip().unwrap();
    assert_eq!(bench.state(), CircuitState::Open, "`trip` opens a half-open circuit, too");
    bench.time.advance(OPEN_FOR);
    assert!(bench.send(2, Verdict::Success));
    assert_eq!(bench.state(), CircuitState::Closed);
}

#[test]
fn reset_in_every_state_closes_with_empty_history() {
    let growing = config().open_backoff(2.0, 1_000 * SECOND).slow_start(10 * SECOND);
    let preparations: [fn(&Bench); 4] = [
        |bench| assert!(bench.send(4, FAILURE)),
        |bench| bench.circuit.trip().unwrap(),
        Bench::half_open,
        |bench| {
            bench.half_open();
            assert!(bench.send(2, Verdict::Success));
            assert!(bench.circuit.status().slow_start.is_some());
        },
    ];
    for prepare in preparations {
        let bench = Bench::new(growing.clone());
        bench.half_open();
        assert!(bench.send(1, FAILURE), "this makes the next open period longer");
        bench.time.advance(60 * SECOND);
        assert!(bench.send(2, Verdict::Success));
        bench.time.advance(10 * SECOND);
        prepare(&bench);
        let early = bench.circuit.try_acquire();
        bench.circuit.reset().unwrap();
        drop(early.map(|permit| permit.record(FAILURE)));
        let status = bench.circuit.status();
        assert_eq!(
            (status.state, status.slow_start, status.consecutive_failures),
            (CircuitState::Closed, None, 0)
        );
        assert_eq!((status.window, status.retry_after), (Counts::default(), None));
        assert_eq!(status.last_transition.unwrap().reason, Reason::Reset);
        assert!(bench.send(100, Verdict::Success));
        bench.circuit.trip().unwrap();
        assert_eq!(bench.circuit.status().retry_after, Some(OPEN_FOR));
    }
}

#[test]
fn force_overrides_everything_until_release() {
    let bench = Bench::new(config());
    bench.circuit.force_open().unwrap();
    bench.time.advance(365 * 86_400 * SECOND);
    let rejection = bench.circuit.try_acquire().unwrap_err();
    assert_eq!((rejection.state(), rejection.retry_after()), (CircuitState::ForcedOpen, None));
    for result in [bench.circuit.trip(), bench.circuit.reset()] {
        let error = result.unwrap_err();
        let ControlError::Forced { circuit, state, .. } = error else { panic!("{error}") };
        assert_eq!((circuit, state), ("breaker", CircuitState::ForcedOpen));
    }
    bench.circuit.force_closed().unwrap();
    assert!(bench.send(100, FAILURE));
    assert_eq!((bench.state(), bench.window()), (CircuitState::ForcedClosed, (0, 0)));
    assert_eq!(bench.circuit.trip().unwrap_err().state(), Some(CircuitState::ForcedClosed));
    assert_eq!(bench.circuit.reset().unwrap_err().state(), Some(CircuitState::ForcedClosed));
    bench.circuit.force_open().unwrap();
    assert!(bench.circuit.try_acquire().is_err());
}

#[test]
fn release_starts_probes_or_closes_with_empty_window() {
    let bench = Bench::new(config());
    bench.circuit.release();
    assert!(
        bench.circuit.status().last_transition.is_none(),
        "`release` does not change a circuit that is not forced"
    );
    assert!(bench.send(4, FAILURE));
    let early = bench.circuit.try_acquire().unwrap();
    bench.circuit.force_open().unwrap();
    bench.circuit.release();
    let probes: Vec<_> = (0..10).filter_map(|_| bench.circuit.try_acquire().ok()).collect();
    assert_eq!((probes.len(), bench.state()), (3, CircuitState::HalfOpen));
    early.record(FAILURE);
    assert_eq!(bench.state(), CircuitState::HalfOpen, "a call from before the override changes nothing");
    probes.into_iter().take(2).for_each(|probe| probe.record(Verdict::Success));
    assert_eq!(bench.state(), CircuitState::Closed);

    assert!(bench.send(4, FAILURE));
    bench.circuit.force_closed().unwrap();
    let uncounted = bench.circuit.try_acquire().unwrap();
    bench.circuit.release();
    uncounted.record(FAILURE);
    let status = bench.circuit.status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 0));
    assert_eq!(status.window, Counts::default());
}

#[test]
fn failed_probe_after_release_opens_for_full_time() {
    let bench = Bench::new(config());
    bench.circuit.force_open().unwrap();
    bench.circuit.release();
    assert!(bench.send(1, FAILURE));
    assert_eq!(bench.circuit.status().retry_after, Some(OPEN_FOR));
}

#[test]
fn observe_only_changes_states_and_rejects_nothing() {
    let bench = Bench::new(config().mode(Mode::ObserveOnly));
    assert!(bench.send(5, FAILURE));
    assert_eq!(bench.state(), CircuitState::Open);
    assert!(bench.send(100, FAILURE) && bench.send(100, Verdict::Success));
    assert_eq!((bench.state(), bench.window()), (CircuitState::Open, (0, 0)));
    bench.time.advance(OPEN_FOR);
    let permits: Vec<_> = (0..10).map(|_| bench.circuit.try_acquire().unwrap()).collect();
    assert_eq!(bench.state(), CircuitState::HalfOpen);
    // The first three calls are probes. The others would have been rejected.
    permits.into_iter().rev().enumerate().for_each(|(index, permit)| {
        permit.record(if index < 7 { FAILURE } else { Verdict::Success });
    });
    assert_eq!((bench.state(), bench.window()), (CircuitState::Closed, (0, 0)));
}

#[test]
fn observe_only_ignores_manual_rejection() {
    let bench = Bench::new(config().mode(Mode::ObserveOnly));
    bench.circuit.trip().unwrap();
    assert!(bench.send(10, Verdict::Success));
    assert_eq!(bench.state(), CircuitState::Open);
    bench.reconfigure(config());
    assert!(
        bench.circuit.try_acquire().is_err(),
        "the circuit keeps its state and deadline, and now rejects"
    );
}

#[test]
fn disabled_circuit_counts_nothing_and_control_fails() {
    let bench = Bench::new(config().mode(Mode::Disabled));
    assert!(bench.send(1_000, FAILURE));
    let operations = [Circuit::trip, Circuit::reset, Circuit::force_open, Circuit::force_closed];
    for operation in operations {
        let error = operation(&bench.circuit).unwrap_err();
        assert_eq!(error.state(), Some(CircuitState::Disabled));
        assert_eq!(error.to_string(), "circuit breaker `breaker` is disabled; configure another mode first");
    }
    bench.circuit.release();
    assert_eq!((bench.state(), bench.window()), (CircuitState::Disabled, (0, 0)));
    bench.reconfigure(config());
    assert_eq!(bench.state(), CircuitState::Closed);
    bench.half_open();
    let probe = bench.circuit.try_acquire().unwrap();
    bench.reconfigure(config().mode(Mode::Disabled));
    probe.record(FAILURE);
    assert!(bench.send(1_000, FAILURE), "a half-open circuit can be disabled");
    assert_eq!(bench.circuit.status().last_transition.unwrap().reason, Reason::Reconfigured);
}

#[test]
fn reconfigure_with_another_name_or_clock_changes_nothing() {
    let bench = Bench::new(config().name("orders"));
    let own = || config().name("orders").clock(bench.clock);
    let name = bench.circuit.reconfigure(own().name("payments").mode(Mode::Disabled).build().unwrap());
    let clock = own().clock(Clock::manual().0).mode(Mode::Disabled).build().unwrap();
    let clock = bench.circuit.reconfigure(clock);
    let (name, clock) = (name.unwrap_err(), clock.unwrap_err());
    assert_eq!((name.field(), name.value()), ("name", "\"payments\""));
    assert_eq!(name.to_string(), "`name` is \"payments\"; allowed is \"orders\", the circuit's own");
    assert_eq!(clock.field(), "clock");
    assert_eq!(bench.state(), CircuitState::Closed);
    assert!(bench.circuit.reconfigure(own().build().unwrap()).is_ok());
}

#[test]
fn reconfigure_keeps_state_epoch_deadline_failures_and_permits() {
    let bench = Bench::new(config().failure_rate(None));
    assert!(bench.send(3, FAILURE));
    let permits: Vec<_> = (0..2).map(|_| bench.circuit.try_acquire().unwrap()).collect();
    bench.reconfigure(config().consecutive_failures(2).failure_rate(None));
    let status = bench.circuit.status();
    assert_eq!((status.consecutive_failures, status.state), (3, CircuitState::Closed));
    assert_eq!((bench.window(), status.last_transition.is_none()), ((3, 3), true));
    for permit in permits {
        permit.record(FAILURE);
    }
    let trip = bench.circuit.status().last_trip.unwrap();
    assert_eq!(
        (trip.reason, trip.epoch),
        (Reason::ConsecutiveFailures, 1),
        "the new limit applies to the next outcome"
    );
    bench.time.advance(SECOND);
    bench.reconfigure(config().open_for(2 * SECOND).probes(1).successes_to_close(1));
    assert_eq!(bench.circuit.status().retry_after, Some(29 * SECOND), "the deadline stays");
    bench.time.advance(29 * SECOND);
    assert!(bench.send(1, FAILURE));
    assert_eq!(
        bench.circuit.status().retry_after,
        Some(2 * SECOND),
        "the new open time applies to the next period"
    );
}

#[test]
fn reconfigure_keeps_current_probes_and_window_of_same_shape() {
    let bench = Bench::new(config());
    bench.half_open();
    bench.reconfigure(config().probes(1).successes_to_close(9));
    let permits: Vec<_> = (0..9).filter_map(|_| bench.circuit.try_acquire().ok()).collect();
    assert_eq!(permits.len(), 3, "the current round keeps its slots");
    bench.circuit.trip().unwrap();
    bench.time.advance(OPEN_FOR);
    let permits: Vec<_> = (0..9).filter_map(|_| bench.circuit.try_acquire().ok()).collect();
    assert_eq!(permits.len(), 1, "the next round has the new number of slots");
    bench.circuit.reset().unwrap();
    drop(permits);
    let shapes = [config(), config().count_window(20), config().count_window(30)];
    for shape in shapes {
        bench.reconfigure(shape.clone());
        assert_eq!(bench.window(), (0, 0));
        assert!(bench.send(2, FAILURE) && bench.send(2, Verdict::Success));
        bench.reconfigure(shape.consecutive_failures(3).minimum_calls(20));
        assert_eq!(bench.window(), (4, 2));
    }
}

#[test]
fn manual_override_takes_precedence_over_mode() {
    let bench = Bench::new(config());
    bench.circuit.force_open().unwrap();
    bench.reconfigure(config().mode(Mode::Disabled));
    assert_eq!(bench.state(), CircuitState::ForcedOpen);
    assert!(bench.circuit.try_acquire().is_err());
}

#[test]
fn disabled_mode_set_while_forced_applies_at_release() {
    for force in [Circuit::force_open, Circuit::force_closed] {
        let bench = Bench::new(config());
        force(&bench.circuit).unwrap();
        bench.reconfigure(config().mode(Mode::Disabled));
        bench.circuit.release();
        assert!(bench.send(100, FAILURE), "all calls are admitted and none is counted");
        assert_eq!((bench.state(), bench.window()), (CircuitState::Disabled, (0, 0)));
    }
}

#[test]
fn window_starts_empty_when_its_shape_returns() {
    let shapes = [config(), config().count_window(20), config().count_window(30)];
    for shape in &shapes {
        for other in &shapes {
            let bench = Bench::new(shape.clone());
            assert!(bench.send(4, FAILURE));
            bench.reconfigure(other.clone());
            bench.reconfigure(shape.clone());
            // A window of the same shape continues, whether it was configured once or twice.
            let expected = if std::ptr::eq(shape, other) { 4 } else { 0 };
            assert_eq!(bench.window(), (expected, expected), "{shape:?} after {other:?}");
        }
    }
}

#[test]
fn manual_control_keeps_consecutive_failures_until_circuit_closes() {
    type Operation = fn(&Circuit);
    let operations: [(Operation, u64); 8] = [
        (|circuit| circuit.trip().unwrap(), 3),
        (|circuit| circuit.report(HealthReport::Critical), 3),
        (|circuit| circuit.force_open().unwrap(), 3),
        (|circuit| circuit.force_closed().unwrap(), 3),
        (|circuit| circuit.reset().unwrap(), 0),
        (
            |circuit| {
                circuit.force_open().unwrap();
                circuit.release();
            },
            3,
        ),
        (
            |circuit| {
                circuit.force_closed().unwrap();
                circuit.release();
            },
            0,
        ),
        (
            |circuit| {
                circuit.trip().unwrap();
                circuit.reset().unwrap();
            },
            0,
        ),
    ];
    for (number, (operation, failures)) in operations.into_iter().enumerate() {
        let bench = Bench::new(config());
        assert!(bench.send(3, FAILURE));
        operation(&bench.circuit);
        let status = bench.circuit.status();
        assert_eq!(status.consecutive_failures, failures, "operation {number}: {}", status.state);
    }
}

#[test]
fn status_has_times_reason_and_fault() {
    let limits = config().name("orders").consecutive_failures(0).failure_rate(0.5).minimum_calls(10);
    let bench = Bench::new(limits);
    bench.time.advance(7 * SECOND);
    assert!(bench.send(5, Verdict::Success) && bench.send(4, FAILURE));
    let status = bench.circuit.status();
    assert_eq!((status.circuit, status.lasted, status.consecutive_failures), ("orders", 7 * SECOND, 4));
    assert!((status.window.failure_rate() - 4.0 / 9.0).abs() < 1e-12);
    assert!(status.last_transition.is_none() && status.last_trip.is_none() && status.retry_after.is_none());
    assert!(bench.send(1, FAILURE));
    bench.time.advance(2 * SECOND);
    let status = bench.circuit.status();
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Open, 5));
    assert_eq!((status.lasted, status.retry_after), (2 * SECOND, Some(28 * SECOND)));
    let trip = status.last_trip.unwrap();
    assert_eq!(
        (trip.circuit, trip.reason, trip.fault),
        ("orders", Reason::FailureRate, FAILURE.fault().copied())
    );
    assert_eq!(trip.counts.map(|counts| (counts.calls, counts.failures)), Some((10, 5)));
    bench.time.advance(28 * SECOND);
    assert!(bench.send(2, Verdict::Success));
    let status = bench.circuit.status();
    let last = status.last_transition.unwrap();
    assert_eq!((last.from, last.to), (CircuitState::HalfOpen, CircuitState::Closed));
    assert_eq!((last.epoch, status.last_trip.unwrap().epoch), (3, 1), "`last_trip` is kept");
    assert_eq!((status.lasted, status.retry_after), (Duration::ZERO, None));
}

/// A service that never becomes ready.
#[derive(Clone)]
struct NeverReady;

impl Service<()> for NeverReady {
    type Response = http::Response<()>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<http::Response<()>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        unreachable!("the service is never ready")
    }
}

#[test]
fn manual_control_wakes_tasks_that_wait_for_readiness() {
    let operations: [fn(&Circuit); 4] = [
        |circuit| circuit.trip().unwrap(),
        |circuit| circuit.reset().unwrap(),
        |circuit| circuit.force_open().unwrap(),
        |circuit| circuit.force_closed().unwrap(),
    ];
    for (number, operation) in operations.into_iter().enumerate() {
        let layer: BreakerLayer = BreakerLayer::new(config().build().unwrap());
        let circuit = layer.circuit();
        let mut waiting: Vec<_> = (0..10).map(|_| (task::spawn(()), layer.layer(NeverReady))).collect();
        for (task, service) in &mut waiting {
            assert!(task.enter(|cx, _| service.poll_ready(cx)).is_pending());
        }
        operation(&circuit);
        let rejects = circuit.try_acquire().is_err();
        for (task, service) in &mut waiting {
            assert!(task.is_woken(), "operation {number}");
            let readiness = task.enter(|cx, _| service.poll_ready(cx));
            assert_eq!(readiness.is_ready(), rejects, "operation {number}");
            if rejects {
                let Poll::Ready(result) = task::spawn(service.call(())).poll() else {
                    panic!("a rejection is immediate")
                };
                assert!(matches!(result, Err(BreakerError::Rejected(_))));
            }
        }
    }
}

#[test]
fn force_open_rejects_service_already_ready() {
    let layer: BreakerLayer = BreakerLayer::new(config().build().unwrap());
    let inner = service_fn(|()| ready(Ok::<_, io::Error>(http::Response::new(()))));
    let mut service = layer.layer(inner);
    assert!(task::spawn(()).enter(|cx, _| service.poll_ready(cx)).is_ready());
    layer.circuit().force_open().unwrap();
    let Poll::Ready(result) = task::spawn(service.call(())).poll() else {
        panic!("a rejection is immediate")
    };
    assert!(matches!(result, Err(BreakerError::Rejected(_))));
}

#[test]
fn config_is_the_current_one_and_keeps_clock() {
    let (clock, _time) = Clock::manual();
    let timed = config().name("search").clock(clock).build().unwrap();
    let circuit = Circuit::new(timed.clone());
    assert_eq!(circuit.config(), timed);

    let new = config().name("search").probes(7).mode(Mode::ObserveOnly).build().unwrap();
    assert_eq!(new.clock(), None);
    circuit.reconfigure(new.clone()).unwrap();
    let current = circuit.config();
    assert_eq!((current.probes(), current.mode(), current.clock()), (7, Mode::ObserveOnly, Some(clock)));
    assert_eq!(circuit.reconfigure(current.clone()), Ok(()));
    assert_eq!(circuit.config(), current);

    let (other, _time) = Clock::manual();
    circuit.reconfigure(config().name("search").clock(other).build().unwrap()).unwrap_err();
    assert_eq!(circuit.config(), current, "a refused configuration changes nothing");

    let untimed = Circuit::new(new.clone());
    assert_eq!(untimed.config(), new);
}

#[test]
fn keyed_circuit_and_next_circuit_have_their_own_config() {
    let each = config().name("tenants").probes(9).build().unwrap();
    let keyed = KeyedConfig::builder(each.clone()).build().unwrap();
    let circuits = KeyedBreakerLayer::<_, _>::new(keyed, |key: &u64| *key).circuits();
    assert_eq!(circuits.get_or_insert(1).unwrap().config(), each);

    for probes in 1..20 {
        let config = config().probes(probes).build().unwrap();
        assert_eq!(Circuit::new(config.clone()).config(), config);
    }
}
