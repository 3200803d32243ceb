//! What others are told of a circuit, and what a health checker may tell it.

mod callbacks;
mod health;
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
        circuit.try_acquire().expect("the circuit lets the call through").record(verdict);
    }
}

/// What is there without waiting, and whether the stream has ended.
fn read(transitions: &mut Transitions) -> (Vec<Result<Transition, u64>>, bool) {
    let mut read = Vec::new();
    loop {
        match transitions.next().now_or_never() {
            Some(Some(item)) => read.push(item.map_err(|missed| missed.transitions())),
            ended => return (read, ended.is_some()),
        }
    }
}

fn heard(transitions: &mut Transitions) -> Vec<Transition> {
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
#[expect(clippy::disallowed_methods, reason = "when it was is told by the wall clock")]
fn stream_has_transitions_in_order_with_all_fields() {
    use CircuitState::{Closed, ForcedOpen, HalfOpen, Open};
    let (circuit, time) = circuit(config().name("search"));
    send(&circuit, 4, FAILURE);
    let mut transitions = circuit.transitions();
    assert!(heard(&mut transitions).is_empty());
    let before = SystemTime::now();
    send(&circuit, 1, FAILURE);
    time.advance(OPEN_FOR);
    send(&circuit, 1, FAILURE);
    time.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    circuit.force_open().unwrap();
    circuit.release();
    circuit.reset().unwrap();
    let told = heard(&mut transitions);
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
    assert_eq!(steps(&told), expected);
    for (place, transition) in told.iter().enumerate() {
        assert_eq!((transition.circuit, transition.key.as_deref()), ("search", None));
        assert_eq!(transition.epoch as usize, place + 1, "each change is counted");
        let of_a_fault = [Reason::ConsecutiveFailures, Reason::ProbeFailed].contains(&transition.reason);
        assert_eq!(transition.fault, of_a_fault.then_some(FAULT), "{}", transition.reason);
        assert!(before <= transition.at && transition.at <= SystemTime::now());
    }
}

#[test]
fn rate_transition_has_counts_of_window() {
    let (circuit, _time) = circuit(config().consecutive_failures(0).failure_rate(0.4));
    let mut transitions = circuit.transitions();
    send(&circuit, 6, Verdict::Success);
    send(&circuit, 4, FAILURE);
    let [opened] = &heard(&mut transitions)[..] else { panic!("one change") };
    let counts = opened.counts.expect("the window was looked at");
    assert_eq!((opened.reason, opened.fault), (Reason::FailureRate, Some(FAULT)));
    assert_eq!((counts.calls, counts.failures, counts.slow), (10, 4, 0));
}

#[test]
fn slow_and_cancelled_transitions_have_their_reasons() {
    let (slow, time) = circuit(config().slow_call_rate(SECOND, 0.5));
    let mut transitions = slow.transitions();
    for _ in 0..10 {
        let permit = slow.try_acquire().unwrap();
        time.advance(SECOND);
        permit.record(Verdict::Success);
    }
    let told = heard(&mut transitions);
    assert_eq!(steps(&told), [(CircuitState::Closed, CircuitState::Open, Reason::SlowRate)]);
    let counts = told[0].counts.unwrap();
    assert_eq!((counts.calls, counts.failures, counts.slow, told[0].fault), (10, 0, 10, None));

    let (hangs, _time) = circuit(config());
    let mut transitions = hangs.transitions();
    (0..10).for_each(|_| drop(hangs.try_acquire().unwrap()));
    let told = heard(&mut transitions);
    assert_eq!(steps(&told), [(CircuitState::Closed, CircuitState::Open, Reason::NoneCompletes)]);
    assert_eq!(told[0].counts.unwrap().cancelled, 10);
}

#[test]
fn call_at_clock_origin_can_be_slow() {
    for start in [1_000, 0] {
        let (circuit, time) = circuit(config().slow_call_rate(SECOND, 1.0));
        time.set(start * SECOND);
        let permit = circuit.try_acquire().unwrap();
        time.advance(SECOND);
        permit.record(Verdict::Success);
        assert_eq!(circuit.status().window.slow, 1, "from {start} s on");
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
        let (mut told, _) = read(&mut transitions);
        if changes > 256 {
            assert_eq!(told.remove(0).unwrap_err(), changes - 256, "the first thing that is told");
        }
        let epochs: Vec<_> = told.into_iter().map(|item| item.unwrap().epoch).collect();
        assert_eq!(epochs, (last - 255..=last).collect::<Vec<_>>(), "{changes} changes");
        circuit.force_open().unwrap();
        circuit.release();
        assert_eq!(heard(&mut transitions).len(), 2, "it goes on");
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
    assert_eq!((heard(&mut first).len(), heard(&mut second).len()), (3, 2));
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
    assert_eq!(heard(&mut transitions).len(), 2, "the service holds the circuit");
    service.circuit().trip().unwrap();
    drop(service);
    let (told, ended) = read(&mut transitions);
    assert_eq!((told.len(), ended), (1, true));
    permit.record(FAILURE);
    assert!(read(&mut transitions).1);
}

#[test]
fn next_circuit_notifies_only_its_own_observers() {
    for _ in 0..10 {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (old, _time) = circuit(config().name("old").consecutive_failures(1));
        let tell = Arc::clone(&told);
        old.on_transition(move |transition| tell.lock().unwrap().push(transition.circuit));
        let mut transitions = old.transitions();
        let permit = old.try_acquire().unwrap();
        drop(old);
        let (new, _time) = circuit(config().name("new").consecutive_failures(1));
        permit.record(FAILURE);
        assert_eq!(state(&new), CircuitState::Closed);
        new.trip().unwrap();
        assert!(told.lock().unwrap().is_empty());
        let (heard, ended) = read(&mut transitions);
        assert!(heard.is_empty() && ended);
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
    let told = heard(&mut transitions);
    let told: Vec<_> = told.iter().map(|transition| (transition.circuit, transition.to)).collect();
    let (open, closed) = (CircuitState::Open, CircuitState::Closed);
    assert_eq!(told, [("early", open), ("late", open), ("early", closed)]);
    drop(registry);
    late.reset().unwrap();
    assert_eq!(heard(&mut transitions).len(), 1, "one circuit is left");
    drop(late);
    assert!(read(&mut transitions).1);
}

type Request = (u64, bool);

fn answers((_, fails): Request) -> Ready<Result<(), io::Error>> {
    ready(if fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) })
}

fn by_number(request: &Request) -> u64 {
    request.0
}

/// Whether the call was let through.
fn answer<S: Service<Request>>(service: &mut S, request: Request) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("it is always ready") };
    assert_ready!(task::spawn(service.call(request)).poll())
}

