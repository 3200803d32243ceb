//! The cost of a call through one of many circuits, compared with a plain array of the same
//! circuits, a bare service and an uncontended lock.
//!
//! The suite in `benches/` measures several threads and memory.

use tower::Layer;
use tower_breaker::keyed::{ByValue, KeyedBreakerLayer, KeyedCircuit, KeyedConfig};
use tower_breaker::{BreakerConfig, Verdict};

mod bare;
#[path = "../../benches/measure.rs"]
mod measure;

use bare::{Bare, call};
use measure::{compare, variant};

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
