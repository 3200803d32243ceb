//! Circuits by a key: each on its own, bounded, and never forgotten while somebody would miss it.
#![cfg(all(feature = "keyed", feature = "tokio"))]

use std::collections::{HashSet, VecDeque};
use std::future::{Future, Ready, pending, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
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
use tower_breaker::{
    AbandonedPolicy, BreakerConfig, BreakerConfigBuilder, BreakerError, ByRef, ByValue, CircuitState, Clock,
    Counts, Fault, Health, KeyedBreakerLayer, KeyedCircuit, KeyedCircuits, KeyedConfig, Kind, ManualClock,
    Mode, Origin, Overflow, Reason, Retry, Verdict,
};

const FAULT: Fault = Fault::new(Kind::Server, Retry::Never, Health::Failure, Origin::Remote);
const FAILURE: Verdict = Verdict::Fault(FAULT);
const NEUTRAL: Verdict =
    Verdict::Fault(Fault::new(Kind::Throttled, Retry::Always, Health::Neutral, Origin::Remote));
const SECOND: Duration = Duration::from_secs(1);
const OPEN_FOR: Duration = Duration::from_secs(30);
/// A time window of 60 s holds nothing any more that is so old.
const FORGOTTEN: Duration = Duration::from_secs(70);

/// A key, and whether the call is to fail.
type Request = (u64, bool);
type ByNumber = KeyedBreakerLayer<ByValue<fn(&Request) -> u64>, u64>;

struct Bench {
    layer: ByNumber,
    circuits: KeyedCircuits<u64>,
    hand: ManualClock,
    /// Numbers of keys that nobody has used.
    junk: u64,
}

impl Bench {
    fn new(each: BreakerConfigBuilder, max_keys: usize, overflow: Overflow) -> Self {
        let (clock, hand) = Clock::manual();
        hand.set(Duration::from_secs(1_000));
        let each = each.clock(clock).build().unwrap();
        let config = KeyedConfig::builder(each).max_keys(max_keys).overflow(overflow).build().unwrap();
        let layer: ByNumber = KeyedBreakerLayer::new(config, |request| request.0);
        Self { circuits: layer.circuits(), layer, hand, junk: 1_000_000 }
    }

    fn of(max_keys: usize) -> Self {
        Self::new(BreakerConfig::builder(), max_keys, Overflow::Unguarded)
    }

    fn send(&self, key: u64, fails: bool) -> Result<(), BreakerError<io::Error>> {
        answer(&mut self.layer.layer(service_fn(answers)), (key, fails))
    }

    fn fail(&self, key: u64, times: usize) {
        for _ in 0..times {
            assert!(is_inner(&self.send(key, true)), "the call is let through");
        }
    }

    fn succeed(&self, key: u64) {
        self.send(key, false).unwrap();
    }

    fn is_rejected(&self, key: u64) -> bool {
        matches!(self.send(key, false), Err(BreakerError::Rejected(_)))
    }

    fn circuit(&self, key: u64) -> KeyedCircuit<u64> {
        self.circuits.get(&key).expect("there is a circuit")
    }

    fn state(&self, key: u64) -> CircuitState {
        self.circuit(key).status().state
    }

    /// Sends so many calls that succeed, each with a new key.
    fn junk(&mut self, calls: u64) {
        for _ in 0..calls {
            self.junk += 1;
            self.succeed(self.junk);
        }
    }
}

fn answers((_, fails): Request) -> Ready<Result<(), io::Error>> {
    ready(if fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) })
}

fn is_inner(result: &Result<(), BreakerError<io::Error>>) -> bool {
    matches!(result, Err(BreakerError::Inner(_)))
}

fn config() -> BreakerConfigBuilder {
    BreakerConfig::builder()
}

/// Sends a request and waits for the answer, which is there at once.
fn answer<S: Service<R>, R>(service: &mut S, request: R) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("it is always ready") };
    let Poll::Ready(result) = pin!(service.call(request)).poll(&mut cx) else { panic!("it answers at once") };
    result
}

