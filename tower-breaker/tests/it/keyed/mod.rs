//! Keyed circuits: they are independent and bounded, and only idle ones are evicted without need.

mod circuits;
mod creation;
mod flood;
mod lease;
mod reconfigure;
mod room;
mod signals;
mod waiting;

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::future::{Future, Ready, pending, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, service_fn};
use tower_breaker::keyed::{
    ByRef, ByValue, KeyedBreakerLayer, KeyedCircuit, KeyedCircuits, KeyedConfig, Overflow,
};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, BreakerError, CancelledPolicy, CircuitState, Clock, Counts,
    ManualClock, Mode, Reason, Verdict,
};

use crate::support::{FAILURE, FAULT, NEUTRAL, OPEN_FOR, SECOND, call_once, config};

/// A time after which no earlier call is left in the time window of 60 s.
const AFTER_WINDOW: Duration = Duration::from_secs(70);

/// A key, and whether the call is to fail.
type Request = (u64, bool);
type ByNumber = KeyedBreakerLayer<ByValue<fn(&Request) -> u64>, u64>;

struct Bench {
    layer: ByNumber,
    circuits: KeyedCircuits<u64>,
    time: ManualClock,
    /// The last key that was made by `succeed_new_keys` or `fail_new_keys`.
    last_new_key: u64,
}

impl Bench {
    fn new(each: BreakerConfigBuilder, max_keys: usize, overflow: Overflow) -> Self {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(1_000));
        let each = each.clock(clock).build().unwrap();
        let config = KeyedConfig::builder(each).max_keys(max_keys).overflow(overflow).build().unwrap();
        let layer: ByNumber = KeyedBreakerLayer::new(config, |request| request.0);
        Self { circuits: layer.circuits(), layer, time, last_new_key: 1_000_000 }
    }

    fn of(max_keys: usize) -> Self {
        Self::new(config(), max_keys, Overflow::Unguarded)
    }

    fn send(&self, key: u64, fails: bool) -> Result<(), BreakerError<io::Error>> {
        call_once(&mut self.layer.layer(service_fn(respond)), (key, fails))
    }

    fn fail(&self, key: u64, times: usize) {
        for _ in 0..times {
            assert!(is_inner(&self.send(key, true)), "the call is admitted");
        }
    }

    fn succeed(&self, key: u64) {
        self.send(key, false).unwrap();
    }

    fn is_rejected(&self, key: u64) -> bool {
        matches!(self.send(key, false), Err(BreakerError::Rejected(_)))
    }

    fn circuit(&self, key: u64) -> KeyedCircuit<u64> {
        self.circuits.get(&key).expect("the key has a circuit")
    }

    fn state(&self, key: u64) -> CircuitState {
        self.circuit(key).status().state
    }

    /// Sends this number of calls that fail, each with a new key.
    fn fail_new_keys(&mut self, calls: u64) {
        for _ in 0..calls {
            self.last_new_key += 1;
            self.fail(self.last_new_key, 1);
        }
    }

    /// Sends this number of calls that succeed, each with a new key.
    fn succeed_new_keys(&mut self, calls: u64) {
        for _ in 0..calls {
            self.last_new_key += 1;
            self.succeed(self.last_new_key);
        }
    }
}

fn respond((_, fails): Request) -> Ready<Result<(), io::Error>> {
    ready(if fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) })
}

fn is_inner(result: &Result<(), BreakerError<io::Error>>) -> bool {
    matches!(result, Err(BreakerError::Inner(_)))
}

#[test]
fn each_key_has_own_circuit() {
    let bench = Bench::of(10_000);
    bench.fail(0, 5);
    for key in 1..1_000 {
        bench.succeed(key);
        bench.fail(key, 4);
        assert!(bench.is_rejected(0));
    }
    assert!((1..1_000).all(|key| bench.state(key) == CircuitState::Closed));
    bench.fail(7, 1);
    assert!(bench.is_rejected(7) && !bench.is_rejected(8));
    let status = bench.circuit(0).status();
    let trip = status.last_trip.unwrap();
    assert_eq!((status.state, trip.reason), (CircuitState::Open, Reason::ConsecutiveFailures));
    assert_eq!((status.key.as_deref(), trip.key.as_deref()), (Some("0"), Some("0")));
    assert_eq!(bench.circuit(7).status().key.as_deref(), Some("7"));
}

