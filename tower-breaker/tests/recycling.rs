//! Circuits are used again. Alone in its process: the pool is the process's.

use tower_breaker::{BreakerConfig, Circuit, Verdict};

#[test]
fn circuits_that_come_and_go_take_no_more_memory() {
    let run = || {
        let circuits = [(); 8].map(|()| Circuit::new(BreakerConfig::default()));
        for circuit in &circuits {
            circuit.try_acquire().unwrap().settle(Verdict::Success);
        }
    };
    run();
    let info = allocation_counter::measure(|| (0..1_000).for_each(|_| run()));
    assert_eq!(info.bytes_current, 0, "{info:?}");
}