#[test]
fn each_key_has_a_circuit_of_its_own_and_a_dead_one_rejects_no_other() {
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
fn a_rejection_names_the_layers_circuits_and_tells_of_its_own_keys_time() {
    let bench = Bench::new(config().name("tenants"), 10, Overflow::Unguarded);
    bench.fail(1, 5);
    bench.hand.advance(10 * SECOND);
    bench.fail(2, 5);
    for (key, left) in [(1, 20), (2, 30)] {
        let error = bench.send(key, false).unwrap_err();
        let rejection = error.rejection().unwrap();
        assert_eq!((rejection.circuit(), rejection.state()), ("tenants", CircuitState::Open));
        assert_eq!(rejection.retry_after(), Some(left * SECOND));
    }
    assert_eq!((bench.circuits.name(), bench.circuit(1).name()), ("tenants", "tenants"));
}

#[test]
fn all_services_and_clones_of_a_layer_share_the_circuits_and_another_layer_has_its_own() {
    let bench = Bench::of(10);
    let twin = bench.layer.clone();
    let mut one = bench.layer.layer(service_fn(answers));
    let mut two = twin.layer(service_fn(answers));
    for _ in 0..2 {
        answer(&mut one, (1, true)).unwrap_err();
        answer(&mut two, (1, true)).unwrap_err();
    }
    answer(&mut one.clone(), (1, true)).unwrap_err();
    let rejected = answer(&mut two, (1, false));
    assert!(matches!(rejected, Err(BreakerError::Rejected(_))));
    assert_eq!(one.circuits().get(&1).unwrap().status().state, CircuitState::Open);
    assert_eq!(twin.circuits().len(), 1);
    assert!(!Bench::of(10).is_rejected(1));
}

type ByText = KeyedBreakerLayer<ByRef<fn(&(String, bool)) -> &str, str>, String>;

fn text(request: &(String, bool)) -> &str {
    &request.0
}

fn by_text() -> ByText {
    KeyedBreakerLayer::by_ref(KeyedConfig::default(), text)
}

fn send_text(layer: &ByText, key: &str, fails: bool) -> Result<(), BreakerError<io::Error>> {
    let inner = service_fn(|(_, fails): (String, bool)| answers((0, fails)));
    answer(&mut layer.layer(inner), (key.to_owned(), fails))
}

#[test]
fn by_a_part_of_the_request_equal_texts_are_one_key_and_others_are_not() {
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
fn a_key_of_a_megabyte_is_a_key_as_any_other() {
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
fn a_panic_of_the_key_closure_goes_to_the_caller_and_spoils_nothing() {
    let by_value = KeyedBreakerLayer::new(KeyedConfig::default(), |request: &Request| {
        assert_ne!(request.0, 13, "an unlucky key");
        request.0
    });
    let (mut service, circuits) = (by_value.layer(service_fn(answers)), by_value.circuits());
    answer(&mut service, (1, true)).unwrap_err();
    for _ in 0..10 {
        // It comes from `call`, not from the future.
        catch_unwind(AssertUnwindSafe(|| drop(service.call((13, false))))).unwrap_err();
    }
    assert_eq!((circuits.len(), circuits.get(&1).unwrap().status().window.failures), (1, 1));
    answer(&mut service, (1, false)).unwrap();
    answer(&mut service, (2, false)).unwrap();
    assert_eq!(circuits.len(), 2);

    let by_ref: ByText = KeyedBreakerLayer::by_ref(KeyedConfig::default(), |(key, _)| {
        assert_ne!(key, "13", "an unlucky key");
        key
    });
    for _ in 0..10 {
        catch_unwind(AssertUnwindSafe(|| send_text(&by_ref, "13", false))).unwrap_err();
    }
    assert!(by_ref.circuits().is_empty());
    send_text(&by_ref, "14", false).unwrap();
}

#[test]
fn a_number_of_keys_out_of_range_and_a_count_window_are_refused_by_field() {
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
fn ten_thousand_keys_are_kept_by_default() {
    let layer: ByNumber = KeyedBreakerLayer::new(KeyedConfig::default(), |request| request.0);
    let mut service = layer.layer(service_fn(answers));
    (0..10_010).for_each(|key| answer(&mut service, (key, false)).unwrap());
    assert_eq!((layer.circuits().len(), layer.circuits().overflowed()), (10_000, 10));
}

#[test]
fn no_more_circuits_are_kept_than_allowed_and_the_others_go_unguarded() {
    let bench = Bench::of(100);
    (0..100).for_each(|key| bench.fail(key, 1));
    bench.fail(100, 1_000);
    let circuits = &bench.circuits;
    assert_eq!((circuits.len(), circuits.all().len(), circuits.evicted()), (100, 100, 0));
    assert_eq!(circuits.overflowed(), 1_000, "calls, not keys");
    assert!(circuits.get(&100).is_none() && circuits.get_or_insert(100).is_none());
    assert!(circuits.overflow().is_none(), "they do not share one");
    bench.fail(5, 4);
    assert!(bench.is_rejected(5), "the kept ones are guarded all the same");
}

#[test]
fn overflowing_keys_share_one_circuit_if_they_are_told_to_and_spare_the_others() {
    let bench = Bench::new(config(), 2, Overflow::Shared);
    bench.fail(0, 1);
    bench.fail(1, 1);
    assert!(bench.circuits.overflow().is_none(), "there was no need yet");
    (10..15).for_each(|key| bench.fail(key, 1));
    assert_eq!(bench.circuits.overflow().unwrap().status().state, CircuitState::Open);
    assert!((10..30).all(|key| bench.is_rejected(key)));
    assert_eq!((bench.circuits.overflowed(), bench.circuits.len()), (25, 2));
    bench.succeed(0);
    bench.succeed(1);
    bench.hand.advance(OPEN_FOR);
    bench.succeed(40);
    bench.succeed(41);
    assert_eq!(bench.circuits.overflow().unwrap().status().state, CircuitState::Closed);
}

#[test]
fn a_key_that_found_no_room_gets_its_own_circuit_once_there_is_some() {
    for overflow in [Overflow::Unguarded, Overflow::Shared] {
        let bench = Bench::new(config(), 2, overflow);
        bench.succeed(0);
        bench.succeed(1);
        bench.succeed(2);
        assert!(bench.circuits.get(&2).is_none());
        bench.hand.advance(FORGOTTEN);
        bench.fail(2, 5);
        assert!(bench.is_rejected(2));
        assert_eq!(bench.state(2), CircuitState::Open);
        assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed(), bench.circuits.len()), (1, 1, 2));
    }
}

#[test]
fn circuits_that_are_closed_with_an_empty_window_make_room() {
    let mut bench = Bench::of(100);
    for round in 1..=50 {
        bench.junk(100);
        bench.hand.advance(FORGOTTEN);
        assert_eq!(bench.circuits.len(), 100);
        assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), ((round - 1) * 100, 0));
    }
}