#[test]
fn keyed_rejection_has_layer_name_and_time_of_its_key() {
    let bench = Bench::new(config().name("tenants"), 10, Overflow::Unguarded);
    bench.fail(1, 5);
    bench.time.advance(10 * SECOND);
    bench.fail(2, 5);
    for (key, left) in [(1, 20), (2, 30)] {
        let error = bench.send(key, false).unwrap_err();
        let rejection = error.rejection().unwrap();
        assert_eq!((rejection.circuit(), rejection.state()), ("tenants", CircuitState::Open));
        assert_eq!(rejection.retry_after(), Some(left * SECOND));
        assert_eq!(rejection.key().as_deref(), Some(&*key.to_string()));
        let text = format!("circuit breaker `tenants` for key `{key}` is open; retry after {left} s");
        assert_eq!(error.to_string(), text);
        let rejection = bench.circuit(key).try_acquire().unwrap_err();
        assert_eq!(rejection.to_string(), text, "the handle returns the same text");
    }
    assert_eq!((bench.circuits.name(), bench.circuit(1).name()), ("tenants", "tenants"));
}

#[test]
fn rejection_of_evicted_circuit_has_no_key() {
    let bench = Bench::new(config().name("tenants"), 1, Overflow::Unguarded);
    bench.fail(1, 5);
    let error = bench.send(1, false).unwrap_err();
    assert!(error.to_string().contains("for key `1`"), "{error}");
    bench.time.advance(3 * OPEN_FOR);
    // This evicts the circuit of key 1, and then makes a label for key 2.
    bench.fail(2, 5);
    assert!(bench.send(2, false).unwrap_err().to_string().contains("for key `2`"));
    assert_eq!(error.rejection().unwrap().key(), None, "not another key");
    assert_eq!(error.to_string(), "circuit breaker `tenants` is open; retry after 30 s");
}

#[test]
fn keyed_half_open_and_slow_start_rejections_retry_after_1s() {
    let each = config().probes(1).successes_to_close(1).slow_start(100 * SECOND);
    let bench = Bench::new(each, 10, Overflow::Unguarded);
    bench.fail(1, 5);
    bench.time.advance(OPEN_FOR);
    let circuit = bench.circuit(1);
    let rejection = || {
        let rejection = circuit.try_acquire().unwrap_err();
        (rejection.state(), rejection.retry_after())
    };
    let probe = circuit.try_acquire().unwrap();
    assert_eq!(rejection(), (CircuitState::HalfOpen, Some(SECOND)));
    probe.record(Verdict::Success);
    bench.succeed(1);
    assert_eq!(rejection(), (CircuitState::Closed, Some(SECOND)));
}

#[test]
fn keyed_permit_cancelled_returns_slow_start_credit() {
    let each = config().probes(1).successes_to_close(1).slow_start(100 * SECOND);
    let bench = Bench::new(each, 10, Overflow::Unguarded);
    bench.fail(1, 5);
    bench.time.advance(OPEN_FOR);
    bench.succeed(1);
    bench.succeed(1);
    bench.time.advance(50 * SECOND);
    let circuit = bench.circuit(1);
    assert!(circuit.try_acquire().is_err(), "the credit is half a call");
    for _ in 0..100 {
        circuit.try_acquire().expect("the credit must be refunded").cancel();
    }
    circuit.try_acquire().unwrap().record(Verdict::Success);
    assert!(circuit.try_acquire().is_err(), "the call has used the credit");
}

#[test]
fn keyed_slow_start_by_successes_limits_concurrent_calls() {
    let each = config().probes(1).successes_to_close(1).slow_start_successes(9);
    let bench = Bench::new(each, 10, Overflow::Unguarded);
    bench.fail(1, 5);
    bench.time.advance(OPEN_FOR);
    bench.succeed(1);
    let circuit = bench.circuit(1);
    for limit in [1, 2, 4] {
        let permits: Vec<_> = (0..100).map_while(|_| circuit.try_acquire().ok()).collect();
        assert_eq!(permits.len(), limit);
        assert!(bench.is_rejected(1));
        for permit in permits {
            permit.record(Verdict::Success);
        }
    }
    assert_eq!(circuit.status().slow_start, Some(7.0 / 9.0));
}

