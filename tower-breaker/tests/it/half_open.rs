//! Half-open circuits: the number of probes, and when the circuit closes.

use std::future::{Future, pending};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, service_fn};
use tower_breaker::handle::CircuitRef;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{
    BreakerError, CancelledPolicy, Circuit, CircuitState, HalfOpen, ManualClock, Mode, Reason, Verdict,
};

use crate::support::{
    FAILURE, NEUTRAL, OPEN_FOR, SECOND, call_once, circuit, config, layer, send, state, timed,
};

#[test]
fn half_open_has_exact_slots_and_successes() {
    for number in [1, 2, 10] {
        let (circuit, time) = circuit(config().probes(number).successes_to_close(number));
        circuit.trip().unwrap();
        time.advance(Duration::from_secs(30) - Duration::from_millis(1));
        assert!(circuit.try_acquire().is_err(), "a millisecond before the end of the open time");
        time.advance(Duration::from_millis(1));
        let permits: Vec<_> = (0..100).filter_map(|_| circuit.try_acquire().ok()).collect();
        assert_eq!(permits.len(), number as usize);
        for permit in permits {
            assert_eq!(state(&circuit), CircuitState::HalfOpen);
            permit.record(Verdict::Success);
        }
        assert_eq!(state(&circuit), CircuitState::Closed);
    }
}