#[test]
fn a_circuit_whose_window_is_not_empty_makes_no_room() {
    type Send = fn(&Bench);
    let outcomes: [(&str, Send); 3] = [
        ("a success", |bench| bench.succeed(0)),
        ("a failure", |bench| bench.fail(0, 1)),
        ("a call that was given up", |bench| drop(bench.circuits.get(&0).unwrap().try_acquire().unwrap())),
    ];
    for (what, send) in outcomes {
        let mut bench = Bench::of(1);
        bench.circuits.get_or_insert(0).unwrap();
        send(&bench);
        bench.hand.advance(59 * SECOND);
        bench.junk(100);
        assert!(bench.circuits.get(&0).is_some(), "{what}");
        bench.hand.advance(FORGOTTEN);
        bench.junk(1);
        assert!(bench.circuits.get(&0).is_none(), "{what}, for ever");
    }
}

#[test]
fn calls_that_were_given_up_are_not_forgotten_for_junk_so_that_a_server_that_hangs_is_found_out() {
    let mut bench = Bench::of(4);
    for _ in 0..9 {
        drop(bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap());
        bench.junk(100);
    }
    drop(bench.circuit(0).try_acquire().unwrap());
    let status = bench.circuit(0).status();
    assert_eq!((status.state, status.last_trip.unwrap().reason), (CircuitState::Open, Reason::NoneCompletes));
}

#[test]
fn a_circuit_on_which_only_neutral_calls_came_makes_room_at_once() {
    let mut bench = Bench::of(1);
    for _ in 0..100 {
        bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap().settle(NEUTRAL);
        bench.circuits.get_or_insert(1).expect("nobody misses the other");
        assert_eq!(bench.circuits.len(), 1);
    }
    bench.junk(1);
    assert!(bench.circuits.get(&1).is_none());
}

#[test]
fn an_open_circuit_is_kept_for_its_time_and_as_long_again() {
    let hint = Verdict::Fault(FAULT.with_retry_after(100 * SECOND));
    for (verdict, time) in [(FAILURE, OPEN_FOR), (hint, 100 * SECOND)] {
        for (late, kept) in [(false, true), (true, false)] {
            let mut bench = Bench::of(1);
            (0..5).for_each(|_| {
                bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap().settle(verdict);
            });
            assert_eq!(bench.circuit(0).status().retry_after, Some(time));
            bench.hand.advance(
                (2 * time).checked_sub(if late { Duration::ZERO } else { Duration::from_millis(1) }).unwrap(),
            );
            bench.junk(10);
            assert_eq!(bench.circuits.get(&0).is_some(), kept, "{time:?}, late: {late}");
        }
    }
}

#[test]
fn a_half_open_circuit_is_kept_as_long_as_an_open_one() {
    for (left, kept) in [(1, true), (0, false)] {
        let mut bench = Bench::of(1);
        bench.fail(0, 5);
        bench.hand.advance(OPEN_FOR);
        bench.succeed(0);
        assert_eq!(bench.state(0), CircuitState::HalfOpen);
        bench.hand.advance(OPEN_FOR.checked_sub(left * Duration::from_millis(1)).unwrap());
        bench.junk(10);
        assert_eq!(bench.circuits.get(&0).is_some(), kept);
    }
}

