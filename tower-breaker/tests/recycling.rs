//! The storage of circuits is reused. The test runs in a separate process, because the pool of
//! storage belongs to the process.

use std::time::Duration;

use allocation_counter::measure;
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{BreakerConfig, Circuit, CircuitState, Clock, Fault, Health, Kind, Verdict};

const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

fn circuit(clock: Clock) -> Circuit {
    let config = BreakerConfig::builder().clock(clock).consecutive_failures_span(Duration::ZERO);
    Circuit::new(config.build().unwrap())
}

/// Creates a circuit, opens it, and drops it.
fn open_and_drop(clock: Clock) {
    let circuit = circuit(clock);
    circuit.try_acquire().unwrap().record(Verdict::Success);
    (0..5).for_each(|_| circuit.try_acquire().unwrap().record(FAILURE));
    assert_eq!(circuit.status().state, CircuitState::Open);
}

/// There is only one test, because tests would share the pool.
#[test]
fn storage_is_reused_by_later_circuits() {
    let use_8_circuits = || {
        let circuits = [(); 8].map(|()| circuit(Clock::default()));
        for circuit in &circuits {
            circuit.try_acquire().unwrap().record(Verdict::Success);
        }
    };
    use_8_circuits();
    let info = measure(|| (0..1_000).for_each(|_| use_8_circuits()));
    assert_eq!(info.bytes_current, 0, "{info:?}");

    // The clocks are created before the measurement, because they are never freed.
    let clocks: Vec<_> = (0..20_000).map(|_| Clock::manual()).collect();
    for (number, (_, time)) in clocks.iter().enumerate() {
        time.set(Duration::from_secs(number as u64 * 7_919 % 1_000_003));
    }
    clocks[..100].iter().for_each(|(clock, _)| open_and_drop(*clock));
    let info = measure(|| clocks[100..].iter().for_each(|(clock, _)| open_and_drop(*clock)));
    assert_eq!(info.bytes_current, 0, "{info:?}");

    let create_all =
        |clocks: &[(Clock, _)]| clocks.iter().map(|(clock, _)| circuit(*clock)).collect::<Vec<_>>();
    drop(create_all(&clocks[..1_000]));
    let info = measure(|| drop(create_all(&clocks[1_000..2_000])));
    assert_eq!(info.bytes_current, 0, "1,000 circuits reuse the storage of 1,000 earlier circuits");
}