#[test]
fn keyed_seed_assigns_streams_in_order_of_creation() {
    let periods = |create: [u64; 3], open: [u64; 3], seed| {
        let bench = Bench::new(config().open_jitter(1.0).seed(seed), 100, Overflow::Unguarded);
        for key in create {
            bench.succeed(key);
        }
        for key in open {
            bench.circuit(key).trip().unwrap();
        }
        create.map(|key| bench.circuit(key).status().retry_after.unwrap())
    };
    let first = periods([1, 2, 3], [1, 2, 3], 7);
    assert_eq!(periods([1, 2, 3], [3, 1, 2], 7), first, "the order of opening does not matter");
    assert_eq!(periods([9, 8, 7], [7, 8, 9], 7), first, "the keys do not matter");
    assert_ne!(periods([1, 2, 3], [1, 2, 3], 8), first);
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2], "{first:?}");
}

#[test]
fn overflow_circuit_takes_stream_only_if_it_guards() {
    for (overflow, follows) in [(Overflow::Unguarded, true), (Overflow::Shared, false)] {
        let period = |calls_without_circuit: usize| {
            let bench = Bench::new(config().open_jitter(1.0).seed(7), 1, overflow);
            bench.succeed(1);
            let kept = bench.circuit(1);
            (0..calls_without_circuit).for_each(|_| bench.succeed(2));
            drop(kept);
            bench.time.advance(AFTER_WINDOW);
            bench.succeed(3);
            let circuit = bench.circuit(3);
            circuit.trip().unwrap();
            circuit.status().retry_after.unwrap()
        };
        assert_eq!(period(0) == period(1), follows, "{overflow}");
    }
}

#[test]
fn services_of_one_keyed_layer_share_circuits() {
    let bench = Bench::of(10);
    let clone = bench.layer.clone();
    let mut one = bench.layer.layer(service_fn(respond));
    let mut two = clone.layer(service_fn(respond));
    for _ in 0..2 {
        call_once(&mut one, (1, true)).unwrap_err();
        call_once(&mut two, (1, true)).unwrap_err();
    }
    call_once(&mut one.clone(), (1, true)).unwrap_err();
    let rejected = call_once(&mut two, (1, false));
    assert!(matches!(rejected, Err(BreakerError::Rejected(_))));
    assert_eq!(one.circuits().get(&1).unwrap().status().state, CircuitState::Open);
    assert_eq!(clone.circuits().len(), 1);
    assert!(!Bench::of(10).is_rejected(1));
}

type ByText = KeyedBreakerLayer<ByRef<fn(&(String, bool)) -> &str, str>, String>;

fn text(request: &(String, bool)) -> &str {
    &request.0
}

fn by_text() -> ByText {
    let config = KeyedConfig::builder(config().build().unwrap()).build().unwrap();
    KeyedBreakerLayer::by_ref(config, text)
}

fn send_text(layer: &ByText, key: &str, fails: bool) -> Result<(), BreakerError<io::Error>> {
    let inner = service_fn(|(_, fails): (String, bool)| respond((0, fails)));
    call_once(&mut layer.layer(inner), (key.to_owned(), fails))
}

#[test]
fn by_ref_equal_texts_are_one_key() {
    let layer = by_text();
    for _ in 0..5 {
        assert!(is_inner(&send_text(&layer, "a.example", true)));
    }
    assert!(matches!(send_text(&layer, "a.example", false), Err(BreakerError::Rejected(_))));
    for other in ["b.example", "", "A.EXAMPLE", "a.example ", "a.exampl"] {
        send_text(&layer, other, false).unwrap();
    }
    let circuits = layer.circuits();
    let status = circuits.get("a.example").unwrap().status();
    assert_eq!((status.state, status.key.as_deref()), (CircuitState::Open, Some("a.example")));
    assert_eq!((circuits.len(), circuits.get("c.example").is_none()), (6, true));
    assert_eq!(circuits.get("").unwrap().key(), "");
}