#[test]
fn a_circuit_that_is_open_until_somebody_resets_it_is_never_forgotten() {
    let mut bench = Bench::new(config().open_until_reset(), 2, Overflow::Unguarded);
    bench.fail(0, 5);
    for _ in 0..10 {
        bench.hand.advance(365 * 86_400 * SECOND);
        bench.junk(100);
        assert!(bench.is_rejected(0));
    }
}

#[test]
fn a_circuit_that_a_hand_has_forced_is_never_forgotten() {
    let mut bench = Bench::of(3);
    bench.circuits.get_or_insert(0).unwrap().force_open().unwrap();
    bench.circuits.get_or_insert(1).unwrap().force_closed().unwrap();
    for _ in 0..100 {
        bench.hand.advance(365 * 86_400 * SECOND);
        bench.junk(100);
        assert!(bench.is_rejected(0));
    }
    bench.fail(1, 100);
    assert_eq!(bench.state(1), CircuitState::ForcedClosed);
    assert_eq!(bench.circuits.evicted(), 99, "the one place that was left went round");
}

#[test]
fn a_circuit_whose_call_is_on_its_way_is_never_forgotten() {
    let mut bench = Bench::new(config().consecutive_failures(1), 2, Overflow::Unguarded);
    let permit = bench.circuits.get_or_insert(0).unwrap().try_acquire().unwrap();
    for _ in 0..10 {
        bench.hand.advance(FORGOTTEN);
        bench.junk(100);
    }
    permit.settle(FAILURE);
    assert!(bench.is_rejected(0), "it counted where the next call looks");
}

#[test]
fn a_circuit_whose_call_hangs_or_waits_or_was_not_begun_is_never_forgotten() {
    let mut bench = Bench::new(config().abandoned(AbandonedPolicy::Failure), 4, Overflow::Unguarded);
    let mut hangs = bench.layer.layer(service_fn(|_: Request| pending::<Result<(), io::Error>>()));
    let mut waits = bench.layer.layer(ConcurrencyLimit::new(service_fn(answers), 0));
    let mut hanging = task::spawn(hangs.call((0, false)));
    assert_pending!(hanging.poll());
    let mut waiting = task::spawn(waits.call((1, false)));
    assert_pending!(waiting.poll());
    let not_begun = hangs.call((2, false));
    for _ in 0..10 {
        bench.hand.advance(FORGOTTEN);
        bench.junk(100);
    }
    assert!(bench.circuits.evicted() > 0, "there was something to forget");
    assert!((0..3).all(|key| bench.circuits.get(&key).is_some()));
    drop((hanging, waiting));
    assert_eq!(bench.circuit(0).status().window.failures, 1);
    assert_eq!(bench.circuit(1).status().window.failures, 1);
    drop(not_begun);
    bench.hand.advance(2 * FORGOTTEN);
    bench.junk(4);
    assert!((0..3).all(|key| bench.circuits.get(&key).is_none()), "and afterwards they are");
}

#[test]
fn a_circuit_to_which_somebody_holds_a_handle_is_never_forgotten() {
    let mut bench = Bench::of(2);
    let held = bench.circuits.get_or_insert(0).unwrap();
    let twin = held.clone();
    drop(held);
    for _ in 0..10 {
        bench.hand.advance(FORGOTTEN);
        bench.junk(100);
    }
    twin.trip().unwrap();
    assert!(bench.is_rejected(0), "it is the circuit of the next call");
    drop(twin);
    bench.hand.advance(2 * OPEN_FOR);
    bench.junk(10);
    assert!(bench.circuits.get(&0).is_none());
}

#[test]
fn holding_all_circuits_keeps_all_of_them() {
    let mut bench = Bench::of(10);
    (0..10).for_each(|key| bench.succeed(key));
    let all = bench.circuits.all();
    bench.hand.advance(FORGOTTEN);
    bench.junk(100);
    assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), (0, 100));
    let keys: HashSet<_> = all.iter().map(|circuit| *circuit.key()).collect();
    assert_eq!(keys, (0..10).collect());
}

/// Trap 15.
#[test]
fn a_hundred_thousand_junk_keys_leave_a_live_circuits_history_as_it_was() {
    let mut bench = Bench::new(config().failure_rate(None), 100, Overflow::Unguarded);
    for _ in 0..200 {
        bench.hand.advance(SECOND);
        bench.fail(0, 1);
        bench.succeed(0);
        bench.junk(500);
        assert_eq!(bench.circuits.len().max(100), 100);
    }
    assert!(bench.circuits.evicted() > 100, "they did come and go");
    let Counts { calls, failures, .. } = bench.circuit(0).status().window;
    assert!((118..=130).contains(&calls) && failures * 2 == calls, "{calls} calls, {failures} failures");

    bench.fail(0, 4);
    bench.junk(100_000);
    assert_eq!(bench.circuit(0).status().consecutive_failures, 4);
    bench.fail(0, 1);
    bench.junk(100_000);
    assert!(bench.is_rejected(0));
    bench.hand.advance(OPEN_FOR);
    bench.junk(100_000);
    bench.succeed(0);
    bench.succeed(0);
    assert_eq!(bench.state(0), CircuitState::Closed);
    assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::ConsecutiveFailures);
}

