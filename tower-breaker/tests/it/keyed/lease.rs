//! A service that calls one key many times in a row: what other keys and the map see of it.

use std::hash::{Hash, Hasher};

use super::*;

/// More calls than it takes until a service remembers the circuit of its key.
const MANY_CALLS: usize = 40;

/// Answers calls; those with the flag never end.
async fn answer((_, hangs): Request) -> Result<(), io::Error> {
    if hangs { pending().await } else { Ok(()) }
}

fn call_many_times<S: Service<Request, Error: fmt::Debug>>(service: &mut S, key: u64) {
    for _ in 0..MANY_CALLS {
        call_once(service, (key, false)).unwrap();
    }
}

#[test]
fn service_of_one_key_does_not_prevent_eviction() {
    let bench = Bench::of(1);
    let mut services = [0, 1].map(|_| bench.layer.layer(service_fn(answer)));
    for key in 0..10 {
        for service in &mut services {
            call_many_times(service, key);
        }
        assert_eq!(bench.circuit(key).status().window.calls, 2 * MANY_CALLS as u64);
        bench.time.advance(AFTER_WINDOW);
    }
    assert_eq!((bench.circuits.len(), bench.circuits.evicted(), bench.circuits.overflowed()), (1, 9, 0));
}

#[test]
fn key_that_was_evicted_gets_new_circuit_in_same_service() {
    let bench = Bench::of(1);
    let mut service = bench.layer.layer(service_fn(answer));
    call_many_times(&mut service, 1);
    bench.time.advance(AFTER_WINDOW);
    bench.succeed(2);
    assert!(bench.circuits.get(&1).is_none());
    bench.time.advance(AFTER_WINDOW);
    call_many_times(&mut service, 1);
    assert_eq!(bench.circuit(1).status().window.calls, MANY_CALLS as u64);
}

#[test]
fn pending_call_of_service_with_one_key_prevents_eviction() {
    let bench = Bench::of(2);
    let mut service = bench.layer.layer(service_fn(answer));
    call_many_times(&mut service, 1);
    bench.succeed(2);
    let mut hanging = task::spawn(service.call((1, true)));
    assert_pending!(hanging.poll());
    bench.time.advance(AFTER_WINDOW);
    // The other circuit is evicted each time.
    (3..10).for_each(|key| {
        bench.succeed(key);
        bench.time.advance(AFTER_WINDOW);
    });
    assert_eq!((bench.circuit(1).status().key.as_deref(), bench.circuits.evicted()), (Some("1"), 7));
    drop(hanging);
    // A success, because the cancelled call would also keep the circuit.
    call_once(&mut service, (1, false)).unwrap();
    (20..22).for_each(|key| {
        bench.time.advance(AFTER_WINDOW);
        bench.succeed(key);
    });
    assert!(bench.circuits.get(&1).is_none(), "the call has ended");
}

#[test]
fn service_of_removed_key_uses_new_circuit() {
    for hangs in [false, true] {
        let bench = Bench::of(10);
        let mut service = bench.layer.layer(service_fn(answer));
        call_many_times(&mut service, 1);
        let mut hanging = task::spawn(service.call((1, hangs)));
        assert_eq!(hanging.poll().is_pending(), hangs);
        let removed = bench.circuits.remove(&1).unwrap();
        removed.force_open().unwrap();
        call_once(&mut service, (1, false)).unwrap();
        assert_eq!(bench.circuit(1).status().window.calls, 1);
        call_many_times(&mut service, 1);
        bench.circuits.clear();
        call_once(&mut service, (1, false)).unwrap();
        assert_eq!(bench.circuit(1).status().window.calls, 1);
    }
}

#[test]
fn service_of_one_key_uses_circuits_of_other_keys() {
    let bench = Bench::of(10);
    let mut service = bench.layer.layer(service_fn(answer));
    call_many_times(&mut service, 1);
    bench.fail(2, 5);
    assert!(call_once(&mut service, (2, false)).is_err());
    call_once(&mut service, (1, false)).unwrap();
    bench.circuit(1).force_open().unwrap();
    assert!(call_once(&mut service, (1, false)).is_err());
}

#[test]
fn service_of_one_key_uses_circuit_of_other_key_with_equal_hash() {
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct SameHash(u8);

    impl Hash for SameHash {
        fn hash<H: Hasher>(&self, _: &mut H) {}
    }

    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::default(), SameHash::clone);
    let mut service = layer.layer(service_fn(async |_: SameHash| Ok::<_, io::Error>(())));
    for _ in 0..MANY_CALLS {
        call_once(&mut service, SameHash(1)).unwrap();
    }
    for key in [2, 1, 2] {
        call_once(&mut service, SameHash(key)).unwrap();
    }
    let calls = |key| layer.circuits().get(&SameHash(key)).map(|circuit| circuit.status().window.calls);
    assert_eq!((calls(1), calls(2)), (Some(MANY_CALLS as u64 + 1), Some(2)));
}

#[test]
fn removed_key_of_service_is_dropped() {
    let key = Arc::new(());
    let layer = KeyedBreakerLayer::<_, _>::new(KeyedConfig::default(), |key: &Arc<()>| Arc::clone(key));
    let mut service = layer.layer(service_fn(async |_: Arc<()>| Ok::<_, io::Error>(())));
    for _ in 0..MANY_CALLS {
        call_once(&mut service, Arc::clone(&key)).unwrap();
    }
    assert_eq!(Arc::strong_count(&key), 2);
    layer.circuits().clear();
    assert_eq!(Arc::strong_count(&key), 1);
    for _ in 0..MANY_CALLS {
        call_once(&mut service, Arc::clone(&key)).unwrap();
    }
    drop((layer, service));
    assert_eq!(Arc::strong_count(&key), 1);
}
