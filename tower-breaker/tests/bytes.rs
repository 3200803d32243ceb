//! The memory of a circuit that is not keyed. The test runs in a separate process, because the pool
//! of storage belongs to the process. The documentation of the crate states the numbers.

use std::thread;

use allocation_counter::measure;
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{BreakerConfig, Circuit, Fault, Health, Kind, Verdict};

const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

/// Returns the bytes that `run` leaves allocated by this thread.
fn bytes(run: impl FnOnce()) -> usize {
    let bytes = measure(run).bytes_current;
    usize::try_from(bytes).expect("no storage is freed")
}

fn record(circuit: &Circuit, verdict: Verdict) {
    circuit.try_acquire().unwrap().record(verdict);
}

#[test]
fn memory_of_circuit_is_as_documented() {
    const PART: usize = 256;
    const FAILURES: usize = 128;

    let create = || Circuit::new(BreakerConfig::builder().minimum_calls(1_000).build().unwrap());
    // The first circuit and the first call allocate what belongs to the process.
    let other = create();
    record(&other, Verdict::Success);
    let mut created = None;
    let unused = bytes(|| created = Some(create()));
    let circuit = created.unwrap();
    let first_thread = bytes(|| record(&circuit, Verdict::Success));
    let second_thread = || bytes(|| record(&circuit, Verdict::Success));
    let second_thread = thread::scope(|scope| scope.spawn(second_thread).join().unwrap());
    let first_failure = bytes(|| record(&circuit, FAILURE));
    println!("unused {unused}, threads {first_thread} and {second_thread}, failures {first_failure}");

    // A place of 16 bytes for each number of a thread: twice as many as cores, and four.
    let cores = thread::available_parallelism().unwrap().get();
    let fixed = unused - 16 * (2 * cores + 4);
    assert!(fixed <= 1_136, "{fixed} bytes without the places of the threads");
    assert_eq!((first_thread, second_thread, first_failure), (PART, PART, FAILURES));
    let later = bytes(|| (0..100).for_each(|_| record(&circuit, Verdict::Success)));
    assert_eq!(later, 0, "a thread allocates nothing after its first call");
    drop(other);
}