#[test]
fn key_of_one_megabyte_works() {
    let layer = by_text();
    let long = "k".repeat(1 << 20);
    let other = format!("{}l", "k".repeat((1 << 20) - 1));
    for _ in 0..5 {
        send_text(&layer, &long, true).unwrap_err();
        send_text(&layer, &other, false).unwrap();
    }
    assert!(matches!(send_text(&layer, &long, false), Err(BreakerError::Rejected(_))));
    send_text(&layer, &other, false).unwrap();
    let circuits = layer.circuits();
    assert_eq!(circuits.len(), 2);
    assert_eq!(circuits.get(long.as_str()).unwrap().key().len(), 1 << 20);
    assert_eq!(circuits.get(long.as_str()).unwrap().status().state, CircuitState::Open);
}

#[test]
fn key_closure_panic_propagates_and_leaves_map_usable() {
    let by_value = KeyedBreakerLayer::new(KeyedConfig::default(), |request: &Request| {
        assert_ne!(request.0, 13, "key 13 must panic");
        request.0
    });
    let (mut service, circuits) = (by_value.layer(service_fn(respond)), by_value.circuits());
    call_once(&mut service, (1, true)).unwrap_err();
    for _ in 0..10 {
        // The panic comes from `call`, not from the future.
        catch_unwind(AssertUnwindSafe(|| drop(service.call((13, false))))).unwrap_err();
    }
    assert_eq!((circuits.len(), circuits.get(&1).unwrap().status().window.failures), (1, 1));
    call_once(&mut service, (1, false)).unwrap();
    call_once(&mut service, (2, false)).unwrap();
    assert_eq!(circuits.len(), 2);

    let by_ref: ByText = KeyedBreakerLayer::by_ref(KeyedConfig::default(), |(key, _)| {
        assert_ne!(key, "13", "key 13 must panic");
        key
    });
    for _ in 0..10 {
        catch_unwind(AssertUnwindSafe(|| send_text(&by_ref, "13", false))).unwrap_err();
    }
    assert!(by_ref.circuits().is_empty());
    send_text(&by_ref, "14", false).unwrap();
}

#[test]
fn keyed_config_rejects_max_keys_out_of_range_and_count_window() {
    for keys in [0, 100_000_001, usize::MAX] {
        let error = KeyedConfig::builder(BreakerConfig::default()).max_keys(keys).build().unwrap_err();
        assert_eq!((error.field(), error.value()), ("max_keys", keys.to_string().as_str()));
    }
    for keys in [1, 100_000_000] {
        KeyedConfig::builder(BreakerConfig::default()).max_keys(keys).build().unwrap();
    }
    let each = config().count_window(100).build().unwrap();
    assert_eq!(KeyedConfig::builder(each).build().unwrap_err().field(), "count_window");
}

#[test]
fn default_max_keys_is_ten_thousand() {
    // A circuit with a recent failure is kept. The clock stands still, so every failure is recent.
    let each = BreakerConfig::builder().clock(Clock::manual().0).build().unwrap();
    let config = KeyedConfig::builder(each).build().unwrap();
    let layer: ByNumber = KeyedBreakerLayer::new(config, |request| request.0);
    let mut service = layer.layer(service_fn(respond));
    (0..10_010).for_each(|key| drop(call_once(&mut service, (key, true)).unwrap_err()));
    assert_eq!((layer.circuits().len(), layer.circuits().overflowed()), (10_000, 10));
}

#[test]
fn keyed_reset_all_closes_all_but_forced_circuits() {
    let bench = Bench::new(config(), 4, Overflow::Shared);
    bench.fail(0, 5);
    bench.fail(1, 4);
    bench.circuits.get_or_insert(2).unwrap().force_open().unwrap();
    bench.circuits.get_or_insert(3).unwrap().force_closed().unwrap();
    (10..15).for_each(|key| bench.fail(key, 1));
    assert!(bench.is_rejected(10));
    bench.circuits.reset_all();
    for key in [0, 1] {
        let status = bench.circuit(key).status();
        assert_eq!((status.state, status.consecutive_failures), (CircuitState::Closed, 0));
        assert_eq!(status.window, Counts::default());
    }
    assert_eq!(bench.state(2), CircuitState::ForcedOpen);
    assert_eq!(bench.state(3), CircuitState::ForcedClosed);
    assert!(!bench.is_rejected(10), "the overflow circuit is reset, too");
}