/// Trap 15.
#[test]
fn dead_keys_cannot_fill_the_map() {
    let bench = Bench::of(100);
    (0..100).for_each(|key| bench.fail(key, 5));
    bench.hand.advance(2 * OPEN_FOR);
    (100..200).for_each(|key| bench.fail(key, 5));
    assert_eq!((bench.circuits.evicted(), bench.circuits.overflowed()), (100, 0));
    assert!((100..200).all(|key| bench.is_rejected(key)));
}

#[test]
fn a_call_finds_its_circuit_while_threads_make_others_come_and_go() {
    let mut bench = Bench::new(config().consecutive_failures(1), 8, Overflow::Unguarded);
    bench.junk(1);
    let (bench, rounds) = (&bench, AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let rounds = &rounds;
            scope.spawn(move || {
                for round in 0..5_000 {
                    let junk = 1_000 + round * 4 + thread;
                    bench.circuits.get_or_insert(junk);
                    let Some(circuit) = bench.circuits.get_or_insert(thread) else { continue };
                    let permit = circuit.try_acquire().unwrap();
                    drop(circuit);
                    bench.circuits.get_or_insert(junk + 100_000);
                    permit.settle(FAILURE);
                    assert!(bench.is_rejected(thread), "nobody else knows this key");
                    bench.circuit(thread).reset().unwrap();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(bench.circuits.len() <= 8);
    assert!(bench.circuits.evicted() > 0 && rounds.into_inner() > 0);
}

#[test]
fn threads_that_ask_for_the_same_new_key_get_one_circuit() {
    let bench = Bench::new(config().consecutive_failures(8).failure_rate(None), 10_000, Overflow::Unguarded);
    let barrier = Barrier::new(8);
    let trips = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&trips);
    bench.circuits.on_transition(move |_| {
        told.fetch_add(1, Ordering::Relaxed);
    });
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                (0..1_000).for_each(|key| bench.fail(key, 1));
            });
        }
    });
    assert_eq!((bench.circuits.len(), trips.load(Ordering::Relaxed)), (1_000, 1_000));
    assert!((0..1_000).all(|key| bench.is_rejected(key)));
}

#[test]
fn all_are_reset_but_those_that_a_hand_has_forced() {
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
    assert!(!bench.is_rejected(10), "the shared one is a circuit, too");
}

#[test]
fn a_key_can_be_forced_open_before_its_first_call() {
    let bench = Bench::of(10);
    assert!(bench.circuits.get(&1).is_none() && bench.circuits.is_empty(), "asking makes none");
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
fn a_change_is_told_with_the_label_of_its_key() {
    let bench = Bench::new(config().name("tenants"), 10, Overflow::Unguarded);
    let told = Arc::new(Mutex::new(Vec::new()));
    for note in ["layer", "circuits"] {
        let told = Arc::clone(&told);
        let observer = move |transition: &tower_breaker::Transition| {
            let key = transition.key.as_deref().map(str::to_owned);
            told.lock().unwrap().push((note, transition.circuit, key.unwrap(), transition.to));
        };
        match note {
            "layer" => drop(bench.layer.clone().on_transition(observer)),
            _ => bench.circuits.on_transition(observer),
        }
    }
    bench.fail(42, 5);
    bench.circuits.get_or_insert(7).unwrap().force_open().unwrap();
    let expected: HashSet<_> = [("42", CircuitState::Open), ("7", CircuitState::ForcedOpen)]
        .into_iter()
        .flat_map(|(key, to)| ["layer", "circuits"].map(|note| (note, "tenants", key.to_owned(), to)))
        .collect();
    assert_eq!(told.lock().unwrap().len(), 4);
    assert_eq!(told.lock().unwrap().drain(..).collect::<HashSet<_>>(), expected);
}

#[test]
fn a_thousand_calls_at_half_open_send_as_many_probes_of_each_key_as_there_are_places() {
    let bench = Bench::of(100);
    let keys = 4;
    (0..keys).for_each(|key| bench.fail(key, 5));
    bench.hand.advance(OPEN_FOR);
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
    assert_eq!(sent, [3, 3, 3, 3, 1_600], "three of each that is half-open, all of the one that is closed");
    assert_eq!(rejected, 4 * (1_600 - 3));
}

#[test]
fn a_probe_that_fails_opens_its_own_key_again_and_no_other() {
    let bench = Bench::of(10);
    bench.fail(0, 5);
    bench.fail(1, 5);
    bench.hand.advance(OPEN_FOR);
    bench.fail(0, 1);
    bench.succeed(1);
    bench.succeed(1);
    assert_eq!((bench.state(0), bench.state(1)), (CircuitState::Open, CircuitState::Closed));
    assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::ProbeFailed);
}