#[test]
fn half_open_with_eight_threads_admits_one_probe_per_slot() {
    for slots in [1, 3, 10] {
        let (layer, time) = layer(config().probes(slots));
        layer.circuit().trip().unwrap();
        time.advance(Duration::from_secs(30));
        let sent = AtomicUsize::new(0);
        let service = layer.layer(service_fn(|()| {
            sent.fetch_add(1, Ordering::Relaxed);
            pending::<Result<(), io::Error>>()
        }));
        let barrier = Barrier::new(8);
        let rejected: usize = thread::scope(|scope| {
            let send_125_calls = || {
                let mut services = vec![service.clone(); 125];
                barrier.wait();
                let mut cx = Context::from_waker(Waker::noop());
                let ready = services.iter_mut().map(|service| service.poll_ready(&mut cx));
                let ready = ready.filter(Poll::is_ready).count();
                let mut calls: Vec<_> =
                    services.iter_mut().map(|service| Box::pin(service.call(()))).collect();
                let rejected = calls.iter_mut().filter_map(|call| match call.as_mut().poll(&mut cx) {
                    Poll::Ready(result) => Some(matches!(result, Err(BreakerError::Rejected(_)))),
                    Poll::Pending => None,
                });
                let rejected = rejected.filter(|rejected| *rejected).count();
                // Keep the probes until all threads are done: a cancelled probe would free its
                // slot.
                barrier.wait();
                assert_eq!(ready, 125, "the inner service is always ready");
                rejected
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(send_125_calls)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((sent.load(Ordering::Relaxed), rejected), (slots as usize, 1_000 - slots as usize));
    }
}

#[test]
fn half_open_closes_regardless_of_window_and_lease() {
    let millis = Duration::from_millis;
    for (window, lease, apart) in [(50, 50, 60), (1, 1, 1_000), (50, 1_000, 60), (1, 365 * 86_400_000, 7)] {
        for (probes, successes) in [(1, 1), (1, 5), (3, 2), (3, 40)] {
            let limits = config().time_window(millis(window)).open_for(millis(50)).probe_lease(millis(lease));
            let (circuit, time) = circuit(limits.probes(probes).successes_to_close(successes));
            (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
            time.advance(millis(50));
            for success in 0..successes {
                assert_ne!(state(&circuit), CircuitState::Closed, "after {success} successes");
                assert!(send(&circuit, Verdict::Success), "{success} of {successes} with {probes} slots");
                time.advance(millis(apart));
            }
            assert_eq!(state(&circuit), CircuitState::Closed, "{probes} slots, {successes} successes");
        }
    }
}

#[test]
fn half_open_closes_after_probes_that_hang() {
    let millis = Duration::from_millis;
    let (circuit, time) = circuit(config().open_for(millis(50)).time_window(millis(1)));
    circuit.trip().unwrap();
    let mut hung = Vec::new();
    for round in 0..1_000 {
        time.advance(millis(50));
        hung.extend((0..3).map(|_| circuit.try_acquire().expect("the leases have ended")));
        assert!(circuit.try_acquire().is_err(), "round {round}");
    }
    time.advance(millis(50));
    (0..2).for_each(|_| assert!(send(&circuit, Verdict::Success)));
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn cancelled_calls_never_close() {
    let policies = [
        CancelledPolicy::IfNoneCompletes,
        CancelledPolicy::Ignore,
        CancelledPolicy::Failure,
        CancelledPolicy::FailureAfter(Duration::from_secs(1)),
    ];
    for policy in policies {
        let (layer, time) = layer(config().cancelled(policy));
        let circuit = layer.circuit();
        circuit.trip().unwrap();
        let mut service = layer.layer(service_fn(|()| pending::<Result<(), io::Error>>()));
        for _ in 0..1_000 {
            time.advance(Duration::from_secs(30));
            let ready = task::spawn(()).enter(|cx, _| service.poll_ready(cx));
            assert!(assert_ready!(ready).is_ok());
            assert_pending!(task::spawn(service.call(())).poll());
            if let Ok(permit) = circuit.try_acquire() {
                permit.cancel();
            }
            assert_ne!(state(&circuit), CircuitState::Closed, "{policy:?}");
        }
    }
}

/// Returns the running probes, the slots, the successes, the successes to close, and the cancelled
/// probes.
fn numbers(progress: Option<HalfOpen>) -> [u32; 5] {
    let progress = progress.expect("the circuit is half-open");
    [
        progress.running_probes,
        progress.probes,
        progress.successes,
        progress.successes_to_close,
        progress.cancelled_probes,
    ]
}

#[test]
fn status_shows_progress_of_probes() {
    let (circuit, time) = circuit(config().successes_to_close(2).probe_lease(SECOND));
    let progress = || circuit.status().half_open;
    assert_eq!(progress(), None);
    circuit.trip().unwrap();
    assert_eq!(progress(), None);
    time.advance(OPEN_FOR);
    let [first, second] = [(); 2].map(|()| circuit.try_acquire().unwrap());
    assert_eq!(numbers(progress()), [2, 3, 0, 2, 0]);
    first.record(Verdict::Success);
    assert_eq!(numbers(progress()), [1, 3, 1, 2, 0]);
    time.advance(SECOND);
    assert_eq!(numbers(progress()), [0, 3, 1, 2, 0], "the lease of the second probe has ended");
    drop(circuit.try_acquire().unwrap());
    assert_eq!(numbers(progress()), [0, 3, 1, 2, 1]);
    second.record(NEUTRAL);
    assert_eq!(numbers(progress()), [0, 3, 1, 2, 0], "a completed probe");
    circuit.reset().unwrap();
    assert_eq!(progress(), None);
}

#[test]
fn transition_from_half_open_has_progress_with_its_own_probe() {
    let (circuit, time) = circuit(config().successes_to_close(2));
    let transitions = Arc::new(Mutex::new(Vec::new()));
    circuit.on_transition({
        let transitions = Arc::clone(&transitions);
        move |transition| transitions.lock().unwrap().push(transition.clone())
    });
    let last = || transitions.lock().unwrap().pop().unwrap();
    for _ in 0..5 {
        circuit.try_acquire().unwrap().record(FAILURE);
    }
    let trip = last();
    assert_eq!((trip.half_open, trip.consecutive_failures), (None, 5));
    time.advance(OPEN_FOR);
    let running = circuit.try_acquire().unwrap();
    assert_eq!(last().half_open, None, "the circuit was open");
    send(&circuit, Verdict::Success);
    send(&circuit, FAILURE);
    let failed = last();
    assert_eq!((failed.reason, failed.counts), (Reason::ProbeFailed, None));
    assert_eq!(numbers(failed.half_open), [1, 3, 1, 2, 0]);
    assert_eq!(circuit.status().last_trip.unwrap().half_open, failed.half_open);
    drop(running);

    time.advance(OPEN_FOR);
    send(&circuit, Verdict::Success);
    send(&circuit, Verdict::Success);
    assert_eq!(numbers(last().half_open), [0, 3, 2, 2, 0]);
    circuit.trip().unwrap();
    assert_eq!(last().half_open, None, "the circuit was closed");
}

#[test]
fn consecutive_failures_count_probes_until_circuit_closes() {
    let (config, time) = timed(config().cancelled(CancelledPolicy::Failure));
    let circuits = KeyedCircuits::new(KeyedConfig::builder(config.clone()).build().unwrap());
    assert_counts_probes(&Circuit::new(config), &time);
    assert_counts_probes(&circuits.get_or_insert(1).unwrap(), &time);
}

fn assert_counts_probes<R: CircuitRef>(circuit: &Circuit<R>, time: &ManualClock) {
    let shown = || (circuit.status().state, circuit.status().consecutive_failures);
    let record = |verdict| circuit.try_acquire().unwrap().record(verdict);
    (0..5).for_each(|_| record(FAILURE));
    assert_eq!(shown(), (CircuitState::Open, 5));
    time.advance(OPEN_FOR);
    record(NEUTRAL);
    assert_eq!(shown(), (CircuitState::HalfOpen, 5));
    record(FAILURE);
    assert_eq!(shown(), (CircuitState::Open, 6));
    time.advance(OPEN_FOR);
    drop(circuit.try_acquire().unwrap());
    assert_eq!(shown(), (CircuitState::Open, 7), "the policy counts a cancelled probe as a failure");
    time.advance(OPEN_FOR);
    record(Verdict::Success);
    assert_eq!(shown(), (CircuitState::HalfOpen, 0));
    record(FAILURE);
    assert_eq!(shown(), (CircuitState::Open, 1));
    time.advance(OPEN_FOR);
    (0..2).for_each(|_| record(Verdict::Success));
    assert_eq!(shown(), (CircuitState::Closed, 0));
}

#[test]
fn slow_probe_resets_consecutive_failures() {
    let (circuit, time) = circuit(config().slow_call_rate(SECOND, 1.0));
    (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
    time.advance(OPEN_FOR);
    circuit.try_acquire().unwrap().record_with_duration(Verdict::Success, SECOND);
    let status = circuit.status();
    assert_eq!(status.last_trip.unwrap().reason, Reason::ProbeSlow);
    assert_eq!((status.state, status.consecutive_failures), (CircuitState::Open, 0));
}

#[test]
fn forced_half_open_circuit_reports_its_progress_once() {
    let (circuit, time) = circuit(config());
    circuit.trip().unwrap();
    time.advance(OPEN_FOR);
    send(&circuit, Verdict::Success);
    circuit.force_open().unwrap();
    assert_eq!(numbers(circuit.status().last_transition.unwrap().half_open), [0, 3, 1, 2, 0]);
    circuit.force_closed().unwrap();
    assert_eq!(circuit.status().last_transition.unwrap().half_open, None);
}

#[test]
fn status_counts_rejected_calls() {
    let (circuit, time) = circuit(config());
    let rejected = || {
        let status = circuit.status();
        (status.rejected_calls, status.rejected_since_transition)
    };
    send(&circuit, Verdict::Success);
    circuit.trip().unwrap();
    assert_eq!(rejected(), (0, 0));
    (0..4).for_each(|_| assert!(!send(&circuit, FAILURE)));
    assert_eq!(rejected(), (4, 4));
    time.advance(OPEN_FOR);
    let probes: Vec<_> = (0..5).filter_map(|_| circuit.try_acquire().ok()).collect();
    assert_eq!((probes.len(), rejected()), (3, (6, 2)));
    circuit.reset().unwrap();
    assert_eq!(rejected(), (6, 0));
}

#[test]
fn service_and_threads_count_every_rejected_call() {
    let (layer, _time) = layer(config());
    let circuit = layer.circuit();
    circuit.trip().unwrap();
    let service = layer.layer(service_fn(async |()| Ok::<_, io::Error>(())));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut service = service.clone();
                (0..100).for_each(|_| drop(call_once(&mut service, ()).unwrap_err()));
            });
        }
    });
    assert_eq!(circuit.status().rejected_calls, 2_000);
}

#[test]
fn observing_circuit_rejects_no_call() {
    let (circuit, _time) = circuit(config().mode(Mode::ObserveOnly));
    circuit.trip().unwrap();
    assert!(send(&circuit, FAILURE));
    assert_eq!(circuit.status().rejected_calls, 0);
}

#[test]
fn keyed_status_has_progress_and_rejected_calls() {
    let (each, time) = timed(config());
    let circuits = KeyedCircuits::new(KeyedConfig::builder(each).build().unwrap());
    let [one, other] = [1, 2].map(|key: u64| circuits.get_or_insert(key).unwrap());
    assert_eq!(one.status().rejected_calls, 0);
    one.trip().unwrap();
    one.try_acquire().unwrap_err();
    time.advance(OPEN_FOR);
    let _probe = one.try_acquire().unwrap();
    let status = one.status();
    assert_eq!((status.rejected_calls, status.rejected_since_transition), (1, 0));
    assert_eq!(numbers(status.half_open), [1, 3, 0, 2, 0]);
    assert_eq!(other.status().rejected_calls, 0);
}
