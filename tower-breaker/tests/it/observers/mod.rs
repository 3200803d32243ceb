//! Observability of circuits: streams, observers, logs and metrics; and health reports.

mod callbacks;
mod concurrent_gauges;
mod failures;
mod health;
mod key_labels;
mod lifetime;
mod logs;
mod meters;

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Write};
use std::future::{Ready, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, SystemTime};

use futures::{FutureExt, StreamExt};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, service_fn};
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedConfig, Overflow};
use tower_breaker::telemetry::{Transition, Transitions};
use tower_breaker::{
    BreakerLayer, Circuit, CircuitRegistry, CircuitState, Clock, Fault, Health, HealthReport, Kind, Mode,
    Reason, Verdict,
};

use crate::support::{NEUTRAL, OPEN_FOR, SECOND, circuit, config, state, timed};

const FAULT: Fault = Fault::new(Kind::Overloaded, Retryable::Never, Health::Unhealthy, Origin::Remote);
const FAILURE: Verdict = Verdict::Fault(FAULT);

fn send(circuit: &Circuit, times: usize, verdict: Verdict) {
    for _ in 0..times {
        circuit.try_acquire().expect("the circuit must admit the call").record(verdict);
    }
}

/// Reads the items that are available without waiting. Returns them, and whether the stream has
/// ended.
fn read(transitions: &mut Transitions) -> (Vec<Result<Transition, u64>>, bool) {
    let mut read = Vec::new();
    loop {
        match transitions.next().now_or_never() {
            Some(Some(item)) => read.push(item.map_err(|missed| missed.transitions())),
            ended => return (read, ended.is_some()),
        }
    }
}

/// Reads the transitions that are available without waiting.
fn read_all(transitions: &mut Transitions) -> Vec<Transition> {
    let (read, ended) = read(transitions);
    assert!(!ended);
    read.into_iter().map(Result::unwrap).collect()
}

type Step = (CircuitState, CircuitState, Reason);

fn steps(transitions: &[Transition]) -> Vec<Step> {
    transitions.iter().map(|transition| (transition.from, transition.to, transition.reason)).collect()
}

const OPENS: Step = (CircuitState::Closed, CircuitState::Open, Reason::ConsecutiveFailures);
const HALF_OPENS: Step = (CircuitState::Open, CircuitState::HalfOpen, Reason::OpenTimeOver);
const CLOSES: Step = (CircuitState::HalfOpen, CircuitState::Closed, Reason::ProbesSucceeded);

#[test]
#[expect(clippy::disallowed_methods, reason = "a transition has the time of the wall clock")]
fn stream_has_transitions_in_order_with_all_fields() {
    use CircuitState::{Closed, ForcedOpen, HalfOpen, Open};
    let (circuit, time) = circuit(config().name("search"));
    send(&circuit, 4, FAILURE);
    let mut transitions = circuit.transitions();
    assert!(read_all(&mut transitions).is_empty());
    let before = SystemTime::now();
    send(&circuit, 1, FAILURE);
    time.advance(OPEN_FOR);
    send(&circuit, 1, FAILURE);
    time.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    circuit.force_open().unwrap();
    circuit.release();
    circuit.reset().unwrap();
    let received = read_all(&mut transitions);
    let expected = [
        OPENS,
        HALF_OPENS,
        (HalfOpen, Open, Reason::ProbeFailed),
        HALF_OPENS,
        CLOSES,
        (Closed, ForcedOpen, Reason::Forced),
        (ForcedOpen, HalfOpen, Reason::Released),
        (HalfOpen, Closed, Reason::Reset),
    ];
    assert_eq!(steps(&received), expected);
    for (index, transition) in received.iter().enumerate() {
        assert_eq!((transition.circuit, transition.key.as_deref()), ("search", None));
        assert_eq!(transition.epoch as usize, index + 1, "each transition has the next epoch");
        let has_fault = [Reason::ConsecutiveFailures, Reason::ProbeFailed].contains(&transition.reason);
        assert_eq!(transition.fault, has_fault.then_some(FAULT), "{}", transition.reason);
        assert!(before <= transition.at && transition.at <= SystemTime::now());
    }
}