/// Each clone draws from the list whether it will ever be ready, when it is asked first.
#[derive(Default)]
struct Moody {
    moods: Arc<Mutex<VecDeque<bool>>>,
    mine: Option<bool>,
}

impl Clone for Moody {
    fn clone(&self) -> Self {
        Self { moods: Arc::clone(&self.moods), mine: None }
    }
}

impl Service<Request> for Moody {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<Result<(), io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        let Self { moods, mine } = self;
        let mood = mine.get_or_insert_with(|| moods.lock().unwrap().pop_front().unwrap_or(true));
        if *mood { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        assert_eq!(self.mine.take(), Some(true), "called without being ready");
        answers(request)
    }
}

#[test]
fn a_key_whose_inner_service_is_never_ready_holds_up_no_other() {
    let bench = Bench::of(10);
    let moody = Moody { moods: Arc::new(Mutex::new([false, true, false].into())), mine: None };
    let mut service = bench.layer.layer(moody);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = |key| {
        assert!(service.poll_ready(&mut cx).is_ready(), "it is always ready");
        task::spawn(service.call((key, false)))
    };
    let mut dead = call(0);
    assert_pending!(dead.poll());
    assert_ready_ok!(call(1).poll());
    let mut dead_too = call(2);
    assert_pending!(dead_too.poll());
    (3..10).for_each(|key| assert_ready_ok!(call(key).poll()));
    assert_ready_ok!(call(0).poll(), "not even the same key");
    assert_pending!(dead.poll());
}

#[test]
fn the_inner_service_is_never_called_unready_and_keeps_no_place_of_a_call_that_is_over() {
    let bench = Bench::of(10);
    // It panics if it is called without a reservation of its own.
    let mut service = bench.layer.layer(ConcurrencyLimit::new(service_fn(answers), 1));
    for key in 0..5 {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready() && service.poll_ready(&mut cx).is_ready());
        assert_ready_ok!(task::spawn(service.call((key, false))).poll());
        assert_ready_ok!(task::spawn(service.clone().call((key, false))).poll());
    }
}

#[test]
fn a_call_that_waits_goes_on_when_the_inner_service_is_ready() {
    let bench = Bench::of(10);
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
    let mut other = tower_test::mock::Spawn::new(inner.clone());
    assert_ready_ok!(other.poll_ready::<Request>());
    let mut waiting = task::spawn(bench.layer.layer(inner).call((0, false)));
    assert_pending!(waiting.poll());
    assert!(!waiting.is_woken());
    drop(other);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll());
    assert_eq!(bench.circuit(0).status().window.calls, 1);
}

#[test]
fn a_call_that_waits_is_rejected_when_its_circuit_opens_and_not_when_anothers_does() {
    let bench = Bench::of(10);
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
    let mut other = tower_test::mock::Spawn::new(inner.clone());
    assert_ready_ok!(other.poll_ready::<Request>());
    let service = bench.layer.layer(inner.clone());
    let mut waiting = task::spawn(service.clone().call((0, false)));
    let mut bystander = task::spawn(service.clone().call((1, false)));
    assert_pending!(waiting.poll());
    assert_pending!(bystander.poll());
    bench.fail(0, 5);
    assert!(waiting.is_woken());
    assert!(matches!(assert_ready_err!(waiting.poll()), BreakerError::Rejected(_)));
    assert_pending!(bystander.poll());
    drop(waiting);
    drop(other);
    assert!(bystander.is_woken(), "the next in the queue, for the rejected call has left it");
    assert_ready_ok!(bystander.poll());
}

#[test]
fn a_call_that_waits_goes_on_through_every_change_that_does_not_reject_it() {
    type Change = fn(&KeyedCircuit<u64>);
    let changes: [(&str, BreakerConfigBuilder, Change); 4] = [
        ("it only observes", config().mode(Mode::ObserveOnly), |circuit| circuit.trip().unwrap()),
        ("it is disabled", config().mode(Mode::Disabled), |circuit| circuit.trip().map_or((), drop)),
        ("it is forced closed", config(), |circuit| circuit.force_closed().unwrap()),
        ("it is reset", config(), |circuit| circuit.reset().unwrap()),
    ];
    for (what, each, change) in changes {
        let bench = Bench::new(each, 10, Overflow::Unguarded);
        let inner = ConcurrencyLimit::new(service_fn(answers), 1);
        let mut other = tower_test::mock::Spawn::new(inner.clone());
        assert_ready_ok!(other.poll_ready::<Request>());
        let mut waiting = task::spawn(bench.layer.layer(inner).call((0, false)));
        assert_pending!(waiting.poll());
        change(&bench.circuit(0));
        assert_pending!(waiting.poll(), "{what}");
        drop(other);
        assert!(waiting.is_woken(), "{what}");
        assert_ready_ok!(waiting.poll(), "{what}");
    }
}

