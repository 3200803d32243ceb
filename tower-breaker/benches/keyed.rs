//! The cost of a call through one of many circuits, compared with a plain array of the same
//! circuits, a bare service and an uncontended lock.

use std::hint::black_box;

use tower::Layer;
use tower_breaker::keyed::{ByValue, KeyedBreakerLayer, KeyedCircuit, KeyedConfig};
use tower_breaker::{BreakerConfig, Verdict};

mod bare;
#[path = "../../benches/measure.rs"]
mod measure;

use bare::{Bare, call};
use measure::{compare, scaling, variant};

/// The number of requests, whose keys are in random order, so that no cache can predict them.
const REQUESTS: usize = 1 << 20;

fn main() {
    let mut bare = Bare;
    let mut one = layer(1).layer(Bare);
    let mut open = layer(1).layer(Bare);
    call(&mut open, 0);
    open.circuits().get(&0).unwrap().force_open().unwrap();

    let many = layer(100_000);
    let mut service = many.layer(Bare);
    // The circuits are created in another order than the requests use them.
    let mut created: Vec<u64> = (0..100_000).collect();
    fastrand::Rng::with_seed(9).shuffle(&mut created);
    for key in created {
        call(&mut service, key);
    }
    let array: Vec<KeyedCircuit<u64>> = (0..100_000).map(|key| many.circuits().get(&key).unwrap()).collect();
    let requests = keys(100_000);
    let (mut of_map, mut of_array) = (requests.iter().cycle(), requests.iter().rev().cycle());

    compare(vec![
        variant("bare service", || call(&mut bare, 7_u64)),
        variant("one key, the same each time", || call(&mut one, 0)),
        variant("one key, open, rejected", || call(&mut open, 0)),
        variant("one of 100,000 in a plain array", || {
            let circuit = &array[*of_array.next().unwrap() as usize];
            let permit = circuit.try_acquire().unwrap();
            let succeeded = call(&mut Bare, 7_u64);
            permit.record(Verdict::Success);
            succeeded
        }),
        variant("one key of 100,000", || call(&mut service, *of_map.next().unwrap())),
    ]);

    let bare = scaling("bare service", || {
        let mut service = Bare;
        move || {
            black_box(call(&mut service, 7_u64));
        }
    });
    let keyed = scaling("one key of 100,000", || {
        let mut service = many.layer(Bare);
        let keys = keys(100_000);
        let mut next = 0;
        move || {
            next = (next + 1) % keys.len();
            black_box(call(&mut service, keys[next]));
        }
    });
    println!("{:44} {:>9.2} of the bare service's scaling", "", keyed / bare);
    memory();
}

/// Prints the memory that a key takes, and how much ten million new keys add when the map is full.
fn memory() {
    let bytes = measure_bytes(|| {
        let layer = layer(100_000);
        let mut service = layer.layer(Bare);
        for key in 0..100_000 {
            call(&mut service, key);
        }
        layer
    });
    println!("{:44} {:>9.1} bytes", "one of 100,000 keys", bytes.0 as f64 / 100_000.0);

    let layer = layer(10_000);
    let mut service = layer.layer(Bare);
    for _ in 0..4 {
        layer.circuits().get_or_insert(0).unwrap().try_acquire().unwrap().record(failure());
    }
    let mut next = 1;
    let mut call_new_keys = |calls: u64| {
        for _ in 0..calls {
            call(&mut service, next);
            next += 1;
        }
    };
    call_new_keys(10_000);
    let (bytes, ()) = measure_bytes(|| call_new_keys(10_000_000));
    let circuits = layer.circuits();
    let failures = circuits.get(&0).unwrap().status().consecutive_failures;
    println!(
        "10,000,000 new keys: {bytes} bytes more, {} circuits, {} evicted, {} overflowed calls; a circuit in use still has {failures} consecutive failures",
        circuits.len(),
        circuits.evicted(),
        circuits.overflowed(),
    );
}

fn measure_bytes<T>(run: impl FnOnce() -> T) -> (i64, T) {
    let mut result = None;
    let allocations = allocation_counter::measure(|| result = Some(run()));
    (allocations.bytes_current, result.unwrap())
}

fn failure() -> Verdict {
    tower_breaker::fault_classify::classify_error(&std::io::Error::from(std::io::ErrorKind::TimedOut)).into()
}

type Layered = KeyedBreakerLayer<ByValue<fn(&u64) -> u64>, u64>;

fn layer(max_keys: usize) -> Layered {
    let config = KeyedConfig::builder(BreakerConfig::default()).max_keys(max_keys).build().unwrap();
    KeyedBreakerLayer::new(config, |key: &u64| *key)
}

fn keys(of: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..REQUESTS).map(|_| random.u64(0..of)).collect()
}
