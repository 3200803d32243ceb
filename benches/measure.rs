//! Compares the times of several variants in one run.
//!
//! Compare the ratios, because the absolute times depend on the machine and its load.
//!
//! The benchmarks of the crates include this file by its path.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

/// The number of calls in a timed batch.
const BATCH: u32 = 2_000;

/// The number of rounds. In each round, every variant runs one batch.
const ROUNDS: usize = 400;

/// A variant: a name, and a function that makes a given number of calls.
pub(crate) struct Variant<'a> {
    name: &'static str,
    run: Box<dyn FnMut(u32) + 'a>,
}

/// Creates a variant that makes the calls one after another.
pub(crate) fn variant<'a, T>(name: &'static str, mut call: impl FnMut() -> T + 'a) -> Variant<'a> {
    let run = move |calls| {
        for _ in 0..calls {
            black_box(call());
        }
    };
    Variant { name, run: Box::new(run) }
}

/// Runs the variants in turn and prints the median of each.
///
/// It also prints the ratio to the median of an uncontended lock in the same rounds.
pub(crate) fn compare(mut variants: Vec<Variant<'_>>) {
    let mutex = Mutex::new(0_u32);
    variants
        .insert(0, variant("uncontended Mutex<u32> lock", move || *black_box(&mutex).lock().unwrap() += 1));
    let mut nanos = vec![Vec::with_capacity(ROUNDS); variants.len()];
    for round in 0..ROUNDS {
        for (variant, nanos) in variants.iter_mut().zip(&mut nanos) {
            let start = Instant::now();
            (variant.run)(BATCH);
            // The first rounds are a warm-up.
            if round >= ROUNDS / 10 {
                nanos.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
            }
        }
    }
    let lock = median(&nanos[0]);
    println!("{:44} {:>9} {:>9}", "", "ns", "locks");
    for (variant, nanos) in variants.iter().zip(&nanos) {
        let nanos = median(nanos);
        println!("{:44} {nanos:>9.2} {:>9.2}", variant.name, nanos / lock);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