#[test]
fn a_probe_that_waits_goes_on_when_the_others_close_its_circuit() {
    let bench = Bench::of(10);
    bench.fail(0, 5);
    bench.hand.advance(OPEN_FOR);
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
    let mut other = tower_test::mock::Spawn::new(inner.clone());
    assert_ready_ok!(other.poll_ready::<Request>());
    let mut waiting = task::spawn(bench.layer.layer(inner).call((0, false)));
    assert_pending!(waiting.poll());
    bench.succeed(0);
    bench.succeed(0);
    assert_eq!(bench.state(0), CircuitState::Closed);
    assert_pending!(waiting.poll());
    drop(other);
    assert_ready_ok!(waiting.poll());
}

#[test]
fn a_call_that_is_rejected_reserves_nothing() {
    let bench = Bench::of(10);
    bench.fail(0, 5);
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
    let service = bench.layer.layer(inner.clone());
    let mut kept = task::spawn(service.clone().call((0, false)));
    let mut over = task::spawn(service.clone().call((0, false)));
    assert!(matches!(assert_ready_err!(over.poll()), BreakerError::Rejected(_)));
    let mut other = tower_test::mock::Spawn::new(inner);
    assert_ready_ok!(other.poll_ready::<Request>());
    assert!(matches!(assert_ready_err!(kept.poll()), BreakerError::Rejected(_)), "it needs no place either");
}

#[test]
fn a_call_that_waits_and_is_dropped_leaves_no_waker_gives_its_place_back_and_was_given_up() {
    let bench = Bench::of(10);
    let mut service = bench.layer.layer(ConcurrencyLimit::new(service_fn(answers), 0));
    let mut waker = task::spawn(());
    let mut call = Box::pin(service.call((0, false)));
    assert_pending!(waker.enter(|cx, _| call.as_mut().poll(cx)));
    drop(call);
    assert_eq!(waker.waker_ref_count(), 1, "the circuit has let go of it");
    let status = bench.circuit(0).status();
    assert_eq!((status.window.abandoned, status.window.calls), (1, 0));
    for _ in 0..9 {
        assert_pending!(task::spawn(service.call((0, false))).poll());
    }
    assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::NoneCompletes);

    bench.hand.advance(OPEN_FOR);
    let probe =
        || task::spawn(bench.layer.layer(ConcurrencyLimit::new(service_fn(answers), 0)).call((0, false)));
    let mut probes = [probe(), probe(), probe()];
    for probe in &mut probes {
        assert_pending!(probe.poll());
    }
    assert!(bench.is_rejected(0));
    let [first, ..] = probes;
    drop(first);
    bench.succeed(0);
}

/// It goes wrong in the way that the request says.
#[derive(Clone)]
struct Broken(&'static str);

impl Service<Request> for Broken {
    type Response = ();
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<(), io::Error>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        assert_ne!(self.0, "poll_ready");
        if self.0 == "error" {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert_ne!(self.0, "call");
        Box::pin(async { panic!("future") })
    }
}

#[test]
fn an_error_of_the_inner_services_readiness_counts_against_its_key() {
    let bench = Bench::of(10);
    let mut service = bench.layer.layer(Broken("error"));
    for failures in 1..=4 {
        assert!(is_inner(&answer(&mut service, (0, false))));
        assert_eq!(bench.circuit(0).status().consecutive_failures, failures);
    }
    assert!(is_inner(&answer(&mut service, (0, false))));
    assert!(matches!(answer(&mut service, (0, false)), Err(BreakerError::Rejected(_))));
    assert!(!bench.is_rejected(1));
}

#[test]
fn a_panic_of_the_inner_service_counts_against_its_key_goes_on_and_spoils_nothing() {
    for what in ["poll_ready", "call", "future"] {
        let bench = Bench::of(10);
        let mut service = bench.layer.layer(Broken(what));
        for failures in 1..=5 {
            catch_unwind(AssertUnwindSafe(|| answer(&mut service, (0, false)))).unwrap_err();
            assert_eq!(bench.circuit(0).status().state == CircuitState::Open, failures == 5, "{what}");
        }
        assert!(matches!(answer(&mut service, (0, false)), Err(BreakerError::Rejected(_))), "{what}");
        bench.succeed(1);
        bench.hand.advance(OPEN_FOR);
        for _ in 0..10 {
            catch_unwind(AssertUnwindSafe(|| answer(&mut service, (0, false)))).unwrap_err();
            assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::ProbeFailed, "{what}");
            bench.hand.advance(OPEN_FOR);
        }
        bench.succeed(0);
        bench.succeed(0);
        assert_eq!(bench.state(0), CircuitState::Closed, "{what}: no place was lost");
    }
}

