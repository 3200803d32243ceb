//! What others are told of a circuit, and what a health checker may tell it.
#![cfg(all(feature = "keyed", feature = "metrics", feature = "stream", feature = "tracing"))]

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
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, service_fn};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, BreakerLayer, Circuit, CircuitRegistry, CircuitState, Clock, Fault,
    Health, HealthReport, KeyedBreakerLayer, KeyedConfig, Kind, ManualClock, Mode, Origin, Overflow, Reason,
    Retry, Transition, Transitions, Verdict,
};

const FAULT: Fault = Fault::new(Kind::Overloaded, Retry::Never, Health::Failure, Origin::Remote);
const FAILURE: Verdict = Verdict::Fault(FAULT);
const NEUTRAL: Verdict =
    Verdict::Fault(Fault::new(Kind::Throttled, Retry::Always, Health::Neutral, Origin::Remote));
const SECOND: Duration = Duration::from_secs(1);
const OPEN_FOR: Duration = Duration::from_secs(30);

fn config() -> BreakerConfigBuilder {
    BreakerConfig::builder()
}

fn timed(config: BreakerConfigBuilder) -> (BreakerConfig, ManualClock) {
    let (clock, hand) = Clock::manual();
    hand.set(Duration::from_secs(1_000));
    (config.clock(clock).build().unwrap(), hand)
}

fn circuit(config: BreakerConfigBuilder) -> (Circuit, ManualClock) {
    let (config, hand) = timed(config);
    (Circuit::new(config), hand)
}

fn send(circuit: &Circuit, times: usize, verdict: Verdict) {
    for _ in 0..times {
        circuit.try_acquire().expect("the circuit lets the call through").settle(verdict);
    }
}

