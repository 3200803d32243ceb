//! What other circuit breakers got wrong. Those traps that are about readiness, about where the state lives or about allocations
//! have their tests in the files of these names.

use std::future::{Future, pending, ready};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, service_fn};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, BreakerError, BreakerLayer, CancelledPolicy, Circuit, CircuitState,
    Clock, Counts, Fault, Health, HealthReport, KeyedBreakerLayer, KeyedConfig, Kind, ManualClock, Origin,
    Reason, Retryable, Verdict,
};

const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

fn config() -> BreakerConfigBuilder {
    BreakerConfig::builder()
}

fn layer(config: BreakerConfigBuilder) -> (BreakerLayer, ManualClock) {
    let (clock, hand) = Clock::manual();
    hand.set(Duration::from_secs(1_000));
    (BreakerLayer::new(config.clock(clock).build().unwrap()), hand)
}

fn circuit(config: BreakerConfigBuilder) -> (Circuit, ManualClock) {
    let (layer, hand) = layer(config);
    (layer.circuit(), hand)
}

/// Whether the circuit let the call through.
fn send(circuit: &Circuit, verdict: Verdict) -> bool {
    circuit.try_acquire().map(|permit| permit.settle(verdict)).is_ok()
}

fn state(circuit: &Circuit) -> CircuitState {
    circuit.status().state
}

/// Sends a request and waits for the answer, which is there at once.
fn answer<S: Service<R>, R>(service: &mut S, request: R) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("it is ready") };
    let Poll::Ready(result) = pin!(service.call(request)).poll(&mut cx) else { panic!("it answers at once") };
    result
}

/// Trap 2.
#[test]
fn count_window_opens_at_half_failures_after_many_successes() {
    for calls in [10, 64, 1_000] {
        let (circuit, _hand) = circuit(config().consecutive_failures(0).count_window(calls));
        (0..100_000).for_each(|_| assert!(send(&circuit, Verdict::Success)));
        for failures in 0..calls / 2 {
            assert_eq!(state(&circuit), CircuitState::Closed, "{failures} failures in {calls}");
            send(&circuit, FAILURE);
        }
        assert_eq!(state(&circuit), CircuitState::Open, "{calls}");
    }
}

