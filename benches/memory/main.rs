//! Counts allocations. The suite runs this program and reads its output: lines of a kind, a row, a
//! crate and a number, with tabs between them.

use std::sync::Barrier;
use std::{mem, thread};

use allocation_counter::measure;
use tower_resilience_benchmarks::{Circuits, Style, circuits, variants};

/// The calls whose allocations are averaged. More calls than the warm-up of any variant needs.
const CALLS: u32 = 4_000;

const CIRCUITS: u32 = 1_000;

fn main() {
    let cores = thread::available_parallelism().map_or(2, usize::from).max(2);
    for kind in circuits() {
        for threads in [1, cores] {
            let bytes = bytes_per_circuit(&kind, threads);
            println!("bytes\tper circuit, used by {threads} threads\t{}\t{bytes}", kind.subject);
        }
    }
    for variant in variants() {
        let threads = if variant.row == "keyed, 100,000 keys" && variant.style == Style::Await {
            let mut threads = None;
            let bytes = measure(|| threads = Some(variant.set_up())).bytes_current;
            println!("bytes\tper key of 100,000\t{}\t{:.1}", variant.subject, bytes as f64 / 1e5);
            threads.expect("it was set up")
        } else {
            variant.set_up()
        };
        if variant.style == Style::Await {
            let mut calls = threads();
            calls(CALLS);
            let allocations = measure(|| {
                calls(CALLS);
            });
            let per_call = allocations.count_total as f64 / f64::from(CALLS);
            println!("allocations\t{}\t{}\t{per_call:.2}", variant.row, variant.subject);
        }
    }
}

/// Creates circuits, calls each from a number of threads at a time, and returns the memory of one.
fn bytes_per_circuit(kind: &Circuits, threads: usize) -> i64 {
    let mut circuits = Vec::with_capacity(CIRCUITS as usize);
    let mut bytes = measure(|| circuits.extend((0..CIRCUITS).map(|_| (kind.create)()))).bytes_current;
    let barrier = Barrier::new(threads);
    bytes += thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let bytes = measure(|| circuits.iter().for_each(|call| call())).bytes_current;
                    // A thread that ended would leave its number to another one.
                    barrier.wait();
                    bytes
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("the calls succeed")).sum::<i64>()
    });
    // Dropped circuits are kept for new ones, which would then need no memory.
    mem::forget(circuits);
    bytes / i64::from(CIRCUITS)
}
