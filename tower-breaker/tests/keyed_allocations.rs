//! The cost of a key: a call with a known key allocates nothing, and a key takes few bytes.

use std::future::{Future, Ready, ready};
use std::io;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tower::{Layer, Service};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig, Overflow};
use tower_breaker::{BreakerConfig, BreakerConfigBuilder, BreakerError, CircuitState, Clock};

/// A key as a number and as a text, and whether the call fails.
type Request = (u64, &'static str, bool);

#[derive(Clone)]
struct Answers;

impl Service<Request> for Answers {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<Result<(), io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (_, _, fails): Request) -> Self::Future {
        ready(if fails { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) })
    }
}

fn call<S: Service<Request>>(service: &mut S, request: Request) -> Result<S::Response, S::Error> {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut cx) else { panic!("the service must be ready") };
    let Poll::Ready(result) = pin!(service.call(request)).poll(&mut cx) else {
        panic!("the call must complete immediately")
    };
    result
}

/// Makes the tests run one after the other. All tests share the slots of labels: if one test takes
/// a free slot, another test has to allocate a new one.
fn run_alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calls by one key in a row after which a service remembers the circuit of the key.
const CALLS_UNTIL_LEASE: usize = 16;

/// Returns the number of allocations of 100 calls. The first calls, which may allocate, are not
/// counted: the creation of a circuit, and the lease that a service gets.
fn allocations(mut run: impl FnMut()) -> u64 {
    run();
    let before = allocation_counter::measure(|| (0..CALLS_UNTIL_LEASE).for_each(|_| run())).count_total;
    assert!(before <= 2, "a lease, and space for it in the table");
    allocation_counter::measure(|| (0..100).for_each(|_| run())).count_total
}

/// Returns a builder for circuits that open after failures in a row at any speed, for exactly 30 s.
fn quick(clock: Clock) -> BreakerConfigBuilder {
    BreakerConfig::builder()
        .clock(clock)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(Duration::from_secs(30))
        .open_jitter(0.0)
}

fn by_number(request: &Request) -> u64 {
    request.0
}

fn by_text(request: &Request) -> &str {
    request.1
}

fn rejected(result: &Result<(), BreakerError<io::Error>>) -> bool {
    matches!(result, Err(BreakerError::Rejected(_)))
}

#[test]
fn call_with_known_number_allocates_nothing() {
    let _alone = run_alone();
    let mut service = KeyedBreakerLayer::new(KeyedConfig::default(), by_number).layer(Answers);
    (0..100).for_each(|key| call(&mut service, (key, "", false)).unwrap());
    assert_eq!(allocations(|| (0..100).for_each(|key| call(&mut service, (key, "", false)).unwrap())), 0);
    assert_eq!(allocations(|| call(&mut service.clone(), (1, "", false)).unwrap()), 0);
}

#[test]
fn call_with_known_text_allocates_nothing() {
    let _alone = run_alone();
    let mut service = KeyedBreakerLayer::by_ref(KeyedConfig::default(), by_text).layer(Answers);
    for key in [
        "api.example",
        "",
        "a key that is too long for a string type that stores short strings without an allocation",
    ] {
        assert_eq!(allocations(|| call(&mut service, (0, key, false)).unwrap()), 0);
    }
}

#[test]
fn leases_of_a_key_are_bounded_and_dropped_with_their_services() {
    let _alone = run_alone();
    let layer = KeyedBreakerLayer::new(KeyedConfig::default(), by_number);
    let leased = || {
        let mut service = layer.layer(Answers);
        (0..=CALLS_UNTIL_LEASE).for_each(|_| call(&mut service, (1, "", false)).unwrap());
        service
    };
    drop(leased());
    let of_dropped = allocation_counter::measure(|| (0..1_000).for_each(|_| drop(leased()))).bytes_current;
    assert!(of_dropped < 1_000, "{of_dropped}");
    let mut services = Vec::with_capacity(1_000);
    let of_kept = allocation_counter::measure(|| (0..1_000).for_each(|_| services.push(leased())));
    assert!((1_000..15_000).contains(&of_kept.bytes_current), "{}", of_kept.bytes_current);
}

#[test]
fn failure_rejection_and_probe_of_known_key_allocate_nothing() {
    let _alone = run_alone();
    let (clock, time) = Clock::manual();
    let each = quick(clock).consecutive_failures(300).failure_rate(None);
    let each = each.successes_to_close(10_000).build().unwrap();
    let layer = KeyedBreakerLayer::new(KeyedConfig::builder(each).build().unwrap(), by_number);
    let mut service = layer.layer(Answers);
    assert_eq!(allocations(|| assert!(call(&mut service, (1, "", true)).is_err())), 0);
    while !rejected(&call(&mut service, (1, "", true))) {}
    assert_eq!(allocations(|| assert!(rejected(&call(&mut service, (1, "", false))))), 0);
    time.advance(Duration::from_secs(30));
    assert_eq!(allocations(|| call(&mut service, (1, "", false)).unwrap()), 0);
    assert_eq!(layer.circuits().get(&1).unwrap().status().state, CircuitState::HalfOpen);
}