#[test]
fn keyed_stream_has_key_and_ends_with_last_handle() {
    let (each, _time) = timed(config().name("tenants"));
    let layer = KeyedBreakerLayer::new(KeyedConfig::builder(each).build().unwrap(), by_number);
    let mut transitions = layer.circuits().transitions();
    let mut service = layer.layer(service_fn(answers));
    for key in [7, 3] {
        for _ in 0..5 {
            answer(&mut service, (key, true)).unwrap_err();
        }
    }
    let told = heard(&mut transitions);
    let keys: Vec<_> = told.iter().map(|told| (told.circuit, told.key.as_deref().unwrap())).collect();
    assert_eq!(keys, [("tenants", "7"), ("tenants", "3")]);
    assert_eq!(steps(&told), [OPENS, OPENS]);
    let held = layer.circuits().get(&3).unwrap();
    drop((layer, service));
    held.reset().unwrap();
    assert_eq!(heard(&mut transitions).len(), 1);
    drop(held);
    assert!(read(&mut transitions).1);
}

#[test]
fn observer_panic_is_caught_and_others_are_notified() {
    let (circuit, time) = circuit(config());
    let told = Arc::new(AtomicUsize::new(0));
    for place in 0..5 {
        let told = Arc::clone(&told);
        circuit.on_transition(move |_| {
            told.fetch_add(1, Ordering::Relaxed);
            assert_ne!(place % 2, 0, "this one panics");
        });
    }
    let mut transitions = circuit.transitions();
    let told = || told.load(Ordering::Relaxed);
    catch_unwind(AssertUnwindSafe(|| send(&circuit, 5, FAILURE))).expect("the call has no part in it");
    assert_eq!((told(), state(&circuit)), (5, CircuitState::Open));
    time.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    assert_eq!((told(), state(&circuit)), (15, CircuitState::Closed));
    circuit.trip().unwrap();
    circuit.force_closed().unwrap();
    circuit.release();
    assert_eq!((told(), heard(&mut transitions).len()), (30, 6));
}