#[test]
fn rate_transition_has_counts_of_window() {
    let (circuit, _time) = circuit(config().consecutive_failures(0).failure_rate(0.4).minimum_calls(10));
    let mut transitions = circuit.transitions();
    send(&circuit, 6, Verdict::Success);
    send(&circuit, 4, FAILURE);
    let [opened] = &read_all(&mut transitions)[..] else { panic!("expected one transition") };
    let counts = opened.counts.expect("a trip has the counts of the window");
    assert_eq!((opened.reason, opened.fault), (Reason::FailureRate, Some(FAULT)));
    assert_eq!((counts.calls, counts.failures, counts.slow), (10, 4, 0));
}

#[test]
fn slow_and_cancelled_transitions_have_their_reasons() {
    let (slow, time) = circuit(config().slow_call_rate(SECOND, 0.5).minimum_calls(10));
    let mut transitions = slow.transitions();
    for _ in 0..10 {
        let permit = slow.try_acquire().unwrap();
        time.advance(SECOND);
        permit.record(Verdict::Success);
    }
    let received = read_all(&mut transitions);
    assert_eq!(steps(&received), [(CircuitState::Closed, CircuitState::Open, Reason::SlowRate)]);
    let counts = received[0].counts.unwrap();
    assert_eq!((counts.calls, counts.failures, counts.slow, received[0].fault), (10, 0, 10, None));

    let (hangs, time) = circuit(config());
    let mut transitions = hangs.transitions();
    (0..9).for_each(|_| drop(hangs.try_acquire().unwrap()));
    time.advance(SECOND);
    drop(hangs.try_acquire().unwrap());
    let received = read_all(&mut transitions);
    assert_eq!(steps(&received), [(CircuitState::Closed, CircuitState::Open, Reason::NoneCompletes)]);
    assert_eq!(received[0].counts.unwrap().cancelled, 10);
}

#[test]
fn call_at_clock_origin_can_be_slow() {
    for start in [1_000, 0] {
        let (circuit, time) = circuit(config().slow_call_rate(SECOND, 1.0));
        time.set(start * SECOND);
        let permit = circuit.try_acquire().unwrap();
        time.advance(SECOND);
        permit.record(Verdict::Success);
        assert_eq!(circuit.status().window.slow, 1, "the call starts at {start} s");
    }
}

#[test]
fn slow_stream_reader_gets_number_of_missed_transitions() {
    let (circuit, _time) = circuit(config());
    for changes in [256, 257, 300, 5_000] {
        let mut transitions = circuit.transitions();
        for _ in 0..changes / 2 {
            circuit.trip().unwrap();
            circuit.reset().unwrap();
        }
        if changes % 2 == 1 {
            circuit.trip().unwrap();
        }
        let last = circuit.status().last_transition.unwrap().epoch;
        let (mut received, _) = read(&mut transitions);
        if changes > 256 {
            assert_eq!(received.remove(0).unwrap_err(), changes - 256, "the first item");
        }
        let epochs: Vec<_> = received.into_iter().map(|item| item.unwrap().epoch).collect();
        assert_eq!(epochs, (last - 255..=last).collect::<Vec<_>>(), "{changes} changes");
        circuit.force_open().unwrap();
        circuit.release();
        assert_eq!(read_all(&mut transitions).len(), 2, "the stream continues");
        circuit.reset().unwrap();
    }
}

#[test]
fn stream_has_every_transition_since_its_creation() {
    let (circuit, _time) = circuit(config());
    let mut first = circuit.transitions();
    circuit.trip().unwrap();
    let mut second = circuit.transitions();
    circuit.reset().unwrap();
    drop(circuit.transitions());
    circuit.trip().unwrap();
    assert_eq!((read_all(&mut first).len(), read_all(&mut second).len()), (3, 2));
}

#[test]
fn waiting_stream_reader_is_woken_by_transition_and_end() {
    let (circuit, _time) = circuit(config());
    let mut transitions = task::spawn(circuit.transitions());
    assert_pending!(transitions.poll_next());
    assert!(!transitions.is_woken());
    send(&circuit, 5, FAILURE);
    assert!(transitions.is_woken());
    assert_eq!(assert_ready!(transitions.poll_next()).unwrap().unwrap().to, CircuitState::Open);
    assert_pending!(transitions.poll_next());
    drop(circuit);
    assert!(transitions.is_woken());
    assert!(assert_ready!(transitions.poll_next()).is_none());
}