#[test]
fn call_with_key_over_max_keys_allocates_nothing() {
    let _alone = run_alone();
    for overflow in [Overflow::Unguarded, Overflow::Shared] {
        let config = KeyedConfig::builder(BreakerConfig::default()).max_keys(1).overflow(overflow);
        let mut service = KeyedBreakerLayer::new(config.build().unwrap(), by_number).layer(Answers);
        // A circuit that has just failed is kept.
        call(&mut service, (0, "", true)).unwrap_err();
        let mut key = 0;
        let mut call_new_key = || {
            key += 1;
            call(&mut service, (key, "", false)).unwrap();
        };
        assert_eq!(allocations(&mut call_new_key), 0, "{overflow:?}");
    }
}

/// Returns the bytes that each of `keys` keys takes, after one call and `call_each`.
fn bytes_per_key(keys: u64, call_each: impl Fn(&KeyedCircuits<u64>, u64)) -> u64 {
    let config = KeyedConfig::builder(BreakerConfig::default()).max_keys(keys as usize).build().unwrap();
    let mut layer = None;
    let info = allocation_counter::measure(|| {
        let new = KeyedBreakerLayer::<_, _>::new(config, by_number);
        let circuits = new.circuits();
        let mut service = new.layer(Answers);
        for key in 0..keys {
            call(&mut service, (key, "", false)).unwrap();
            call_each(&circuits, key);
        }
        assert_eq!(circuits.len() as u64, keys);
        layer = Some(new);
    });
    drop(layer);
    u64::try_from(info.bytes_current).unwrap() / keys
}

#[test]
fn number_key_takes_about_220_bytes() {
    let _alone = run_alone();
    let bytes = bytes_per_key(100_000, |_, _| {});
    println!("{bytes} bytes per key");
    // The feature `metrics` adds the number of the key's instruments.
    let most = if cfg!(feature = "metrics") { 224 } else { 216 };
    assert!(bytes <= most, "{bytes} bytes per key");
}

/// The documentation of `KeyedBreakerLayer` states about 1 KB.
#[test]
fn failing_key_takes_about_one_kilobyte_more() {
    let _alone = run_alone();
    let bytes = bytes_per_key(10_000, |circuits, key| circuits.get(&key).unwrap().trip().unwrap());
    println!("{bytes} bytes per failing key");
    assert!(bytes <= 1_500, "{bytes} bytes per failing key");
}

#[test]
fn evicted_keys_keep_memory_constant_and_dropped_map_frees_it() {
    let _alone = run_alone();
    let (clock, time) = Clock::manual();
    let each = quick(clock).build().unwrap();
    let config = KeyedConfig::builder(each).max_keys(100).build().unwrap();
    let layer = KeyedBreakerLayer::new(config, by_number);
    let mut service = layer.layer(Answers);
    let mut key = 0;
    let mut round = || {
        for _ in 0..100 {
            key += 1;
            for _ in 0..5 {
                call(&mut service, (key, "", true)).unwrap_err();
            }
        }
        time.advance(Duration::from_secs(70));
    };
    (0..10).for_each(|_| round());
    let info = allocation_counter::measure(|| (0..100).for_each(|_| round()));
    assert!(info.bytes_current.abs() < 100 * 200, "{info:?}");
    assert_eq!((layer.circuits().len(), layer.circuits().evicted()), (100, 10_900));

    let info = allocation_counter::measure(|| {
        let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::default(), by_number);
        let mut service = layer.layer(Answers);
        (0..1_000).for_each(|key| drop(call(&mut service, (key, "", key % 2 == 0))));
    });
    assert!(info.bytes_current.abs() < 4_096, "{info:?}");
}

#[test]
fn services_that_were_dropped_take_no_memory() {
    let _alone = run_alone();
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::default(), by_number);
    let call_from_new_service = || {
        let mut service = layer.layer(Answers);
        (0..40).for_each(|_| call(&mut service, (1, "", false)).unwrap());
    };
    call_from_new_service();
    let info = allocation_counter::measure(|| (0..1_000).for_each(|_| call_from_new_service()));
    assert!(info.count_total >= 1_000, "each service has had a lease: {info:?}");
    assert!(info.bytes_current.abs() < 1_000, "{info:?}");
}