#[test]
fn observer_runs_after_transition_and_may_use_circuit() {
    let (circuit, _time) = circuit(config());
    let (own, asked) = (circuit.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
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
    assert_eq!((asked.load(Ordering::Relaxed), state(&circuit)), (1, CircuitState::Closed));
}

/// Longer than anything here takes: it is for a test that would hang.
const FOR_EVER: Duration = Duration::from_secs(120);

#[test]
fn observer_that_never_returns_delays_only_its_call() {
    let (circuit, time) = circuit(config());
    let (stuck, is_stuck) = mpsc::channel();
    let (free, freed) = mpsc::channel::<()>();
    let (first, freed) = (AtomicBool::new(true), Mutex::new(freed));
    circuit.on_transition(move |_| {
        if first.swap(false, Ordering::Relaxed) {
            stuck.send(()).unwrap();
            freed.lock().unwrap().recv().unwrap_err();
        }
    });
    let mut transitions = circuit.transitions();
    let caller = thread::spawn({
        let circuit = circuit.clone();
        move || send(&circuit, 5, FAILURE)
    });
    is_stuck.recv_timeout(FOR_EVER).expect("it is told");
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
    assert_eq!(is_done.recv_timeout(FOR_EVER).expect("nobody else is held up"), CircuitState::Open);
    let told = heard_or_end(&mut transitions);
    assert!(told >= 7, "the stream is not held up either: {told}");
    assert!(!caller.is_finished());
    drop(free);
    caller.join().unwrap();
}

fn heard_or_end(transitions: &mut Transitions) -> usize {
    read(transitions).0.len()
}

#[test]
fn observer_that_never_returns_delays_no_other_key() {
    let (each, time) = timed(config());
    let config = KeyedConfig::builder(each).max_keys(10).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, by_number);
    let (stuck, is_stuck) = mpsc::channel();
    let (free, freed) = mpsc::channel::<()>();
    let freed = Mutex::new(freed);
    let layer = layer.on_transition(move |transition| {
        if transition.key.as_deref() == Some("0") {
            stuck.send(()).unwrap();
            freed.lock().unwrap().recv().unwrap_err();
        }
    });
    let (circuits, mut service) = (layer.circuits(), layer.layer(service_fn(answers)));
    let mut of_another = service.clone();
    let caller = thread::spawn(move || {
        (0..5).for_each(|_| drop(answer(&mut service, (0, true))));
    });
    is_stuck.recv_timeout(FOR_EVER).expect("it is told");
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        assert!(answer(&mut of_another, (0, false)).is_err(), "it has opened");
        for key in 1..100 {
            (0..5).for_each(|_| drop(answer(&mut of_another, (key, true))));
            assert_eq!(circuits.get(&key).unwrap().status().state, CircuitState::Open);
            time.advance(2 * OPEN_FOR);
        }
        (1..100).filter_map(|key| circuits.get(&key)).for_each(|circuit| circuit.reset().unwrap());
        done.send((circuits.len(), circuits.get_or_insert(1_000).is_some())).unwrap();
    });
    let (kept, has_room) = is_done.recv_timeout(FOR_EVER).expect("nobody else is held up");
    assert!(kept <= 10 && has_room);
    drop(free);
    caller.join().unwrap();
}
