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
    const SUCCESSES: usize = 128;
    const FAILURES: usize = 256;

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
    let second_failure = || bytes(|| record(&circuit, FAILURE));
    let second_failure = thread::scope(|scope| scope.spawn(second_failure).join().unwrap());
    println!("unused {unused}, threads {first_thread} and {second_thread}");
    println!("failures {first_failure} and {second_failure}");

    // A place of 16 bytes for each number of a thread: twice as many as cores, and four.
    let cores = thread::available_parallelism().unwrap().get();
    let places = 16 * (2 * cores + 4);
    let fixed = unused - places;
    assert!(fixed <= 896, "{fixed} bytes without the places of the threads");
    assert_eq!((first_thread, second_thread), (SUCCESSES, SUCCESSES));
    let first_failure = first_failure - places;
    assert_eq!((first_failure, second_failure), (64 + FAILURES, FAILURES));
    let later = bytes(|| {
        for verdict in [Verdict::Success, FAILURE].repeat(100) {
            record(&circuit, verdict);
        }
    });
    assert_eq!(later, 0, "a thread allocates nothing after its first calls");
    circuit.trip().unwrap();
    let rejected = bytes(|| assert!(circuit.try_acquire().is_err()));
    assert_eq!(rejected, 0, "the counts of rejected calls were allocated at the first failure");
    drop(other);
}