#[test]
fn a_hundred_thousand_circuits_trip_at_once_and_recover_at_once() {
    let bench = Bench::of(100_000);
    let told = Arc::new(Mutex::new(HashSet::new()));
    let tell = Arc::clone(&told);
    bench.circuits.on_transition(move |transition| {
        assert!(tell.lock().unwrap().insert((transition.key.clone().unwrap(), transition.to)));
    });
    let of_all = |work: &(dyn Fn(u64) + Sync)| {
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
    of_all(&|key| bench.fail(key, 5));
    assert!(bench.circuits.all().iter().all(|circuit| circuit.status().state == CircuitState::Open));
    of_all(&|key| assert!(bench.is_rejected(key)));
    assert_eq!(told.lock().unwrap().len(), 100_000);
    bench.hand.advance(OPEN_FOR);
    of_all(&|key| (0..2).for_each(|_| bench.succeed(key)));
    assert!(bench.circuits.all().iter().all(|circuit| circuit.status().state == CircuitState::Closed));
    assert_eq!((told.lock().unwrap().len(), bench.circuits.len()), (300_000, 100_000));
}

#[test]
fn a_body_that_is_still_read_keeps_its_circuit_and_counts_for_it() {
    let (clock, hand) = Clock::manual();
    let each = config().clock(clock).consecutive_failures(1).abandoned(AbandonedPolicy::Failure);
    let config = KeyedConfig::builder(each.build().unwrap()).max_keys(1).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, |request: &u64| *request)
        .track_body()
        .healthy_after(365 * 86_400 * SECOND);
    let mut service = layer.layer(service_fn(|_: u64| {
        ready(Ok::<_, io::Error>(http::Response::new("the whole of it".to_owned())))
    }));
    let response = answer(&mut service, 0).unwrap();
    for key in 1..100 {
        hand.advance(FORGOTTEN);
        drop(answer(&mut service, key).unwrap());
    }
    assert!(layer.circuits().get(&0).is_some());
    drop(response);
    assert_eq!(layer.circuits().get(&0).unwrap().status().state, CircuitState::Open);
    assert!(matches!(answer(&mut service, 0), Err(BreakerError::Rejected(_))));
}

#[test]
fn a_body_of_which_nothing_came_was_given_up_however_late_it_is_dropped() {
    for seconds in [29, 31] {
        let (clock, hand) = Clock::manual();
        let each = config().clock(clock).abandoned(AbandonedPolicy::Failure).build().unwrap();
        let config = KeyedConfig::builder(each).build().unwrap();
        let layer = KeyedBreakerLayer::new(config, |request: &u64| *request).track_body();
        let mut service = layer.layer(service_fn(|_: u64| {
            let body = StreamBody::new(futures::stream::pending::<Result<Frame<&'static [u8]>, io::Error>>());
            ready(Ok::<_, io::Error>(http::Response::new(body)))
        }));
        let mut response = answer(&mut service, 0).unwrap();
        assert_pending!(task::spawn(response.body_mut().frame()).poll());
        hand.advance(seconds * SECOND);
        drop(response);
        let Counts { calls, failures, .. } = layer.circuits().get(&0).unwrap().status().window;
        assert_eq!((calls, failures), (1, 1), "dropped after {seconds} s");
    }
}

#[test]
fn a_window_is_as_long_as_asked_and_up_to_a_tenth_longer() {
    for millis in 0..100 {
        let bench = Bench::of(1);
        bench.hand.advance(Duration::from_millis(millis * 73));
        bench.fail(0, 1);
        bench.hand.advance(60 * SECOND);
        assert_eq!(bench.circuit(0).status().window.calls, 1, "at {millis}");
        bench.hand.advance(6 * SECOND);
        assert_eq!(bench.circuit(0).status().window.calls, 0, "at {millis}");
    }
}

#[test]
fn who_asks_for_a_circuit_gets_the_place_of_the_one_that_can_be_forgotten() {
    let bench = Bench::of(1_000);
    let mut held: Vec<_> = (0..1_000).map(|key| bench.circuits.get_or_insert(key).unwrap()).collect();
    drop(held.remove(500));
    assert!(bench.circuits.get_or_insert(1_000).is_some());
    assert!(bench.circuits.get(&500).is_none());
}

#[test]
fn who_asks_for_a_circuit_gets_room_as_soon_as_there_is_some_again() {
    let mut bench = Bench::of(2);
    let held: Vec<_> = (0..2).map(|key| bench.circuits.get_or_insert(key).unwrap()).collect();
    bench.junk(100);
    assert!(bench.circuits.get_or_insert(2).is_none());
    drop(held);
    assert!(bench.circuits.get_or_insert(2).is_some());
}
