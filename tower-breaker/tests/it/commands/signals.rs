//! Signals that are sent once: failures, and the demand for calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use tokio_test::task;
use tower::{Layer, Service};
use tower_breaker::control::{Command, Effect, Signal};
use tower_breaker::{BreakerConfig, BreakerLayer, Circuit, Clock, Mode, Verdict};

use super::{PROBE, open, opened};
use crate::support::{FAILURE, NEUTRAL, OPEN_FOR, SECOND, circuit, config, send};

/// The numbers of failure and demand signals.
#[derive(Clone, Default)]
struct Signals(Arc<[AtomicUsize; 2]>);

impl Signals {
    fn of(circuit: &Circuit) -> Self {
        let signals = Self::default();
        signals.listen(circuit);
        signals
    }

    fn listen(&self, circuit: &Circuit) -> tower_breaker::telemetry::ObserverId {
        let Self(counts) = self.clone();
        circuit.on_signal(move |signal| {
            match signal {
                Signal::Failure => counts[0].fetch_add(1, Ordering::Relaxed),
                Signal::Demand => counts[1].fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
        })
    }

    /// Returns the numbers of failure and demand signals since the last call.
    fn take(&self) -> [usize; 2] {
        [0, 1].map(|index| self.0[index].swap(0, Ordering::Relaxed))
    }
}

#[test]
fn failure_is_signalled_once_until_rearmed() {
    let (circuit, _time) = circuit(config().consecutive_failures(0).minimum_calls(1_000));
    let signals = Signals::of(&circuit);
    send(&circuit, Verdict::Success);
    send(&circuit, NEUTRAL);
    assert_eq!(signals.take(), [0, 0]);
    send(&circuit, FAILURE);
    send(&circuit, FAILURE);
    assert_eq!(signals.take(), [1, 0]);
    circuit.rearm(Signal::Demand);
    circuit.rearm(Signal::ProbeStarted);
    send(&circuit, FAILURE);
    assert_eq!(signals.take(), [0, 0]);
    circuit.rearm(Signal::Failure);
    circuit.record(FAILURE);
    circuit.record(FAILURE);
    assert_eq!(signals.take(), [1, 0]);
}

#[test]
fn failures_of_timed_calls_and_probes_are_signalled() {
    let (circuit, time) = circuit(config().slow_call_rate(SECOND, 1.0).minimum_calls(100));
    let signals = Signals::of(&circuit);
    send(&circuit, FAILURE);
    assert_eq!(signals.take(), [1, 0]);
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    circuit.rearm(Signal::Failure);
    send(&circuit, FAILURE);
    assert_eq!(signals.take(), [1, 0], "a probe failed");
}

#[test]
fn demand_is_signalled_once_until_rearmed() {
    let (circuit, _time) = opened(config());
    let signals = Signals::of(&circuit);
    for _ in 0..2 {
        assert!(!send(&circuit, Verdict::Success) && !send(&circuit, Verdict::Success));
        assert_eq!(signals.take(), [0, 1]);
        circuit.rearm(Signal::Demand);
    }
    circuit.apply(PROBE);
    let permit = circuit.try_acquire().unwrap();
    assert_eq!(signals.take(), [0, 0], "the call is admitted");
    assert!(circuit.try_acquire().is_err());
    assert_eq!(signals.take(), [0, 1]);
    drop(permit);
}

#[test]
fn call_that_would_be_rejected_signals_demand_of_observing_circuit() {
    let (circuit, _time) = opened(config().mode(Mode::ObserveOnly));
    let signals = Signals::of(&circuit);
    assert!(send(&circuit, Verdict::Success));
    assert_eq!(signals.take(), [0, 1]);
}

#[test]
fn service_signals_demand_of_rejected_call() {
    let (layer, _time) = crate::support::layer(config());
    let mut service = layer.layer(tower::service_fn(async |()| Ok::<_, std::io::Error>(())));
    let signals = Signals::of(&service.circuit());
    service.circuit().apply(open(10));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    drop(service.call(()));
    assert_eq!(signals.take(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn denied_readiness_poll_signals_demand() {
    let config = config().clock(Clock::tokio()).build().unwrap();
    let layer = BreakerLayer::new(config).not_ready_when_open();
    let service = layer.layer(tower::service_fn(async |()| Ok::<_, std::io::Error>(())));
    let signals = Signals::of(&service.circuit());
    service.circuit().apply(open(10));
    let mut service = task::spawn(service);
    assert!(service.enter(|cx, mut service| Service::<()>::poll_ready(&mut *service, cx)).is_pending());
    assert_eq!(signals.take(), [0, 1]);
}

/// Both futures signal when they begin to wait, after a change, and when a retry is due.
#[tokio::test(start_paused = true)]
async fn waiting_task_signals_demand_at_each_decision() {
    let config = || BreakerConfig::builder().clock(Clock::tokio()).build().unwrap();
    let acquires = [false, true];
    for acquires in acquires {
        let circuit = Circuit::new(config());
        circuit.apply(open(20));
        let signals = Signals::of(&circuit);
        let waits = circuit.clone();
        let task = tokio::spawn(async move {
            if acquires {
                waits.acquire().await.cancel();
            } else {
                waits.ready().await;
            }
        });
        tokio::task::yield_now().await;
        assert_eq!(signals.take(), [0, 1], "it begins to wait");
        circuit.rearm(Signal::Demand);
        assert_eq!(circuit.apply(open(10)), Effect::Retimed);
        tokio::task::yield_now().await;
        assert_eq!(signals.take(), [0, 1], "the deadline has changed");
        circuit.rearm(Signal::Demand);
        tokio::time::sleep(9 * SECOND).await;
        assert_eq!(signals.take(), [0, 0]);
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(signals.take(), [0, 1], "a retry is due, and the circuit is still open");
        assert!(!task.is_finished());
        circuit.apply(Command::Close);
        task.await.unwrap();
    }
}

#[test]
fn removed_listener_is_not_called() {
    let (circuit, _time) = opened(config());
    let [first, second] = [Signals::default(), Signals::default()];
    let id = first.listen(&circuit);
    second.listen(&circuit);
    assert!(circuit.remove_observer(id) && !circuit.remove_observer(id));
    send(&circuit, Verdict::Success);
    assert_eq!((first.take(), second.take()), ([0, 0], [0, 1]));
}

#[test]
fn new_listener_arms_signals() {
    let (circuit, _time) = opened(config());
    let first = Signals::of(&circuit);
    send(&circuit, Verdict::Success);
    let second = Signals::of(&circuit);
    send(&circuit, Verdict::Success);
    assert_eq!((first.take(), second.take()), ([0, 2], [0, 1]));
}

#[test]
fn panic_of_listener_does_not_reach_call() {
    let (circuit, _time) = opened(config());
    circuit.on_signal(|_| panic!("listener"));
    let signals = Signals::of(&circuit);
    assert!(!send(&circuit, Verdict::Success));
    assert_eq!(signals.take(), [0, 1]);
}

#[test]
fn listener_may_control_its_circuit() {
    let (circuit, _time) = opened(config());
    let weak = circuit.downgrade();
    circuit.on_signal(move |signal| {
        if let (Signal::Demand, Some(circuit)) = (signal, weak.upgrade()) {
            circuit.rearm(Signal::Demand);
            circuit.apply(PROBE);
        }
    });
    assert!(!send(&circuit, Verdict::Success));
    assert!(send(&circuit, Verdict::Success));
}

#[test]
fn next_circuit_in_storage_has_no_signals_of_former_one() {
    let signals = {
        let (circuit, _time) = opened(config());
        Signals::of(&circuit)
    };
    for _ in 0..100 {
        let (circuit, _time) = opened(config());
        send(&circuit, Verdict::Success);
    }
    assert_eq!(signals.take(), [0, 0]);
}