fn state(circuit: &Circuit) -> CircuitState {
    circuit.status().state
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
fn a_stream_tells_every_change_in_order_with_all_that_is_known_of_it() {
    use CircuitState::{Closed, ForcedOpen, HalfOpen, Open};
    let (circuit, hand) = circuit(config().name("search"));
    send(&circuit, 4, FAILURE);
    let mut transitions = circuit.transitions();
    assert!(heard(&mut transitions).is_empty());
    let before = SystemTime::now();
    send(&circuit, 1, FAILURE);
    hand.advance(OPEN_FOR);
    send(&circuit, 1, FAILURE);
    hand.advance(OPEN_FOR);
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
fn a_change_that_came_of_a_rate_tells_what_the_window_held() {
    let (circuit, _hand) = circuit(config().consecutive_failures(0).failure_rate(0.4));
    let mut transitions = circuit.transitions();
    send(&circuit, 6, Verdict::Success);
    send(&circuit, 4, FAILURE);
    let [opened] = &heard(&mut transitions)[..] else { panic!("one change") };
    let counts = opened.counts.expect("the window was looked at");
    assert_eq!((opened.reason, opened.fault), (Reason::FailureRate, Some(FAULT)));
    assert_eq!((counts.calls, counts.failures, counts.slow), (10, 4, 0));
}

#[test]
fn a_change_that_came_of_slow_calls_or_of_nobodys_patience_says_so() {
    let (slow, hand) = circuit(config().slow_calls(SECOND, 0.5));
    let mut transitions = slow.transitions();
    for _ in 0..10 {
        let permit = slow.try_acquire().unwrap();
        hand.advance(SECOND);
        permit.settle(Verdict::Success);
    }
    let told = heard(&mut transitions);
    assert_eq!(steps(&told), [(CircuitState::Closed, CircuitState::Open, Reason::SlowRate)]);
    let counts = told[0].counts.unwrap();
    assert_eq!((counts.calls, counts.failures, counts.slow, told[0].fault), (10, 0, 10, None));

    let (hangs, _hand) = circuit(config());
    let mut transitions = hangs.transitions();
    (0..10).for_each(|_| drop(hangs.try_acquire().unwrap()));
    let told = heard(&mut transitions);
    assert_eq!(steps(&told), [(CircuitState::Closed, CircuitState::Open, Reason::NoneCompletes)]);
    assert_eq!(told[0].counts.unwrap().abandoned, 10);
}

#[test]
fn a_call_is_as_slow_when_it_begins_at_the_clocks_origin_as_later() {
    for start in [1_000, 0] {
        let (circuit, hand) = circuit(config().slow_calls(SECOND, 1.0));
        hand.set(start * SECOND);
        let permit = circuit.try_acquire().unwrap();
        hand.advance(SECOND);
        permit.settle(Verdict::Success);
        assert_eq!(circuit.status().window.slow, 1, "from {start} s on");
    }
}

#[test]
fn a_slow_reader_loses_the_oldest_and_is_told_how_many() {
    let (circuit, _hand) = circuit(config());
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
fn each_reader_hears_everything_from_the_time_on_when_it_asked() {
    let (circuit, _hand) = circuit(config());
    let mut first = circuit.transitions();
    circuit.trip().unwrap();
    let mut second = circuit.transitions();
    circuit.reset().unwrap();
    drop(circuit.transitions());
    circuit.trip().unwrap();
    assert_eq!((heard(&mut first).len(), heard(&mut second).len()), (3, 2));
}

#[test]
fn a_reader_that_waits_is_woken_by_the_next_change_and_by_the_end() {
    let (circuit, _hand) = circuit(config());
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
fn a_stream_ends_with_its_circuit_after_what_was_told() {
    let (circuit, _hand) = circuit(config());
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
    permit.settle(FAILURE);
    assert!(read(&mut transitions).1);
}

#[test]
fn the_circuit_that_comes_after_one_that_has_ended_tells_its_own_observers_alone() {
    for _ in 0..10 {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (old, _hand) = circuit(config().name("old").consecutive_failures(1));
        let tell = Arc::clone(&told);
        old.on_transition(move |transition| tell.lock().unwrap().push(transition.circuit));
        let mut transitions = old.transitions();
        let permit = old.try_acquire().unwrap();
        drop(old);
        let (new, _hand) = circuit(config().name("new").consecutive_failures(1));
        permit.settle(FAILURE);
        assert_eq!(state(&new), CircuitState::Closed);
        new.trip().unwrap();
        assert!(told.lock().unwrap().is_empty());
        let (heard, ended) = read(&mut transitions);
        assert!(heard.is_empty() && ended);
    }
}

#[test]
fn a_registrys_stream_tells_of_all_its_circuits_and_ends_when_all_have() {
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
fn a_stream_of_circuits_by_a_key_tells_the_key_and_ends_with_the_last_who_has_them() {
    let (each, _hand) = timed(config().name("tenants"));
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
fn a_panic_of_an_observer_ends_there_and_the_others_hear_all_the_same() {
    let (circuit, hand) = circuit(config());
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
    hand.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    assert_eq!((told(), state(&circuit)), (15, CircuitState::Closed));
    circuit.trip().unwrap();
    circuit.force_closed().unwrap();
    circuit.release();
    assert_eq!((told(), heard(&mut transitions).len()), (30, 6));
}

#[test]
fn an_observer_is_told_after_the_change_and_may_do_anything_to_the_circuit() {
    let (circuit, _hand) = circuit(config());
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
fn an_observer_that_never_returns_holds_up_the_call_that_caused_the_change_and_no_other() {
    let (circuit, hand) = circuit(config());
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
        hand.advance(OPEN_FOR);
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
fn an_observer_that_never_returns_holds_up_no_other_key_and_no_room() {
    let (each, hand) = timed(config());
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
            hand.advance(2 * OPEN_FOR);
        }
        (1..100).filter_map(|key| circuits.get(&key)).for_each(|circuit| circuit.reset().unwrap());
        done.send((circuits.len(), circuits.get_or_insert(1_000).is_some())).unwrap();
    });
    let (kept, has_room) = is_done.recv_timeout(FOR_EVER).expect("nobody else is held up");
    assert!(kept <= 10 && has_room);
    drop(free);
    caller.join().unwrap();
}

/// Keeps what it is told, by name and labels.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<HashMap<String, Entry>>>);

#[derive(Clone)]
struct Entry {
    value: Arc<AtomicU64>,
    is_gauge: bool,
}

impl Book {
    fn register(&self, key: &Key, is_gauge: bool) -> Arc<AtomicU64> {
        let mut labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort_unstable();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        let mut book = self.0.lock().unwrap();
        let entry = book.entry(name).or_insert_with(|| Entry { value: Arc::default(), is_gauge });
        assert_eq!(entry.is_gauge, is_gauge);
        Arc::clone(&entry.value)
    }

    /// `None`: it was not registered.
    fn find(&self, name: &str) -> Option<i64> {
        let Entry { value, is_gauge } = self.0.lock().unwrap().get(name)?.clone();
        let value = value.load(Ordering::SeqCst);
        Some(if is_gauge { f64::from_bits(value) as i64 } else { i64::try_from(value).unwrap() })
    }

    /// 0 if nobody has counted it.
    fn count(&self, name: &str) -> i64 {
        self.find(name).unwrap_or_default()
    }

    fn calls(&self, circuit: &str) -> [i64; 4] {
        ["success", "failure", "neutral", "abandoned"].map(|outcome| {
            self.count(&format!("tower_breaker_calls_total{{circuit={circuit},outcome={outcome}}}"))
        })
    }

    /// How many circuits stand there, of all states in their order.
    fn circuits(&self, circuit: &str) -> [Option<i64>; 6] {
        STATES.map(|state| {
            let state = state.label();
            self.find(&format!("tower_breaker_circuits{{circuit={circuit},state={state}}}"))
        })
    }

    fn of_circuit(&self, circuit: &str) -> Vec<String> {
        let book = self.0.lock().unwrap();
        let mut names: Vec<_> =
            book.keys().filter(|name| name.contains(&format!("circuit={circuit}"))).cloned().collect();
        names.sort_unstable();
        names
    }
}

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::ForcedClosed,
    CircuitState::Disabled,
];

/// The gauges, of which those of two states are not 0.
fn standing<const N: usize>(at: [(CircuitState, i64); N]) -> [Option<i64>; 6] {
    STATES.map(|state| Some(at.iter().find(|(at, _)| *at == state).map_or(0, |(_, number)| *number)))
}

impl Recorder for Book {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.register(key, false).into()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.register(key, true).into()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Runs a test with a recorder. The circuits of each need names of their own: instruments are registered once for each name.
fn with_book<T>(test: impl FnOnce(&Book) -> T) -> T {
    let book = Book::default();
    metrics::with_local_recorder(&book, || test(&book))
}

/// Trap 16.
#[test]
fn all_states_have_a_gauge_from_the_start_and_the_old_ones_goes_back_to_nothing() {
    with_book(|book| {
        let (circuit, hand) = circuit(config().name("gauged"));
        let stands = |state| assert_eq!(book.circuits("gauged"), standing([(state, 1)]), "{state}");
        stands(CircuitState::Closed);
        send(&circuit, 5, FAILURE);
        stands(CircuitState::Open);
        hand.advance(OPEN_FOR);
        let probe = circuit.try_acquire().unwrap();
        stands(CircuitState::HalfOpen);
        probe.settle(FAILURE);
        stands(CircuitState::Open);
        hand.advance(OPEN_FOR);
        send(&circuit, 2, Verdict::Success);
        stands(CircuitState::Closed);
        circuit.force_open().unwrap();
        stands(CircuitState::ForcedOpen);
        circuit.force_closed().unwrap();
        stands(CircuitState::ForcedClosed);
        circuit.force_closed().unwrap();
        stands(CircuitState::ForcedClosed);
        circuit.release();
        stands(CircuitState::Closed);
        circuit.reset().unwrap();
        stands(CircuitState::Closed);
        drop(circuit);
        assert_eq!(book.circuits("gauged"), standing([]));
    });
}

#[test]
fn a_circuit_that_begins_or_becomes_disabled_stands_there() {
    with_book(|book| {
        let (clock, _hand) = Clock::manual();
        let config = |mode| config().name("switched").mode(mode).clock(clock.clone()).build().unwrap();
        let circuit = Circuit::new(config(Mode::Disabled));
        assert_eq!(book.circuits("switched"), standing([(CircuitState::Disabled, 1)]));
        circuit.reconfigure(config(Mode::Enforce)).unwrap();
        assert_eq!(book.circuits("switched"), standing([(CircuitState::Closed, 1)]));
        circuit.reconfigure(config(Mode::Disabled)).unwrap();
        assert_eq!(book.circuits("switched"), standing([(CircuitState::Disabled, 1)]));
    });
}

#[test]
fn circuits_of_one_name_are_added_up_and_those_of_another_are_not() {
    with_book(|book| {
        let circuits: Vec<_> = (0..3).map(|_| circuit(config().name("many")).0).collect();
        let (other, _hand) = circuit(config().name("another"));
        circuits[0].trip().unwrap();
        let (closed, open) = (CircuitState::Closed, CircuitState::Open);
        assert_eq!(book.circuits("many"), standing([(closed, 2), (open, 1)]));
        assert_eq!(book.circuits("another"), standing([(closed, 1)]));
        drop(circuits);
        assert_eq!(book.circuits("many"), standing([]));
        drop(other);
        let _again = circuit(config().name("many"));
        assert_eq!(book.circuits("many"), standing([(closed, 1)]), "where one ended another may begin");
        assert_eq!(book.circuits("another"), standing([]));
    });
}

#[test]
fn calls_are_counted_by_what_they_came_to() {
    with_book(|book| {
        let (circuit, hand) = circuit(config().name("called").failure_rate(None));
        send(&circuit, 3, Verdict::Success);
        send(&circuit, 4, NEUTRAL);
        send(&circuit, 2, FAILURE);
        (0..6).for_each(|_| drop(circuit.try_acquire().unwrap()));
        circuit.try_acquire().unwrap().cancel();
        assert_eq!(book.calls("called"), [3, 2, 4, 6], "one that never began is none");
        let panicked =
            AssertUnwindSafe(|| circuit.call_blocking(|| -> Result<(), io::Error> { panic!("inner") }));
        assert!(catch_unwind(panicked).is_err());
        assert_eq!(book.calls("called"), [3, 3, 4, 6], "a panic is a failure");
        send(&circuit, 2, FAILURE);
        hand.advance(OPEN_FOR);
        send(&circuit, 2, Verdict::Success);
        assert_eq!(book.calls("called"), [5, 5, 4, 6], "probes are calls");
    });
}

#[test]
fn a_call_that_ends_after_the_circuit_has_changed_was_let_through_all_the_same() {
    with_book(|book| {
        let (circuit, _hand) = circuit(config().name("late"));
        let permits: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
        circuit.trip().unwrap();
        for permit in permits {
            permit.settle(FAILURE);
        }
        assert_eq!(book.calls("late"), [0, 3, 0, 0]);
    });
}

#[test]
fn a_call_that_a_hand_lets_through_was_let_through() {
    with_book(|book| {
        let (circuit, _hand) = circuit(config().name("by hand"));
        circuit.force_closed().unwrap();
        send(&circuit, 3, FAILURE);
        send(&circuit, 2, Verdict::Success);
        assert_eq!(book.calls("by hand"), [2, 3, 0, 0]);
    });
}

#[test]
fn slow_calls_are_counted_whatever_they_came_to() {
    with_book(|book| {
        let (circuit, hand) = circuit(config().name("slow").slow_calls(SECOND, 1.0).minimum_calls(100));
        for (verdict, time) in [(Verdict::Success, 1_000), (FAILURE, 2_000), (Verdict::Success, 999)] {
            let permit = circuit.try_acquire().unwrap();
            hand.advance(Duration::from_millis(time));
            permit.settle(verdict);
        }
        assert_eq!(book.count("tower_breaker_slow_calls_total{circuit=slow}"), 2);
        assert_eq!(book.calls("slow"), [2, 1, 0, 0]);
    });
}

#[test]
fn rejections_are_counted_by_the_state_and_rejected_calls_are_no_calls() {
    with_book(|book| {
        let (circuit, hand) = circuit(config().name("rejects"));
        let rejections = |state: CircuitState| {
            let state = state.label();
            book.count(&format!("tower_breaker_rejections_total{{circuit=rejects,state={state}}}"))
        };
        let reject = |times: usize| (0..times).for_each(|_| drop(circuit.try_acquire().unwrap_err()));
        circuit.trip().unwrap();
        reject(3);
        hand.advance(OPEN_FOR);
        let probes: Vec<_> = (0..3).map(|_| circuit.try_acquire().unwrap()).collect();
        reject(5);
        probes.into_iter().for_each(tower_breaker::Permit::cancel);
        circuit.force_open().unwrap();
        reject(7);
        let by_state = STATES.map(rejections);
        assert_eq!(by_state, [0, 3, 5, 7, 0, 0]);
        assert_eq!(book.calls("rejects"), [0, 0, 0, 0]);
    });
}

#[test]
fn a_call_that_a_circuit_only_would_have_rejected_was_let_through() {
    with_book(|book| {
        let (circuit, _hand) = circuit(config().name("observes").mode(Mode::ObserveOnly));
        send(&circuit, 5, FAILURE);
        send(&circuit, 3, FAILURE);
        send(&circuit, 2, Verdict::Success);
        assert_eq!(book.calls("observes"), [2, 8, 0, 0]);
    });
}

#[test]
fn a_service_counts_a_call_and_a_rejection_once() {
    with_book(|book| {
        let (config, _hand) = timed(config().name("served"));
        let layer: BreakerLayer = BreakerLayer::new(config);
        let mut service = layer.layer(service_fn(answers));
        (0..3).for_each(|_| drop(answer(&mut service, (0, false))));
        (0..5).for_each(|_| drop(answer(&mut service, (0, true))));
        (0..7).for_each(|_| drop(answer(&mut service, (0, true))));
        assert_eq!(book.calls("served"), [3, 5, 0, 0]);
        assert_eq!(book.count("tower_breaker_rejections_total{circuit=served,state=open}"), 7);
    });
}

#[test]
fn transitions_are_counted_from_where_to_where_and_why() {
    with_book(|book| {
        let (circuit, hand) = circuit(config().name("changes"));
        let transitions = |(from, to, reason): Step| {
            let (from, to, reason) = (from.label(), to.label(), reason.label());
            let labels = format!("circuit=changes,from={from},reason={reason},to={to}");
            book.count(&format!("tower_breaker_transitions_total{{{labels}}}"))
        };
        for round in 1..=3 {
            send(&circuit, 5, FAILURE);
            hand.advance(OPEN_FOR);
            send(&circuit, 2, Verdict::Success);
            assert_eq!([OPENS, HALF_OPENS, CLOSES].map(transitions), [round; 3]);
        }
        circuit.trip().unwrap();
        circuit.trip().unwrap();
        let tripped = (CircuitState::Closed, CircuitState::Open, Reason::Tripped);
        assert_eq!([tripped, OPENS].map(transitions), [1, 3], "one that changes nothing is none");
    });
}

#[test]
fn keys_share_their_layers_instruments_and_evictions_and_overflows_are_counted() {
    with_book(|book| {
        let (each, hand) = timed(config().name("keyed"));
        let config = KeyedConfig::builder(each).max_keys(4).build().unwrap();
        let layer = KeyedBreakerLayer::<_, _>::new(config, by_number);
        let mut service = layer.layer(service_fn(answers));
        let (closed, open) = (CircuitState::Closed, CircuitState::Open);
        (0..4).for_each(|key| drop(answer(&mut service, (key, false))));
        (0..5).for_each(|_| drop(answer(&mut service, (0, true))));
        (0..5).for_each(|_| drop(answer(&mut service, (1, true))));
        answer(&mut service, (1, false)).unwrap_err();
        assert_eq!(book.circuits("keyed"), standing([(closed, 2), (open, 2)]));
        assert_eq!(book.calls("keyed"), [4, 10, 0, 0]);
        assert_eq!(book.count("tower_breaker_rejections_total{circuit=keyed,state=open}"), 1);
        (10..13).for_each(|key| drop(answer(&mut service, (key, false))));
        assert_eq!(book.count("tower_breaker_overflows_total{circuit=keyed}"), 3);
        assert_eq!(book.count("tower_breaker_evictions_total{circuit=keyed}"), 0);
        hand.advance(3 * OPEN_FOR);
        (20..24).for_each(|key| drop(answer(&mut service, (key, false))));
        assert_eq!(book.count("tower_breaker_evictions_total{circuit=keyed}"), 4);
        assert_eq!((layer.circuits().evicted(), layer.circuits().overflowed()), (4, 3));
        let standing_in = |number: usize| book.circuits("keyed")[number].unwrap();
        assert_eq!([0, 1, 2].map(standing_in), [4, 0, 0], "a forgotten one stands nowhere");
        let names = book.of_circuit("keyed");
        assert!(!names.iter().any(|name| name.contains("key=") || name.contains("20")), "{names:?}");
        drop((service, layer));
        assert_eq!(book.circuits("keyed"), standing([]));
    });
}

#[test]
fn a_call_that_goes_unguarded_makes_no_circuit() {
    with_book(|book| {
        let (each, _hand) = timed(config().name("phantom"));
        let config = KeyedConfig::builder(each).max_keys(1).build().unwrap();
        let layer = KeyedBreakerLayer::<_, _>::new(config, by_number);
        let mut service = layer.layer(service_fn(answers));
        (0..3).for_each(|key| drop(answer(&mut service, (key, false))));
        assert_eq!((layer.circuits().len(), layer.circuits().overflow().is_none()), (1, true));
        assert_eq!(book.circuits("phantom"), standing([(CircuitState::Closed, 1)]));
    });
}

#[test]
fn a_call_that_found_no_room_was_let_through_and_one_that_shares_a_circuit_is_counted() {
    with_book(|book| {
        for (name, overflow) in [("unguarded", Overflow::Unguarded), ("shared", Overflow::Shared)] {
            let (each, _hand) = timed(config().name(name));
            let config = KeyedConfig::builder(each).max_keys(1).overflow(overflow).build().unwrap();
            let mut service = KeyedBreakerLayer::<_, _>::new(config, by_number).layer(service_fn(answers));
            (0..6).for_each(|key| drop(answer(&mut service, (key, key > 0))));
            assert_eq!(book.calls(name), [1, 5, 0, 0], "{name}");
            let stand = if name == "shared" { CircuitState::Open } else { CircuitState::Closed };
            assert_eq!(
                book.circuits(name)[STATES.iter().position(|s| *s == stand).unwrap()],
                Some(1),
                "{name}"
            );
        }
    });
}

#[test]
fn a_metric_has_the_labels_of_the_table_and_no_others() {
    with_book(|book| {
        let (circuit, _hand) = circuit(config().name("labelled").slow_calls(SECOND, 1.0));
        send(&circuit, 5, FAILURE);
        circuit.try_acquire().unwrap_err();
        let shapes: BTreeSet<_> = book.of_circuit("labelled").iter().map(|name| shape(name)).collect();
        let allowed = BTreeSet::from([
            "tower_breaker_circuits circuit state".to_owned(),
            "tower_breaker_calls_total circuit outcome".to_owned(),
            "tower_breaker_slow_calls_total circuit".to_owned(),
            "tower_breaker_rejections_total circuit state".to_owned(),
            "tower_breaker_transitions_total circuit from reason to".to_owned(),
            "tower_breaker_evictions_total circuit".to_owned(),
            "tower_breaker_overflows_total circuit".to_owned(),
        ]);
        assert!(shapes.is_subset(&allowed), "{shapes:?}");
        assert!(shapes.len() >= 4, "{shapes:?}");
    });
}

/// The name and the keys of the labels.
fn shape(metric: &str) -> String {
    let (name, labels) = metric.trim_end_matches('}').split_once('{').unwrap();
    let keys = labels.split(',').map(|label| label.split_once('=').unwrap().0);
    std::iter::once(name).chain(keys).collect::<Vec<_>>().join(" ")
}

/// Keeps the events of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

#[derive(Clone, Debug)]
struct Event {
    level: tracing::Level,
    fields: HashMap<&'static str, String>,
}

impl Event {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn says(&self, word: &str) -> bool {
        self.fields.values().any(|value| value.contains(word))
    }
}

struct Fields(HashMap<&'static str, String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").unwrap();
        self.0.insert(field.name(), text);
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(HashMap::new());
        event.record(&mut fields);
        if event.metadata().target().starts_with("tower_breaker") {
            self.0.lock().unwrap().push(Event { level: *event.metadata().level(), fields: fields.0 });
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn logged(work: impl FnOnce()) -> Vec<Event> {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), work);

    log.0.lock().unwrap().drain(..).collect()
}

#[test]
fn each_change_is_one_event_at_warn_that_tells_circuit_states_and_reason() {
    let (circuit, hand) = circuit(config().name("search"));
    let events = logged(|| {
        send(&circuit, 5, FAILURE);
        hand.advance(OPEN_FOR);
        send(&circuit, 2, Verdict::Success);
    });
    assert_eq!(events.len(), 3, "{events:?}");
    for (event, (from, to, reason)) in events.iter().zip([OPENS, HALF_OPENS, CLOSES]) {
        assert_eq!((event.level, event.field("circuit")), (tracing::Level::WARN, "search"), "{event:?}");
        assert_eq!((event.field("from"), event.field("to")), (from.label(), to.label()), "{event:?}");
        assert_eq!(event.field("reason"), reason.label(), "{event:?}");
    }
    assert_eq!(events.iter().map(|event| event.field("epoch")).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(events[0].says("overloaded"), "the fault is told: {:?}", events[0]);
}

#[test]
fn each_rejection_is_one_event_at_debug_that_tells_circuit_and_state() {
    let (circuit, _hand) = circuit(config().name("search"));
    circuit.trip().unwrap();
    let events = logged(|| (0..3).for_each(|_| drop(circuit.try_acquire().unwrap_err())));
    assert_eq!(events.len(), 3, "{events:?}");
    for event in events {
        assert_eq!((event.level, event.field("circuit")), (tracing::Level::DEBUG, "search"), "{event:?}");
        assert_eq!(event.field("state"), "open", "{event:?}");
    }
    circuit.reset().unwrap();
    assert!(logged(|| send(&circuit, 4, FAILURE)).is_empty(), "calls are not logged");
}

#[test]
fn a_service_logs_a_rejection_once() {
    let (each, _hand) = timed(config().name("single"));
    let layer: BreakerLayer = BreakerLayer::new(each);
    layer.circuit().trip().unwrap();
    let mut service = layer.layer(service_fn(answers));
    let events = logged(|| drop(answer(&mut service, (0, false)).unwrap_err()));
    assert_eq!((events.len(), events[0].level), (1, tracing::Level::DEBUG), "{events:?}");
}

#[test]
fn what_is_logged_of_a_circuit_by_a_key_tells_the_key() {
    let (each, _hand) = timed(config().name("tenants"));
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::builder(each).build().unwrap(), by_number);
    let mut service = layer.layer(service_fn(answers));
    let events = logged(|| (0..6).for_each(|_| drop(answer(&mut service, (4_711, true)))));
    let levels: Vec<_> = events.iter().map(|event| event.level).collect();
    assert_eq!(levels, [tracing::Level::WARN, tracing::Level::DEBUG], "{events:?}");
    for event in events {
        assert_eq!(event.field("circuit"), "tenants", "{event:?}");
        assert!(event.says("4711"), "{event:?}");
    }
}

#[test]
fn a_circuit_that_only_observes_logs_what_it_would_have_rejected() {
    let (circuit, _hand) = circuit(config().mode(Mode::ObserveOnly));
    let events = logged(|| {
        send(&circuit, 5, FAILURE);
        send(&circuit, 2, Verdict::Success);
    });
    let levels: Vec<_> = events.iter().map(|event| event.level).collect();
    assert_eq!(levels, [tracing::Level::WARN, tracing::Level::DEBUG, tracing::Level::DEBUG], "{events:?}");
}

#[test]
fn a_critical_report_opens_a_circuit_that_lets_calls_through_and_it_recovers_as_usual() {
    let (circuit, hand) = circuit(config());
    circuit.report(HealthReport::Critical);
    let opened = circuit.status().last_trip.unwrap();
    let told = (opened.from, opened.to, opened.reason, opened.fault);
    assert_eq!(told, (CircuitState::Closed, CircuitState::Open, Reason::ReportedCritical, None));
    assert_eq!(circuit.status().retry_after, Some(OPEN_FOR));
    hand.advance(OPEN_FOR);
    let probe = circuit.try_acquire().unwrap();
    circuit.report(HealthReport::Critical);
    assert_eq!((state(&circuit), circuit.status().retry_after), (CircuitState::Open, Some(OPEN_FOR)));
    probe.settle(Verdict::Success);
    hand.advance(OPEN_FOR);
    send(&circuit, 2, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
}

#[test]
fn saying_that_it_is_down_again_never_extends_the_open_time() {
    let (circuit, hand) = circuit(config());
    let mut transitions = circuit.transitions();
    send(&circuit, 5, FAILURE);
    for second in 0..30 {
        circuit.report(HealthReport::Critical);
        assert_eq!(circuit.status().retry_after, Some(OPEN_FOR.checked_sub(second * SECOND).unwrap()));
        hand.advance(SECOND);
    }
    send(&circuit, 2, Verdict::Success);
    assert_eq!(state(&circuit), CircuitState::Closed);
    assert_eq!(steps(&heard(&mut transitions)), [OPENS, HALF_OPENS, CLOSES]);
}

#[test]
fn a_recovered_server_is_probed_at_once_and_a_circuit_that_is_not_open_stays_as_it_is() {
    let reasons = [config(), config().open_until_reset(), config().open_growth(10.0, 1_000 * OPEN_FOR)];
    for config in reasons {
        let (circuit, _hand) = circuit(config);
        send(&circuit, 4, FAILURE);
        circuit.report(HealthReport::Recovered);
        assert_eq!(circuit.status().consecutive_failures, 4);
        assert!(circuit.status().last_transition.is_none());
        send(&circuit, 1, FAILURE);
        circuit.report(HealthReport::Recovered);
        let probes: Vec<_> = (0..10).filter_map(|_| circuit.try_acquire().ok()).collect();
        assert_eq!((probes.len(), state(&circuit)), (3, CircuitState::HalfOpen));
        let epoch = circuit.status().last_transition.unwrap().epoch;
        circuit.report(HealthReport::Recovered);
        let last = circuit.status().last_transition.unwrap();
        assert_eq!(
            (last.epoch, last.reason),
            (epoch, Reason::ReportedRecovered),
            "half-open, nothing is new"
        );
        assert!(circuit.try_acquire().is_err(), "nor are there more places");
        probes.into_iter().take(2).for_each(|probe| probe.settle(Verdict::Success));
        assert_eq!(state(&circuit), CircuitState::Closed);
    }
}

#[test]
fn a_reader_or_a_call_that_waits_hears_of_a_report_as_of_any_change() {
    let (circuit, _hand) = circuit(config());
    let mut transitions = task::spawn(circuit.transitions());
    assert_pending!(transitions.poll_next());
    circuit.report(HealthReport::Critical);
    assert!(transitions.is_woken());
    let told = assert_ready!(transitions.poll_next()).unwrap().unwrap();
    assert_eq!((told.to, told.reason), (CircuitState::Open, Reason::ReportedCritical));
    circuit.report(HealthReport::Recovered);
    let told = assert_ready!(transitions.poll_next()).unwrap().unwrap();
    assert_eq!((told.to, told.reason), (CircuitState::HalfOpen, Reason::ReportedRecovered));
}

#[test]
fn a_report_changes_nothing_that_a_hand_has_forced_or_the_configuration_has_disabled() {
    type Force = fn(&Circuit);
    let forces: [(CircuitState, Mode, Force); 3] = [
        (CircuitState::ForcedOpen, Mode::Enforce, |circuit| circuit.force_open().unwrap()),
        (CircuitState::ForcedClosed, Mode::Enforce, |circuit| circuit.force_closed().unwrap()),
        (CircuitState::Disabled, Mode::Disabled, |_| {}),
    ];
    for (forced, mode, force) in forces {
        let (circuit, _hand) = circuit(config().mode(mode));
        force(&circuit);
        let mut transitions = circuit.transitions();
        for report in [HealthReport::Critical, HealthReport::Recovered, HealthReport::Critical] {
            circuit.report(report);
            assert_eq!(state(&circuit), forced);
            assert_eq!(circuit.try_acquire().is_err(), forced == CircuitState::ForcedOpen);
        }
        assert!(heard(&mut transitions).is_empty());
        circuit.release();
        let released = match forced {
            CircuitState::ForcedOpen => CircuitState::HalfOpen,
            CircuitState::ForcedClosed => CircuitState::Closed,
            other => other,
        };
        assert_eq!(state(&circuit), released, "nor is it remembered");
    }
}
