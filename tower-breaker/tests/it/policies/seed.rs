//! The seed of the jitter of open periods.

use std::collections::HashSet;

use tower_breaker::{BreakerConfigBuilder, CircuitRegistry, HealthReport};

use super::*;
use crate::support::FAULT;

fn builder(seed: u64) -> BreakerConfigBuilder {
    config().open_for(10 * SECOND).open_jitter(1.0).seed(seed)
}

/// Returns a configuration with a clock that does not advance.
fn seeded(seed: u64) -> BreakerConfig {
    builder(seed).clock(Clock::manual().0).build().unwrap()
}

/// Returns the current open period of a circuit that is opened now.
fn next_period(circuit: &Circuit) -> Duration {
    circuit.reset().unwrap();
    circuit.trip().unwrap();
    circuit.status().retry_after.unwrap()
}

fn periods(circuit: &Circuit, number: usize) -> Vec<Duration> {
    (0..number).map(|_| next_period(circuit)).collect()
}

/// Returns the first four open periods of each circuit.
fn periods_of_each(circuits: &[Circuit]) -> Vec<Vec<Duration>> {
    circuits.iter().map(|circuit| periods(circuit, 4)).collect()
}

fn circuits(config: &BreakerConfig, number: usize) -> Vec<Circuit> {
    (0..number).map(|_| Circuit::new(config.clone())).collect()
}

#[test]
fn seed_makes_open_periods_reproducible() {
    let of = |seed| periods_of_each(&circuits(&seeded(seed), 3));
    let first = of(7);
    assert_eq!(of(7), first);
    assert_ne!(of(8), first);
    let all: HashSet<_> = first.concat().into_iter().collect();
    assert_eq!(all.len(), 12, "no two periods are equal: {first:?}");
}

#[test]
fn order_of_opening_does_not_change_periods() {
    let config = seeded(7);
    let in_order = periods_of_each(&circuits(&config.to_builder().build().unwrap(), 3));
    let mut circuits = circuits(&config, 3);
    circuits.reverse();
    let mut reversed = periods_of_each(&circuits);
    reversed.reverse();
    assert_eq!(reversed, in_order);
}

#[test]
fn circuits_of_registry_take_streams_in_order_of_creation() {
    let config = seeded(7);
    let expected = periods_of_each(&circuits(&config.to_builder().build().unwrap(), 3));
    let registry = CircuitRegistry::new(config);
    let named = ["one", "two", "three"].map(|name| registry.circuit(name));
    assert_eq!(periods_of_each(&named), expected);
}

/// A server that asks a fleet for the same delay gets the probes of the fleet one after the other.
#[test]
fn circuits_that_one_retry_after_opened_do_not_probe_together() {
    let hint = 60 * SECOND;
    let fault = FAULT.with_retry_after(hint);
    let config = BreakerConfig::builder().consecutive_failures(1).consecutive_failures_span(Duration::ZERO);
    let config = config.seed(7).clock(Clock::manual().0).build().unwrap();
    let mut periods: Vec<_> = circuits(&config, 1_000)
        .iter()
        .map(|circuit| {
            circuit.try_acquire().unwrap().record(fault.into());
            circuit.status().retry_after.expect("the circuit is open")
        })
        .collect();
    periods.sort_unstable();
    // The default jitter is 0.5.
    assert!(periods[0] >= hint && periods[999] <= hint + hint / 2, "{:?} {:?}", periods[0], periods[999]);
    let together = |first: usize| {
        periods[first..].iter().take_while(|period| **period < periods[first] + SECOND / 10).count()
    };
    // On average, 3.3 of the circuits probe in 100 ms.
    let most = (0..periods.len()).map(together).max();
    assert!(most <= Some(20), "{most:?} circuits probe in 100 ms");
}

#[test]
fn only_opening_draws_from_stream() {
    let config = seeded(7);
    let expected = periods(&Circuit::new(config.to_builder().build().unwrap()), 3);
    let circuit = Circuit::new(config);
    let layer = BreakerLayer::with_circuit(circuit.clone());
    for period in expected {
        circuit.reset().unwrap();
        let mut service = layer.layer(server());
        assert_ready!(start(&mut service, 200).poll()).unwrap();
        // None of these opens the circuit.
        circuit.report(HealthReport::Recovered);
        circuit.force_open().unwrap();
        circuit.release();
        close(&circuit);
        for _ in 0..5 {
            assert_ready!(start(&mut service, 500).poll()).unwrap();
        }
        assert_eq!(circuit.status().retry_after, Some(period));
        circuit.trip().unwrap();
        circuit.report(HealthReport::Critical);
        assert_eq!(circuit.status().retry_after, Some(period), "it was open");
    }
}

#[test]
fn reconfigure_continues_stream_of_same_seed() {
    let config = seeded(7);
    let expected = periods(&Circuit::new(config.to_builder().build().unwrap()), 4);
    let circuit = Circuit::new(config.clone());
    assert_eq!(periods(&circuit, 2), expected[..2]);
    circuit.reconfigure(builder(7).build().unwrap()).unwrap();
    assert_eq!(periods(&circuit, 2), expected[2..]);
    circuit.reconfigure(builder(8).build().unwrap()).unwrap();
    assert_eq!(periods(&circuit, 4), periods(&Circuit::new(seeded(8)), 4));
}

#[test]
fn reused_storage_starts_stream_again() {
    let of = || periods(&Circuit::new(seeded(7)), 2);
    let first = of();
    (0..20).for_each(|_| assert_eq!(of(), first));
}