#[test]
fn key_can_be_forced_open_before_first_call() {
    let bench = Bench::of(10);
    assert!(bench.circuits.get(&1).is_none() && bench.circuits.is_empty(), "`get` creates no circuit");
    bench.circuits.get_or_insert(1).unwrap().force_open().unwrap();
    let error = bench.send(1, false).unwrap_err();
    assert_eq!(error.rejection().unwrap().retry_after(), None);
    bench.circuit(1).release();
    bench.succeed(1);
    bench.succeed(1);
    assert_eq!(bench.state(1), CircuitState::Closed);
    assert!(bench.circuits.clone().get_or_insert(1).is_some());
    assert_eq!(bench.circuits.len(), 1);
}

#[test]
fn keyed_transition_has_label_of_key() {
    let bench = Bench::new(config().name("tenants"), 10, Overflow::Unguarded);
    let observed = Arc::new(Mutex::new(Vec::new()));
    for source in ["layer", "circuits"] {
        let observed = Arc::clone(&observed);
        let record_transition = move |transition: &tower_breaker::telemetry::Transition| {
            let key = transition.key.as_deref().map(str::to_owned);
            observed.lock().unwrap().push((source, transition.circuit, key.unwrap(), transition.to));
        };
        match source {
            "layer" => drop(bench.layer.clone().on_transition(record_transition)),
            _ => drop(bench.circuits.on_transition(record_transition)),
        }
    }
    bench.fail(42, 5);
    bench.circuits.get_or_insert(7).unwrap().force_open().unwrap();
    let expected: HashSet<_> = [("42", CircuitState::Open), ("7", CircuitState::ForcedOpen)]
        .into_iter()
        .flat_map(|(key, to)| ["layer", "circuits"].map(|source| (source, "tenants", key.to_owned(), to)))
        .collect();
    assert_eq!(observed.lock().unwrap().len(), 4);
    assert_eq!(observed.lock().unwrap().drain(..).collect::<HashSet<_>>(), expected);
}

#[test]
fn keyed_half_open_admits_one_probe_per_slot_of_each_key() {
    let bench = Bench::of(100);
    let keys = 4;
    (0..keys).for_each(|key| bench.fail(key, 5));
    bench.time.advance(OPEN_FOR);
    let sent: [AtomicUsize; 5] = Default::default();
    let service = bench.layer.layer(service_fn(|(key, _): Request| {
        sent[key as usize].fetch_add(1, Ordering::Relaxed);
        pending::<Result<(), io::Error>>()
    }));
    let barrier = Barrier::new(8);
    let rejected: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let mut calls: Vec<_> =
                        (0..1_000).map(|n| task::spawn(service.clone().call((n % 5, false)))).collect();
                    let rejected = calls.iter_mut().filter_map(|call| match call.poll() {
                        Poll::Ready(Err(BreakerError::Rejected(_))) => Some(()),
                        _ => None,
                    });
                    let rejected = rejected.count();
                    barrier.wait();
                    rejected
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let sent = sent.map(AtomicUsize::into_inner);
    assert_eq!(
        sent,
        [3, 3, 3, 3, 1_600],
        "three calls of each half-open key, and all calls of the closed one"
    );
    assert_eq!(rejected, 4 * (1_600 - 3));
}

#[test]
fn failed_probe_reopens_only_its_key() {
    let bench = Bench::of(10);
    bench.fail(0, 5);
    bench.fail(1, 5);
    bench.time.advance(OPEN_FOR);
    bench.fail(0, 1);
    bench.succeed(1);
    bench.succeed(1);
    assert_eq!((bench.state(0), bench.state(1)), (CircuitState::Open, CircuitState::Closed));
    assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::ProbeFailed);
}

#[test]
fn hundred_thousand_circuits_trip_and_recover_concurrently() {
    let bench = Bench::of(100_000);
    let observed = Arc::new(Mutex::new(HashSet::new()));
    let sink = Arc::clone(&observed);
    bench.circuits.on_transition(move |transition| {
        assert!(sink.lock().unwrap().insert((transition.key.clone().unwrap(), transition.to)));
    });
    let for_all_keys = |work: &(dyn Fn(u64) + Sync)| {
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..4 {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    (0..25_000).for_each(|key| work(thread * 25_000 + key));
                });
            }
        });
    };
    for_all_keys(&|key| bench.fail(key, 5));
    assert!(bench.circuits.circuits().iter().all(|circuit| circuit.status().state == CircuitState::Open));
    for_all_keys(&|key| assert!(bench.is_rejected(key)));
    assert_eq!(observed.lock().unwrap().len(), 100_000);
    bench.time.advance(OPEN_FOR);
    for_all_keys(&|key| (0..2).for_each(|_| bench.succeed(key)));
    assert!(bench.circuits.circuits().iter().all(|circuit| circuit.status().state == CircuitState::Closed));
    assert_eq!((observed.lock().unwrap().len(), bench.circuits.len()), (300_000, 100_000));
}