/// Trap 3.
#[test]
fn half_open_closes_with_probes_apart_from_window_and_lease() {
    let millis = Duration::from_millis;
    for (window, lease, apart) in [(50, 50, 60), (1, 1, 1_000), (50, 1_000, 60), (1, 365 * 86_400_000, 7)] {
        for (probes, successes) in [(1, 1), (1, 5), (3, 2), (3, 40)] {
            let limits = config().time_window(millis(window)).open_for(millis(50)).probe_lease(millis(lease));
            let (circuit, hand) = circuit(limits.probes(probes).successes_to_close(successes));
            (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
            hand.advance(millis(50));
            for success in 0..successes {
                assert_ne!(state(&circuit), CircuitState::Closed, "after {success} successes");
                assert!(send(&circuit, Verdict::Success), "{success} of {successes} with {probes} places");
                hand.advance(millis(apart));
            }
            assert_eq!(state(&circuit), CircuitState::Closed, "{probes} places, {successes} successes");
        }
    }
}

/// Trap 3, with probes that never answer.
#[test]
fn half_open_closes_after_probes_that_hang() {
    let millis = Duration::from_millis;
    let (circuit, hand) = circuit(config().open_for(millis(50)).time_window(millis(1)));
    circuit.trip().unwrap();
    let mut hung = Vec::new();
    for round in 0..1_000 {
        hand.advance(millis(50));
        hung.extend((0..3).map(|_| circuit.try_acquire().expect("the leases are over")));
        assert!(circuit.try_acquire().is_err(), "round {round}");
    }
    hand.advance(millis(50));
    (0..2).for_each(|_| assert!(send(&circuit, Verdict::Success)));
    assert_eq!(state(&circuit), CircuitState::Closed);
}

/// Trap 6.
#[test]
fn half_open_with_eight_threads_sends_as_many_probes_as_slots() {
    for places in [1, 3, 10] {
        let (layer, hand) = layer(config().probes(places));
        layer.circuit().trip().unwrap();
        hand.advance(Duration::from_secs(30));
        let sent = AtomicUsize::new(0);
        let service = layer.layer(service_fn(|()| {
            sent.fetch_add(1, Ordering::Relaxed);
            pending::<Result<(), io::Error>>()
        }));
        let arrived = Barrier::new(8);
        let rejected: usize = thread::scope(|scope| {
            let hundred_and_more = || {
                let mut services = vec![service.clone(); 125];
                arrived.wait();
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
                // A probe that is given up would give its place to a task that comes later.
                arrived.wait();
                assert_eq!(ready, 125, "the inner service always is");
                rejected
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(hundred_and_more)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((sent.load(Ordering::Relaxed), rejected), (places as usize, 1_000 - places as usize));
    }
}

/// Trap 7.
#[test]
fn cancelled_calls_never_close() {
    let policies = [
        CancelledPolicy::IfNoneCompletes,
        CancelledPolicy::Ignore,
        CancelledPolicy::Failure,
        CancelledPolicy::FailureAfter(Duration::from_secs(1)),
    ];
    for policy in policies {
        let (layer, hand) = layer(config().cancelled(policy));
        let circuit = layer.circuit();
        circuit.trip().unwrap();
        let mut service = layer.layer(service_fn(|()| pending::<Result<(), io::Error>>()));
        for _ in 0..1_000 {
            hand.advance(Duration::from_secs(30));
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

/// Trap 8.
#[test]
fn limit_of_ten_opens_at_tenth_failure() {
    let limits = [
        config().consecutive_failures(10).failure_rate(None),
        config().consecutive_failures(0).failure_rate(1.0).minimum_calls(10),
        config().consecutive_failures(0).failure_rate(0.0).minimum_calls(10),
        config().consecutive_failures(0).failure_rate(1.0).count_window(10),
        config().consecutive_failures(0).failure_rate(0.5).count_window(20).minimum_calls(10),
    ];
    for limits in limits {
        let (layer, _hand) = layer(limits);
        let sent = AtomicUsize::new(0);
        let mut service = layer.layer(service_fn(|()| {
            sent.fetch_add(1, Ordering::Relaxed);
            ready(Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)))
        }));
        for call in 1..=100 {
            let rejected = matches!(answer(&mut service, ()), Err(BreakerError::Rejected(_)));
            assert_eq!(rejected, call > 10, "call {call}");
        }
        assert_eq!(sent.load(Ordering::Relaxed), 10);
    }
}

/// Trap 8, of the other numbers.
#[test]
fn half_open_has_exact_slots_and_successes() {
    for number in [1, 2, 10] {
        let (circuit, hand) = circuit(config().probes(number).successes_to_close(number));
        circuit.trip().unwrap();
        hand.advance(Duration::from_secs(30) - Duration::from_millis(1));
        assert!(circuit.try_acquire().is_err(), "a millisecond early");
        hand.advance(Duration::from_millis(1));
        let permits: Vec<_> = (0..100).filter_map(|_| circuit.try_acquire().ok()).collect();
        assert_eq!(permits.len(), number as usize);
        for permit in permits {
            assert_eq!(state(&circuit), CircuitState::HalfOpen);
            permit.settle(Verdict::Success);
        }
        assert_eq!(state(&circuit), CircuitState::Closed);
    }
}

/// Trap 12. Under a lock of the circuit each of these calls would never return.
#[test]
fn observer_may_control_circuit_at_every_transition() {
    let (layer, hand) = layer(config());
    let circuit = layer.circuit();
    let told = Arc::new(Mutex::new(Vec::new()));
    let _layer = layer.on_transition({
        let (circuit, told) = (circuit.clone(), Arc::clone(&told));
        move |transition| {
            assert_eq!(circuit.status().state, transition.to);
            told.lock().unwrap().push((transition.to, transition.reason));
            match transition.reason {
                Reason::ConsecutiveFailures => {
                    circuit.force_closed().unwrap();
                    circuit.release();
                }
                // From forced closed: it is not ill, somebody thinks.
                Reason::Released => circuit.trip().unwrap(),
                Reason::Tripped => assert!(circuit.try_acquire().is_err()),
                Reason::OpenTimeOver => circuit.try_acquire().unwrap().settle(FAILURE),
                Reason::ProbeFailed => circuit.reset().unwrap(),
                _ => {}
            }
        }
    });
    (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
    hand.advance(Duration::from_secs(30));
    assert!(send(&circuit, Verdict::Success), "its outcome is of an epoch that is over by then");
    let expected = [
        (CircuitState::Open, Reason::ConsecutiveFailures),
        (CircuitState::ForcedClosed, Reason::Forced),
        (CircuitState::Closed, Reason::Released),
        (CircuitState::Open, Reason::Tripped),
        (CircuitState::HalfOpen, Reason::OpenTimeOver),
        (CircuitState::Open, Reason::ProbeFailed),
        (CircuitState::Closed, Reason::Reset),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

/// Trap 12. If the observer held a lock, this would never end.
#[test]
fn observer_that_blocks_delays_only_its_call() {
    let (layer, hand) = layer(config());
    let (entered, has_entered) = mpsc::channel();
    let (let_go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let layer = layer.on_transition(move |transition| {
        if transition.reason == Reason::ConsecutiveFailures {
            entered.send(()).unwrap();
            may_go.lock().unwrap().recv().unwrap();
        }
    });
    let circuit = layer.circuit();
    thread::scope(|scope| {
        let tells = scope.spawn(|| (0..5).filter(|_| send(&circuit, FAILURE)).count());
        has_entered.recv().unwrap();
        // The observer has not returned, and the circuit goes on.
        assert_eq!(state(&circuit), CircuitState::Open);
        assert!(circuit.try_acquire().is_err());
        hand.advance(Duration::from_secs(30));
        (0..2).for_each(|_| assert!(send(&circuit, Verdict::Success)));
        assert_eq!(state(&circuit), CircuitState::Closed);
        circuit.trip().unwrap();
        circuit.reset().unwrap();
        let_go.send(()).unwrap();
        assert_eq!(tells.join().unwrap(), 5);
    });
}

/// Trap 13: nothing is kept for a call, so that nothing is read again for the next one.
#[test]
fn time_window_keeps_memory_constant_for_many_calls() {
    let (circuit, hand) = circuit(config().consecutive_failures(0).failure_rate(1.0));
    let calls = |number: u64| {
        for _ in 0..number {
            hand.advance(Duration::from_micros(1));
            assert!(send(&circuit, Verdict::Success) && send(&circuit, FAILURE));
        }
    };
    calls(1);
    let info = allocation_counter::measure(|| calls(49_999));
    assert_eq!((info.count_total, info.bytes_max), (0, 0));
    let Counts { calls, failures, .. } = circuit.status().window;
    assert_eq!((calls, failures), (100_000, 50_000), "and it counts every one of them");
}

/// Trap 14.
#[test]
fn time_window_of_1ms_to_1y_counts_its_span() {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let millis = [1, 2, 3, 4, 5, 7, 14, 15, 16, 99, 999, 1_001, 59_999].map(Duration::from_millis);
    let odd = [Duration::from_nanos(1_000_001), Duration::from_nanos(999_999_999)];
    for span in millis.into_iter().chain(odd).chain([year / 7, year]) {
        for start in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(1_700_000_000)] {
            let limits = config().consecutive_failures(0).failure_rate(0.6).time_window(span);
            let (circuit, hand) = circuit(limits);
            hand.set(start);
            (0..9).for_each(|_| assert!(send(&circuit, FAILURE)));
            // The span is as long as asked, and up to a fifteenth longer.
            hand.advance(span + span / 15 + Duration::from_nanos(15));
            assert_eq!(circuit.status().window, Counts::default(), "{span:?} from {start:?}");
            (0..5).for_each(|_| assert!(send(&circuit, FAILURE)));
            (0..4).for_each(|_| assert!(send(&circuit, Verdict::Success)));
            hand.advance(span);
            assert_eq!(circuit.status().window.calls, 9, "{span:?} from {start:?}");
            assert_eq!(state(&circuit), CircuitState::Closed);
            assert!(send(&circuit, FAILURE));
            assert_eq!(state(&circuit), CircuitState::Open, "six of ten in {span:?} from {start:?}");
        }
    }
}

/// Trap 17.
#[test]
fn slow_start_admits_share_of_sparse_calls() {
    let (circuit, hand) = circuit(config().slow_start(Duration::from_secs(10)).successes_to_close(1));
    circuit.trip().unwrap();
    hand.advance(Duration::from_secs(30));
    assert!(send(&circuit, Verdict::Success));
    assert_eq!(circuit.status().slow_start, Some(0.0));
    let mut admitted = Vec::new();
    for second in 0..20 {
        admitted.push(send(&circuit, Verdict::Success));
        assert_eq!(circuit.status().slow_start.is_some(), second < 10, "second {second}");
        hand.advance(Duration::from_secs(1));
    }
    assert!(admitted[0], "the first call always goes through");
    let half = admitted[..10].iter().filter(|admitted| **admitted).count();
    assert!((4..=6).contains(&half), "{half} of 10 while the share grows evenly from none to all");
    assert!(admitted[10..].iter().all(|admitted| *admitted), "all when the time is over");
}

/// Trap 18.
#[test]
fn neutral_faults_neither_open_nor_keep_from_closing() {
    let limits = config().consecutive_failures(1).failure_rate(0.0).minimum_calls(1);
    let (layer, hand) = layer(limits);
    let circuit = layer.circuit();
    let mut service = layer.layer(service_fn(|status: u16| {
        let retry_after = http::Response::builder().status(status).header("retry-after", "60");
        ready(Ok::<_, io::Error>(retry_after.body(()).unwrap()))
    }));
    for status in (400..500).chain([429; 1_000]) {
        assert_eq!(answer(&mut service, status).unwrap().status(), status);
        assert_eq!(state(&circuit), CircuitState::Closed, "{status}");
    }
    assert_eq!(circuit.status().window.failures, 0);
    circuit.trip().unwrap();
    hand.advance(Duration::from_secs(30));
    for status in [429; 100] {
        assert!(answer(&mut service, status).is_ok(), "a neutral outcome gives its place back");
    }
    assert_eq!(state(&circuit), CircuitState::HalfOpen, "which says nothing of the server");
    // It answered, so it is there.
    assert!(answer(&mut service, 404).is_ok() && answer(&mut service, 404).is_ok());
    assert_eq!(state(&circuit), CircuitState::Closed);
}

/// Trap 15.
#[test]
fn circuit_that_opens_and_closes_keeps_memory_constant() {
    let (circuit, _hand) = circuit(config().successes_to_close(1));
    let each = KeyedConfig::builder(config().successes_to_close(1).build().unwrap()).build().unwrap();
    let layer = KeyedBreakerLayer::<_, _>::new(each, |key: &u64| *key);
    let keyed = layer.circuits().get_or_insert(7).unwrap();
    let mut unread = circuit.transitions();
    let cycle = || {
        circuit.trip().unwrap();
        circuit.report(HealthReport::Recovered);
        circuit.try_acquire().unwrap().settle(Verdict::Success);
        keyed.trip().unwrap();
        keyed.report(HealthReport::Recovered);
        keyed.try_acquire().unwrap().settle(Verdict::Success);
    };
    (0..1_000).for_each(|_| cycle());
    let info = allocation_counter::measure(|| (0..10_000).for_each(|_| cycle()));
    assert_eq!(info.bytes_current, 0, "{info:?}");
    let missed = futures::executor::block_on(futures::StreamExt::next(&mut unread)).unwrap().unwrap_err();
    assert_eq!(missed.transitions(), 33_000 - 256);
}