#[test]
fn stream_ends_with_its_circuit_after_last_transition() {
    let (circuit, _time) = circuit(config());
    let mut transitions = circuit.transitions();
    let layer: BreakerLayer = BreakerLayer::with_circuit(circuit.clone());
    let service = layer.layer(service_fn(async |(): ()| Ok::<_, io::Error>(())));
    drop((circuit, layer));
    service.circuit().trip().unwrap();
    let permit = {
        service.circuit().reset().unwrap();
        service.circuit().try_acquire().unwrap()
    };
    assert_eq!(read_all(&mut transitions).len(), 2, "the service keeps the circuit alive");
    service.circuit().trip().unwrap();
    drop(service);
    let (received, ended) = read(&mut transitions);
    assert_eq!((received.len(), ended), (1, true));
    permit.record(FAILURE);
    assert!(read(&mut transitions).1);
}

#[test]
fn next_circuit_notifies_only_its_own_observers() {
    for _ in 0..10 {
        let observed = Arc::new(Mutex::new(Vec::new()));
        let (old, _time) = circuit(config().name("old").consecutive_failures(1));
        let sink = Arc::clone(&observed);
        old.on_transition(move |transition| sink.lock().unwrap().push(transition.circuit));
        let mut transitions = old.transitions();
        let permit = old.try_acquire().unwrap();
        drop(old);
        let (new, _time) = circuit(config().name("new").consecutive_failures(1));
        permit.record(FAILURE);
        assert_eq!(state(&new), CircuitState::Closed);
        new.trip().unwrap();
        assert!(observed.lock().unwrap().is_empty());
        let (items, ended) = read(&mut transitions);
        assert!(items.is_empty() && ended);
    }
}

#[test]
fn registry_stream_covers_all_circuits_and_ends_with_last() {
    let registry = CircuitRegistry::new(timed(config()).0);
    registry.circuit("early");
    let mut transitions = registry.transitions();
    let late = registry.circuit("late");
    registry.trip("early").unwrap();
    registry.trip("late").unwrap();
    registry.reset("early").unwrap();
    let received = read_all(&mut transitions);
    let received: Vec<_> = received.iter().map(|transition| (transition.circuit, transition.to)).collect();
    let (open, closed) = (CircuitState::Open, CircuitState::Closed);
    assert_eq!(received, [("early", open), ("late", open), ("early", closed)]);
    drop(registry);
    late.reset().unwrap();
    assert_eq!(read_all(&mut transitions).len(), 1, "one circuit is left");
    drop(late);
    assert!(read(&mut transitions).1);
}

type Request = (u64, bool);

fn respond((_, fails): Request) -> Ready<Result<(), io::Error>> {
    ready(if fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) })
}

fn by_number(request: &Request) -> u64 {
    request.0
}

/// Makes one call through the service.
fn call_once<S: Service<Request>>(service: &mut S, request: Request) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("the service must be ready") };
    assert_ready!(task::spawn(service.call(request)).poll())
}

#[test]
fn keyed_stream_has_key_and_ends_with_last_handle() {
    let (each, _time) = timed(config().name("tenants"));
    let layer = KeyedBreakerLayer::new(KeyedConfig::builder(each).build().unwrap(), by_number);
    let mut transitions = layer.circuits().transitions();
    let mut service = layer.layer(service_fn(respond));
    for key in [7, 3] {
        for _ in 0..5 {
            call_once(&mut service, (key, true)).unwrap_err();
        }
    }
    let received = read_all(&mut transitions);
    let keys: Vec<_> =
        received.iter().map(|transition| (transition.circuit, transition.key.as_deref().unwrap())).collect();
    assert_eq!(keys, [("tenants", "7"), ("tenants", "3")]);
    assert_eq!(steps(&received), [OPENS, OPENS]);
    let handle = layer.circuits().get(&3).unwrap();
    drop((layer, service));
    handle.reset().unwrap();
    assert_eq!(read_all(&mut transitions).len(), 1);
    drop(handle);
    assert!(read(&mut transitions).1);
}