#[test]
fn unfinished_body_keeps_its_circuit_and_counts() {
    let (clock, time) = Clock::manual();
    let each = config().clock(clock).consecutive_failures(1).cancelled(CancelledPolicy::Failure);
    let config = KeyedConfig::builder(each.build().unwrap()).max_keys(1).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, |request: &u64| *request)
        .track_body()
        .healthy_after(365 * 86_400 * SECOND);
    let mut service =
        layer.layer(service_fn(|_: u64| ready(Ok::<_, io::Error>(http::Response::new("body".to_owned())))));
    let response = call_once(&mut service, 0).unwrap();
    for key in 1..100 {
        time.advance(AFTER_WINDOW);
        drop(call_once(&mut service, key).unwrap());
    }
    assert!(layer.circuits().get(&0).is_some());
    assert_eq!(layer.circuits().get(&0).unwrap().status().window.calls, 0);
    drop(response);
    assert_eq!(layer.circuits().get(&0).unwrap().status().window.calls, 1);
}

#[test]
fn body_dropped_without_data_counts_as_cancelled() {
    for seconds in [29, 31] {
        let (clock, time) = Clock::manual();
        let each = config().clock(clock).cancelled(CancelledPolicy::Failure).build().unwrap();
        let config = KeyedConfig::builder(each).build().unwrap();
        let layer = KeyedBreakerLayer::new(config, |request: &u64| *request).track_body();
        let mut service = layer.layer(service_fn(|_: u64| {
            let body = StreamBody::new(futures::stream::pending::<Result<Frame<&'static [u8]>, io::Error>>());
            ready(Ok::<_, io::Error>(http::Response::new(body)))
        }));
        let mut response = call_once(&mut service, 0).unwrap();
        assert_pending!(task::spawn(response.body_mut().frame()).poll());
        time.advance(seconds * SECOND);
        drop(response);
        let Counts { calls, failures, .. } = layer.circuits().get(&0).unwrap().status().window;
        assert_eq!((calls, failures), (1, 1), "dropped after {seconds} s");
    }
}

#[test]
fn keyed_window_is_at_most_a_tenth_longer_than_its_span() {
    for millis in 0..100 {
        let bench = Bench::of(1);
        bench.time.advance(Duration::from_millis(millis * 73));
        bench.fail(0, 1);
        bench.time.advance(60 * SECOND);
        assert_eq!(bench.circuit(0).status().window.calls, 1, "at {millis}");
        bench.time.advance(6 * SECOND);
        assert_eq!(bench.circuit(0).status().window.calls, 0, "at {millis}");
    }
}

/// A key whose `Debug` acquires a permit of its own circuit, once.
#[derive(PartialEq, Eq, Hash)]
struct ReentrantKey;

thread_local! {
    static CIRCUIT: Cell<Option<KeyedCircuit<ReentrantKey>>> = const { Cell::new(None) };
}

impl fmt::Debug for ReentrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(circuit) = CIRCUIT.take() {
            assert_eq!(circuit.try_acquire().unwrap_err().key().as_deref(), Some("key"));
        }
        f.write_str("key")
    }
}

#[test]
fn rejection_during_label_creation_does_not_deadlock() {
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::default(), |(): &()| ReentrantKey);
    let circuit = layer.circuits().get_or_insert(ReentrantKey).unwrap();
    CIRCUIT.set(Some(circuit.clone()));
    // The transition is the first operation that needs the label.
    circuit.force_open().unwrap();
    assert_eq!(circuit.try_acquire().unwrap_err().key().as_deref(), Some("key"));
    assert!(CIRCUIT.take().is_none(), "`Debug` of the key has run");
}
