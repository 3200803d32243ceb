//! The storage of circuits is used again. Alone in its process: the pool is the process's.

use allocation_counter::measure;
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{BreakerConfig, Circuit, CircuitState, Clock, Fault, Health, Kind, Verdict};

const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

fn circuit(clock: Clock) -> Circuit {
    Circuit::new(BreakerConfig::builder().clock(clock).build().unwrap())
}

/// Opens a circuit, which then ends.
fn use_up(clock: Clock) {
    let circuit = circuit(clock);
    circuit.try_acquire().unwrap().record(Verdict::Success);
    (0..5).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    assert_eq!(circuit.status().state, CircuitState::Open);
}

/// One test, because of the pool.
#[test]
fn storage_is_reused_by_later_circuits() {
    let eight = || {
        let circuits = [(); 8].map(|()| circuit(Clock::default()));
        for circuit in &circuits {
            circuit.try_acquire().unwrap().record(Verdict::Success);
        }
    };
    eight();
    let info = measure(|| (0..1_000).for_each(|_| eight()));
    assert_eq!(info.bytes_current, 0, "{info:?}");

    // The clocks themselves are never freed.
    let clocks: Vec<_> = (0..20_000).map(|_| Clock::manual()).collect();
    for (number, (_, time)) in clocks.iter().enumerate() {
        time.set(std::time::Duration::from_secs(number as u64 * 7_919 % 1_000_003));
    }
    clocks[..100].iter().for_each(|(clock, _)| use_up(*clock));
    let info = measure(|| clocks[100..].iter().for_each(|(clock, _)| use_up(*clock)));
    assert_eq!(info.bytes_current, 0, "{info:?}");

    let alive = |clocks: &[(Clock, _)]| clocks.iter().map(|(clock, _)| circuit(*clock)).collect::<Vec<_>>();
    drop(alive(&clocks[..1_000]));
    let info = measure(|| drop(alive(&clocks[1_000..2_000])));
    assert_eq!(info.bytes_current, 0, "a thousand at once have the storage of the thousand before");
}
