//! What a call through one of many circuits costs, beside a plain array of the same circuits, a bare service and an uncontended lock.

use std::hint::black_box;

use tower::Layer;
use tower_breaker::keyed::{ByValue, KeyedBreakerLayer, KeyedCircuit, KeyedConfig};
use tower_breaker::{BreakerConfig, Verdict};

mod bare;
#[path = "../../benches/measure.rs"]
mod measure;

use bare::{Bare, call};
use measure::{compare, scaling, variant};

/// Keys that are asked for, in an order that no cache knows.
const ASKED: usize = 1 << 20;

fn main() {
    let mut bare = Bare;
    let mut one = layer(1).layer(Bare);
    let mut open = layer(1).layer(Bare);
    call(&mut open, 0);
    open.circuits().get(&0).unwrap().force_open().unwrap();

    let many = layer(100_000);
    let mut service = many.layer(Bare);
    // Made in another order than they are asked for.
    let mut made: Vec<u64> = (0..100_000).collect();
    fastrand::Rng::with_seed(9).shuffle(&mut made);
    for key in made {
        call(&mut service, key);
    }
    let array: Vec<KeyedCircuit<u64>> = (0..100_000).map(|key| many.circuits().get(&key).unwrap()).collect();
    let asked = keys(100_000);
    let (mut of_map, mut of_array) = (asked.iter().cycle(), asked.iter().rev().cycle());

    compare(vec![
        variant("bare service", || call(&mut bare, 7_u64)),
        variant("one key, the same each time", || call(&mut one, 0)),
        variant("one key, open, rejected", || call(&mut open, 0)),
        variant("one of 100,000 in a plain array", || {
            let circuit = &array[*of_array.next().unwrap() as usize];
            let permit = circuit.try_acquire().unwrap();
            let answered = call(&mut Bare, 7_u64);
            permit.record(Verdict::Success);
            answered
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

/// What keys cost in memory, and what ten million junk keys do to it.
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
    let mut junk = |calls: u64| {
        for _ in 0..calls {
            call(&mut service, next);
            next += 1;
        }
    };
    junk(10_000);
    let (bytes, ()) = measure_bytes(|| junk(10_000_000));
    let circuits = layer.circuits();
    let run = circuits.get(&0).unwrap().status().consecutive_failures;
    println!(
        "10,000,000 junk keys: {bytes} bytes more, {} circuits, {} forgotten, {} without room; a live one's run of failures is {run}",
        circuits.len(),
        circuits.evicted(),
        circuits.overflowed(),
    );
}

fn measure_bytes<T>(run: impl FnOnce() -> T) -> (i64, T) {
    let mut made = None;
    let allocations = allocation_counter::measure(|| made = Some(run()));
    (allocations.bytes_current, made.unwrap())
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
    (0..ASKED).map(|_| random.u64(0..of)).collect()
}