#[test]
fn observer_panic_is_caught_and_others_are_notified() {
    let (circuit, time) = circuit(config());
    let notified = Arc::new(AtomicUsize::new(0));
    for number in 0..5 {
        let notified = Arc::clone(&notified);
        circuit.on_transition(move |_| {
            notified.fetch_add(1, Ordering::Relaxed);
            assert_ne!(number % 2, 0, "this observer panics");
        });
    }
    let mut transitions = circuit.transitions();
    let notified = || notified.load(Ordering::Relaxed);
    catch_unwind(AssertUnwindSafe(|| send(&circuit, 5, FAILURE))).expect("the call must not panic");
    assert_eq!((notified(), state(&circuit)), (5, CircuitState::Open));
    time.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    assert_eq!((notified(), state(&circuit)), (15, CircuitState::Closed));
    circuit.trip().unwrap();
    circuit.force_closed().unwrap();
    circuit.release();
    assert_eq!((notified(), read_all(&mut transitions).len()), (30, 6));
}

#[test]
fn observer_runs_after_transition_and_may_use_circuit() {
    let (circuit, _time) = circuit(config());
    let (own, runs) = (circuit.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&runs);
    circuit.on_transition(move |transition| {
        assert_eq!(own.status().last_transition.unwrap().epoch, transition.epoch);
        assert_eq!(own.status().state, transition.to);
        if transition.reason == Reason::ConsecutiveFailures {
            own.try_acquire().unwrap_err();
            own.on_transition(|_| {});
            drop(own.transitions());
            own.reset().unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    send(&circuit, 5, FAILURE);
    assert_eq!((runs.load(Ordering::Relaxed), state(&circuit)), (1, CircuitState::Closed));
}

/// A time after which a test that hangs fails. No step of a test takes this long.
const TIMEOUT: Duration = Duration::from_secs(120);

#[test]
fn observer_that_never_returns_delays_only_its_call() {
    let (circuit, time) = circuit(config());
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (first, released) = (AtomicBool::new(true), Mutex::new(released));
    circuit.on_transition(move |_| {
        if first.swap(false, Ordering::Relaxed) {
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap_err();
        }
    });
    let mut transitions = circuit.transitions();
    let caller = thread::spawn({
        let circuit = circuit.clone();
        move || send(&circuit, 5, FAILURE)
    });
    has_entered.recv_timeout(TIMEOUT).expect("the observer must be called");
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        circuit.try_acquire().unwrap_err();
        assert_eq!(state(&circuit), CircuitState::Open);
        time.advance(OPEN_FOR);
        send(&circuit, 2, Verdict::Success);
        circuit.trip().unwrap();
        circuit.reset().unwrap();
        circuit.force_open().unwrap();
        circuit.release();
        circuit.report(HealthReport::Critical);
        circuit.on_transition(|_| {});
        drop((circuit.clone(), circuit.transitions()));
        done.send(state(&circuit)).unwrap();
    });
    assert_eq!(is_done.recv_timeout(TIMEOUT).expect("other calls must not be blocked"), CircuitState::Open);
    let number = read(&mut transitions).0.len();
    assert!(number >= 7, "the stream is not blocked either: {number}");
    assert!(!caller.is_finished());
    drop(release);
    caller.join().unwrap();
}

#[test]
fn observer_that_never_returns_delays_no_other_key() {
    let (each, time) = timed(config());
    let config = KeyedConfig::builder(each).max_keys(10).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, by_number);
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let layer = layer.on_transition(move |transition| {
        if transition.key.as_deref() == Some("0") {
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap_err();
        }
    });
    let (circuits, mut service) = (layer.circuits(), layer.layer(service_fn(respond)));
    let mut other_service = service.clone();
    let caller = thread::spawn(move || {
        (0..5).for_each(|_| drop(call_once(&mut service, (0, true))));
    });
    has_entered.recv_timeout(TIMEOUT).expect("the observer must be called");
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        assert!(call_once(&mut other_service, (0, false)).is_err(), "the circuit of key 0 is open");
        for key in 1..100 {
            (0..5).for_each(|_| drop(call_once(&mut other_service, (key, true))));
            assert_eq!(circuits.get(&key).unwrap().status().state, CircuitState::Open);
            time.advance(2 * OPEN_FOR);
        }
        (1..100).filter_map(|key| circuits.get(&key)).for_each(|circuit| circuit.reset().unwrap());
        done.send((circuits.len(), circuits.get_or_insert(1_000).is_some())).unwrap();
    });
    let (kept, has_room) = is_done.recv_timeout(TIMEOUT).expect("other calls must not be blocked");
    assert!(kept <= 10 && has_room);
    drop(release);
    caller.join().unwrap();
}
